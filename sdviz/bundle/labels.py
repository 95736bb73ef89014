"""The cluster y~ of each source image of outliers."""

import numpy as np

from ..data import ImageSet
from .core import Bundle


def learned_labels(bundle: Bundle, images: ImageSet) -> bool:
    """Whether the bundle was trained on the labels of this set: same name, same classes, ground truth."""
    m = bundle.manifest
    return m.labels_from == "ground truth" and m.dataset == images.name and m.class_names == images.class_names


def source_labels(bundle: Bundle, images: ImageSet) -> tuple[np.ndarray, np.ndarray]:
    """Finds y~: an image's own label if the bundle learned such labels, else the clusterer's.

    Returns:
        y~, int64 (N,), 0..C-1; and the clusterer's confidence, float32 (N,), NaN for an image's own label.

    Raises:
        ValueError: The bundle has no clusterer, and needs one.
    """
    learned = learned_labels(bundle, images)
    labels = images.labels.copy() if learned else np.full(len(images), -1, np.int64)
    confidence = np.full(len(images), np.nan, np.float32)
    unknown = labels < 0
    if unknown.any():
        labels[unknown], confidence[unknown] = bundle.pseudo_label(images.images[unknown])
    return labels, confidence
