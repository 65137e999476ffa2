"""Isolation: an image under suspicion is tried in a process of its own.

Run as ``python -m featcache.vision.isolation EXIF RESIZE CROP PLACE`` it decodes one
image, by Pillow and by the fastest way here, and ends with 0, also when the image is
refused with a reason: only a crash or a hang is what the caller wants to know of.
"""

import contextlib
import json
import signal
import subprocess
import sys
from typing import cast

from featcache.core.locations import Location, location_from_json, location_to_json
from featcache.core.specs import Exif, ViewSpec
from featcache.core.status import UnusableImageError

SECONDS = 60.0  # one image may take; a 100-megapixel PNG takes 4
MEMORY = 4 << 30  # bytes of address space for the suspect


def suspicion(place: Location, view: ViewSpec, seconds: float = SECONDS) -> str | None:
    """Decode an image in another process and tell how that ended.

    Parameters
    ----------
    place : Path or Member
        Where the image lies.
    view : ViewSpec
        Its crop.
    seconds : float
        How long it may take.

    Returns
    -------
    str or None
        What is wrong with decoding it; None where nothing is.
    """
    view_words = [view.exif, str(view.resize), str(view.crop)]
    where = json.dumps(location_to_json(place))
    command = [sys.executable, "-P", "-m", __name__, *view_words, where]
    try:
        done = subprocess.run(  # noqa: S603 - our own module, a list of words
            command, capture_output=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return f"decoding it does not end within {seconds:g} s"
    if not crashed(done.returncode):  # an error of ours will come up again, by name
        return None
    return f"decoding it crashes the process ({_name(done.returncode)})"


def crashed(returncode: int) -> bool:
    """Tell whether a process ended by a fault of native code.

    Parameters
    ----------
    returncode : int
        As `subprocess` gives it: minus the signal, or Windows' status.

    Returns
    -------
    bool
        False for being killed from outside, and for any ordinary end.
    """
    faults = [getattr(signal, name, None) for name in _FAULTS]
    return -returncode in [f for f in faults if f] or returncode >= _WINDOWS_FAULT


_FAULTS = ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT")
_WINDOWS_FAULT = 0xC0000000  # NTSTATUS errors, such as 0xC0000005: access violation


def _name(returncode: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(-returncode).name
    return f"exit code {returncode}"


def main(exif: str, resize: str, crop: str, place: str) -> None:
    """Decode one image by every way that a run may have taken, whatever comes of it.

    Parameters
    ----------
    exif, resize, crop : str
        Of the view.
    place : str
        Where the image lies, as JSON.
    """
    from featcache.core.clock import Clock
    from featcache.vision.decode import read_file
    from featcache.vision.viewer import Viewer

    with contextlib.suppress(ImportError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    view = ViewSpec(exif=cast("Exif", exif), resize=int(resize), crop=int(crop))
    for viewer in (Viewer.plain(view), Viewer.fastest(view)):
        with contextlib.suppress(UnusableImageError):
            viewer(read_file(location_from_json(json.loads(place))), Clock())


if __name__ == "__main__":
    main(*sys.argv[1:])
