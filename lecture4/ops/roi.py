"""Features of regions of interest: max pooling over rounded bins (Fast R-CNN), and RoIAlign (Mask R-CNN).

RoIs are boxes [x1, y1, x2, y2] in image pixels; `spatial_scale` is the feature map's resolution relative to the
image, 1/16 for VGG-16's conv5_3. One image at a time: vmap over a batch.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int

from lecture4.ops.prox import require_floating
from lecture4.ops.varying import vary_like, vary_together


def roi_pool(
    features: Float[ArrayLike, 'h w c'],
    rois: Float[ArrayLike, 'r 4'],
    output_size: int | tuple[int, int] = 7,
    spatial_scale: float = 1 / 16,
) -> Float[Array, 'r ph pw c']:
    """RoI max pooling: the maximum of every bin of a RoI divided into ph x pw bins.

    As in Fast R-CNN's code: coordinates are scaled and rounded (half away from zero), the RoI covers its last
    cell, end - start + 1 cells but at least 1; bin i covers floor(i size / ph) to ceil((i + 1) size / ph) - 1, so
    that bins overlap by up to a cell; bins outside the feature map are 0. Gradient: to the first maximum of a bin
    in row-major order, summed over bins and RoIs; none to the coordinates.

    Maxima over all windows of 2^i x 2^j cells are computed once, and a bin is the maximum of four of them.

    Args:
      features: Feature map.
      rois: RoIs of at most twice the image's height and width; clip larger ones.
      output_size: Number of bins along both axes, or (ph, pw).
      spatial_scale: Cells per pixel.

    Raises:
        TypeError: `features` is not floating point.
        ValueError: The shapes are not [h, w, c] and [r, 4].

    References:
        Girshick 2015, section 2.1, and its roi_pooling_layer.cu.
    """
    features, rois = _arguments(features, rois)
    size = _pair(output_size)
    first, last = _bins(rois, features.shape[:2], size, spatial_scale)
    return _pool(*vary_together(features, first, last), size)


def _bins(rois, shape, size, scale):
    """First cell and the cell after the last of every bin, along y and x: two lists of int32 [r, bins]."""
    corners = rois * jnp.asarray(scale, rois.dtype)
    corners = (jnp.sign(corners) * jnp.floor(jnp.abs(corners) + 0.5)).astype(jnp.int32)
    first, last = [], []
    for axis, (length, bins) in enumerate(zip(shape, size, strict=True)):
        start, stop = corners[:, 1 - axis], corners[:, 3 - axis]
        # A table, since XLA replaces a division by a product with the reciprocal, which yields different bins.
        sizes = np.arange(2 * length + 3, dtype=np.float32)[:, None] / np.float32(bins)
        i = np.arange(bins, dtype=np.float32)
        extent = jnp.clip(stop - start + 1, 1, len(sizes) - 1)
        low = jnp.asarray(np.floor(i * sizes).astype(np.int32))[extent] + start[:, None]
        high = jnp.asarray(np.ceil((i + 1) * sizes).astype(np.int32))[extent] + start[:, None]
        first.append(jnp.clip(low, 0, length))
        last.append(jnp.clip(high, 0, length))
    return first, last


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _pool(features, first, last, size):
    table = _window_maxima(features, size, lambda a, b: jnp.maximum(a, b), -jnp.inf)
    corners, is_empty = _corners(first, last, features.shape, size)
    y = functools.reduce(jnp.maximum, [table[at] for at in corners])
    return jnp.where(is_empty, 0, y)


def _pool_forward(features, first, last, size):
    h, w, _ = features.shape
    at = jnp.broadcast_to(jnp.arange(h * w, dtype=jnp.int32).reshape(h, w, 1), features.shape)

    def better(a, b):
        wins = (a[0] > b[0]) | ((a[0] == b[0]) & (a[1] <= b[1])) | (a[0] != a[0])
        return jnp.where(wins, a[0], b[0]), jnp.where(wins, a[1], b[1])

    values, positions = _window_maxima((features, at), size, better, (-jnp.inf, h * w))
    corners, is_empty = _corners(first, last, features.shape, size)
    y, switches = functools.reduce(better, [(values[at], positions[at]) for at in corners])
    switches = jnp.where(is_empty, h * w, switches)
    return jnp.where(is_empty, 0, y), (switches, jnp.zeros_like(features))


def _pool_backward(size, residuals, g):
    del size
    switches, like = residuals
    h, w, c = like.shape
    channel = jnp.broadcast_to(jnp.arange(c, dtype=jnp.int32), switches.shape)
    flat = jnp.zeros((h * w, c), g.dtype).at[switches, channel].add(g, mode='drop')
    return flat.reshape(h, w, c), None, None


_pool.defvjp(_pool_forward, _pool_backward)


def _levels(shape, size):
    """Number of window sizes 1, 2, 4, ... along both axes needed for the bins of a RoI of twice the size of the map."""
    return [
        1 + int(math.log2(min(length, 2 * math.ceil(length / bins) + 1)))
        for length, bins in zip(shape, size, strict=True)
    ]


def _window_maxima(tree, size, combine, padding):
    """[levels of y * levels of x * h * w, c]: maxima over the windows that start at each cell."""
    leaves = jax.tree.leaves(tree)
    h, w, c = leaves[0].shape
    levels_y, levels_x = _levels((h, w), size)

    def shifted(tree, axis, by):
        def one(leaf, value):
            low = lax.slice_in_dim(leaf, by, leaf.shape[axis], axis=axis)
            widths = [(0, by if i == axis else 0) for i in range(3)]
            return jnp.pad(low, widths, constant_values=value)

        return jax.tree.map(one, tree, padding)

    rows, tables = tree, []
    for i in range(levels_y):
        if i:
            rows = combine(rows, shifted(rows, 0, 2 ** (i - 1)))
        columns = rows
        for j in range(levels_x):
            if j:
                columns = combine(columns, shifted(columns, 1, 2 ** (j - 1)))
            tables.append(columns)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves).reshape(-1, c), *tables)


def _corners(first, last, shape, size):
    """Rows of the table of windows for the four windows that cover each bin, and whether the bin is empty."""
    h, w, _ = shape
    levels = _levels((h, w), size)
    starts, level_of = [], []
    for a, b, most in zip(first, last, levels, strict=True):
        length = jnp.maximum(b - a, 1)
        level = jnp.zeros_like(length)
        for i in range(1, most):
            level += (length >= 2**i).astype(length.dtype)
        starts.append((a, jnp.maximum(b - (1 << level), 0)))
        level_of.append(level)
    table = level_of[0][:, :, None] * levels[1] + level_of[1][:, None, :]
    rows = [
        (table * h + jnp.minimum(y, h - 1)[:, :, None]) * w + jnp.minimum(x, w - 1)[:, None, :]
        for y in starts[0]
        for x in starts[1]
    ]
    empty = [b <= a for a, b in zip(first, last, strict=True)]
    return rows, (empty[0][:, :, None] | empty[1][:, None, :])[..., None]


def roi_align(
    features: Float[ArrayLike, 'h w c'],
    rois: Float[ArrayLike, 'r 4'],
    output_size: int | tuple[int, int] = 7,
    spatial_scale: float = 1 / 16,
    sampling_ratio: int = 0,
    aligned: bool = False,
) -> Float[Array, 'r ph pw c']:
    """RoIAlign: means of bilinear samples in every bin, without rounding; torchvision's `roi_align`.

    Samples beyond one cell outside the feature map are 0, others are clamped to its border cells, as in
    torchvision's kernels (its Python fallback differs). No gradient to the coordinates.

    Args:
      features: Feature map.
      rois: RoIs.
      output_size: Bins along both axes, or (ph, pw).
      spatial_scale: Cells per pixel.
      sampling_ratio: Number of samples per bin and axis; 0 takes ceil(RoI size / bins), computed by dense matrix
        products over the feature map, for small maps.
      aligned: Whether to shift by half a cell, so that the center of cell i is at i + 1/2; otherwise RoIs have height
        and width of at least one cell.

    Raises:
      TypeError: `features` is not floating point.
      ValueError: The shapes are not [h, w, c] and [r, 4].

    References:
      He et al. 2017, section 3; torchvision's roi_align_kernel.cpp.
    """
    features, rois = _arguments(features, rois)
    size = _pair(output_size)
    h, w, c = features.shape
    boxes = lax.stop_gradient(rois) * jnp.asarray(spatial_scale, rois.dtype)
    if sampling_ratio > 0:
        lengths = (jnp.full(len(boxes), h), jnp.full(len(boxes), w))
        y, x = _axes(boxes, lengths, size, sampling_ratio, aligned)
        return _gather(features.reshape(-1, c), y, x, w)
    # A RoI may extend outside by any amount, but samples there are 0: more are needed only for RoIs larger than h or w.
    matrices = _dense_axes(boxes, (h, w), size, aligned)
    rows = jnp.einsum('rph,hwc->rpwc', matrices[0], features, precision='highest')
    return jnp.einsum('rqw,rpwc->rpqc', matrices[1], rows, precision='highest')


def multi_scale_roi_align(
    features: Sequence[Float[ArrayLike, '_ _ c']],
    rois: Float[ArrayLike, 'r 4'],
    spatial_scales: Sequence[float],
    output_size: int | tuple[int, int] = 7,
    sampling_ratio: int = 2,
    canonical_size: float = 224.0,
    canonical_level: int = 4,
) -> Float[Array, 'r ph pw c']:
    """RoIAlign of each RoI on the level of a feature pyramid that fits its size.

    The level is floor(canonical_level + log2(sqrt(area) / canonical_size) + 1e-6), clipped to the existing levels;
    level l has scale 2^-l. Equal to torchvision's MultiScaleRoIAlign; each RoI is sampled once.

    Args:
      features: Feature maps of decreasing resolution.
      rois: RoIs.
      spatial_scales: Cells per pixel of each map, powers of 1/2.
      output_size: Bins along both axes, or (ph, pw).
      sampling_ratio: Number of samples per bin and axis, at least 1.
      canonical_size: Height and width of the RoI that is assigned to `canonical_level`.
      canonical_level: See above.

    Raises:
      TypeError: A feature map is not floating point.
      ValueError: The shapes are not [h, w, c] and [r, 4]; or sampling_ratio is below 1.

    References:
      Lin et al. 2017, eq. 1.
    """
    if sampling_ratio < 1:
        raise ValueError(f'sampling_ratio is {sampling_ratio}; expected at least 1')
    maps = [_arguments(level, rois)[0] for level in features]
    rois = lax.stop_gradient(jnp.asarray(rois))
    levels = roi_levels(rois, spatial_scales, canonical_size, canonical_level)
    height = jnp.asarray([level.shape[0] for level in maps], jnp.int32)[levels]
    width = jnp.asarray([level.shape[1] for level in maps], jnp.int32)[levels]
    starts = np.cumsum([0, *(level.shape[0] * level.shape[1] for level in maps[:-1])])
    offset = jnp.asarray(starts, jnp.int32)[levels]
    boxes = rois * jnp.asarray(spatial_scales, rois.dtype)[levels][:, None]
    flat = jnp.concatenate([level.reshape(-1, level.shape[-1]) for level in maps])
    y, x = _axes(boxes, (height, width), _pair(output_size), sampling_ratio, False)
    return _gather(flat, y, x, width, offset)


def roi_levels(
    rois: Float[ArrayLike, 'r 4'],
    spatial_scales: Sequence[float],
    canonical_size: float = 224.0,
    canonical_level: int = 4,
) -> Int[Array, 'r']:
    """Index of the pyramid's level of each RoI; the arguments are those of `multi_scale_roi_align`."""
    rois = jnp.asarray(rois)
    low, high = (-math.log2(scale) for scale in (spatial_scales[0], spatial_scales[-1]))
    sides = jnp.sqrt((rois[:, 2] - rois[:, 0]) * (rois[:, 3] - rois[:, 1]))
    level = jnp.floor(canonical_level + jnp.log2(sides / canonical_size) + 1e-6)
    return (jnp.clip(level, low, high) - low).astype(jnp.int32)


