"""A cheap network for measurements: PYTHONPATH=scripts/bench/stub featcache extract ...

Features are the channel means of the crop, repeated; the view is 32 pixels wide. All
else is as in use: the command, its child process, weights, decoding, cache. Python
imports this module by itself in every process; featcache knows nothing of it.
"""

import dataclasses
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

CROP = 32


class ChannelMeans:
    """From images (b, 3, h, w) to features (b, D)."""

    def __init__(self, embed_dim: int) -> None:
        self.embed_dim = embed_dim

    def __call__(self, pixels: "np.ndarray") -> "np.ndarray":
        """Return the means of red, green and blue, as often as there is room."""
        import numpy as np

        means = pixels.reshape(len(pixels), 3, -1).mean(axis=2, dtype=np.float32)
        return np.tile(means, 1 + self.embed_dim // 3)[:, : self.embed_dim]


def cheap_network(engines: ModuleType) -> None:
    """Replace the network behind an extractor that was built as ever."""
    from featcache.core.layers import row_size

    build = engines.build_extractor

    def built(setting: Any, *others: Any) -> Any:  # noqa: ANN401 - of featcache
        extractor = build(setting, *others)
        means = ChannelMeans(row_size(setting.source.backbone, setting.layer, CROP))
        pieces = {**extractor.pieces, "forward": "channel means"}
        return dataclasses.replace(extractor, embed=means, pieces=pieces)

    engines.build_extractor = built


def small_view(sources: ModuleType) -> None:
    """Replace the view that comes with the weights."""
    find = sources.find_weights

    def found(*args: Any, **named: Any) -> Any:  # noqa: ANN401 - of featcache
        source = find(*args, **named)
        view = dataclasses.replace(source.view, resize=CROP, crop=CROP)
        return dataclasses.replace(source, view=view)

    sources.find_weights = found


CHANGES = {
    "featcache.stages.engines": cheap_network,
    "featcache.stages.sources": small_view,
}


class Finder(PathFinder):
    """Finds modules as ever, and changes two of them once they are there."""

    @classmethod
    def find_spec(
        cls,
        name: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Return what imports a module, with our change behind it."""
        change = CHANGES.get(name)
        spec = super().find_spec(name, path, target) if change else None
        if spec is None:
            return None
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            change(module)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Finder)
