"""Files that the device decodes: the pipeline hands on bytes instead of pixels."""

import numpy as np
import pytest
import torch

from featcache.core.specs import ViewSpec
from featcache.core.status import Status
from featcache.core.tolerances import relative_errors
from featcache.vision.backbones import Backbone, random_weights
from featcache.vision.cuda import CudaEmbedder
from featcache.vision.nvjpeg import JpegViews
from featcache.vision.pipeline import Extractor
from featcache.vision.rows import BlockRows
from tests.conftest import picture

CPU = torch.device("cpu")
VIEW = ViewSpec(resize=72, crop=64)

pytestmark = pytest.mark.filterwarnings("ignore:.*TorchCodec:DeprecationWarning")


def test_rows_are_filled_from_bytes_as_from_pixels(tmp_path):
    """Batches, a known image, a missing file and a broken one; nothing shifts."""
    embed = CudaEmbedder(
        Backbone("resnet18", random_weights("resnet18", 0)),
        VIEW,
        device=CPU,
        dtype=torch.float32,
        batch_size=4,
        jpegs=JpegViews(VIEW, CPU),
    )
    files = [tmp_path / f"{i}.{'png' if i % 3 == 2 else 'jpg'}" for i in range(11)]
    for seed, file in enumerate(files):
        picture(seed, (150, 60, 40)).resize((90, 80)).save(file)
    files[3].unlink()
    files[6].write_bytes(files[6].read_bytes()[:-50])
    pixels, device = (
        Extractor(embed, VIEW, 4, embed_files=decode)
        for decode in (None, embed.embed_files)
    )
    known = np.ones(512, np.float32)
    digests = []

    def lookup(digest):
        digests.append(digest)
        return known if len(digests) == 2 else None

    expected, found = (BlockRows.pending(len(files), 512, "float32") for _ in range(2))
    pixels.fill(expected, files, lookup=lookup)
    digests.clear()
    device.fill(found, files, lookup=lookup)
    assert np.array_equal(expected.status, found.status)
    assert expected.reasons == found.reasons
    assert sorted(found.reasons) == [3, 6]
    assert (found.status[[3, 6]] == [Status.UNREADABLE, Status.DAMAGED]).all()
    assert expected.computed == found.computed == 8
    good = found.status == Status.OK
    assert np.array_equal(known, found.features[1])
    assert np.isnan(found.features[~good]).all()
    errors = relative_errors(expected.features[good], found.features[good])
    assert errors.max() < 0.1
