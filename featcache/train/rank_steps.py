"""SGD steps of several processes: each has some samples of every batch."""

import numpy as np

from featcache.core.heads import Floats
from featcache.core.shares import Share
from featcache.train.heads import Heads
from featcache.train.standardize import Scaling
from featcache.train.steps import Losses, NumpyEpochs, Rows, per_head


class RankEpochs(NumpyEpochs):
    """Epochs of SGD whose gradients are added up over the processes.

    Heads are equal in all of them, to the bit: each takes the same step.

    Parameters
    ----------
    heads : Heads
        Trained in place.
    scaling : Scaling
        Applied to the features as they are fetched.
    batch_size : int
        b, of all processes together; the last batch may be smaller.
    share : Share
        Of this process.
    """

    def __init__(
        self, heads: Heads, scaling: Scaling, batch_size: int, share: Share
    ) -> None:
        super().__init__(heads, scaling, batch_size)
        self._share = share

    def run(self, order: Rows, lr: Floats) -> tuple[Losses, Losses]:
        """Visit samples in order, changing the heads.

        Parameters
        ----------
        order : ndarray of int64, shape (m,)
            Rows of the samples taken, -1 for those of other processes; only the last
            batch may be smaller than b.
        lr : ndarray of float32, shape (H,)
            Learning rate of each head.

        Returns
        -------
        loss, right : ndarray of float64, shape (H,)
            Sums over this process's visits, while the weights moved: nats, and hits.
        """
        if len(self.G) != len(self.heads):
            self._allocate()  # a head was dropped
        H = len(self.heads)
        loss, right, rates = np.zeros(H), np.zeros(H), per_head(lr)
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            self._gradient(batch[batch >= 0], len(batch), loss, right)
            self._share.add_up(self.G)
            self._step(rates)
        return loss, right

    def _gradient(self, own: Rows, size: int, loss: Losses, right: Losses) -> None:
        """Set G to what the own samples add to the gradient of a batch."""
        if not len(own):
            self.G.fill(0)
            return
        X, y = self._fetch(own)
        P = self._forward(X, y, loss, right)
        P *= np.float32(len(own) / size)  # the mean is over the batch
        np.matmul(P.T, X, out=self.flat_G[:, :-1])
        np.sum(P, axis=0, out=self.flat_G[:, -1])
