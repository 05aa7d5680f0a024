"""Average precision of PASCAL VOC: 11-point and area, as its official code computes them.

Detections and ground truth are flat, one row per box of a whole data set, or padded batches, which `flatten`
turns into rows. Boxes are edges [x1, y1, x2, y2] with width x2 - x1. VOC's files count pixels from 1 and
inclusively: x1 - 1, y1 - 1, x2, y2 are edges, and IoU then is the `+ 1` IoU of the official code. Computed in
float64 on the host; a hundred thousand detections take about a second.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

Rows = Mapping[str, Any]  # flat or padded arrays, see `flatten`
BLOCK = 2**22  # number of overlaps in memory at a time


class ClassResult(NamedTuple):
    """Precision and recall of one class over its detections in order of score, and average precision.

    Attributes:
      ap_11_point: Mean of the largest precision at recall >= 0, 0.1, ..., 1; VOC 2007's measure.
      ap_area: Area under the monotone precision; the measure of VOC 2010 and later.
      recall: [m], recall of objects that are not difficult, after each detection.
      precision: [m], precision after each detection.
      num_objects: Number of objects that are not difficult. Without any, both APs are NaN.
      num_detections: Number of detections m.
    """

    ap_11_point: float
    ap_area: float
    recall: Float[np.ndarray, ' m']
    precision: Float[np.ndarray, ' m']
    num_objects: int
    num_detections: int


class Matches(NamedTuple):
    """The matching of the detections of one class, in order of descending score.

    Attributes:
      rows: Rows of the flat detections.
      is_correct: Whether it is the first to be matched to an object that is not difficult.
      is_ignored: Whether it is matched to a difficult object: neither correct nor false.
      overlap: Largest IoU with an object of the class in its image, 0 without one.
      object_row: Row of that object in the flat ground truth, -1 without one.
    """

    rows: Int[np.ndarray, ' m']
    is_correct: Bool[np.ndarray, ' m']
    is_ignored: Bool[np.ndarray, ' m']
    overlap: Float[np.ndarray, ' m']
    object_row: Int[np.ndarray, ' m']


def flatten(padded: Rows) -> dict[str, np.ndarray]:
    """Padded batches as flat rows; rows that are already flat are returned as arrays.

    Args:
      padded: 'boxes' [n, g, 4], 'labels' [n, g], 'valid' [n, g], and any of 'scores', 'difficult', 'crowd',
        'areas' [n, g]; or, without 'valid', rows: 'image' [m], 'boxes' [m, 4], 'labels' [m], ...

    Returns:
      'image' (the index in the first axis), 'boxes' and the other arrays of the valid rows.
    """
    if 'valid' not in padded:
        return {name: np.asarray(values) for name, values in padded.items()}
    valid = np.asarray(padded['valid'])
    names = ('boxes', 'labels', 'scores', 'difficult', 'crowd', 'areas')
    rows = {name: np.asarray(padded[name])[valid] for name in names if name in padded}
    return {'image': np.nonzero(valid)[0].astype(np.int32), **rows}


def voc(
    detections: Rows, truth: Rows, num_classes: int, *, iou_threshold: float = 0.5
) -> list[ClassResult]:
    """Precision, recall and average precision of each class.

    A detection is compared with the object of its class and image with the largest IoU (the first of equals),
    which must exceed the threshold. If that object is difficult, the detection is ignored; if another detection of
    higher score is already matched to it, the detection is false, even if a second object overlaps enough. Detections
    of equal score keep their order; the official code does not, which moves APs by about 1e-6.

    Args:
      detections: 'image', 'boxes', 'scores', 'labels' (1 to num_classes), flat or padded.
      truth: 'image', 'boxes', 'labels' and optionally 'difficult', flat or padded.
      num_classes: K, without the background.
      iou_threshold: IoU threshold in (0, 1).

    Returns:
      Results of the classes 1 to K.

    Raises:
      ValueError: A box or score is NaN, or a label lies outside 1..K; the message has their number and the first.

    References:
      Everingham et al. 2010; voc_eval.py of Fast R-CNN, whose list np.arange(0, 1.1, .1) of recalls contains
      .30000000000000004, so that a recall of exactly .3 does not reach it.
    """
    detections, truth = check(detections, truth, num_classes)
    return [
        curve(match(detections, truth, label, iou_threshold), truth, label)
        for label in range(1, num_classes + 1)
    ]


def mean_ap(results: list[ClassResult], kind: str = 'ap_area') -> float:
    """Mean over the classes that have objects; NaN if none has.

    Args:
      results: Result of `voc`.
      kind: Measure, 'ap_area' or 'ap_11_point'.
    """
    values = np.array([getattr(result, kind) for result in results])
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else float('nan')


def match(detections: Rows, truth: Rows, label: int, iou_threshold: float) -> Matches:
    """Match the detections of one class to its objects by the rules of `voc`.

    Args:
      detections: Flat detections, as `check` returns them.
      truth: Flat ground truth, as `check` returns it.
      label: The class.
      iou_threshold: IoU that a match exceeds.
    """
    rows = np.flatnonzero(detections['labels'] == label)
    rows = rows[np.argsort(-detections['scores'][rows], kind='stable')]
    objects = np.flatnonzero(truth['labels'] == label)
    image, boxes = detections['image'][rows], detections['boxes'][rows]
    overlap, nearest = best_overlap(image, boxes, truth['image'][objects], truth['boxes'][objects])
    object_row = np.where(nearest >= 0, objects[nearest] if len(objects) else -1, -1)
    is_match = overlap > iou_threshold
    is_ignored = np.zeros(len(rows), bool)
    is_ignored[is_match] = truth['difficult'][object_row[is_match]]
    is_correct = np.zeros(len(rows), bool)
    candidates = np.flatnonzero(is_match & ~is_ignored)
    _, first = np.unique(object_row[candidates], return_index=True)
    is_correct[candidates[first]] = True
    return Matches(rows, is_correct, is_ignored, overlap, object_row)


def outcomes(
    detections: Rows,
    truth: Rows,
    num_classes: int,
    *,
    iou_threshold: float = 0.5,
    min_score: float = -np.inf,
) -> tuple[Bool[np.ndarray, ' m'], Bool[np.ndarray, ' k']]:
    """Correct detections and missed objects, for figures.

    Args:
      detections: As in `voc`.
      truth: As in `voc`.
      num_classes: Number of classes K.
      iou_threshold: IoU that a match exceeds.
      min_score: Detections of lower score are neither correct nor matched.

    Returns:
      (is_correct of each detection, is_missed of each object, i.e. not difficult and not matched), in the order of
      the flat rows.

    Raises:
      ValueError: As in `voc`.
    """
    detections, truth = check(detections, truth, num_classes)
    is_correct, is_missed = np.zeros(len(detections['boxes']), bool), ~truth['difficult']
    kept = np.flatnonzero(detections['scores'] >= min_score)
    confident = {name: values[kept] for name, values in detections.items()}
    for label in range(1, num_classes + 1):
        matches = match(confident, truth, label, iou_threshold)
        is_correct[kept[matches.rows]] = matches.is_correct
        is_missed[matches.object_row[matches.is_correct]] = False
    return is_correct, is_missed


def curve(matches: Matches, truth: Rows, label: int) -> ClassResult:
    """Precision and recall over the detections of one class, and both average precisions."""
    num_objects = int((~truth['difficult'][truth['labels'] == label]).sum())
    correct = np.cumsum(matches.is_correct)
    false = np.cumsum(~matches.is_correct & ~matches.is_ignored)
    precision = correct / np.maximum(correct + false, np.finfo(float).eps)
    if not num_objects:
        nan = np.full(len(correct), np.nan)
        return ClassResult(float('nan'), float('nan'), nan, precision, 0, len(correct))
    recall = correct / num_objects
    return ClassResult(
        ap_11_point(recall, precision),
        ap_area(recall, precision),
        recall,
        precision,
        num_objects,
        len(correct),
    )


def ap_11_point(recall: Float[np.ndarray, ' m'], precision: Float[np.ndarray, ' m']) -> float:
    """Mean over the eleven recalls 0, 0.1, ..., 1 of the largest precision at that recall or a higher one.

    The recalls are np.arange(0, 1.1, .1), whose fourth is .30000000000000004, as in VOC's code.
    """
    total = 0.0
    for threshold in np.arange(0.0, 1.1, 0.1):
        reached = precision[recall >= threshold]
        total += reached.max() / 11 if reached.size else 0.0
    return float(total)


def ap_area(recall: Float[np.ndarray, ' m'], precision: Float[np.ndarray, ' m']) -> float:
    """Area under the precision-recall curve after its precision is made monotone from the right."""
    r = np.concatenate([[0.0], recall, [1.0]])
    p = np.maximum.accumulate(np.concatenate([[0.0], precision, [0.0]])[::-1])[::-1]
    steps = np.flatnonzero(r[1:] != r[:-1])
    return float(np.sum((r[steps + 1] - r[steps]) * p[steps + 1]))


def best_overlap(
    image: Int[np.ndarray, ' m'],
    boxes: Shaped[np.ndarray, 'm 4'],
    other_image: Int[np.ndarray, ' k'],
    other_boxes: Shaped[np.ndarray, 'k 4'],
) -> tuple[Float[np.ndarray, ' m'], Int[np.ndarray, ' m']]:
    """For each box the largest IoU with the other boxes of its image, and the index of that box (the first of equals).

    Args:
      image: Image of each box.
      boxes: Edges of the boxes.
      other_image: Image of each other box.
      other_boxes: Edges of the other boxes.

    Returns:
      (IoU, index into the other boxes); (0, -1) if the image has no other box.
    """
    order = np.argsort(other_image, kind='stable')
    starts = np.searchsorted(other_image[order], image, 'left')
    counts = np.searchsorted(other_image[order], image, 'right') - starts
    overlap, nearest = np.zeros(len(boxes)), np.full(len(boxes), -1)
    by_count = np.argsort(counts, kind='stable')
    by_count = by_count[counts[by_count] > 0]
    start = 0
    while start < len(by_count):  # blocks of boxes with about equal numbers of other boxes
        widest = counts[by_count[min(start + 1024, len(by_count)) - 1]]
        block = by_count[start : start + max(1, min(1024, BLOCK // widest))]
        start += len(block)
        columns = np.arange(counts[block].max())
        inside = columns < counts[block, None]
        index = order[np.where(inside, starts[block, None] + columns, 0)]
        values = np.where(inside, iou(boxes[block, None], other_boxes[index]), -1.0)
        best = values.argmax(1)
        overlap[block] = values[np.arange(len(block)), best]
        nearest[block] = index[np.arange(len(block)), best]
    return overlap, nearest


def iou(a: Shaped[np.ndarray, '*#n 4'], b: Shaped[np.ndarray, '*#n 4']) -> Float[np.ndarray, '*n']:
    """Intersection over union in float64 of boxes that broadcast; 0 where the union is empty."""
    a, b = a.astype(float), b.astype(float)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    intersection = np.prod(np.maximum(sides, 0), -1)
    areas = [np.prod(np.maximum(x[..., 2:] - x[..., :2], 0), -1) for x in (a, b)]
    union = areas[0] + areas[1] - intersection
    return np.divide(intersection, union, out=np.zeros(union.shape), where=union > 0)


def check(
    detections: Rows, truth: Rows, num_classes: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Detections and ground truth as flat rows, after a check; 'difficult' and 'crowd' are False if they are missing.

    Raises:
      ValueError: As in `voc`.
    """
    detections, truth = flatten(detections), flatten(truth)
    for name in ('difficult', 'crowd'):
        truth[name] = truth.get(name, np.zeros(len(truth['boxes']), bool)).astype(bool)
    for name, rows in (('detections', detections), ('truth', truth)):
        numbers = np.column_stack([rows['boxes'], rows.get('scores', rows['labels'])])
        bad = np.flatnonzero(np.isnan(numbers).any(1))
        if bad.size:
            raise ValueError(
                f'{name}: {bad.size} of {len(numbers)} rows have NaN in a box or score, the first is row '
                f'{bad[0]} of image {rows["image"][bad[0]]}; remove them'
            )
        labels = rows['labels']
        outside = np.flatnonzero((labels < 1) | (labels > num_classes))
        if outside.size:
            raise ValueError(
                f'{name}: expected labels from 1 to {num_classes}, got {labels[outside[0]]} in row '
                f'{outside[0]}; 0 is the background, which is neither detected nor annotated'
            )
    return detections, truth