def _axes(boxes, lengths, size, n_samples, aligned):
    """For y and x: cells and weights [r, bins, 2 * samples] of the samples of every bin."""
    result = []
    for axis, (length, bins) in enumerate(zip(lengths, size, strict=True)):
        start, extent = _span(boxes, axis, aligned)
        i = (np.arange(n_samples, dtype=np.float32) + 0.5) / n_samples
        step = (extent / bins)[:, None, None]
        position = (
            start[:, None, None] + (np.arange(bins)[:, None] + i).astype(np.float32)[None] * step
        )
        result.append(_linear(position, length[:, None, None], 1 / n_samples))
    return result


def _span(boxes, axis, aligned):
    """(start, extent) of the RoIs along an axis, in cells."""
    shift = 0.5 if aligned else 0.0
    start, stop = boxes[:, 1 - axis] - shift, boxes[:, 3 - axis] - shift
    extent = stop - start
    return start, extent if aligned else jnp.maximum(extent, 1)


def _linear(position, length, weight):
    """Cells [..., 2 * samples] and weights of linear interpolation at positions [..., samples]."""
    inside = (position >= -1) & (position <= length.astype(position.dtype))
    position = jnp.maximum(position, 0)
    low = jnp.minimum(jnp.floor(position).astype(jnp.int32), length - 1)
    high = jnp.minimum(low + 1, length - 1)
    fraction = jnp.where(low >= length - 1, 0, position - low.astype(position.dtype))
    scale = jnp.where(inside, weight, 0)
    cells = jnp.concatenate([low, high], axis=-1)
    return cells, jnp.concatenate([(1 - fraction) * scale, fraction * scale], axis=-1)


