"""`SGDHeadClassifier`: the linear head as a scikit-learn classifier."""

from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from featcache.core.errors import TrainingError
from featcache.core.features import Features
from featcache.core.heads import LinearHead, initial_head, softmax, unit_rows
from featcache.core.metrics import Labels
from featcache.core.specs import SgdSpec
from featcache.core.training_specs import Standardize
from featcache.train.online import OnlineSgd
from featcache.train.sgd import fit_sgd

Array = npt.NDArray[Any]


class SGDHeadClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Linear classifier, fitted by the SGD with momentum and StepLR of `fit_head`.

    Softmax regression, step for step what ``torch.nn.Linear``, ``CrossEntropyLoss``,
    ``torch.optim.SGD`` and ``StepLR`` compute in float32. There is no validation
    split: the head after the last epoch is kept.

    Parameters
    ----------
    lr : float
        Learning rate at the start.
    momentum : float
        Of SGD, below 1.
    nesterov : bool
        Whether to look ahead along the momentum.
    weight_decay : float
        L2 penalty, on weight and bias as torch has it.
    epochs : int
        Passes over the samples.
    batch_size : int
        Samples a step.
    step_size : int
        Epochs between two drops of the learning rate.
    gamma : float
        Factor of each drop.
    standardize : {"none", "zscore", "l2"}
        How features are scaled first: not, each to mean 0 and variance 1, or each
        sample to unit length. It becomes part of the head.
    random_state : int, RandomState or None
        Of the initial weights and the order of the samples; an int is the ``seed`` of
        `SgdSpec`, and None another one for every fit.

    Attributes
    ----------
    classes_ : ndarray, shape (C,)
        The labels, sorted.
    head_ : LinearHead
        The weights, ready for torch.
    n_features_in_ : int
        D.
    feature_names_in_ : ndarray of str, shape (D,)
        Where X had names.
    n_iter_ : int
        Epochs behind the head.

    Examples
    --------
    >>> import numpy as np
    >>> X, y = np.eye(4, dtype=np.float32), ["ant", "bee", "ant", "bee"]
    >>> print(*SGDHeadClassifier(lr=0.1).fit(X, y).predict(X))
    ant bee ant bee
    """

    def __init__(  # noqa: PLR0913 - the fields of SgdSpec
        self,
        *,
        lr: float = SgdSpec.lr,
        momentum: float = SgdSpec.momentum,
        nesterov: bool = SgdSpec.nesterov,
        weight_decay: float = SgdSpec.weight_decay,
        epochs: int = SgdSpec.epochs,
        batch_size: int = SgdSpec.batch_size,
        step_size: int = SgdSpec.step_size,
        gamma: float = SgdSpec.gamma,
        standardize: Standardize = SgdSpec.standardize,
        random_state: int | np.random.RandomState | None = SgdSpec.seed,
    ) -> None:
        self.lr = lr
        self.momentum = momentum
        self.nesterov = nesterov
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.batch_size = batch_size
        self.step_size = step_size
        self.gamma = gamma
        self.standardize = standardize
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:  # noqa: ANN401 - any array-like
        """Fit the head.

        Parameters
        ----------
        X : array-like, shape (n, D)
            Features; a memory-mapped float32 array is not copied.
        y : array-like, shape (n,)
            Labels of any type, of two classes or more.

        Returns
        -------
        SGDHeadClassifier
            Itself.

        Raises
        ------
        SpecError
            When a parameter has a value that cannot work.
        TrainingError
            When there is one class only, or training diverges.
        """
        spec = self._spec()
        X, y = self._checked(X, y, reset=True)
        self.classes_, labels = _classes(y)
        train = Features(X, labels.astype(np.int32), np.arange(len(labels)))
        self.head_ = fit_sgd(train, None, classes=len(self.classes_), spec=spec).head
        self.n_iter_ = spec.epochs
        self._online: OnlineSgd | None = None
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> Self:  # noqa: ANN401
        """Run one epoch over these samples, the momentum kept from call to call.

        The k-th call has the learning rate of the k-th epoch: ``epochs`` calls with
        the same samples give what `fit` gives. For a stream of new samples, set
        ``step_size`` to the calls between two drops. After `fit`, training goes on
        from its head, without momentum.

        Parameters
        ----------
        X : array-like, shape (n, D)
            Features.
        y : array-like, shape (n,)
            Labels.
        classes : array-like, shape (C,), optional
            All labels there will be; needed in the first call.

        Returns
        -------
        SGDHeadClassifier
            Itself.

        Raises
        ------
        SpecError
            When a parameter has a value that cannot work.
        TrainingError
            When classes are missing or unknown, or training diverges.
        """
        first = not hasattr(self, "classes_")
        spec = self._spec()
        X, y = self._checked(X, y, reset=first)
        if first:
            if classes is None:
                raise TrainingError("the first partial_fit needs all classes")
            self.classes_, _ = _classes(classes)
        elif classes is not None and not np.array_equal(
            np.unique(classes), self.classes_
        ):
            raise TrainingError("classes are others than those of the first call")
        sgd = self._trainer(spec, X.shape[1])
        sgd.run_epoch(np.asarray(X, np.float32), self._labels(y), spec)
        self.head_, self.n_iter_ = sgd.head, sgd.epoch
        return self

    def decision_function(self, X: Any) -> Array:  # noqa: ANN401 - any array-like
        """Return the scores of the classes.

        Parameters
        ----------
        X : array-like, shape (n, D)
            Features.

        Returns
        -------
        ndarray, shape (n, C), or (n,) for two classes
            Logits; for two classes, that of the second minus that of the first.
        """
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict_proba(self, X: Any) -> Array:  # noqa: ANN401 - any array-like
        """Return the probabilities of the classes.

        Parameters
        ----------
        X : array-like, shape (n, D)
            Features.

        Returns
        -------
        ndarray, shape (n, C)
            Softmax of the scores, in the order of ``classes_``.
        """
        return softmax(self._scores(X))

    def predict(self, X: Any) -> Array:  # noqa: ANN401 - any array-like
        """Return the most likely labels.

        Parameters
        ----------
        X : array-like, shape (n, D)
            Features.

        Returns
        -------
        ndarray, shape (n,)
            Out of ``classes_``.
        """
        best = self._scores(X).argmax(axis=1)
        labels: Array = self.classes_[best]
        return labels

    @property
    def coef_(self) -> Array:
        """The head's weight (C, D), one row a class, also where there are two."""
        return self.head_.weight

    @property
    def intercept_(self) -> Array:
        """The head's bias (C,)."""
        return self.head_.bias

    def _spec(self) -> SgdSpec:
        fields = self.get_params()
        state = fields.pop("random_state")
        if not isinstance(state, int | np.integer):
            state = check_random_state(state).randint(2**31 - 1)
        return SgdSpec(**fields, seed=state)

    def _checked(self, X: Any, y: Any, *, reset: bool) -> tuple[Array, Array]:  # noqa: ANN401
        dtypes = [np.float32, np.float64]
        X, y = validate_data(self, X, y, reset=reset, dtype=dtypes)
        check_classification_targets(y)
        return X, y

    def _trainer(self, spec: SgdSpec, embed_dim: int) -> OnlineSgd:
        """Return what partial_fit trains with: new, or as the last call left it."""
        online: OnlineSgd | None = getattr(self, "_online", None)
        if online is None:
            fitted = hasattr(self, "head_")
            C, seed = len(self.classes_), spec.seed
            head = self.head_ if fitted else initial_head(C, embed_dim, seed=seed)
            online = OnlineSgd(head, seed=seed, epoch=self.n_iter_ if fitted else 0)
            self._online = online
        return online

    def _labels(self, y: Array) -> Labels:
        labels = np.searchsorted(self.classes_, y).clip(max=len(self.classes_) - 1)
        unknown = y != self.classes_[labels]
        if unknown.any():
            raise TrainingError(f"label {str(y[unknown][0])!r} is none of the classes")
        return labels.astype(np.int32)

    def _scores(self, X: Any) -> Array:  # noqa: ANN401 - any array-like
        check_is_fitted(self, "head_")
        # In the precision of X: float64 gives each row the same bits in any company.
        dtypes = [np.float64, np.float32]
        X = validate_data(self, X, reset=False, dtype=dtypes)
        head: LinearHead = self.head_
        X = unit_rows(X) if head.normalize else X
        scores: Array = X @ head.weight.T.astype(X.dtype) + head.bias
        return scores


def _classes(y: Any) -> tuple[Array, Array]:  # noqa: ANN401 - any array-like
    classes, labels = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise TrainingError(
            f"there is one class only, {str(classes[0])!r}; a classifier needs two"
        )
    return classes, labels
