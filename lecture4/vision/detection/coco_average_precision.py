"""Average precision and recall of COCO: over IoU 0.5 to 0.95 and object sizes, equal to pycocotools'.

Matching is compiled: every pair of an image and a class is one row of padded integer arrays, so that the result
is exact on any device. Curves are float64 on the host.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from lecture4.ops.varying import vary_like
from lecture4.vision.detection import average_precision
from lecture4.vision.detection.average_precision import Rows, iou

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
SIZES = {
    'all': (0.0, 1e10),
    'small': (0.0, 32.0**2),
    'medium': (32.0**2, 96.0**2),
    'large': (96.0**2, 1e10),
}  # areas in pixels, both bounds included
MAX_DETECTIONS = (1, 10, 100)  # largest number of detections of an image and class
CHUNK = 256  # number of pairs of an image and a class in one call


class CocoResult(NamedTuple):
    """Precision and recall; -1 where a class has no object of a size.

    Attributes:
      precision: Precision by IoU threshold (10), recall (101), class and size (all, small, medium, large), with at
        most 100 detections.
      recall: Recall by IoU threshold, class, size and largest number of detections (1, 10, 100).
    """

    precision: Float[np.ndarray, 't r k a']
    recall: Float[np.ndarray, 't k a d']


def coco(detections: Rows, truth: Rows, num_classes: int) -> CocoResult:
    """COCO's evaluation of boxes.

    The 100 detections of highest score of each image and class count. In order of score, each is matched to the
    unmatched object with the largest IoU that reaches the threshold; objects of another size and crowd regions are
    matched last (crowd regions repeatedly, with intersection over the area of the detection as IoU), and then the
    detection is ignored; so is an unmatched detection of another size.

    Args:
      detections: 'image', 'boxes', 'scores', 'labels' (1 to num_classes), flat or padded.
      truth: 'image', 'boxes', 'labels' and optionally 'crowd' and 'areas' (those of the boxes unless given;
        COCO's are areas of outlines), flat or padded. 'difficult' is not used.
      num_classes: K.

    Raises:
      ValueError: As in `average_precision.voc`.

    References:
      Lin et al. 2014; pycocotools' COCOeval.
    """
    detections, truth = average_precision.check(detections, truth, num_classes)
    pairs = _Pairs(detections, truth, num_classes)
    matched, ignored = _match_all(pairs)
    return _accumulate(pairs, matched, ignored, num_classes)


def summary(result: CocoResult) -> dict[str, float]:
    """COCO's twelve numbers: AP, AP at 0.5 and 0.75, AP by size, AR by number of detections and by size.

    NaN where no class has an object of the size.
    """
    at = {0.5: 0, 0.75: 5}
    sizes = list(SIZES)
    numbers = {'AP': result.precision[..., 0]}
    numbers |= {f'AP{round(100 * t)}': result.precision[i, ..., 0] for t, i in at.items()}
    numbers |= {f'AP_{name}': result.precision[..., sizes.index(name)] for name in sizes[1:]}
    numbers |= {f'AR_{d}': result.recall[..., 0, i] for i, d in enumerate(MAX_DETECTIONS)}
    numbers |= {f'AR_{name}': result.recall[..., sizes.index(name), -1] for name in sizes[1:]}
    return {name: _mean(values) for name, values in numbers.items()}


def _mean(values):
    values = values[values > -1]
    return float(values.mean()) if values.size else float('nan')


class _Pairs:
    """Detections and objects sorted by image and class, with at most 100 detections for each image and class."""

    def __init__(self, detections, truth, num_classes):
        def key(rows):
            return rows['image'].astype(np.int64) * (num_classes + 1) + rows['labels']

        order = np.lexsort((-detections['scores'], key(detections)))  # stable
        self.keys, starts, counts = np.unique(
            key(detections)[order], return_index=True, return_counts=True
        )
        rank = np.arange(len(order)) - np.repeat(starts, counts)
        kept = rank < MAX_DETECTIONS[-1]
        order, self.rank = order[kept], rank[kept]
        self.key = key(detections)[order]
        self.label, self.score = detections['labels'][order], detections['scores'][order]
        self.boxes = detections['boxes'][order].astype(float)
        self.area = np.prod(self.boxes[:, 2:] - self.boxes[:, :2], -1)
        order = np.argsort(key(truth), kind='stable')
        self.object_key, self.object_label = key(truth)[order], truth['labels'][order]
        self.object_boxes = truth['boxes'][order].astype(float)
        self.crowd = truth['crowd'][order]
        box_area = np.prod(self.object_boxes[:, 2:] - self.object_boxes[:, :2], -1)
        self.object_area = truth['areas'][order].astype(float) if 'areas' in truth else box_area

    def outside(self, area):
        """Bool [4, m]: whether outside each range of sizes."""
        low, high = np.array(list(SIZES.values())).T[..., None]
        return (area < low) | (area > high)


def _match_all(pairs):
    """Two arrays bool [t, a, m] of the detections: matched to an object; matched to an ignored object."""
    shape = (len(IOU_THRESHOLDS), len(SIZES), len(pairs.key))
    matched, ignored = np.zeros(shape, bool), np.zeros(shape, bool)
    keys, starts, counts = np.unique(pairs.key, return_index=True, return_counts=True)
    first = np.searchsorted(pairs.object_key, keys, 'left')
    num_objects = np.searchsorted(pairs.object_key, keys, 'right') - first
    object_ignored = pairs.crowd | pairs.outside(pairs.object_area)
    for rows, d, g in _chunks(counts, num_objects):
        detections = starts[rows, None] + np.arange(d)
        objects = first[rows, None] + np.arange(g)
        detection_valid, object_valid = (
            np.arange(d) < counts[rows, None],
            np.arange(g) < num_objects[rows, None],
        )
        detections, objects = (
            np.where(detection_valid, detections, 0),
            np.where(object_valid, objects, 0),
        )
        crowd = pairs.crowd[objects]
        overlap = _coco_iou(
            pairs.boxes[detections][:, :, None],
            pairs.object_boxes[objects][:, None],
            crowd[:, None],
        )
        overlap = np.where(detection_valid[..., None] & object_valid[:, None], overlap, -1.0)
        # Integer ranks in place of overlaps are exact; among equal overlaps the later object ranks higher.
        ranks = overlap.argsort(-1, kind='stable').argsort(-1).astype(np.int32)
        thresholds = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)[:, None, None]
        reached = overlap[:, None] >= thresholds
        padding = CHUNK - len(rows)
        arrays = (ranks, reached, object_ignored[:, objects].swapaxes(0, 1), crowd)
        arrays = [np.pad(a, [(0, padding)] + [(0, 0)] * (a.ndim - 1)) for a in arrays]
        results = [np.asarray(r)[: len(rows)] for r in _match_pairs(*arrays)]
        for result, total in zip(results, (matched, ignored), strict=True):
            total[:, :, detections[detection_valid]] = np.moveaxis(result, 0, 2)[
                :, :, detection_valid
            ]
    ignored |= ~matched & pairs.outside(pairs.area)
    return matched, ignored


def _chunks(counts, num_objects):
    """Chunks (pairs, detections, objects) of similar size; pairs without objects need no matching."""
    both = np.flatnonzero(num_objects > 0)
    if not both.size:
        return
    d = _power(counts[both].max(), 4)
    widths = np.array([_power(n, 4) for n in num_objects[both]])
    for g in np.unique(widths):
        rows = both[widths == g]
        for start in range(0, len(rows), CHUNK):
            yield rows[start : start + CHUNK], d, int(g)


def _power(n, base):
    """The smallest power of the base that is at least n."""
    power = base
    while power < n:
        power *= base
    return power


def _coco_iou(boxes, objects, crowd):
    """IoU; for a crowd region the intersection over the detection's area."""
    sides = np.minimum(boxes[..., 2:], objects[..., 2:]) - np.maximum(
        boxes[..., :2], objects[..., :2]
    )
    intersection = np.prod(np.maximum(sides, 0), -1)
    area = np.prod(boxes[..., 2:] - boxes[..., :2], -1)
    area = np.broadcast_to(area, intersection.shape)
    over_area = np.divide(intersection, area, out=np.zeros(intersection.shape), where=area > 0)
    return np.where(crowd, over_area, iou(boxes, objects))


@jax.jit
def _match_pairs(
    ranks: Int[Array, 'p d g'],
    reached: Bool[Array, 'p t d g'],
    ignored: Bool[Array, 'p a g'],
    crowd: Bool[Array, 'p g'],
) -> tuple[Bool[Array, 'p t a d'], Bool[Array, 'p t a d']]:
    """Whether each detection is matched, and to an ignored object, for every threshold and size."""

    def one(ranks, reached, ignored, crowd):
        """Match one pair, threshold and size."""

        def step(taken, detection):
            rank, reached = detection
            candidate = reached & (~taken | crowd)
            better = candidate & ~ignored
            candidate = jnp.where(better.any(), better, candidate)
            best = jnp.argmax(jnp.where(candidate, rank, -1))
            is_match = candidate.any()
            taken = taken | (is_match & (jnp.arange(len(taken)) == best))
            return taken, (is_match, is_match & ignored[best])

        detections = ranks, reached
        taken = vary_like(jnp.zeros(crowd.shape, bool), (detections, crowd))
        return lax.scan(step, taken, detections)[1]

    over_sizes = jax.vmap(one, (None, None, 0, None))
    over_thresholds = jax.vmap(over_sizes, (None, 0, None, None))
    return jax.vmap(over_thresholds)(ranks, reached, ignored, crowd)


def _accumulate(pairs, matched, ignored, num_classes):
    t, a = len(IOU_THRESHOLDS), len(SIZES)
    precision = np.full((t, len(RECALLS), num_classes, a), -1.0)
    recall = np.full((t, num_classes, a, len(MAX_DETECTIONS)), -1.0)
    object_ignored = pairs.crowd | pairs.outside(pairs.object_area)
    for k in range(num_classes):
        of_class = np.flatnonzero(pairs.label == k + 1)
        order = of_class[np.argsort(-pairs.score[of_class], kind='stable')]
        num_objects = (~object_ignored[:, pairs.object_label == k + 1]).sum(1)
        for i, most in enumerate(MAX_DETECTIONS):
            rows = order[pairs.rank[order] < most]
            correct = np.cumsum(matched[..., rows] & ~ignored[..., rows], -1, dtype=float)
            false = np.cumsum(~matched[..., rows] & ~ignored[..., rows], -1, dtype=float)
            for j in np.flatnonzero(num_objects):
                reached = correct[:, j] / num_objects[j]
                recall[:, k, j, i] = reached[:, -1] if len(rows) else 0.0
                if most == MAX_DETECTIONS[-1]:
                    own_precision = correct[:, j] / (correct[:, j] + false[:, j] + np.spacing(1))
                    precision[:, :, k, j] = _at_recalls(reached, own_precision)
    return CocoResult(precision, recall)


def _at_recalls(recall, precision):
    """Monotone precision [t, 101] at the smallest recall that is at least each of RECALLS; 0 beyond."""
    monotone = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    monotone = np.pad(monotone, ((0, 0), (0, 1)))
    index = [np.searchsorted(row, RECALLS, side='left') for row in recall]
    return np.take_along_axis(monotone, np.array(index), 1)