def _gather(flat, y, x, width, offset=None):
    """Weighted sums of cells of a flattened map: [r, ph, pw, c]."""
    (rows, weights_y), (columns, weights_x) = y, x
    if offset is not None:
        width, columns = width[:, None, None], columns + offset[:, None, None]
    # One pair of corners after the other: a single gather would multiply the memory by their number.
    pairs = [(i, j) for i in range(rows.shape[-1]) for j in range(columns.shape[-1])]
    i, j = (np.array(index) for index in zip(*pairs, strict=True))
    row, column = (jnp.moveaxis(cells, -1, 0) for cells in (rows * width, columns))
    weight_y, weight_x = jnp.moveaxis(weights_y, -1, 0), jnp.moveaxis(weights_x, -1, 0)

    def add(total, corner):
        y, x, by_y, by_x = corner
        weight = (by_y[:, :, None] * by_x[:, None, :])[..., None]
        return total + flat[y[:, :, None] + x[:, None, :]] * weight.astype(flat.dtype), None

    zeros = jnp.zeros((*rows.shape[:2], columns.shape[1], flat.shape[-1]), flat.dtype)
    corners = row[i], column[j], weight_y[i], weight_x[j]
    total, _ = lax.scan(add, vary_like(zeros, (flat, corners)), corners)
    return total


