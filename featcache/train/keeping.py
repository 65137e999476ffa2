"""What is kept of a training: the best weights, and all that it goes on from."""

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from featcache.core.reports import EpochRecord
from featcache.train.classifier import Classifier
from featcache.train.judging import selection_key

Arrays = dict[str, npt.NDArray[Any]]

_BEST, _MODEL, _OPTIMIZER = "best.", "model.", "optimizer."


class Best:
    """The weights of the best epoch so far, as `selection_key` has it.

    Parameters
    ----------
    model : Classifier
        In training; what changes of it is kept and put back.

    Attributes
    ----------
    record : EpochRecord or None
        Of the best epoch; None before the first.
    """

    def __init__(self, model: Classifier) -> None:
        self.record: EpochRecord | None = None
        self._model = model
        self._kept: dict[str, Tensor] = {}

    def offer(self, record: EpochRecord) -> bool:
        """Keep the model's present weights if their epoch is the best.

        Parameters
        ----------
        record : EpochRecord
            Of the epoch that gave these weights.

        Returns
        -------
        bool
            Whether it is.
        """
        better = self.record is None or (
            selection_key(record) > selection_key(self.record)
        )
        if better:
            self.take(record)
        return better

    def take(self, record: EpochRecord) -> None:
        """Keep the model's present weights as the best.

        Parameters
        ----------
        record : EpochRecord
            Of the epoch that gave them.
        """
        self.record, self._kept = record, _copies(self._model)

    def restore(self) -> None:
        """Put the best weights, if there are any, back into the model."""
        if self.record is not None:
            _fill(self._model, self._kept)

    def arrays(self) -> Arrays:
        """Return the weights for a checkpoint.

        Returns
        -------
        dict of str to ndarray
            To be given to `resume`.
        """
        return {_BEST + name: kept.numpy() for name, kept in self._kept.items()}

    def resume(self, arrays: Mapping[str, npt.NDArray[Any]], best: EpochRecord) -> None:
        """Take over the best weights of a checkpoint.

        Parameters
        ----------
        arrays : mapping of str to ndarray
            As `Best.arrays` gave them, among others.
        best : EpochRecord
            Of the epoch that they are of.
        """
        self.record = best
        self._kept = {k: torch.from_numpy(v) for k, v in _below(_BEST, arrays).items()}


def training_arrays(model: Classifier, optimizer: torch.optim.Optimizer) -> Arrays:
    """Return what the next epoch depends on, besides the recipe.

    Parameters
    ----------
    model : Classifier
        As it is now.
    optimizer : torch.optim.Optimizer
        With its momentum, or what else it keeps.

    Returns
    -------
    dict of str to ndarray
        On the host; no generator is among them, since every draw follows from seed,
        epoch and sample.
    """
    arrays = {_MODEL + name: kept.numpy() for name, kept in _copies(model).items()}
    for index, kept in optimizer.state_dict()["state"].items():
        for name, value in kept.items():
            if isinstance(value, Tensor):
                key = f"{_OPTIMIZER}{index}.{name}"
                arrays[key] = _host(value).numpy()
    return arrays


def resume_training(
    model: Classifier,
    optimizer: torch.optim.Optimizer,
    arrays: Mapping[str, npt.NDArray[Any]],
) -> None:
    """Put model and optimizer back to where they were.

    Parameters
    ----------
    model : Classifier
        Changed in place.
    optimizer : torch.optim.Optimizer
        Fresh, of the same model and recipe.
    arrays : mapping of str to ndarray
        As `training_arrays` gave them, among others.
    """
    below = _below(_MODEL, arrays)
    _fill(model, {name: torch.from_numpy(v) for name, v in below.items()})
    fresh = optimizer.state_dict()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in _below(_OPTIMIZER, arrays).items():
        index, name = key.split(".", 1)
        tensor = torch.from_numpy(value).clone()
        parameter = parameters[int(index)]
        if tensor.shape == parameter.shape:  # in the parameter's own layout
            tensor = torch.empty_like(parameter, requires_grad=False).copy_(tensor)
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": fresh["param_groups"]})


def _copies(model: Classifier) -> dict[str, Tensor]:
    return {name: _host(tensor) for name, tensor in model.changing().items()}


def _host(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()


@torch.no_grad()
def _fill(model: Classifier, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in model.changing().items():
        tensor.copy_(tensors[name])


def _below(
    prefix: str, arrays: Mapping[str, npt.NDArray[Any]]
) -> dict[str, npt.NDArray[Any]]:
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
