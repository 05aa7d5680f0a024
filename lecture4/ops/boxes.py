"""Boxes [x1, y1, x2, y2]: areas, overlaps, regression targets, clipping, non-maximum suppression.

Coordinates are pixels, x to the right, y down. `extent` is their convention: 'continuous' means width x2 - x1
(torchvision, COCO); 'inclusive' means that x2 is the index of the last pixel, so that the width is x2 - x1 + 1
(PASCAL VOC and the code of R-CNN, Fast and Faster R-CNN). All shapes are static and absent boxes are masked, so that
every function works under jit and vmap.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Num

from lecture4.ops.varying import vary_like

Extent = Literal['inclusive', 'continuous']
# Upper bound of log(width / anchor width) in `decode`, as in torchvision and Detectron.
MAX_LOG_SCALE = math.log(1000 / 16)


@jax.jit(static_argnames='extent')
def area(boxes: Num[ArrayLike, '*n 4'], extent: Extent = 'continuous') -> Float[Array, '*n']:
    """Width times height; 0 where a box has x2 < x1 or y2 < y1.

    Args:
      boxes: Boxes.
      extent: See the module's docstring.

    Raises:
      ValueError: `boxes` does not end in 4 coordinates, or `extent` is unknown.
    """
    w, h = _sides(_check('boxes', boxes), _extra(extent))
    return jnp.maximum(w, 0) * jnp.maximum(h, 0)


@jax.jit(static_argnames='extent')
def iou(
    a: Num[ArrayLike, 'n 4'], b: Num[ArrayLike, 'm 4'], extent: Extent = 'continuous'
) -> Float[Array, 'n m']:
    """Intersection over union of every box of a with every box of b; 0 where the union is empty.

    Args:
      a: Boxes.
      b: Boxes.
      extent: See the module's docstring.

    Raises:
      ValueError: As in `area`.
    """
    intersection, union = _overlap(a, b, extent)
    return jnp.where(union > 0, intersection / jnp.where(union > 0, union, 1), 0)


def giou(
    a: Num[ArrayLike, 'n 4'], b: Num[ArrayLike, 'm 4'], extent: Extent = 'continuous'
) -> Float[Array, 'n m']:
    """Generalized IoU: IoU minus the fraction of the smallest enclosing box that the union leaves empty.

    Args:
      a: Boxes.
      b: Boxes.
      extent: See the module's docstring.

    Returns:
      Values in [-1, 1].

    Raises:
      ValueError: As in `area`.

    References:
      Rezatofighi et al. 2019.
    """
    _, union = _overlap(a, b, extent)
    a, b, extra = _check('a', a)[:, None], _check('b', b)[None], _extra(extent)
    low = jnp.minimum(a[..., :2], b[..., :2])
    high = jnp.maximum(a[..., 2:], b[..., 2:])
    hull = jnp.prod(high - low + extra, axis=-1)
    empty = jnp.where(hull > 0, (hull - union) / jnp.where(hull > 0, hull, 1), 0)
    return iou(a[:, 0], b[0], extent) - empty


def _overlap(a, b, extent):
    a, b, extra = _check('a', a), _check('b', b), _extra(extent)
    low = jnp.maximum(a[:, None, :2], b[None, :, :2])
    high = jnp.minimum(a[:, None, 2:], b[None, :, 2:])
    intersection = jnp.prod(jnp.maximum(high - low + extra, 0), axis=-1)
    return intersection, area(a, extent)[:, None] + area(b, extent)[None] - intersection


def encode(
    boxes: Num[ArrayLike, '*n 4'],
    anchors: Num[ArrayLike, '*n 4'],
    std: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    extent: Extent = 'continuous',
) -> Float[Array, '*n 4']:
    """Regression targets of boxes with respect to anchors: (dx, dy, dw, dh) / std.

    dx = (x - x_a) / w_a and dw = log(w / w_a), with (x, y) the centers; likewise dy, dh. Sides are taken to be
    at least 1e-6, so that a degenerate box gives finite targets.

    Args:
      boxes: Ground truth of each anchor.
      anchors: Anchors or proposals.
      std: Divisors of the targets: (0.1, 0.1, 0.2, 0.2) in py-faster-rcnn's head, torchvision's weights
        (10, 10, 5, 5).
      extent: See the module's docstring.

    Raises:
      ValueError: As in `area`.

    References:
      Girshick et al. 2014, appendix C.
    """
    boxes, anchors = _check('boxes', boxes), _check('anchors', anchors)
    (x, y), (w, h) = _centers(boxes, extent)
    (x_a, y_a), (w_a, h_a) = _centers(anchors, extent)
    w, h, w_a, h_a = (jnp.maximum(side, 1e-6) for side in (w, h, w_a, h_a))
    deltas = (x - x_a) / w_a, (y - y_a) / h_a, jnp.log(w / w_a), jnp.log(h / h_a)
    return jnp.stack([d / s for d, s in zip(deltas, std, strict=True)], axis=-1)


def decode(
    deltas: Num[ArrayLike, '*n 4'],
    anchors: Num[ArrayLike, '*n 4'],
    std: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    extent: Extent = 'continuous',
    max_log_scale: float | None = MAX_LOG_SCALE,
) -> Float[Array, '*n 4']:
    """Boxes of regression outputs: the inverse of `encode`.

    With extent 'inclusive' x2 and y2 are one pixel too large, as in py-faster-rcnn, whose decoding lacks the -1 that
    its encoding implies.

    Args:
      deltas: As `encode` returns them.
      anchors: Anchors or proposals.
      std: As in `encode`.
      extent: See the module's docstring.
      max_log_scale: Upper bound of dw and dh; None sets none, as in the papers' code.

    Raises:
      ValueError: As in `area`.
    """
    deltas, anchors = _check('deltas', deltas), _check('anchors', anchors)
    (x_a, y_a), (w_a, h_a) = _centers(anchors, extent)
    dx, dy, dw, dh = (deltas[..., i] * s for i, s in enumerate(std))
    if max_log_scale is not None:
        dw, dh = jnp.minimum(dw, max_log_scale), jnp.minimum(dh, max_log_scale)
    x, y, w, h = dx * w_a + x_a, dy * h_a + y_a, jnp.exp(dw) * w_a, jnp.exp(dh) * h_a
    return jnp.stack([x - 0.5 * w, y - 0.5 * h, x + 0.5 * w, y + 0.5 * h], axis=-1)


def clip(
    boxes: Num[ArrayLike, '*n 4'],
    size: Num[ArrayLike, '2'] | tuple[int, int],
    extent: Extent = 'continuous',
) -> Float[Array, '*n 4']:
    """Boxes clipped to an image: to [0, w] x [0, h], or [0, w - 1] x [0, h - 1] with extent 'inclusive'.

    Args:
      boxes: Boxes.
      size: (height, width) of the image.
      extent: See the module's docstring.

    Raises:
      ValueError: As in `area`.
    """
    boxes, extra = _check('boxes', boxes), _extra(extent)
    h, w = jnp.asarray(size, boxes.dtype)
    high = jnp.stack([w, h, w, h]) - extra
    high = high.reshape((1,) * (boxes.ndim - 1) + (4,))
    return jnp.minimum(jnp.maximum(boxes, 0), high)


def is_at_least(
    boxes: Num[ArrayLike, '*n 4'],
    min_size: float | int | Float[Array, ''],
    extent: Extent = 'continuous',
) -> Bool[Array, '*n']:
    """Whether both sides of a box are at least `min_size`; False for NaN.

    Raises:
      ValueError: As in `area`.
    """
    w, h = _sides(_check('boxes', boxes), _extra(extent))
    return (w >= min_size) & (h >= min_size)


class Selection(NamedTuple):
    """The boxes kept by a suppression, best first, padded.

    Attributes:
      indices: Positions in the input, int32 [k]; 0 where not valid.
      valid: False for padding, [k].
      scores: Scores, which soft-NMS has decreased, [k]; 0 where not valid.
    """

    indices: Int[Array, 'k']
    valid: Bool[Array, 'k']
    scores: Float[Array, 'k']


def nms(
    boxes: Num[ArrayLike, 'n 4'],
    scores: Float[ArrayLike, 'n'],
    threshold: float | int | Float[Array, ''],
    *,
    valid: Bool[ArrayLike, 'n'] | None = None,
    labels: Int[ArrayLike, 'n'] | None = None,
    max_outputs: int | None = None,
    extent: Extent = 'continuous',
    tile_size: int = 64,
) -> Selection:
    """Greedy non-maximum suppression: a box is removed if a better one overlaps it by IoU > threshold.

    Boxes are visited by decreasing score, equal scores in the order of the input. The result is that of the
    sequential algorithm, computed tile by tile: no array has more than tile_size x tile_size overlaps, and a tile is
    compared only with the boxes that are kept. It stops at `max_outputs`.

    Args:
      boxes: Boxes.
      scores: Scores.
      threshold: IoU threshold in [0, 1].
      valid: Mask of the boxes to consider; those with NaN in coordinates or score are never kept.
      labels: Classes; boxes suppress only boxes of the same class (class-wise NMS).
      max_outputs: Number of returned boxes; None returns n.
      extent: See the module's docstring.
      tile_size: Number of boxes per tile.

    Raises:
      ValueError: As in `area`.
    """
    boxes, scores = _check('boxes', boxes), jnp.asarray(scores)
    n, extra = boxes.shape[0], _extra(extent)
    k = n if max_outputs is None else min(max_outputs, n)
    tile = max(1, min(tile_size, n))
    takes_part = ~jnp.isnan(scores) & ~jnp.any(jnp.isnan(boxes), axis=1)
    if valid is not None:
        takes_part &= jnp.asarray(valid)
    order = jnp.argsort(jnp.where(takes_part, -scores, jnp.inf), stable=True).astype(jnp.int32)
    n_tiles = -(-n // tile)
    padding = (0, n_tiles * tile - n)
    order = jnp.pad(order, padding)
    group = jnp.zeros(n, jnp.int32) if labels is None else jnp.asarray(labels, jnp.int32)
    sorted_boxes = boxes[order].T  # one coordinate after the other: vectors of equal operations
    sorted_group, rank = group[order], jnp.arange(n_tiles * tile)
    n_valid = jnp.sum(takes_part, dtype=jnp.int32)
    sides = _sides(sorted_boxes.T, extra)
    rows = jnp.stack([*sorted_boxes, sides[0] * sides[1]])
    lower = jnp.arange(tile)[:, None] < jnp.arange(tile)[None, :]  # [suppressing, suppressed]

    def suppresses(a, group_a, b, group_b):
        """1.0 where box a[:, i] overlaps box b[:, j] of its group by more than the threshold."""
        a, b = a[:, :, None], b[:, None, :]
        w = jnp.minimum(a[2], b[2]) - jnp.maximum(a[0], b[0]) + extra
        h = jnp.minimum(a[3], b[3]) - jnp.maximum(a[1], b[1]) + extra
        inter = jnp.maximum(w, 0) * jnp.maximum(h, 0)
        overlaps = inter / (a[4] + b[4] - inter) > threshold
        if labels is not None:
            overlaps &= group_a[:, None] == group_b[None, :]
        return overlaps

    def visit(state):
        i, count, kept, kept_group, kept_order = state
        box = lax.dynamic_slice_in_dim(rows, i * tile, tile, 1)
        tile_group = lax.dynamic_slice_in_dim(sorted_group, i * tile, tile)

        def against(j, free):
            a = lax.dynamic_slice_in_dim(kept, j * tile, tile, 1)
            group_a = lax.dynamic_slice_in_dim(kept_group, j * tile, tile)
            filled = (j * tile + rank[:tile] < count).astype(jnp.float32)
            return free & (
                filled @ suppresses(a, group_a, box, tile_group).astype(jnp.float32) == 0
            )

        free = lax.dynamic_slice_in_dim(rank, i * tile, tile) < n_valid
        free = lax.fori_loop(0, (count + tile - 1) // tile, against, free)
        inside = (suppresses(box, tile_group, box, tile_group) & lower).astype(jnp.float32)

        def settle(pair):  # each pass settles at least the next box of the sequential order
            keep, _ = pair
            new = free & (keep.astype(jnp.float32) @ inside == 0)
            return new, jnp.any(new != keep)

        keep, _ = lax.while_loop(lambda pair: pair[1], settle, (free, jnp.any(free)))
        slot = jnp.where(keep, count + jnp.cumsum(keep, dtype=jnp.int32) - 1, kept.shape[1])
        kept = kept.at[:, slot].set(box, mode='drop')
        kept_group = kept_group.at[slot].set(tile_group, mode='drop')
        position = lax.dynamic_slice_in_dim(order, i * tile, tile)
        kept_order = kept_order.at[slot].set(position, mode='drop')
        count = jnp.minimum(count + jnp.sum(keep, dtype=jnp.int32), kept.shape[1])
        return i + 1, count, kept, kept_group, kept_order

    def unfinished(state):
        i, count, *_ = state
        return (i * tile < n_valid) & (count < k)

    size = -(-k // tile) * tile
    none = jnp.zeros(size, jnp.int32)
    empty = jnp.int32(0), jnp.int32(0), jnp.zeros((5, size), boxes.dtype), none, none
    start = vary_like(empty, (rows, n_valid))
    _, count, _, _, indices = lax.while_loop(unfinished, visit, start)
    is_kept = jnp.arange(k) < count
    indices = jnp.where(is_kept, indices[:k], 0)
    return Selection(indices, is_kept, jnp.where(is_kept, scores[indices], 0))


def soft_nms(
    boxes: Num[ArrayLike, 'n 4'],
    scores: Float[ArrayLike, 'n'],
    *,
    method: Literal['linear', 'gaussian'] = 'gaussian',
    threshold: float = 0.3,
    sigma: float = 0.5,
    min_score: float = 0.001,
    valid: Bool[ArrayLike, 'n'] | None = None,
    max_outputs: int | None = None,
    extent: Extent = 'continuous',
) -> Selection:
    """Soft-NMS: overlapping boxes lose score instead of being removed.

    The best remaining box is taken, and the scores of the others are multiplied by 1 - IoU where that exceeds the
    threshold ('linear') or by exp(-IoU^2 / sigma) ('gaussian'), until none exceeds `min_score`.

    Args:
      boxes: Boxes.
      scores: Scores, positive.
      method: Form of the decay.
      threshold: IoU above which the linear decay applies.
      sigma: Width of the Gaussian decay.
      min_score: Boxes with a decreased score at or below it are dropped.
      valid: As in `nms`.
      max_outputs: As in `nms`.
      extent: See the module's docstring.

    Raises:
      ValueError: As in `area`.

    References:
      Bodla et al. 2017.
    """
    boxes, scores = _check('boxes', boxes), jnp.asarray(scores)
    k = boxes.shape[0] if max_outputs is None else min(max_outputs, boxes.shape[0])
    takes_part = ~jnp.isnan(scores) & ~jnp.any(jnp.isnan(boxes), axis=1)
    if valid is not None:
        takes_part &= jnp.asarray(valid)

    def take(remaining, _):
        i = jnp.argmax(remaining)
        score = remaining[i]
        overlap = iou(boxes[i][None], boxes, extent)[0]
        gaussian = jnp.exp(-(overlap**2) / sigma)
        decay = jnp.where(overlap > threshold, 1 - overlap, 1) if method == 'linear' else gaussian
        return (remaining * decay).at[i].set(-jnp.inf), (i.astype(jnp.int32), score)

    _, (indices, kept) = lax.scan(take, jnp.where(takes_part, scores, -jnp.inf), length=k)
    is_kept = kept > min_score
    return Selection(jnp.where(is_kept, indices, 0), is_kept, jnp.where(is_kept, kept, 0))


def flip(
    boxes: Num[ArrayLike, '*n 4'],
    width: float | int | Num[Array, ''],
    extent: Extent = 'continuous',
) -> Float[Array, '*n 4']:
    """Boxes of the mirrored image with a given width; applied twice, the identity.

    Raises:
      ValueError: As in `area`.
    """
    boxes, extra = _check('boxes', boxes), _extra(extent)
    x1, y1, x2, y2 = jnp.moveaxis(boxes, -1, 0)
    right = jnp.asarray(width, boxes.dtype) - extra
    return jnp.stack([right - x2, y1, right - x1, y2], axis=-1)


def _check(name, boxes):
    boxes = jnp.asarray(boxes)
    if boxes.ndim < 1 or boxes.shape[-1] != 4:
        raise ValueError(f'{name}: expected boxes [..., 4], got shape {boxes.shape}')
    return boxes if jnp.issubdtype(boxes.dtype, jnp.floating) else boxes.astype(jnp.float32)


def _extra(extent):
    if extent not in ('inclusive', 'continuous'):
        raise ValueError(f"extent is {extent!r}; expected 'inclusive' or 'continuous'")
    return 1.0 if extent == 'inclusive' else 0.0


def _sides(boxes, extra):
    return boxes[..., 2] - boxes[..., 0] + extra, boxes[..., 3] - boxes[..., 1] + extra


def _centers(boxes, extent):
    w, h = _sides(boxes, _extra(extent))
    return (boxes[..., 0] + 0.5 * w, boxes[..., 1] + 0.5 * h), (w, h)
