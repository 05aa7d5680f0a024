"""Why detections are false: localization, confusion with another class, background, duplicates."""

import numpy as np
from jaxtyping import Int

from lecture4.vision.detection import average_precision
from lecture4.vision.detection.average_precision import Rows

TYPES = ('correct', 'duplicate', 'localization', 'confusion', 'background')
IGNORED = -1  # matched to a difficult object
LOW = 0.1  # smallest IoU at which a detection touches an object


def classify(
    detections: Rows, truth: Rows, num_classes: int, *, iou_threshold: float = 0.5
) -> Int[np.ndarray, ' m']:
    """The type of each detection, as index into TYPES, or IGNORED.

    correct: matched as in `average_precision.voc`. duplicate: the IoU with an object of its class exceeds the
    threshold, but the object is matched to another detection of higher score. localization: the largest IoU in its
    class lies between 0.1 and the threshold. confusion: none of these, but an IoU of at least 0.1 with an object of
    another class. background: all others.

    Args:
      detections: As in `average_precision.voc`.
      truth: As in `average_precision.voc`.
      num_classes: K.
      iou_threshold: IoU that a correct detection exceeds.

    Returns:
      Types in the order of the (flat) detections.

    Raises:
      ValueError: As in `average_precision.voc`.

    References:
      Hoiem, Chodpathumwan & Dai, ECCV 2012, whose similar and dissimilar classes are one here, and whose
      localization errors include duplicates.
    """
    detections, truth = average_precision.check(detections, truth, num_classes)
    any_overlap, _ = average_precision.best_overlap(
        detections['image'], detections['boxes'], truth['image'], truth['boxes']
    )
    types = np.full(len(detections['boxes']), TYPES.index('background'))
    types[any_overlap >= LOW] = TYPES.index('confusion')
    for label in range(1, num_classes + 1):
        matches = average_precision.match(detections, truth, label, iou_threshold)
        type_of_match = types[matches.rows]
        type_of_match[matches.overlap >= LOW] = TYPES.index('localization')
        type_of_match[matches.overlap > iou_threshold] = TYPES.index('duplicate')
        type_of_match[matches.is_ignored] = IGNORED
        type_of_match[matches.is_correct] = TYPES.index('correct')
        types[matches.rows] = type_of_match
    return types


def count_types(
    detections: Rows, truth: Rows, num_classes: int, *, iou_threshold: float = 0.5
) -> Int[np.ndarray, 'k t']:
    """Numbers of detections of each class (rows) by type (columns, as in TYPES) among the N of highest score.

    N is the number of the class's objects that are not difficult, so that a perfect detector has only correct ones;
    ignored detections are skipped.

    Args:
      detections: As in `average_precision.voc`.
      truth: As in `average_precision.voc`.
      num_classes: K.
      iou_threshold: IoU that a correct detection exceeds.

    Raises:
      ValueError: As in `average_precision.voc`.
    """
    detections, truth = average_precision.check(detections, truth, num_classes)
    types = classify(detections, truth, num_classes, iou_threshold=iou_threshold)
    counts = np.zeros((num_classes, len(TYPES)), int)
    for label in range(1, num_classes + 1):
        rows = np.flatnonzero((detections['labels'] == label) & (types != IGNORED))
        rows = rows[np.argsort(-detections['scores'][rows], kind='stable')]
        n = int((~truth['difficult'][truth['labels'] == label]).sum())
        counts[label - 1] = np.bincount(types[rows[:n]], minlength=len(TYPES))
    return counts
