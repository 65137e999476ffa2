"""Devices: one name, or several of which each gets a process of its own."""

import os
from dataclasses import replace

from featcache.core.errors import DeviceError
from featcache.core.machine import cores
from featcache.core.specs import ExtractSpec

ALL = "cuda:all"
_EXPECTED = (
    "expected GPUs that differ, such as cuda:0,cuda:1; cuda:all for every GPU; or cpu "
    "as often as there are to be processes, such as cpu,cpu"
)


def device_list(device: str) -> tuple[str, ...]:
    """Return the devices that an option names.

    Parameters
    ----------
    device : str
        One name, names with commas between them, or ``cuda:all``.

    Returns
    -------
    tuple of str
        One name as it was given, or several, each of which can work in a process of
        its own.

    Raises
    ------
    DeviceError
        When a list names something else than different GPUs of this machine, or the
        CPU several times.
    """
    if device == ALL:
        return _all_gpus()
    names = tuple(name.strip() for name in device.split(","))
    if len(names) == 1:
        return names
    if all(name == "cpu" for name in names):
        return names
    gpus = tuple(_gpu(name, device) for name in names)
    if len(set(gpus)) < len(gpus):
        raise DeviceError(
            f"--device {device} names a GPU twice: two processes would only share it; "
            f"{_EXPECTED}"
        )
    from featcache.vision.forward import pick_device

    for gpu in gpus:
        pick_device(gpu)
    return gpus


def beside_others(how: ExtractSpec) -> ExtractSpec:
    """Return settings for one of several processes that torchrun started on a machine.

    Parameters
    ----------
    how : ExtractSpec
        What the user asked for.

    Returns
    -------
    ExtractSpec
        With the GPU of the process's number, and its share of the cores; the same
        where torchrun says nothing, and as far as the user said.
    """
    rank, count = (os.environ.get(f"LOCAL_{w}", "") for w in ("RANK", "WORLD_SIZE"))
    if not (rank.isdecimal() and count.isdecimal() and int(count) > 1):
        return how
    how = replace(how, workers=how.workers or max(1, cores() // int(count)))
    if how.device != "auto":
        return how
    import torch

    gpus = torch.cuda.device_count()
    return replace(how, device=f"cuda:{int(rank) % gpus}" if gpus else "cpu")


def _gpu(name: str, device: str) -> str:
    """Return the full name of a GPU."""
    if name == "cpu":
        raise DeviceError(
            f"--device {device} mixes the CPU with GPUs: it would take the cores that "
            "decode for them, and the last bits of a feature would hang on who "
            f"computed it; {_EXPECTED}"
        )
    number = "0" if name == "cuda" else name.removeprefix("cuda:")
    if not number.isdecimal():
        raise DeviceError(f"{name or 'nothing'!r} in --device {device}; {_EXPECTED}")
    return f"cuda:{int(number)}"


def _all_gpus() -> tuple[str, ...]:
    import torch

    from featcache.vision.forward import pick_device

    pick_device("cuda")  # says what to do where there is none
    return tuple(f"cuda:{index}" for index in range(torch.cuda.device_count()))
