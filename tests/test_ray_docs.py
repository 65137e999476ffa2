"""docs/ray.md: what Ray and Kubernetes are given is what they know; commands parse."""

import re
import shlex
from pathlib import Path

import pytest

from featcache.cli.main import main

TEXT = (Path(__file__).parents[1] / "docs/ray.md").read_text("utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL)
IMAGE = "registry.example/featcache:1"


@pytest.fixture(scope="module")
def files():
    """The two YAML files, as data."""
    yaml = pytest.importorskip("yaml", reason="no PyYAML here; it comes with Ray")
    return [yaml.safe_load(block) for kind, block in BLOCKS if kind == "yaml"]


def commands():
    """Return the words of every command of featcache that is in a block."""
    lines = [line for _, block in BLOCKS for line in block.splitlines()]
    found = [re.search(r"featcache (extract .*?)'?$", line) for line in lines]
    return [shlex.split(match[1]) for match in found if match]


def test_every_recipe_has_a_command_that_parses():
    """Those of `ray exec`, `ray job submit` and KubeRay; on a cluster, with GPUs."""
    assert len(commands()) == 3
    for words in commands():
        extract = main.commands["extract"]
        settings = extract.make_context("extract", words[1:]).params
        assert (settings["engine"], settings["address"]) == ("ray", "auto")
        assert (settings["actors"], settings["device"]) == (16, "cuda")


@pytest.mark.slow
def test_ray_knows_the_cluster(files):
    """By its own schema, and as it fills in what is not said."""
    util = pytest.importorskip(
        "ray.autoscaler._private.util", reason="no Ray here: pip install ray"
    )
    whole = util.prepare_config(files[0])
    util.validate_config(whole)
    assert whole["docker"]["image"] == IMAGE
    head, gpu = (whole["available_node_types"][name] for name in ("head", "gpu"))
    assert (head["resources"], head["max_workers"]) == ({"CPU": 0}, 0)
    assert (gpu["resources"], gpu["max_workers"]) == ({"CPU": 8, "GPU": 1}, 16)


def test_kubernetes_gets_a_job_whose_head_alone_writes(files):
    """The keys that KubeRay wants, one image, and volumes that are there."""
    job = files[1]
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    head, (workers,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert workers.keys() == {
        *("groupName", "replicas", "minReplicas", "maxReplicas"),
        *("rayStartParams", "template"),
    }
    for group, expected in ((head, {"data", "cache"}), (workers, {"data"})):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["image"] == IMAGE
        volumes = {volume["name"] for volume in pod["volumes"]}
        mounts = {mount["name"] for mount in container["volumeMounts"]}
        assert volumes == mounts == expected
    assert head["rayStartParams"]["num-cpus"] == "0"
    gpu = workers["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert gpu["nvidia.com/gpu"] == "1"


def test_the_image_has_the_version_that_the_cluster_names(files):
    """Of Ray, in the three places that name one."""
    version = files[1]["spec"]["rayClusterSpec"]["rayVersion"]
    assert re.findall(r"rayproject/ray:([\d.]+)-", TEXT) == [version] * TEXT.count(
        "rayproject/ray:"
    )
