"""The solvers behind `fit_head`: from features to a head and what is told of it."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from featcache.core.errors import TrainingError
from featcache.core.features import Features
from featcache.core.knn import Head
from featcache.core.reports import EpochRecord
from featcache.core.resources import Resources
from featcache.core.training_specs import SgdSpec, SweepSpec
from featcache.stages.measuring import Measured, measure_head

if TYPE_CHECKING:
    from featcache.train.sgd import Fitted


@dataclass(frozen=True, eq=False)
class Splits:
    """What a head is fitted and chosen on.

    Parameters
    ----------
    train : Features
        One sample of every class at least.
    val : Features or None
        None where the cache has no such split.
    both : callable
        Returns the samples of the two together.
    classes : int
        C.
    resources : Resources
        Memory and device of SGD.
    """

    train: Features
    val: Features | None
    both: Callable[[], Features]
    classes: int
    resources: Resources = field(default_factory=Resources)

    def fit(self, train: Features, val: Features | None, spec: SgdSpec) -> "Fitted":
        """Fit a head by SGD with these resources.

        Parameters
        ----------
        train : Features
            What it learns.
        val : Features, optional
            Chooses the epoch.
        spec : SgdSpec
            How.

        Returns
        -------
        Fitted
            See `featcache.train.sgd.fit_sgd`.
        """
        from featcache.train.sgd import fit_sgd

        return fit_sgd(
            train, val, classes=self.classes, spec=spec, resources=self.resources
        )

    def measure(self, head: Head, features: Features) -> Measured:
        """Measure a head; of several processes each looks at its own part.

        Parameters
        ----------
        head : LinearHead or KnnHead
            As it is now.
        features : Features
            At least one sample.

        Returns
        -------
        Measured
            See `measure_head`.
        """
        share = self.resources.share
        return measure_head(head, features, classes=self.classes, share=share)


@dataclass(frozen=True, eq=False)
class Outcome:
    """A head, and what its report says of it.

    Parameters
    ----------
    head : LinearHead or KnnHead
        The final one.
    solver : str
        Its name in the report.
    history : tuple of EpochRecord
        Of the training in which it was chosen.
    best_epoch : int
        From 1.
    val_loss, val_accuracy : float or None
        Of the head, or of the one before a refit; nats, and a share.
    notes : tuple of str
        Worth telling the user.
    settings : mapping
        What was chosen, beside what was asked for; JSON data.
    told : mapping
        Further fields of the report.
    train_accuracy : float, optional
        Where the solver has measured it.
    val : Measured, optional
        Where the solver has been measured on it.
    before_refit : LinearHead, optional
        After a refit the head that val's numbers are of.
    """

    head: Head
    solver: str
    history: tuple[EpochRecord, ...]
    best_epoch: int
    val_loss: float | None
    val_accuracy: float | None
    notes: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    told: Mapping[str, Any] = field(default_factory=dict)
    train_accuracy: float | None = None
    val: Measured | None = None
    before_refit: Head | None = None


def fit_one(splits: Splits, spec: SgdSpec) -> Outcome:
    """Fit one head by SGD; val, if there is one, chooses the epoch.

    Parameters
    ----------
    splits : Splits
        The features.
    spec : SgdSpec
        How.

    Returns
    -------
    Outcome
        The head of the best epoch, or of the last.

    Raises
    ------
    TrainingError
        When the loss stops being finite.
    """
    return as_outcome(splits.fit(splits.train, splits.val, spec))


def as_outcome(fitted: "Fitted") -> Outcome:
    """Return a fitted head as it is.

    Parameters
    ----------
    fitted : Fitted
        By SGD, or with a history of one epoch.

    Returns
    -------
    Outcome
        Its best epoch's numbers.
    """
    best = fitted.best
    return Outcome(
        fitted.head,
        "sgd",
        fitted.history,
        fitted.best_epoch,
        best.val_loss,
        best.val_accuracy,
        fitted.notes,
    )


def fit_sweep(splits: Splits, spec: SweepSpec) -> Outcome:
    """Fit every head of a grid, choose the best, and fit it finally.

    Chosen on val, the head that won is kept as it is. Chosen on a part of train, its
    settings are fitted again on all of train for as many epochs, and val only tells
    how good that is. With ``refit`` the end is a fit on train and val together.

    Parameters
    ----------
    splits : Splits
        The features.
    spec : SweepSpec
        The grid, and how to choose.

    Returns
    -------
    Outcome
        The final head; of several seeds that of the first.

    Raises
    ------
    TrainingError
        When there is nothing to choose on, or every head diverges.
    """
    from featcache.train.sweep import choose

    select_on = spec.selects_on(has_val=splits.val is not None)
    train, judged = _parts(splits, spec, select_on)
    choice = choose(
        train,
        judged,
        classes=splits.classes,
        spec=spec,
        resources=splits.resources,
    )
    chosen, epochs = choice.spec, choice.fitted.best_epoch
    seeds = range(spec.seed + 1, spec.seed + spec.seeds)
    if select_on == "val":
        finals = [as_outcome(choice.fitted)]  # it is final already
    else:
        finals = [_final(splits, chosen, epochs, select_on)]
    finals += [
        _final(splits, replace(chosen, seed=s), epochs, select_on) for s in seeds
    ]
    told = {"select_on": select_on, "heads": choice.heads, **_over_seeds(finals)}
    settings = {"chosen": {**asdict(chosen), "epochs": epochs}}
    notes = (*choice.notes, *_optimism(select_on, len(choice.heads)))
    outcome = replace(finals[0], notes=notes, told=told, settings=settings)
    return _refitted(splits, outcome, chosen) if spec.refit else outcome


def _optimism(select_on: str, heads: int) -> list[str]:
    if select_on == "train" or heads == 1:
        return []
    note = (
        f"val chose among {heads} heads, so the best one's val accuracy is optimistic; "
        "with --select-on train val has no say"
    )
    return [note]


def _parts(
    splits: Splits, spec: SweepSpec, select_on: str
) -> tuple[Features, Features]:
    """Return what the heads are fitted on, and what they are compared on."""
    if select_on == "train":
        from featcache.train.sweep import split_train

        return split_train(splits.train, share=spec.holdout, seed=spec.seed)
    return splits.train, _val(splits, "to choose on; pass --select-on train")


def _val(splits: Splits, wanted: str) -> Features:
    if splits.val is None:
        raise TrainingError(
            f"the cache has no usable image of val {wanted}, or extract a folder "
            "with val/"
        )
    return splits.val


def _final(splits: Splits, spec: SgdSpec, epochs: int, select_on: str) -> Outcome:
    """Fit the chosen settings on all of train."""
    from featcache.train.judging import judge

    if select_on == "val":
        return fit_one(splits, spec)
    train, val = splits.train, splits.val
    spec = replace(spec, epochs=epochs)
    fitted = splits.fit(train, None, spec)
    loss, accuracy = judge(fitted.head, val, splits.resources.share)  # val had no say
    return Outcome(fitted.head, "sgd", fitted.history, epochs, loss, accuracy)


def _over_seeds(finals: list[Outcome]) -> dict[str, Any]:
    accuracies = [f.val_accuracy for f in finals if f.val_accuracy is not None]
    if len(finals) == 1 or not accuracies:
        return {}
    return {
        "val_accuracies": tuple(accuracies),
        "val_accuracy_mean": fmean(accuracies),
        "val_accuracy_std": stdev(accuracies),
    }


def _refitted(splits: Splits, outcome: Outcome, chosen: SgdSpec) -> Outcome:
    """Return the head fitted on train and val; the numbers stay those of before."""
    _val(splits, "to fit on with --refit; leave it out")
    spec = replace(chosen, epochs=outcome.best_epoch)
    fitted = splits.fit(splits.both(), None, spec)
    note = (
        "fitted again on train and val; val accuracy and loss are those of the head "
        "before"
    )
    return replace(
        outcome,
        head=fitted.head,
        before_refit=outcome.head,
        notes=(*outcome.notes, note),
        told={**outcome.told, "fitted_on": "train and val"},
    )
