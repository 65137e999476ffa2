"""Progress on a terminal, by tqdm, on stderr."""

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tqdm import tqdm


# tqdm's own, but never "1.56s/ images"; and what has no end has no rate either.
_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}]"
_COUNTER = "{desc}: {n_fmt}{unit} [{elapsed}]"


class Terminal:
    """Shows a bar where stderr is a terminal, and lines everywhere.

    Parameters
    ----------
    quiet : bool
        Whether lines are left out; bars show all the same.
    verbose : bool
        Whether details are told, too.
    """

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        self._quiet = quiet
        self._verbose = verbose
        self._bar: tqdm[Any] | None = None

    def begin(self, task: str, total: int, *, unit: str, done: int = 0) -> None:
        """Open a bar."""
        from tqdm import tqdm

        in_bytes = unit == "B"
        self._bar = tqdm(
            desc=task,
            total=total or None,
            initial=done,
            unit=unit if in_bytes else f" {unit}s",
            unit_scale=in_bytes,
            bar_format=_BAR if total else None if in_bytes else _COUNTER,
            dynamic_ncols=True,
            disable=None,  # where stderr is no terminal
        )

    def advance(self, count: int) -> None:
        """Move the bar on."""
        if self._bar is not None:
            self._bar.update(count)

    def end(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def say(self, line: str) -> None:
        """Write a line above the bar."""
        if self._quiet:
            return
        if self._bar is None or self._bar.disable:
            click.echo(line, err=True)
        else:
            self._bar.write(line, file=self._bar.fp)

    def detail(self, line: str) -> None:
        """Write a line for those who asked for more."""
        if self._verbose:
            self.say(line)
