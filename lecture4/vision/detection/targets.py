"""Training targets of detectors: anchors or proposals matched to ground truth, sampled, with regression targets.

One image at a time, padded to static shapes with a mask `valid`: vmap over a batch. Labels of boxes are 1 .. K, 0 is
the background.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from lecture4.ops import boxes as box_ops
from lecture4.ops.boxes import Extent

IGNORED = -1


class Matches(NamedTuple):
    """Anchors and the ground truth that overlaps them most.

    Attributes:
      labels: 1 positive, 0 negative, -1 neither, [n].
      indices: Index of the ground truth of each anchor, also if it is not positive, [n].
      overlaps: IoU with this ground truth, [n]; 0 without ground truth.
    """

    labels: Int[Array, 'n']
    indices: Int[Array, 'n']
    overlaps: Float[Array, 'n']


def match(
    anchors: Float[ArrayLike, 'n 4'],
    boxes: Float[ArrayLike, 'g 4'],
    valid: Bool[ArrayLike, 'g'],
    *,
    high: float = 0.7,
    low: float = 0.3,
    eligible: Bool[ArrayLike, 'n'] | None = None,
    best_of_each_box: bool = True,
    extent: Extent = 'continuous',
) -> Matches:
    """Match anchors: positive if the largest IoU is at least `high`, negative if it is below `low`.

    With `best_of_each_box` the anchors that overlap a box most are positive too, however small the overlap: all of
    them in a tie (py-faster-rcnn and torchvision), unless the overlap is 0. Positive takes precedence over negative.
    Without ground truth every anchor is negative.

    Args:
      anchors: Anchors.
      boxes: Ground truth, padded.
      valid: Mask of the boxes, False for padding.
      high: Smallest IoU of a positive anchor.
      low: IoU below which an anchor is negative.
      eligible: Mask of the anchors that take part (those inside the image); the others are neither.
      best_of_each_box: See above.
      extent: See `ops.boxes`.

    References:
      Ren et al. 2015, section 3.1.2; anchor_target_layer.py of py-faster-rcnn.
    """
    anchors = jnp.asarray(anchors)
    takes_part = jnp.ones(len(anchors), bool) if eligible is None else jnp.asarray(eligible)
    overlaps = box_ops.iou(anchors, boxes, extent)
    overlaps = jnp.where(jnp.asarray(valid)[None, :] & takes_part[:, None], overlaps, 0)
    indices = jnp.argmax(overlaps, axis=1).astype(jnp.int32)
    largest = jnp.max(overlaps, axis=1)
    labels = jnp.where(largest < low, 0, IGNORED)
    is_positive = largest >= high
    if best_of_each_box:
        best = jnp.max(overlaps, axis=0)
        is_positive |= jnp.any((overlaps == best[None, :]) & (overlaps > 0), axis=1)
    labels = jnp.where(takes_part, jnp.where(is_positive, 1, labels), IGNORED)
    return Matches(labels.astype(jnp.int32), indices, largest)


def sample(
    key: jax.Array, labels: Int[ArrayLike, 'n'], num_samples: int, positive_fraction: float
) -> Bool[Array, 'n']:
    """Sample positives and negatives for a loss: a uniformly random subset of each.

    There are at most positive_fraction * num_samples positives, and negatives fill up num_samples, as far as available.

    Args:
      key: Random key of the draw.
      labels: Above 0 positive, 0 negative, below 0 neither.
      num_samples: Number of samples, 256 in Faster R-CNN's RPN.
      positive_fraction: Largest fraction of positives among the samples; the count is rounded down.
    """
    labels = jnp.asarray(labels)
    noise = jax.random.uniform(key, labels.shape)
    positive = _ranks(noise, labels > 0) < int(positive_fraction * num_samples)
    n_positive = jnp.sum(positive, dtype=jnp.int32)
    return positive | (_ranks(noise, labels == 0) < num_samples - n_positive)


def _ranks(noise, takes_part):
    """Rank by noise of each entry among those that take part; n for the others."""
    n = noise.shape[0]
    order = jnp.argsort(jnp.where(takes_part, noise, jnp.inf))
    ranks = jnp.zeros(n, jnp.int32).at[order].set(jnp.arange(n, dtype=jnp.int32))
    return jnp.where(takes_part, ranks, n)


class AnchorTargets(NamedTuple):
    """Targets of the region proposal network.

    Attributes:
      labels: 1 object, 0 background, -1 not sampled, [n].
      deltas: Regression targets, [n, 4]; 0 where the label is not 1.
    """

    labels: Int[Array, 'n']
    deltas: Float[Array, 'n 4']


def anchor_targets(
    key: jax.Array,
    anchors: Float[ArrayLike, 'n 4'],
    boxes: Float[ArrayLike, 'g 4'],
    valid: Bool[ArrayLike, 'g'],
    size: Int[ArrayLike, '2'],
    *,
    num_samples: int = 256,
    positive_fraction: float = 0.5,
    high: float = 0.7,
    low: float = 0.3,
    border: float | None = 0.0,
    extent: Extent = 'continuous',
) -> AnchorTargets:
    """Labels and regression targets of anchors, sampled.

    Args:
      key: Random key of the sampling.
      anchors: Anchors in pixels.
      boxes: Ground truth, padded.
      valid: Mask of the boxes, False for padding.
      size: (height, width) of the image without padding.
      num_samples: Number of anchors that get a label.
      positive_fraction: Largest fraction of positives among them.
      high: As in `match`.
      low: As in `match`.
      border: Number of pixels by which a sampled anchor may leave the image: 0 in the paper; None sets no limit, as
        in torchvision.
      extent: See `ops.boxes`.
    """
    anchors, boxes = jnp.asarray(anchors), jnp.asarray(boxes)
    eligible = None
    if border is not None:
        h, w = jnp.asarray(size, anchors.dtype)
        high_x, high_y = (side - (extent == 'inclusive') * 1.0 + border for side in (w, h))
        eligible = (anchors[:, 0] >= -border) & (anchors[:, 1] >= -border)
        eligible &= (anchors[:, 2] <= high_x) & (anchors[:, 3] <= high_y)
    matches = match(anchors, boxes, valid, high=high, low=low, eligible=eligible, extent=extent)
    is_sampled = sample(key, matches.labels, num_samples, positive_fraction)
    labels = jnp.where(is_sampled, matches.labels, IGNORED)
    deltas = box_ops.encode(boxes[matches.indices], anchors, extent=extent)
    return AnchorTargets(labels, jnp.where(labels[:, None] > 0, deltas, 0))


class RoITargets(NamedTuple):
    """Targets of a detector's head.

    Attributes:
      rois: Sampled RoIs, positives first, [r, 4].
      labels: 0 background, 1 .. K, -1 for padding, [r].
      deltas: Regression targets of the RoI's class, [r, 4]; 0 where the label is not above 0.
    """

    rois: Float[Array, 'r 4']
    labels: Int[Array, 'r']
    deltas: Float[Array, 'r 4']


def roi_targets(
    key: jax.Array,
    proposals: Float[ArrayLike, 'p 4'],
    proposals_valid: Bool[ArrayLike, 'p'],
    boxes: Float[ArrayLike, 'g 4'],
    labels: Int[ArrayLike, 'g'],
    valid: Bool[ArrayLike, 'g'],
    *,
    num_samples: int = 128,
    positive_fraction: float = 0.25,
    positive_iou: float = 0.5,
    negative_iou: tuple[float, float] = (0.0, 0.5),
    std: Sequence[float] = (0.1, 0.1, 0.2, 0.2),
    extent: Extent = 'continuous',
) -> RoITargets:
    """Sampled RoIs of one image with classes and regression targets; ground truth boxes are added to the proposals.

    Args:
      key: Random key of the sampling.
      proposals: Proposals, padded.
      proposals_valid: Mask of the proposals, False for padding.
      boxes: Ground truth, padded.
      labels: Classes of the ground truth, 1 .. K.
      valid: Mask of the boxes, False for padding; exclude difficult ones.
      num_samples: Number of RoIs per image: 64 in Fast R-CNN (two images), 128 or 256 in Faster R-CNN.
      positive_fraction: Largest fraction of positives among the RoIs.
      positive_iou: Smallest IoU with a box at which a RoI has its class.
      negative_iou: Range [low, high) of the IoU of background: (0.1, 0.5) in Fast R-CNN, which prefers hard examples;
        (0, 0.5) in end-to-end Faster R-CNN.
      std: Standard deviations of the targets, see `ops.boxes.encode`.
      extent: See `ops.boxes`.

    References:
      Girshick 2015, section 2.3; proposal_target_layer.py of py-faster-rcnn.
    """
    boxes, labels, valid = jnp.asarray(boxes), jnp.asarray(labels), jnp.asarray(valid)
    candidates = jnp.concatenate([jnp.asarray(proposals), boxes])
    takes_part = jnp.concatenate([jnp.asarray(proposals_valid), valid])
    low, high = negative_iou
    matches = match(
        candidates,
        boxes,
        valid,
        high=positive_iou,
        low=high,
        eligible=takes_part,
        best_of_each_box=False,
        extent=extent,
    )
    is_positive = (matches.labels > 0) & takes_part
    is_negative = (matches.overlaps >= low) & (matches.overlaps < high) & takes_part
    kind = jnp.where(is_positive, 1, jnp.where(is_negative, 0, IGNORED))
    is_sampled = sample(key, kind, num_samples, positive_fraction)
    # Positives first, then negatives, then padding.
    order = jnp.argsort(jnp.where(is_sampled, 1 - kind, 2), stable=True)[:num_samples]
    matched = matches.indices[order]
    roi_labels = jnp.where(kind[order] > 0, labels[matched], 0)
    roi_labels = jnp.where(is_sampled[order], roi_labels, IGNORED).astype(jnp.int32)
    is_used = roi_labels[:, None] >= 0
    rois = jnp.where(is_used, jax.lax.stop_gradient(candidates[order]), 0)
    deltas = box_ops.encode(boxes[matched], rois, std, extent)
    return RoITargets(rois, roi_labels, jnp.where(roi_labels[:, None] > 0, deltas, 0))
