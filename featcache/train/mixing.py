"""The loss: cross-entropy, with smoothed labels and mixed images where asked for."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from featcache.core.finetune_spec import FinetuneSpec
from featcache.core.seeds import generator


@dataclass(frozen=True)
class Mix:
    """Which images of a batch are laid over each other, and how strongly.

    Mixup of Zhang et al., 2018 (arXiv:1710.09412): image and label of each sample are
    mixed with those of another one of the same batch.

    Parameters
    ----------
    share : float
        Of the first image; the other one has the rest. 1: nothing is mixed.
    partners : tensor of int64, shape (b,), optional
        The other image of each.
    """

    share: float = 1.0
    partners: Tensor | None = None

    @classmethod
    def drawn(cls, spec: FinetuneSpec, n: int, *position: int) -> "Mix":
        """Return the mix of one batch.

        Parameters
        ----------
        spec : FinetuneSpec
            ``mixup`` is the alpha of Beta(alpha, alpha); 0 mixes nothing.
        n : int
            Images in the batch.
        *position : int
            Of the batch in the training, such as epoch and step: equal ones give
            equal mixes.

        Returns
        -------
        Mix
            One share for the whole batch, as in the authors' code.
        """
        if not spec.mixup:
            return cls()
        random = generator(spec.seed, "mixup", *position)
        share = float(random.beta(spec.mixup, spec.mixup))
        return cls(share, torch.from_numpy(random.permutation(n).astype(np.int64)))

    def to(self, device: torch.device) -> "Mix":
        """Return the mix for batches on a device.

        Parameters
        ----------
        device : torch.device
            Where images and labels are.

        Returns
        -------
        Mix
            Its partners are there, too.
        """
        if self.partners is None:
            return self
        return Mix(self.share, self.partners.to(device, non_blocking=True))

    def images(self, images: Tensor) -> Tensor:
        """Return the images mixed.

        Parameters
        ----------
        images : tensor of float32, shape (b, ...)
            Not changed.

        Returns
        -------
        tensor of float32, shape (b, ...)
            The same where nothing is mixed.
        """
        if self.partners is None:
            return images
        return self.share * images + (1 - self.share) * images[self.partners]

    def loss(
        self, scores: Tensor, targets: Tensor, *, label_smoothing: float
    ) -> Tensor:
        """Return the cross-entropy, summed over the batch.

        Parameters
        ----------
        scores : tensor, shape (b, C)
            Of the mixed images.
        targets : tensor of int64, shape (b,)
            Labels of the first images.
        label_smoothing : float
            As torch's ``cross_entropy`` has it.

        Returns
        -------
        tensor of float32, shape ()
            Nats.
        """

        def summed(labels: Tensor) -> Tensor:
            return cross_entropy(
                scores.float(),
                labels,
                reduction="sum",
                label_smoothing=label_smoothing,
            )

        if self.partners is None:
            return summed(targets)
        other = summed(targets[self.partners])
        return self.share * summed(targets) + (1 - self.share) * other
