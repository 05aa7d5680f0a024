"""R-CNN after fine-tuning, on whole sets of images: features, SVMs and box regression, then detection, all timed."""

import functools
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from lecture4.ops import boxes as box_ops
from lecture4.vision.detection import fast_rcnn, rcnn
from lecture4.vision.detection.fast_rcnn import Detections
from lecture4.vision.detection.rcnn import BoxRegression, SVMs

# An image [h, w, 3] and boxes [p, 4] -> (logits [p, 1 + k], features of the SVMs [p, d], of the regression [p, e]).
Features = Callable[[Any, Any], Any]
METHODS = ('softmax', 'SVM', 'SVM, box regression')
REGRESSED_IOU = 0.6  # smallest IoU of the proposals that the regression is trained on


class Trained(NamedTuple):
    """The parts of R-CNN after the network.

    Attributes:
      svms: See `rcnn.fit_svms`.
      regression: See `rcnn.fit_box_regression`.
      seconds: Time of each stage of the training.
      num_bytes: Size of the stored features of the training set.
    """

    svms: SVMs
    regression: BoxRegression
    seconds: dict[str, float]
    num_bytes: int


def fit(
    features: Features,
    images: Mapping[str, np.ndarray],
    num_classes: int,
    *,
    C: float = 1e-3,
    ridge: float = 1000.0,
    track: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> Trained:
    """SVMs and box regression on the features of the proposals and the objects of a training set.

    Args:
      features: Function for features, jitted; its compilation is not part of the times.
      images: Arrays 'images', 'boxes', 'labels', 'valid', 'difficult', 'proposals' and 'proposals_valid' of all images.
        Difficult objects are left out.
      num_classes: Number of classes without the background.
      C: Penalty parameter C of the SVMs.
      ridge: Ridge parameter of the regression.
      track: Function that shows progress over the images.
    """
    num_objects = max(int(images['valid'].sum(1).max()), 1)
    objects_of = images['boxes'][:, :num_objects]
    for boxes in (images['proposals'], objects_of):
        jax.block_until_ready(features(images['images'][0], boxes[0]))
    began, seconds = time.perf_counter(), {}
    columns: dict[str, list[np.ndarray]] = {
        name: [] for name in ('fc', 'overlaps', 'truth', 'truth_labels')
    }
    regressed: list[tuple[np.ndarray, ...]] = []
    for i in track(range(len(objects_of))):
        valid = (images['valid'][i] & ~images['difficult'][i])[:num_objects]
        objects, labels = objects_of[i], images['labels'][i, :num_objects]
        is_proposal = images['proposals_valid'][i]
        boxes = images['proposals'][i]
        _, fc, pool5 = map(np.asarray, features(images['images'][i], boxes))
        overlaps = np.asarray(box_ops.iou(boxes, objects)) * (valid & is_proposal[:, None])
        of_class = [(overlaps * (labels == k)).max(1) for k in range(1, num_classes + 1)]
        columns['fc'].append(fc[is_proposal])
        columns['overlaps'].append(np.stack(of_class, 1)[is_proposal])
        columns['truth'].append(np.asarray(features(images['images'][i], objects)[1])[valid])
        columns['truth_labels'].append(labels[valid])
        best, close = overlaps.argmax(1), overlaps.max(1) >= REGRESSED_IOU
        regressed.append((pool5[close], boxes[close], objects[best[close]], labels[best[close]]))
    began = _lap(seconds, 'features', began)
    truth = [np.concatenate(columns[name]) for name in ('truth', 'truth_labels')]
    svms = rcnn.fit_svms(columns['fc'], columns['overlaps'], *truth, C=C)
    began = _lap(seconds, 'SVMs', began)
    pool5, boxes, objects, labels = (
        np.concatenate([rows[j] for rows in regressed]) for j in range(4)
    )
    regression = rcnn.fit_box_regression(pool5, boxes, objects, labels, num_classes, ridge=ridge)
    _lap(seconds, 'box regression', began)
    return Trained(svms, regression, seconds, sum(rows.nbytes for rows in columns['fc']))


def predict_all(
    features: Features,
    trained: Trained,
    images: Mapping[str, np.ndarray],
    *,
    track: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, float], int]:
    """Detections of all images by each of METHODS, and the seconds per image of each stage of the last.

    Args:
      features: Function for features, jitted.
      trained: Result of `fit`.
      images: Arrays 'images', 'sizes', 'proposals' and 'proposals_valid'.
      track: Function that shows progress over the images.

    Returns:
      ({method: {'boxes' [n, d, 4], 'scores', 'labels', 'valid' [n, d]}}, seconds by stage, without compilation,
      bytes of the features of an image's proposals).
    """
    by_method: dict[str, list[Detections]] = {method: [] for method in METHODS}
    seconds = {'warping, network': 0.0, 'SVMs, boxes, suppression': 0.0}
    detect, n, num_bytes = functools.partial(rcnn.detect, trained.svms), len(images['images']), 0
    for i in track(range(n)):
        image = images['images'][i]
        boxes, *rest = (images[name][i] for name in ('proposals', 'proposals_valid', 'sizes'))
        if not i:  # compiles
            _, *first = features(image, boxes)
            jax.block_until_ready(detect(trained.regression, *first, boxes, *rest))
        began = time.perf_counter()
        logits, fc, pool5 = jax.block_until_ready(features(image, boxes))
        middle = time.perf_counter()
        result = jax.device_get(detect(trained.regression, fc, pool5, boxes, *rest))
        elapsed = middle - began, time.perf_counter() - middle
        seconds = {name: seconds[name] + t for name, t in zip(seconds, elapsed, strict=True)}
        num_bytes = fc.nbytes + pool5.nbytes
        by_method[METHODS[0]].append(jax.device_get(_by_softmax(logits, boxes, *rest)))
        by_method[METHODS[1]].append(jax.device_get(detect(None, fc, pool5, boxes, *rest)))
        by_method[METHODS[2]].append(result)
    detections = {
        method: {name: np.stack([getattr(d, name) for d in results]) for name in Detections._fields}
        for method, results in by_method.items()
    }
    return detections, {name: value / n for name, value in seconds.items()}, num_bytes


