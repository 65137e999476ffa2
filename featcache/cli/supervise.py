"""Supervision: a decoder that takes the process down costs one image, not the run.

``featcache extract`` and ``predict`` work in a child process. When native code crashes
or hangs there, the child is started again: it finds in the ledger what it was decoding,
tries that in a process of its own, leaves it out if need be, and goes on.
"""

import os
import signal
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from types import FrameType

import click

from featcache.cli.render import show_error
from featcache.core.errors import DeviceError
from featcache.core.machine import ALLOCATOR, CHILD, connected_mark
from featcache.vision.isolation import crashed

HUNG = 75  # exit code of a child whose decoder hangs: EX_TEMPFAIL, try again

_MOST_RESTARTS = 1000


def is_child() -> bool:
    """Tell whether this process is the one that does the work.

    Returns
    -------
    bool
        False in the process that the user started.
    """
    return CHILD in os.environ


def with_allocator(words: list[str]) -> None:
    """Start this process over with the allocator's settings, if it has none.

    Training frees and takes the same activations at each step (8 % of an epoch).

    Parameters
    ----------
    words : list of str
        The command's arguments, as typed.
    """
    if sys.platform != "linux" or any(name in os.environ for name in ALLOCATOR):
        return
    command = [sys.executable, "-P", "-m", "featcache", *words]
    os.execve(sys.executable, command, {**os.environ, **ALLOCATOR})  # noqa: S606


def supervised(words: list[str]) -> int:
    """Run the same command in a child, and again as often as an image fails it.

    Parameters
    ----------
    words : list of str
        The command's arguments, as typed.

    Returns
    -------
    int
        The exit code for this process.
    """
    code, known = 0, {0}
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder) / "ledger"
        for _ in range(_MOST_RESTARTS):
            # -P: a module in the user's folder must not take the place of another.
            command = [sys.executable, "-P", "-m", "featcache", *words]
            code, stopped = _run(command, note)
            if stopped or not (crashed(code) or code == HUNG):
                break
            suspects = _suspects(note)
            if suspects <= known:
                click.echo(
                    f"Error: the process crashed ({-code}), and not over an "
                    "image; this is a bug, or a damaged installation",
                    err=True,
                )
                break
            known |= suspects
            click.echo(
                "an image took the process down; it is tried apart, and left out and "
                "named if it does so again",
                err=True,
            )
        if not stopped and connected_mark(note).exists():
            error = DeviceError(
                "Ray has ended this command, since Ray on this machine, or the head of "
                "the cluster, is gone; what is done is kept: run the same command again"
            )
            show_error(error, as_json="--json" in words)
    return code if code >= 0 else 128 - code  # as a shell reports a signal


def _suspects(note: Path) -> set[int]:
    """Return what was in work when the child died, as its ledger has it."""
    try:
        ledger = Path(os.fsdecode(note.read_bytes())).read_bytes()
    except OSError:
        return set()
    return {row for row, _ in struct.iter_unpack("<qq", ledger)}


def _run(command: list[str], note: Path) -> tuple[int, bool]:
    """Return a child's exit code, and whether it was told to stop.

    What is sent to this process goes to the child.
    """
    received: list[int] = []
    environment = {**ALLOCATOR, **os.environ, CHILD: os.fspath(note)}
    with subprocess.Popen(command, env=environment) as child:  # noqa: S603

        def forward(number: int, frame: FrameType | None) -> None:
            del frame
            received.append(number)
            if number != signal.SIGINT or not _is_in_the_foreground():
                child.send_signal(number)

        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number and signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                signal.signal(number, forward)
        return child.wait(), bool(received)


def _is_in_the_foreground() -> bool:
    """Tell whether a terminal's Ctrl-C reaches the child by itself."""
    if sys.platform == "win32":
        return True
    try:
        return os.tcgetpgrp(sys.stderr.fileno()) == os.getpgrp()
    except OSError:
        return False
