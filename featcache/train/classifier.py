"""The classifier in training: frozen stages, trained stages and head as one module."""

from torch import Tensor, nn
from torch import no_grad as without_gradients
from torch import tensor as copied

from featcache.core.finetune_spec import BatchNormPolicy
from featcache.core.heads import LinearHead


class Classifier(nn.Module):
    """Frozen stages, trained stages and head: inputs (b, ...) to scores (b, C).

    Parameters
    ----------
    backbone : torch.nn.Module
        The trained stages: what the frozen ones give, to features (b, D). The identity
        where only the head is trained.
    head : LinearHead
        Where the head starts; copied.
    frozen : torch.nn.Module, optional
        The stages before, run without gradients. Not given where their output is what
        comes in, since it was computed beforehand.
    bn : {"train", "frozen", "drift"}
        Whose BatchNorm takes its statistics from the batch and moves them along: that
        of the trained stages, none, or that of the frozen stages as well.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: LinearHead,
        *,
        frozen: nn.Module | None = None,
        bn: BatchNormPolicy = "train",
    ) -> None:
        super().__init__()
        C, D = head.weight.shape
        self.bn = bn
        self.frozen = None if frozen is None else frozen.requires_grad_(False)
        self.backbone = backbone.requires_grad_(True)
        # Made without values: torch would draw them from the process's own generator.
        self.head = nn.Linear(D, C, device="meta")
        start = {"weight": head.weight, "bias": head.bias}
        self.head.load_state_dict(
            {name: copied(value) for name, value in start.items()}, assign=True
        )
        self.train()

    def train(self, mode: bool = True) -> "Classifier":
        """Set training mode, of each BatchNorm as its policy says.

        Parameters
        ----------
        mode : bool
            False for evaluation mode.

        Returns
        -------
        Classifier
            Itself.
        """
        super().train(mode)
        self.backbone.train(mode and self.bn != "frozen")
        if self.frozen is not None:
            self.frozen.train(mode and self.bn == "drift")
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the scores.

        Parameters
        ----------
        inputs : tensor of float32, shape (b, ...)
            Normalised images, or what the frozen stages made of them.

        Returns
        -------
        tensor of float32, shape (b, C)
            Before the softmax.
        """
        if self.frozen is not None:
            with without_gradients():
                inputs = self.frozen(inputs)
        scores: Tensor = self.head(self.backbone(inputs))
        return scores

    def changing(self) -> dict[str, Tensor]:
        """Return every tensor that training changes, by name.

        Returns
        -------
        dict of str to tensor
            The tensors themselves: parameters, and statistics that may move.
        """
        kept = self.state_dict(keep_vars=False)
        if self.bn == "drift":
            return kept
        return {k: v for k, v in kept.items() if not k.startswith("frozen.")}

    def linear_head(self) -> LinearHead:
        """Return the head as it is now.

        Returns
        -------
        LinearHead
            A copy on the host.
        """
        weight, bias = (p.detach().cpu().numpy().copy() for p in self.head.parameters())
        return LinearHead(weight, bias)