def seconds_per_crop(
    network: nn.Module,
    images: Float[Array | np.ndarray, 'n h w 3'],
    boxes: Float[Array | np.ndarray, 'n p 4'],
    crop_size: int = 224,
) -> float:
    """Time that R-CNN takes to warp a proposal and to run its network on it, the median over images.

    The network ends in fc6 and fc7 of 4096 units and scores of VOC's 20 classes and the background; parameters are 0.

    Args:
      network: Convolutions: crops -> (last feature maps, activations).
      images: Normalized images.
      boxes: Proposals to warp in each image.
      crop_size: Height and width of the crops.
    """
    whole = rcnn.RegionNetwork(21, (4096, 4096), 0.0, network)
    crops = jax.ShapeDtypeStruct((1, crop_size, crop_size, 3), jnp.float32)
    shapes = jax.eval_shape(whole.init, jax.random.key(0), crops)
    variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    @jax.jit
    def run(variables, image, boxes):
        scores, _ = whole.apply(variables, rcnn.warp(image, boxes, crop_size))
        return scores

    jax.block_until_ready(run(variables, images[0], boxes[0]))  # compiles
    seconds = []
    for image, of_image in zip(images, boxes, strict=True):
        began = time.perf_counter()
        jax.block_until_ready(run(variables, image, of_image))
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds) / boxes.shape[1]


@jax.jit
def _by_softmax(logits, boxes, valid, size):
    """Detections by the probabilities of the fine-tuned network."""
    shape = (len(boxes), logits.shape[1] - 1)
    clipped = box_ops.clip(boxes, size)
    return fast_rcnn.best_of_classes(
        jnp.broadcast_to(clipped[:, None], (*shape, 4)),
        jax.nn.softmax(logits)[:, 1:],
        jnp.broadcast_to(valid[:, None], shape),
        min_score=0.01,
        threshold=0.3,
        max_detections=100,
        max_candidates=1000,
        extent='continuous',
    )


def _lap(seconds, stage, began):
    """Record the time of a stage; returns the time at which the next one begins."""
    now = time.perf_counter()
    seconds[stage] = now - began
    return now
