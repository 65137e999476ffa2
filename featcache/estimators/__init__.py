"""scikit-learn estimators: images to features, and features to classes.

Examples
--------
>>> from sklearn.pipeline import make_pipeline  # doctest: +SKIP
>>> model = make_pipeline(
...     featcache.estimators.ImageFeatures("resnet50", cache="cache"),
...     featcache.estimators.SGDHeadClassifier(lr=0.01),
... )  # doctest: +SKIP
>>> cross_val_score(model, paths, labels)  # doctest: +SKIP
"""

from featcache.estimators.heads import SGDHeadClassifier
from featcache.estimators.images import ImageFeatures

__all__ = ["ImageFeatures", "SGDHeadClassifier"]
