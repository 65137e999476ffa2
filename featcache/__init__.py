"""featcache: transfer learning from cached features.

The functions have the commands' names. They are loaded when they are first used, so
that ``import featcache`` itself is instant.

Examples
--------
>>> import featcache
>>> cache = featcache.extract("photos", backbone="resnet50")  # doctest: +SKIP
>>> fitted = featcache.fit_head(cache)  # doctest: +SKIP
>>> featcache.predict(fitted.model, ["photo.jpg"])  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from featcache import estimators as estimators
    from featcache.core.errors import FeatcacheError as FeatcacheError
    from featcache.core.solver_specs import CentroidSpec as CentroidSpec
    from featcache.core.solver_specs import KnnSpec as KnnSpec
    from featcache.core.solver_specs import RidgeSpec as RidgeSpec
    from featcache.core.specs import AugmentSpec as AugmentSpec
    from featcache.core.specs import ExtractSpec as ExtractSpec
    from featcache.core.specs import FinetuneSpec as FinetuneSpec
    from featcache.core.specs import LogRegSpec as LogRegSpec
    from featcache.core.specs import SgdSpec as SgdSpec
    from featcache.core.specs import SweepSpec as SweepSpec
    from featcache.stages.auditing import audit as audit
    from featcache.stages.comparing import compare as compare
    from featcache.stages.curves import curve as curve
    from featcache.stages.embedding_maps import plot_map as plot_map
    from featcache.stages.evaluation import evaluate as evaluate
    from featcache.stages.exporting import export as export
    from featcache.stages.extraction import extract as extract
    from featcache.stages.finetuning import finetune as finetune
    from featcache.stages.inspection import verify as verify
    from featcache.stages.merging import merge as merge
    from featcache.stages.model_exporting import export_model as export_model
    from featcache.stages.plotting import plot_confusion as plot_confusion
    from featcache.stages.plotting import plot_history as plot_history
    from featcache.stages.prediction import iter_predictions as iter_predictions
    from featcache.stages.prediction import predict as predict
    from featcache.stages.prediction_grids import plot_predictions as plot_predictions
    from featcache.stages.probing import fit_head as fit_head
    from featcache.stages.repairing import repair as repair
    from featcache.stages.reporting import report as report
    from featcache.stages.showing import show as show
    from featcache.store.artifacts import Model as Model
    from featcache.store.artifacts import open_model as open_model
    from featcache.store.opening import open_cache as open_cache
    from featcache.store.parts import PartedCache as PartedCache
    from featcache.store.reader import FeatureCache as FeatureCache

_HOMES = {
    "AugmentSpec": "core.specs",
    "CentroidSpec": "core.solver_specs",
    "ExtractSpec": "core.specs",
    "FeatcacheError": "core.errors",
    "FeatureCache": "store.reader",
    "FinetuneSpec": "core.specs",
    "KnnSpec": "core.solver_specs",
    "LogRegSpec": "core.specs",
    "Model": "store.artifacts",
    "PartedCache": "store.parts",
    "RidgeSpec": "core.solver_specs",
    "SgdSpec": "core.specs",
    "SweepSpec": "core.specs",
    "audit": "stages.auditing",
    "compare": "stages.comparing",
    "curve": "stages.curves",
    "evaluate": "stages.evaluation",
    "export": "stages.exporting",
    "export_model": "stages.model_exporting",
    "extract": "stages.extraction",
    "finetune": "stages.finetuning",
    "fit_head": "stages.probing",
    "iter_predictions": "stages.prediction",
    "merge": "stages.merging",
    "open_cache": "store.opening",
    "open_model": "store.artifacts",
    "plot_confusion": "stages.plotting",
    "plot_history": "stages.plotting",
    "plot_map": "stages.embedding_maps",
    "plot_predictions": "stages.prediction_grids",
    "predict": "stages.prediction",
    "repair": "stages.repairing",
    "report": "stages.reporting",
    "show": "stages.showing",
    "verify": "stages.inspection",
}

_MODULES = ("estimators",)

__all__ = [
    "AugmentSpec",
    "CentroidSpec",
    "ExtractSpec",
    "FeatcacheError",
    "FeatureCache",
    "FinetuneSpec",
    "KnnSpec",
    "LogRegSpec",
    "Model",
    "PartedCache",
    "RidgeSpec",
    "SgdSpec",
    "SweepSpec",
    "__version__",
    "audit",
    "compare",
    "curve",
    "estimators",
    "evaluate",
    "export",
    "export_model",
    "extract",
    "finetune",
    "fit_head",
    "iter_predictions",
    "merge",
    "open_cache",
    "open_model",
    "plot_confusion",
    "plot_history",
    "plot_map",
    "plot_predictions",
    "predict",
    "repair",
    "report",
    "show",
    "verify",
]


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return import_module(f"featcache.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'featcache' has no attribute {name!r}")
    value = getattr(import_module(f"featcache.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
