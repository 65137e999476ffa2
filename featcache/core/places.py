"""Which part of the work is a process's own, as those who started it say.

torchrun, SLURM and Kubernetes number the processes that they start, each by variables
of its own. They are read where the user asks for it (``--shard auto``), never unasked.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from featcache.core.errors import SpecError
from featcache.core.shards import Shard

AUTO = "auto"

_ARRAY = "SLURM_ARRAY_TASK_"
# Who counts from 0: the variable of the process's number, and that of how many.
_COUNTED = (
    ("RANK", "WORLD_SIZE"),  # torchrun
    ("SLURM_PROCID", "SLURM_NTASKS"),  # srun -n
)
_JOB = "JOB_COMPLETION_INDEX"  # Kubernetes; which says no count
_REMEDY = "say which part this is with --shard I/N"


@dataclass(frozen=True)
class Place:
    """A process's part, and who said so.

    Parameters
    ----------
    shard : Shard
        The part.
    said : str
        The variables it was read from; empty where the user gave it.
    """

    shard: Shard
    said: str = ""

    def __str__(self) -> str:
        return self.shard.words + (f" ({self.said})" if self.said else "")


def place_of(text: str, environment: Mapping[str, str] | None = None) -> Place:
    """Return the part that a text means.

    Parameters
    ----------
    text : str
        ``I/N``; ``auto`` for what the environment says; ``auto/N`` where it says no
        count, as Kubernetes does, or to have the count checked.
    environment : mapping of str to str, optional
        The process's own without it.

    Returns
    -------
    Place
        The part, and the variables that said so.

    Raises
    ------
    SpecError
        When the text names no part, or the environment none or different ones.
    """
    if text.split("/", maxsplit=1)[0] != AUTO:
        return Place(Shard.parse(text))
    count = None if text == AUTO else Shard.parse(text.replace(AUTO, "1")).count
    environment = os.environ if environment is None else environment
    found = [*_counted(environment), *_array(environment), *_job(environment, count)]
    # Whoever says "the only one" knows of no others: sbatch of a task of an array.
    places = [p for p in found if p.shard.count > 1] or found
    if not places:
        raise _nothing_said(environment)
    if len({p.shard for p in places}) > 1:
        told = " and ".join(f"{p.shard} ({p.said})" for p in places)
        raise SpecError(f"the environment says that this is part {told}; {_REMEDY}")
    if count is not None and places[0].shard.count != count:
        raise SpecError(
            f"--shard {text} asks for {count} parts, but {places[0].said} says "
            f"{places[0].shard.count}; start as many processes as there are parts, or "
            f"{_REMEDY}"
        )
    return places[0]


def _counted(environment: Mapping[str, str]) -> Iterator[Place]:
    for index, count in _COUNTED:
        if index in environment and count in environment:
            numbers = _numbers(environment, index, count)
            yield _place(numbers[index], numbers[count], numbers)


def _array(environment: Mapping[str, str]) -> Iterator[Place]:
    """Read SLURM's job array; one that is a part of another array is refused."""
    names = [_ARRAY + name for name in ("ID", "MIN", "MAX", "COUNT")]
    if not all(name in environment for name in names):
        return
    numbers = _numbers(environment, *names)
    index, first, last, count = numbers.values()
    if first > 1 or last - first + 1 != count:
        raise SpecError(
            f"{_said(numbers)}: the array does not go from 0 or 1 to its end without "
            "gaps, as if some tasks of another one were run again; say which part "
            f"each is with --shard ${_ARRAY}ID/N"
        )
    yield _place(index - first, count, numbers)


def _job(environment: Mapping[str, str], count: int | None) -> Iterator[Place]:
    if _JOB in environment and count is not None:
        numbers = _numbers(environment, _JOB)
        yield _place(numbers[_JOB], count, numbers)


def _numbers(environment: Mapping[str, str], *names: str) -> dict[str, int]:
    numbers = {}
    for name in names:
        value = environment[name]
        if not (value.isascii() and value.isdigit()):
            raise SpecError(f"{name} is {value!r}, which is no number; {_REMEDY}")
        numbers[name] = int(value)
    return numbers


def _place(index: int, count: int, numbers: Mapping[str, int]) -> Place:
    """Return the place of a process that is counted from 0."""
    said = _said(numbers)
    if not index < count:
        raise SpecError(f"{said} is none of {count} processes; {_REMEDY}")
    return Place(Shard(index + 1, count), said)


def _said(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{name}={value}" for name, value in numbers.items())


def _nothing_said(environment: Mapping[str, str]) -> SpecError:
    if _JOB in environment:
        return SpecError(
            f"{_JOB}={environment[_JOB]} says no count; pass --shard auto/N, where N "
            "is the completions of the Job"
        )
    asked = [*_COUNTED, tuple(_ARRAY + n for n in ("ID", "MIN", "MAX", "COUNT"))]
    for names in asked:
        missing = [name for name in names if name not in environment]
        if len(missing) < len(names) and names[0] not in missing:
            return SpecError(
                f"{names[0]}={environment[names[0]]}, but there is no "
                f"{', no '.join(missing)}; {_REMEDY}"
            )
    return SpecError(
        "--shard auto finds none of RANK and WORLD_SIZE (torchrun), "
        f"{_ARRAY}ID (SLURM array), SLURM_PROCID and SLURM_NTASKS (srun), {_JOB} "
        f"(Kubernetes); {_REMEDY}"
    )
