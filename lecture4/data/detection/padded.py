"""Whole sets of images with boxes as padded arrays of one shape, if they fit in memory."""

import functools
import operator
from collections.abc import Sequence

import numpy as np

from lecture4.data.detection.buckets import Bucket, ScaleRule, buckets_for, make_batch
from lecture4.data.detection.dataset import DetectionDataset


def common_bucket(datasets: Sequence[DetectionDataset], rule: ScaleRule) -> Bucket:
    """(height, width) that every image of the sets fits after resizing by the rule."""
    used = functools.reduce(operator.add, (buckets_for(d.sizes, rule) for d in datasets))
    height, width = np.max(used, axis=0).tolist()
    return height, width


def padded_arrays(
    dataset: DetectionDataset, rule: ScaleRule, bucket: Bucket, *, max_boxes: int = 64
) -> dict[str, np.ndarray]:
    """All images and boxes of a set, including difficult objects, see `buckets.make_batch`.

    Args:
      dataset: The images.
      rule: Resizing rule.
      bucket: (height, width) of the arrays.
      max_boxes: Number of boxes G per image.

    Returns:
      {'images': uint8 [n, H, W, 3], 'sizes', 'original_sizes': int32 [n, 2], 'rows': int32 [n],
      'boxes': float32 [n, G, 4], 'labels': int32 [n, G], 'valid', 'difficult': bool [n, G]}.

    Raises:
      DataError: An image does not fit the bucket, or cannot be read.
    """
    rows = np.arange(dataset.num_images)
    return make_batch(dataset, rows, bucket, rule=rule, max_boxes=max_boxes, for_training=False)
