"""Figures of a classifier's errors for a report, with their captions."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Integer, Real, Shaped

from lecture4.data.images.on_disk import ImageFiles
from lecture4.ops import metrics
from lecture4.train.report import Figure


def error_figures(
    images: Shaped[np.ndarray, 'n h w c'] | ImageFiles,
    probs: Real[np.ndarray | Array, 'n classes'],
    labels: Integer[np.ndarray | Array, 'n'],
    class_names: Sequence[str],
) -> dict[str, Figure]:
    """'confusion', the confusion matrix, and 'mistakes', the images of highest loss.

    Args:
      images: Test images, uint8 or in [0, 1]; in memory or on disk.
      probs: Predicted probabilities.
      labels: True classes.
      class_names: Names of the classes.
    """
    from lecture4.figures import classification

    counts = metrics.confusion_matrix(labels, np.argmax(probs, axis=1), len(class_names))
    return {
        'confusion': Figure(
            classification.confusion_matrix(counts, class_names),
            'Test images by true and predicted class.',
        ),
        'mistakes': Figure(
            classification.top_losses(images, probs, labels, class_names),
            'Test images whose true class has the lowest predicted probability → predicted class.',
        ),
    }
