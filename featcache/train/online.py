"""SGD for a linear head on features that arrive call by call."""

import numpy as np
import numpy.typing as npt

from featcache.core.errors import SpecError, TrainingError
from featcache.core.heads import LinearHead
from featcache.core.metrics import Labels
from featcache.core.seeds import epoch_order
from featcache.core.specs import SgdSpec
from featcache.train.heads import Heads
from featcache.train.passes import threads_for
from featcache.train.standardize import Scaling
from featcache.train.steps import NumpyEpochs


class OnlineSgd:
    """A head in training: parameters, momentum, and how many epochs are done.

    As many epochs over the same samples as `featcache.train.sgd.fit_sgd` runs give
    the head that it gives.

    Parameters
    ----------
    head : LinearHead
        Where to begin.
    seed : int
        Of the order of the samples.
    epoch : int
        How many epochs the head has behind it; for the learning rate and the order.
    """

    def __init__(self, head: LinearHead, *, seed: int, epoch: int = 0) -> None:
        self.head = head
        """For features as they come in; a copy after each epoch."""
        self.epoch = epoch
        self._seed = seed
        self._momenta: npt.NDArray[np.float32] | None = None

    def run_epoch(self, X: npt.NDArray[np.floating], y: Labels, spec: SgdSpec) -> None:
        """Visit samples once, in the order that `fit_sgd` would.

        Parameters
        ----------
        X : ndarray of float32 or float16, shape (n, D)
            Features.
        y : ndarray of int32, shape (n,)
            Labels in [0, C).
        spec : SgdSpec
            Settings of this epoch; its ``epochs`` and ``seed`` mean nothing here.

        Raises
        ------
        SpecError
            When features are to be scaled by what all samples have in common.
        TrainingError
            When the loss stops being finite; the head stays as it was.
        """
        if spec.standardize == "zscore":
            raise SpecError(
                "standardize='zscore' needs all samples at once, which never come "
                "together here; scale the features before, or use 'l2' or 'none'"
            )
        heads, scaling = Heads(self.head, [spec]), Scaling(spec.standardize)
        if self._momenta is not None:
            heads.V[:] = self._momenta
        epochs = NumpyEpochs(heads, scaling, min(spec.batch_size, len(y)))
        epochs.load(X, y)
        order = epoch_order(len(y), seed=self._seed, epoch=self.epoch)
        with threads_for(epochs.batch_size * heads.W.size), np.errstate(all="ignore"):
            loss, _ = epochs.run(order, heads.lr(self.epoch))
        if not (np.isfinite(loss).all() and heads.finite().all()):
            raise TrainingError(
                f"the loss stopped being finite with lr {spec.lr_at(self.epoch):g}; "
                "try a smaller lr"
            )
        self.head, self._momenta = scaling.export(heads.head(0)), heads.V
        self.epoch += 1
