"""`ImageFeatures`: a frozen backbone as a scikit-learn transformer."""

import os
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags

from featcache.core.catalog import DEFAULT_BACKBONE, architecture
from featcache.core.errors import DataError
from featcache.core.heads import Floats
from featcache.core.specs import Exif, Precision
from featcache.stages.embedding import EmbedSpec, OnBad, embed_images


class ImageFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Images to features of a frozen, pretrained ResNet; it has nothing to fit.

    Features are those that `extract` computes of the same files: the weights' own
    validation view, ``eval()`` mode. With a ``cache``, no image goes through the
    network twice, in this process or a later one.

    Parameters
    ----------
    backbone : str
        A torchvision ResNet, such as ``resnet50``.
    weights : str or path
        ``imagenet``, an enum name such as ``IMAGENET1K_V2``, ``random:SEED``, or a
        ``.pth`` or ``.safetensors`` file.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    precision : {"float32", "bfloat16"}
        Of the network's arithmetic.
    exif : {"apply", "ignore"}
        Whether images are turned as their camera says.
    cache : str or path, optional
        A folder. Caches in it that `extract` made with the same settings are looked
        up by the sha256 of each image's bytes, and never changed; what is computed is
        added to files in its sub-folder ``by-digest``. Several processes may share
        it. Without it nothing is kept.
    batch_size : int
        Images in one forward pass; 0 for what suits the device.
    workers : int
        Threads that read, decode and compute; 0 for one per core.
    on_error : {"stop", "nan"}
        Whether images that cannot be used are an error, or rows of NaN and a warning.

    Notes
    -----
    scikit-learn's own checks of estimators give tables of numbers, which are no images:
    the tag ``two_d_array`` is off. The network last used stays in memory.

    Examples
    --------
    >>> features = ImageFeatures("resnet50", cache="cache")  # doctest: +SKIP
    >>> features.transform(["photos/ant.jpg", "photos/bee.jpg"]).shape  # doctest: +SKIP
    (2, 2048)
    """

    def __init__(  # noqa: PLR0913 - the settings of an extraction
        self,
        backbone: str = DEFAULT_BACKBONE,
        *,
        weights: str | os.PathLike[str] = EmbedSpec.weights,
        device: str = EmbedSpec.device,
        precision: Precision = EmbedSpec.precision,
        exif: Exif = EmbedSpec.exif,
        cache: str | os.PathLike[str] | None = EmbedSpec.cache,
        batch_size: int = EmbedSpec.batch_size,
        workers: int = EmbedSpec.workers,
        on_error: OnBad = EmbedSpec.on_error,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.device = device
        self.precision = precision
        self.exif = exif
        self.cache = cache
        self.batch_size = batch_size
        self.workers = workers
        self.on_error = on_error

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ANN401 - any list of images
        """Check the parameters and that X is a list of images; learn nothing.

        Parameters
        ----------
        X : list of images
            See `transform`; no file is read.
        y : object
            Ignored.

        Returns
        -------
        ImageFeatures
            Itself.

        Raises
        ------
        FeatcacheError
            When a parameter, or X, cannot work.
        """
        del y
        architecture(self.backbone)
        as_images(X)
        return self

    def transform(self, X: Any) -> Floats:  # noqa: ANN401 - any list of images
        """Return the features of images.

        Parameters
        ----------
        X : list of images
            n paths, binary files (``io.BytesIO`` of an image's bytes), PIL images, or
            uint8 arrays (h, w), (h, w, 3) or (h, w, 4); or one array (n, h, w) or
            (n, h, w, 3); or a column of paths.

        Returns
        -------
        ndarray of float32, shape (n, D)
            Or a frame, after ``set_output``.

        Warns
        -----
        UserWarning
            When rows are NaN, for ``on_error="nan"``.

        Raises
        ------
        BadImagesError
            When images cannot be used: all of them, with the reasons.
        DataError
            When X is no list of images.
        FeatcacheError
            When a parameter cannot work.
        """
        return embed_images(as_images(X), EmbedSpec(**self.get_params()))

    def get_feature_names_out(self, input_features: object = None) -> npt.NDArray[Any]:
        """Return the names of the features.

        Parameters
        ----------
        input_features : object
            Ignored: an image has no names of columns.

        Returns
        -------
        ndarray of str, shape (D,)
            ``resnet18_0``, ``resnet18_1`` and so on.
        """
        del input_features
        dim = architecture(self.backbone).embed_dim
        return np.array([f"{self.backbone}_{i}" for i in range(dim)], object)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True  # paths
        tags.input_tags.three_d_array = True  # grey images
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []  # float32 whatever comes in
        return tags


def as_images(X: Any) -> Sequence[object]:  # noqa: ANN401 - any list of images
    """Return images one by one.

    Parameters
    ----------
    X : list, array, Series or DataFrame of one column
        See `ImageFeatures.transform`.

    Returns
    -------
    sequence of path, binary file, PIL.Image.Image or ndarray
        n images; the arrays are views.

    Raises
    ------
    DataError
        When it is empty, one single image, or a table.
    """
    if isinstance(X, str | bytes | os.PathLike | Image.Image):
        raise DataError(f"{X!r} is one image; expected a list of images")
    images = X if isinstance(X, list | tuple) else _rows(np.asarray(X))
    if not len(images):
        raise DataError("there is no image: 0 sample(s) were given")
    return images


def _rows(X: npt.NDArray[Any]) -> Sequence[object]:
    if X.ndim == 2 and X.shape[1] == 1 and X.dtype.kind in "OSU":
        X = X[:, 0]  # a frame with one column of paths
    if X.dtype.kind in "OSU" and X.ndim == 1:
        paths: list[object] = X.tolist()
        return paths
    # A batch of grey images 3 or 4 pixels wide is less likely than one image.
    one_image = X.ndim == 3 and X.shape[-1] in (3, 4)
    if X.ndim not in (3, 4) or one_image:
        raise DataError(
            f"an array {X.shape} of {X.dtype} is no list of images; expected paths, "
            "PIL images, or uint8 pixels (n, h, w, 3) or (n, h, w)"
        )
    return list(X)
