"""What tests ask of a drawn plot: is all of it on the paper, does anything overlap."""

from itertools import combinations

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from featcache.core.reports import EpochRecord

LONG = [f"{i:03d} a class with a very long name, sixty letters {i:03d}" for i in (1, 2)]
SCRIPTS = ["\u8682\u8681", "\u0646\u0645\u0644\u0629", "\u091a\u0940\u0902\u091f\u0940"]


def class_names(count):
    """Return names long and short, in several scripts, one of them a formula."""
    some = [*LONG, *SCRIPTS, "$\\alpha$", "bees"]
    return [some[i % 7] if i < 7 else f"{some[i % 7]} {i}" for i in range(count)]


def heard(_line):
    """Hear nothing: a machine may lack fonts."""


def boxes(picture, texts):
    """Return left, bottom, right, top of texts, pixels; of the letters alone."""
    with picture.looking():
        renderer = FigureCanvasAgg(picture).get_renderer()
        return [Text.get_window_extent(text, renderer).extents for text in texts]


def require_on_paper(picture):
    """Fail where a part of the picture lies outside; draw it."""
    canvas = FigureCanvasAgg(picture)
    picture.draw_without_rendering()
    with picture.looking():
        box = picture.get_tightbbox(canvas.get_renderer())
    width, height = picture.get_size_inches()
    slack = 0.02  # inches
    assert box.x0 >= -slack, "clipped at the left"
    assert box.y0 >= -slack, "clipped at the bottom"
    assert box.x1 <= width + slack, "clipped at the right"
    assert box.y1 <= height + slack, "clipped at the top"


def overlaps(extents):
    """Return pairs of boxes that overlap by more than a pixel."""
    return [
        (a, b)
        for a, b in combinations(range(len(extents)), 2)
        if (
            np.minimum(extents[a], extents[b])[2:] - 1
            > np.maximum(extents[a], extents[b])[:2]
        ).all()
    ]


def epochs(count, *, val=True, lr=0.01):
    """Return epochs of a training whose lr falls tenfold every four."""
    return tuple(
        EpochRecord(
            epoch=n,
            lr=lr * 0.1 ** ((n - 1) // 4),
            train_loss=1 / n,
            train_accuracy=1 - 0.5 / n,
            val_loss=1.1 / n if val else None,
            val_accuracy=1 - 0.6 / n if val else None,
            seconds=1.0,
        )
        for n in range(1, count + 1)
    )
