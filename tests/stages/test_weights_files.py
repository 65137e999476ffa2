"""Published weights lie where torch keeps them, and are checked at every use."""

import hashlib
from pathlib import Path

import pytest

from featcache.core import catalog
from featcache.core.catalog import PublishedWeights
from featcache.core.errors import DownloadError
from featcache.core.progress import SILENT
from featcache.stages.weights_files import checkpoints_folder, published_file


@pytest.fixture
def weights(site, body, tmp_path: Path, monkeypatch) -> PublishedWeights:
    """Weights published on the local site, TORCH_HOME empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(catalog, "WEIGHTS_URL", site.url + "/models/")
    prefix = hashlib.sha256(body).hexdigest()[:8]
    weights = PublishedWeights("TINY_V1", f"tiny-{prefix}.pth", 256)
    site.publish(f"/models/{weights.file}", body)
    return weights


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({}, id="home"),
        pytest.param({"XDG_CACHE_HOME": "/caches"}, id="XDG_CACHE_HOME"),
        pytest.param({"TORCH_HOME": "~/t"}, id="TORCH_HOME"),
        pytest.param({"TORCH_HOME": "/t", "XDG_CACHE_HOME": "/c"}, id="both"),
    ],
)
def test_the_folder_is_torch_hubs(environment, monkeypatch):
    """What torch downloaded before is found, whatever the environment says."""
    hub = pytest.importorskip("torch.hub")
    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Path(hub.get_dir(), "checkpoints") == checkpoints_folder()


def test_weights_are_fetched_once(weights, site, body, heard):
    """The second use finds the file of the first."""
    first = published_file(weights, progress=heard)
    second = published_file(weights, progress=heard)
    assert first == second == checkpoints_folder() / weights.file
    assert first.read_bytes() == body
    assert site.requests == [f"/models/{weights.file}"]
    assert heard.count == len(body)


def test_weights_are_checked_at_every_use(weights):
    """A file that changed after the download is not used."""
    file = published_file(weights, progress=SILENT)
    file.write_bytes(b"poison")
    expected = f"begins with [0-9a-f]{{8}}, expected {weights.sha256_prefix}"
    with pytest.raises(DownloadError, match=expected):
        published_file(weights, progress=SILENT)


def test_offline_the_way_out_is_named(weights, monkeypatch):
    """The message has the address, the place for the file and what works without."""
    monkeypatch.setenv("FEATCACHE_OFFLINE", "1")
    expected = (
        f"cannot download {weights.url}: FEATCACHE_OFFLINE is set; "
        f"put the file at {checkpoints_folder() / weights.file} by hand, or "
        "use --weights FILE.pth, --weights FILE.safetensors or --weights random"
    )
    with pytest.raises(DownloadError) as caught:
        published_file(weights, progress=SILENT)
    assert str(caught.value) == expected
