"""Progress: what long work reports while it runs, and who listens."""

from typing import Protocol


class Progress(Protocol):
    """Somebody who wants to know how far the work is."""

    def begin(self, task: str, total: int, *, unit: str, done: int = 0) -> None:
        """Announce work of ``total`` units, of which ``done`` were done before."""

    def advance(self, count: int) -> None:
        """Say that ``count`` more units are done."""

    def end(self) -> None:
        """Say that the work is over, finished or not."""

    def say(self, line: str) -> None:
        """Tell one line worth reading."""

    def detail(self, line: str) -> None:
        """Tell one line to those who asked for more."""


class Silent:
    """A listener that keeps quiet: the default of the Python API."""

    def begin(self, task: str, total: int, *, unit: str, done: int = 0) -> None:
        """Do nothing."""

    def advance(self, count: int) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Do nothing."""

    def say(self, line: str) -> None:
        """Do nothing."""

    def detail(self, line: str) -> None:
        """Do nothing."""


SILENT: Progress = Silent()
