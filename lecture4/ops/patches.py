"""Dense patches of images, the adjoint that adds them back, and contrast normalisation."""

import functools
import itertools

import jax.numpy as jnp
from jax import lax

from lecture4.ops.prox import require_floating


def extract(images, size, stride=1):
    """All size x size patches at multiples of stride that lie inside the image.

    Shapes  images [n, h, w, c], any dtype. Returns [n, rows, cols, size * size * c] of that dtype,
            rows = (h - size) // stride + 1; a patch is flattened in the order (row, col, channel).
            Pixels beyond the last whole stride are in no patch.
    Errors  ValueError where images are not NHWC or smaller than a patch; size or stride below 1.
    """
    if images.ndim != 4:
        raise ValueError(
            f'images have shape {images.shape}; [n, h, w, c] is wanted (grey pictures have c = 1)'
        )
    n, height, width, channels = images.shape
    rows, cols = grid((height, width), size, stride)
    # Two gathers of whole rows and columns: exact on every backend, which a convolution by
    # indicator kernels is not where float32 products are rounded.
    down = jnp.arange(rows)[:, None] * stride + jnp.arange(size)[None, :]
    across = jnp.arange(cols)[:, None] * stride + jnp.arange(size)[None, :]
    bands = images[:, down]  # [n, rows, size, w, c]
    patches = bands[:, :, :, across]  # [n, rows, size, cols, size, c]
    return patches.transpose(0, 1, 3, 2, 4, 5).reshape(n, rows, cols, size * size * channels)


def grid(image_shape, size, stride=1):
    """(rows, cols): how many patches fit down and across an image of shape (h, w, ...)."""
    height, width = image_shape[:2]
    if size < 1 or stride < 1:
        raise ValueError(f'patch size {size} and stride {stride} must both be at least 1')
    if min(height, width) < size:
        raise ValueError(
            f'images of {height} x {width} pixels hold no patch of {size} x {size}; '
            f'use a size of at most {min(height, width)}'
        )
    return (height - size) // stride + 1, (width - size) // stride + 1


def reassemble(patches, image_shape, size, stride=1):
    """The adjoint of extract: every patch is added where it came from, overlaps sum.

    Shapes  patches [n, rows, cols, size * size * c], image_shape (h, w, c). Returns [n, h, w, c].
    Errors  ValueError where the patches are not those of such images, with both shapes.
    """
    height, width, channels = image_shape
    rows, cols = grid(image_shape, size, stride)
    wanted = (rows, cols, size * size * channels)
    if patches.ndim != 4 or patches.shape[1:] != wanted:
        raise ValueError(
            f'patches have shape {patches.shape}; images of shape {tuple(image_shape)} cut into '
            f'patches of size {size} and stride {stride} give [n, {rows}, {cols}, {wanted[2]}]'
        )
    blocks = patches.reshape(patches.shape[0], rows, cols, size, size, channels)
    # Across, then down: 2 size additions instead of size^2.
    bands = _overlap_add([blocks[:, :, :, :, j] for j in range(size)], 2, stride, width)
    return _overlap_add([bands[:, :, :, i] for i in range(size)], 1, stride, height)


def counts(image_shape, size, stride=1):
    """In how many patches each pixel lies.

    Shapes  image_shape (h, w, ...). Returns int32 [h, w]; 0 beyond the last whole stride.
    """
    along = []
    for length, n_patches in zip(image_shape[:2], grid(image_shape, size, stride), strict=True):
        first = jnp.arange(n_patches) * stride
        offset = jnp.arange(length)[:, None] - first[None, :]
        along.append(jnp.sum((offset >= 0) & (offset < size), axis=1, dtype=jnp.int32))
    return along[0][:, None] * along[1][None, :]


def average(patches, image_shape, size, stride=1):
    """Images whose pixels are the mean over the patches that cover them; 0 where none does.

    average(extract(x)) is x on every covered pixel.

    Shapes  patches [n, rows, cols, size * size * c] float, image_shape (h, w, c); [n, h, w, c].
    Errors  TypeError for integer patches; ValueError as reassemble.
    """
    patches = require_floating('patches', patches)
    total = reassemble(patches, image_shape, size, stride)
    n_patches = jnp.maximum(counts(image_shape, size, stride), 1).astype(total.dtype)
    return total / n_patches[None, :, :, None]


def normalise_contrast(x, floor):
    """Takes the mean out of every signal and divides by sqrt(variance + floor^2).

    Shapes  x [..., d] float; floor scalar (it may be traced). Returns x's shape and dtype.
    Domain  floor >= 0, in the unit of the values: the standard deviation below which a signal
            counts as flat (pixels in [0, 1]: about 0.04). A constant signal becomes 0, even for
            floor = 0.
    Errors  TypeError for integers.
    Source  Coates, Lee & Ng 2011, section 3.1, where floor^2 = 10 for pixels in [0, 255].
    """
    x = require_floating('x', x)
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    floor = jnp.asarray(floor, x.dtype)
    energy = jnp.mean(centred * centred, axis=-1, keepdims=True) + floor * floor
    return centred / jnp.sqrt(jnp.where(energy > 0, energy, 1))


def _overlap_add(pieces, axis, stride, length):
    """Sum of the pieces, the i-th laid along the axis at i, i + stride, ... of that length."""

    def lay(i, piece):
        used = i + (piece.shape[axis] - 1) * stride + 1
        config = [(0, 0, 0)] * piece.ndim
        config[axis] = (i, length - used, stride - 1)
        return lax.pad(piece, jnp.zeros((), piece.dtype), config)

    return functools.reduce(jnp.add, itertools.starmap(lay, enumerate(pieces)))
