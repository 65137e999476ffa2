"""Guarding: an image that crashes or hangs the decoder costs `predict` itself alone.

The command works in a child process, see `featcache.cli.supervise`; what a child was
decoding when it died is known to the next, which tries that in a process of its own.
"""

import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from featcache.core.errors import DecoderHungError
from featcache.core.machine import CHILD
from featcache.core.predictions import ImageFile
from featcache.core.specs import ViewSpec
from featcache.core.text import shown
from featcache.store.ledger import Ledger
from featcache.vision.isolation import SECONDS, suspicion


class Guard(Protocol):
    """Knows what is being decoded, and what must not be."""

    def sentence(self, file: ImageFile, view: ViewSpec) -> str | None:
        """Return why an image is left out, after a trial if it is a suspect."""

    def decoding(self, file: ImageFile) -> AbstractContextManager[None]:
        """Return a context in which an image is decoded."""

    def watch(self) -> None:
        """Raise when decoding an image does not end."""


class Unguarded:
    """A guard where nothing could start the process again: in the user's own."""

    def sentence(self, file: ImageFile, view: ViewSpec) -> str | None:
        """Return nothing: nobody is a suspect.

        Parameters
        ----------
        file : ImageFile
            Any.
        view : ViewSpec
            Its crop.

        Returns
        -------
        None
            Always.
        """
        del file, view
        return None

    def decoding(self, file: ImageFile) -> AbstractContextManager[None]:
        """Return a context that does nothing.

        Parameters
        ----------
        file : ImageFile
            Any.

        Returns
        -------
        context manager
            Empty.
        """
        del file
        return nullcontext()

    def watch(self) -> None:
        """Do nothing."""


UNGUARDED: Guard = Unguarded()


class LedgerGuard:
    """A guard that outlives the process, in files.

    Parameters
    ----------
    ledger : Ledger
        Open; its rows are the images' keys.
    verdicts : Path
        Where the guilty are written down, so that no later crash has them tried again.
    """

    def __init__(self, ledger: Ledger, verdicts: Path) -> None:
        self._ledger, self._path = ledger, verdicts
        self._names: dict[int, str] = {}  # of what is being decoded
        self._verdicts: dict[int, str | None] = {}
        if verdicts.exists():
            lines = verdicts.read_text("ascii").splitlines()
            self._verdicts.update(json.loads(line) for line in lines)

    def sentence(self, file: ImageFile, view: ViewSpec) -> str | None:
        """Return why an image is left out, after a trial if it is a suspect.

        Parameters
        ----------
        file : ImageFile
            About to be decoded.
        view : ViewSpec
            Its crop.

        Returns
        -------
        str or None
            None for nearly all.
        """
        if not (self._verdicts or self._ledger.suspects):
            return None
        key = file.key
        if key in self._ledger.suspects and key not in self._verdicts:
            verdict = suspicion(Path(file.name), view)
            self._verdicts[key] = verdict
            if verdict is not None:
                with self._path.open("a", encoding="ascii") as out:
                    out.write(f"{json.dumps([key, verdict])}\n")
        return self._verdicts.get(key)

    @contextmanager
    def decoding(self, file: ImageFile) -> Iterator[None]:
        """Note that an image is being decoded.

        Parameters
        ----------
        file : ImageFile
            By whose name it is called when it hangs.

        Yields
        ------
        None
            To the decoder.
        """
        key = file.key
        self._names[key] = file.name
        with self._ledger.decoding(key):
            yield
        del self._names[key]

    def watch(self) -> None:
        """Look for a decoder that never returns.

        Raises
        ------
        DecoderHungError
            Naming the image.
        """
        found = self._ledger.hung(SECONDS)
        if found is None:
            return
        self._ledger.keep()
        name = shown(self._names.get(found[0], "an image"))
        raise DecoderHungError(f"decoding {name} does not end within {SECONDS:g} s")


@contextmanager
def guarded() -> Iterator[tuple[Guard, Path]]:
    """Give a guard, and a folder that lives as long as the command does.

    Yields
    ------
    Guard and Path
        In the child of a command, files of both are those of the children before it.
    """
    with ExitStack() as stack:
        if CHILD in os.environ:
            folder = Path(os.environ[CHILD]).parent
            ledger = stack.enter_context(Ledger(folder / "inflight"))
            yield LedgerGuard(ledger, folder / "verdicts"), folder
        else:
            folder = Path(stack.enter_context(TemporaryDirectory()))
            yield UNGUARDED, folder
