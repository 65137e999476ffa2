"""--shard auto: what torchrun, SLURM and Kubernetes say, and what is no answer."""

import pytest

from featcache.core.errors import SpecError
from featcache.core.places import place_of


def array(index, first, last, count=None):
    count = last - first + 1 if count is None else count
    names = {"ID": index, "MIN": first, "MAX": last, "COUNT": count}
    return {f"SLURM_ARRAY_TASK_{k}": str(v) for k, v in names.items()}


TORCHRUN = {"RANK": "1", "WORLD_SIZE": "4"}
TASK = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}
JOB = {"JOB_COMPLETION_INDEX": "3"}


@pytest.mark.parametrize(
    ("text", "environment", "shard", "said"),
    [
        pytest.param("3/16", TORCHRUN, "3/16", "", id="as the user says"),
        pytest.param("auto", TORCHRUN, "2/4", "RANK=1, WORLD_SIZE=4", id="torchrun"),
        pytest.param("auto", TASK, "1/8", "SLURM_PROCID=0, SLURM_NTASKS=8", id="srun"),
        pytest.param(
            "auto",
            array(5, 0, 7),
            "6/8",
            "SLURM_ARRAY_TASK_ID=5, SLURM_ARRAY_TASK_MIN=0, SLURM_ARRAY_TASK_MAX=7, "
            "SLURM_ARRAY_TASK_COUNT=8",
            id="array from 0",
        ),
        pytest.param("auto", array(8, 1, 8), "8/8", None, id="array from 1"),
        pytest.param("auto/8", array(8, 1, 8), "8/8", None, id="a count that fits"),
        pytest.param(
            "auto/4", JOB, "4/4", "JOB_COMPLETION_INDEX=3", id="Kubernetes"
        ),
        pytest.param(
            "auto",
            {**array(2, 1, 8), "SLURM_PROCID": "0", "SLURM_NTASKS": "1"},
            "2/8",
            None,
            id="a single task of an array",
        ),
        pytest.param(
            "auto",
            {**TORCHRUN, "SLURM_PROCID": "1", "SLURM_NTASKS": "4"},
            "2/4",
            "RANK=1, WORLD_SIZE=4",
            id="two that agree",
        ),
        pytest.param(
            "auto", {**TORCHRUN, **JOB}, "2/4", None, id="torchrun in an indexed Job"
        ),
        pytest.param(
            "auto", {"RANK": "0", "WORLD_SIZE": "1"}, "1/1", None, id="the only one"
        ),
    ],
)  # fmt: skip
def test_the_part_and_who_said_so(text, environment, shard, said):
    """Counted from 1, whatever the variables count from."""
    place = place_of(text, environment)
    assert str(place.shard) == shard
    if said is not None:
        assert place.said == said
    assert str(place).startswith(place.shard.words)


@pytest.mark.parametrize(
    ("text", "environment", "message"),
    [
        pytest.param("auto", {}, "finds none of RANK and WORLD_SIZE", id="nothing"),
        pytest.param(
            "auto", {"RANK": "3"}, "RANK=3, but there is no WORLD_SIZE", id="half"
        ),
        pytest.param(
            "auto",
            {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_MIN": "0"},
            "no SLURM_ARRAY_TASK_MAX, no SLURM_ARRAY_TASK_COUNT",
            id="half an array",
        ),
        pytest.param("auto", JOB, "says no count; pass --shard auto/N", id="no count"),
        pytest.param(
            "auto/3", JOB, "JOB_COMPLETION_INDEX=3 is none of 3", id="beyond the Job"
        ),
        pytest.param(
            "auto",
            {"RANK": "4", "WORLD_SIZE": "4"},
            "RANK=4, WORLD_SIZE=4 is none of 4 processes",
            id="beyond the count",
        ),
        pytest.param(
            "auto",
            {"RANK": "one", "WORLD_SIZE": "4"},
            "RANK is 'one', which is no number",
            id="no number",
        ),
        pytest.param(
            "auto",
            {**TORCHRUN, **array(3, 1, 8)},
            r"part 2/4 \(RANK=1, WORLD_SIZE=4\) and 3/8 \(SLURM_ARRAY",
            id="contradiction",
        ),
        pytest.param(
            "auto", array(3, 3, 7, 2), "some tasks of another one", id="run again"
        ),
        pytest.param(
            "auto", array(3, 3, 7), "some tasks of another one", id="the last again"
        ),
        pytest.param(
            "auto/16", TORCHRUN, "asks for 16 parts, but RANK=1", id="another count"
        ),
        pytest.param("auto/x", TORCHRUN, "is no part; expected", id="no count at all"),
        pytest.param("auto/0", TORCHRUN, "there is no part 1/0", id="no parts"),
    ],
)
def test_no_answer_is_an_error(text, environment, message):
    """Missing or contradictory: nothing is guessed."""
    with pytest.raises(SpecError, match=message):
        place_of(text, environment)
