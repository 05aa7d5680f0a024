"""Coverage of objects by region proposals: recall against IoU and number of proposals, MABO."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Shaped

from lecture4.vision.detection.average_precision import Rows, flatten, iou

BLOCK = 2**22


def best_overlaps(
    proposals: Sequence[Shaped[np.ndarray, '_ 4']], truth: Rows, numbers: Sequence[int]
) -> Float[np.ndarray, 'c m']:
    """The largest IoU of each object with the first proposals of its image.

    Args:
      proposals: Boxes of each image in order of priority.
      truth: Ground truth with 'image' and 'boxes', flat or padded.
      numbers: Numbers of proposals per image, the first ones, in ascending order.

    Returns:
      A row for each number, a column for each object in the order of the flat truth; 0 without a proposal.
    """
    rows = flatten(truth)
    result = np.zeros((len(numbers), len(rows['boxes'])))
    for image in np.unique(rows['image']):
        image_rows = np.flatnonzero(rows['image'] == image)
        boxes = np.asarray(proposals[image])[: max(numbers)]
        for part in np.array_split(image_rows, max(1, len(image_rows) * len(boxes) // BLOCK)):
            overlaps = iou(rows['boxes'][part, None], boxes[None])
            for i, number in enumerate(numbers):
                if boxes.size and number:
                    result[i, part] = overlaps[:, :number].max(1)
    return result


def nearest(
    boxes: Shaped[np.ndarray, 'p 4'], objects: Shaped[np.ndarray, 'g 4']
) -> Shaped[np.ndarray, '_ 4']:
    """The box with the largest IoU with each object of one image; empty if there is no box.

    Args:
      boxes: Proposals.
      objects: The objects.
    """
    if not len(boxes) or not len(objects):
        return boxes[:0]
    return boxes[[iou(box[None], boxes).argmax() for box in objects]]


def recall(
    overlaps: Float[np.ndarray, 'c m'], thresholds: Float[np.ndarray, ' t'] | Sequence[float]
) -> Float[np.ndarray, 'c t']:
    """Fraction of the objects that a proposal overlaps with an IoU of at least each threshold.

    Args:
      overlaps: Result of `best_overlaps`, without the columns that should not count (difficult objects).
      thresholds: IoUs.
    """
    return (overlaps[:, None] >= np.asarray(thresholds)[:, None]).mean(-1)


def average_recall(overlaps: Float[np.ndarray, 'c m']) -> Float[np.ndarray, ' c']:
    """Twice the area under recall against IoU from 0.5 to 1 (Hosang et al. 2016)."""
    return 2 * np.maximum(overlaps - 0.5, 0).mean(1)


def mabo(
    overlaps: Float[np.ndarray, 'c m'], labels: Shaped[np.ndarray, ' m']
) -> Float[np.ndarray, ' c']:
    """Mean average best overlap: the best overlaps averaged within each class, then over classes.

    Args:
      overlaps: Result of `best_overlaps`.
      labels: Class of each object.

    References:
      Uijlings et al. 2013, equation 6.
    """
    return np.mean([overlaps[:, labels == c].mean(1) for c in np.unique(labels)], axis=0)


def measure(
    proposals: Sequence[Shaped[np.ndarray, '_ 4']], truth: Rows, numbers: Sequence[int]
) -> list[dict[str, float]]:
    """Metrics of proposals for a report, for each number of proposals per image.

    Args:
      proposals: Boxes of each image in order of priority.
      truth: Ground truth with 'image', 'boxes', 'labels', without the objects that should not count.
      numbers: Numbers of proposals per image, the first ones, in ascending order.

    Returns:
      A record for each number: 'at most', recall (IoU 0.5), recall_07, average_recall, mabo, num_proposals (mean
      per image).
    """
    overlaps = best_overlaps(proposals, truth, numbers)
    at = recall(overlaps, np.array([0.5, 0.7]))
    return [
        {
            'at most': number,
            'recall': float(at[i, 0]),
            'recall_07': float(at[i, 1]),
            'average_recall': float(average_recall(overlaps)[i]),
            'mabo': float(mabo(overlaps, flatten(truth)['labels'])[i]),
            'num_proposals': float(np.mean([min(len(each), number) for each in proposals])),
        }
        for i, number in enumerate(numbers)
    ]
