"""Jobs: what a worker process is told first, as JSON carries it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from featcache.core.layers import Layer
from featcache.core.specs import AugmentSpec, FeatureDtype, Precision, ViewSpec
from featcache.core.text import shown
from featcache.stages.sources import WeightsSource
from featcache.stages.tasks import Setting

COLUMNS = ("features", "digests", "status")  # in the order of an answer's bytes


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one worker is to do, as JSON carries it.

    Parameters
    ----------
    backbone : str
        Name in the catalog.
    weights : str or None
        The file; None for random weights.
    seed : int
        Of random weights.
    weights_sha256 : str
        Of the tensors that the file has to hold.
    view : mapping
        As `ViewSpec.to_json` gives it.
    layer : str
        Where features are taken.
    precision : {"float32", "bfloat16"}
        Of the network's arithmetic.
    dtype : {"float32", "float16"}
        Of the features in an answer.
    device : str
        One device, as this process names it.
    batch_size : int
        Images in one forward pass; 0 for what suits the device.
    threads : int
        How many blocks are worked on at once.
    expected : int
        Images to come, more or less.
    views : int
        V, how many views a row has room for.
    augment : mapping
        As `AugmentSpec.to_json` gives it.
    shipped : int
        Bytes of weights that follow the job; 0 where they are read from the file.
    """

    backbone: str
    weights: str | None
    seed: int
    weights_sha256: str
    view: Mapping[str, Any]
    layer: Layer
    precision: Precision
    dtype: FeatureDtype
    device: str
    batch_size: int
    threads: int
    expected: int
    views: int
    augment: Mapping[str, Any]
    shipped: int = 0

    def line(self) -> bytes:
        """Return the job as the first line of the protocol.

        Returns
        -------
        bytes
            JSON in ASCII: undecodable bytes of a path are escaped surrogates.
        """
        return json.dumps(asdict(self)).encode() + b"\n"

    def setting(self) -> Setting:
        """Return what an engine has to know.

        Returns
        -------
        Setting
            With the weights' file, not read yet.
        """
        file = None if self.weights is None else Path(self.weights)
        name = shown(self.weights or self.backbone)
        view = ViewSpec.from_json(self.view)
        return Setting(
            source=WeightsSource(self.backbone, name, view, "", file, self.seed),
            precision=self.precision,
            batch_size=self.batch_size,
            workers=self.threads,
            expected=self.expected,
            augment=AugmentSpec.from_json(self.augment),
            layer=self.layer,
        )
