"""Settings of the solvers that are not SGD. Each is one line, as in `specs`."""

from dataclasses import dataclass

from featcache.core.checks import (
    AT_LEAST_1,
    COUNT,
    POSITIVE,
    SHARE,
    Rule,
    each,
    one_of,
    require,
)
from featcache.core.training_specs import STANDARDIZE, Standardize

_FOLDS = Rule("0, or a whole number from 2", lambda v: COUNT.holds(v) and v != 1)


@dataclass(frozen=True, kw_only=True)
class LogRegSpec:
    """scikit-learn's LogisticRegression, C chosen on held-out training data."""

    # Inverse penalties: of the weights of the features as standardised, so that a value
    # means something else for each way of standardising.
    C: tuple[float, ...] = tuple(10.0**k for k in range(-6, 5))
    standardize: Standardize = "zscore"  # none: slow, large C may not converge
    holdout: float = 0.2  # share of train on which C is chosen
    cv: int = 0  # folds on which C is chosen instead; 0: one held-out part
    max_iter: int = 1000  # of L-BFGS, per C
    seed: int = 0  # of the held-out part or the folds

    def __post_init__(self) -> None:
        require(
            self,
            C=each(POSITIVE),
            standardize=one_of(*STANDARDIZE),
            holdout=SHARE,
            cv=_FOLDS,
            max_iter=AT_LEAST_1,
            seed=COUNT,
        )


@dataclass(frozen=True, kw_only=True)
class RidgeSpec:
    """Least squares on one-hot targets, lambda chosen by leave-one-out."""

    # Penalties, scikit-learn's alpha: in squared units of the features.
    lambdas: tuple[float, ...] = tuple(10.0 ** (k / 2) for k in range(-12, 13))

    def __post_init__(self) -> None:
        require(self, lambdas=each(POSITIVE))


@dataclass(frozen=True, kw_only=True)
class KnnSpec:
    """Weighted nearest neighbours by cosine; the defaults are DINO's and dinov2's."""

    k: int = 20  # neighbours that vote; all where train has fewer
    temperature: float = 0.07  # a vote weighs exp(cosine / temperature)

    def __post_init__(self) -> None:
        require(self, k=AT_LEAST_1, temperature=POSITIVE)


@dataclass(frozen=True, kw_only=True)
class CentroidSpec:
    """Nearest class mean by cosine; there is nothing to set."""