def _dense_axes(boxes, shape, size, aligned):
    """For y and x: [r, bins, cells], the weights of every cell, with ceil(extent / bins) samples per bin."""
    result = []
    for axis, (length, bins) in enumerate(zip(shape, size, strict=True)):
        start, extent = _span(boxes, axis, aligned)
        most = 2 * math.ceil(length / bins) + 1  # for RoIs of up to twice the size of the map
        count = jnp.clip(jnp.ceil(extent / bins), 1, most)[:, None, None]
        i = np.arange(most, dtype=np.float32)[None, None]
        step = (extent / bins)[:, None, None]
        offset = np.arange(bins, dtype=np.float32)[None, :, None] * step
        position = start[:, None, None] + offset + (i + 0.5) * (step / count)
        cells, weights = _linear(position, jnp.int32(length), 1.0)
        counted = jnp.concatenate([i < count, i < count], axis=-1)
        weights = jnp.where(counted, weights / count, 0)
        hits = cells[..., None] == jnp.arange(length).reshape(1, 1, 1, -1)
        result.append(jnp.sum(jnp.where(hits, weights[..., None], 0), axis=2))
    return result


def _pair(size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _arguments(features, rois):
    features, rois = require_floating('features', features), require_floating('rois', rois)
    if features.ndim != 3 or rois.ndim != 2 or rois.shape[-1] != 4:
        raise ValueError(
            f'expected features [h, w, c] and rois [r, 4] of one image, got {features.shape} and '
            f'{rois.shape}; use jax.vmap for a batch'
        )
    return features, rois
