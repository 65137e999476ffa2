"""The picture: a figure that looks the same saved, in a notebook and in a report."""

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

_SCREEN_DPI = 110


class Picture(Figure):
    """A figure of its own: no window, no pyplot, and no setting of the user's.

    Parameters
    ----------
    families : sequence of str
        Fonts that are asked for a letter, one after the other.
    figsize : (float, float)
        Width and height, inches.
    """

    def __init__(self, families: Sequence[str], figsize: tuple[float, float]) -> None:
        self.families = list(families)
        super().__init__(figsize=figsize, layout="constrained")

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Let what is drawn inside look as this picture does.

        Yields
        ------
        None
            To the drawing.
        """
        settings: Any = dict(mpl.rcParamsDefault)  # names are literals from 3.11 on
        del settings["backend"]  # which would be switched to
        settings |= {
            "font.family": self.families,
            "text.hinting": "none",  # or letters would be wider at few dots per inch
            "text.parse_math": False,  # a name is a name: "$" begins no formula
            "svg.fonttype": "none",  # letters stay letters
            "svg.hashsalt": "featcache",  # no random names: equal pictures, equal files
        }
        with mpl.rc_context(settings), warnings.catch_warnings():
            # Said once and in words, by `featcache.viz.fonts.families_for`.
            warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
            warnings.filterwarnings("ignore", ".* does not have a glyph", UserWarning)
            with _silent(logging.getLogger("matplotlib.font_manager")):
                yield

    def draw(self, renderer: Any) -> None:  # noqa: ANN401 - matplotlib's
        """Draw.

        Parameters
        ----------
        renderer : RendererBase
            Of whatever it is drawn on.
        """
        with self.looking():
            super().draw(renderer)

    def savefig(self, fname: Any, **settings: Any) -> None:  # noqa: ANN401
        """Write the picture.

        Parameters
        ----------
        fname : path or file
            Where to.
        **settings
            As of `matplotlib.figure.Figure.savefig`.
        """
        with self.looking():
            super().savefig(fname, **settings)

    def png(self, dpi: float = _SCREEN_DPI) -> bytes:
        """Return the picture as a PNG file.

        Parameters
        ----------
        dpi : float
            Pixels per inch.

        Returns
        -------
        bytes
            Of the file.
        """
        data = io.BytesIO()
        self.savefig(data, format="png", dpi=dpi)
        return data.getvalue()

    def _repr_png_(self) -> bytes:
        """Show the picture in a notebook, where nobody has asked for pyplot."""
        return self.png()


del Picture.set  # matplotlib makes one for each subclass; that of Figure is the same


@contextmanager
def _silent(logger: logging.Logger) -> Iterator[None]:
    """Keep it from telling that a fallback font has no face of the very weight."""
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
