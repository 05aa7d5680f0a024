"""Dense patches of images, the adjoint that adds them back, and contrast normalization."""

import functools
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int32, Real, Shaped

from lecture4.ops import linalg
from lecture4.ops.prox import require_floating


def extract(
    images: Shaped[ArrayLike, 'n h w c'], patch_size: int, stride: int = 1
) -> Shaped[Array, 'n rows cols d']:
    """All patch_size x patch_size patches at multiples of stride that lie inside the image.

    Args:
      images: Images of any dtype.
      patch_size: Height and width of a patch.
      stride: Distance between patches.

    Returns:
      Patches of the images' dtype, rows = (h - patch_size) // stride + 1; each flattened in the order
      (row, column, channel), d = patch_size * patch_size * c. Pixels beyond the last patch are in no patch.

    Raises:
      ValueError: Images are not NHWC or are smaller than a patch; patch_size or stride is below 1.
    """
    images = jnp.asarray(images)
    if images.ndim != 4:
        raise ValueError(
            f'expected images [n, h, w, c] (c = 1 for grayscale), got shape {images.shape}'
        )
    return _extract(images, patch_size, stride)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _extract(images, patch_size, stride):
    n, height, width, channels = images.shape
    rows, cols = grid((height, width), patch_size, stride)
    # Two gathers of whole rows and columns: exact on every backend, which a convolution by
    # indicator kernels is not where float32 products are rounded.
    down = jnp.arange(rows)[:, None] * stride + jnp.arange(patch_size)[None, :]
    across = jnp.arange(cols)[:, None] * stride + jnp.arange(patch_size)[None, :]
    bands = images[:, down]  # [n, rows, patch_size, w, c]
    patches = bands[:, :, :, across]  # [n, rows, patch_size, cols, patch_size, c]
    patches = patches.transpose(0, 1, 3, 2, 4, 5)
    return patches.reshape(n, rows, cols, patch_size * patch_size * channels)


def grid(image_shape: Sequence[int], patch_size: int, stride: int = 1) -> tuple[int, int]:
    """(rows, cols): number of patches that fit down and across an image.

    Args:
      image_shape: Shape (h, w, ...) of the image.
      patch_size: Height and width of a patch.
      stride: Distance between patches.

    Raises:
      ValueError: As in `extract`.
    """
    height, width = image_shape[:2]
    if patch_size < 1 or stride < 1:
        raise ValueError(f'patch_size {patch_size} and stride {stride} must both be at least 1')
    if min(height, width) < patch_size:
        raise ValueError(
            f'images of {height} x {width} pixels hold no patch of {patch_size} x {patch_size}; '
            f'use a patch_size of at most {min(height, width)}'
        )
    return (height - patch_size) // stride + 1, (width - patch_size) // stride + 1


def reassemble(
    patches: Shaped[ArrayLike, 'n rows cols d'],
    image_shape: Sequence[int],
    patch_size: int,
    stride: int = 1,
) -> Shaped[Array, 'n h w c']:
    """The adjoint of extract: every patch is added at its position, and overlaps are summed.

    Args:
      patches: Patches, d = patch_size * patch_size * c.
      image_shape: Shape (h, w, c) of one image.
      patch_size: Height and width of a patch.
      stride: Distance between patches.

    Raises:
      ValueError: The patches do not fit such images; the message has both shapes.
    """
    patches = jnp.asarray(patches)
    height, width, channels = image_shape
    rows, cols = grid(image_shape, patch_size, stride)
    expected = (rows, cols, patch_size * patch_size * channels)
    if patches.ndim != 4 or patches.shape[1:] != expected:
        raise ValueError(
            f'patches have shape {patches.shape}; images of shape {tuple(image_shape)}, '
            f'patch_size {patch_size} and stride {stride} give [n, {rows}, {cols}, {expected[2]}]'
        )
    blocks = patches.reshape(patches.shape[0], rows, cols, patch_size, patch_size, channels)
    # Across, then down: 2 patch_size additions instead of patch_size^2.
    bands = _overlap_add([blocks[:, :, :, :, j] for j in range(patch_size)], 2, stride, width)
    return _overlap_add([bands[:, :, :, i] for i in range(patch_size)], 1, stride, height)


def counts(image_shape: Sequence[int], patch_size: int, stride: int = 1) -> Int32[Array, 'h w']:
    """Number of patches that contain each pixel; 0 beyond the last patch.

    Args:
      image_shape: Shape (h, w, ...) of the image.
      patch_size: Height and width of a patch.
      stride: Distance between patches.

    Raises:
      ValueError: As in `extract`.
    """
    along = []
    shape = grid(image_shape, patch_size, stride)
    for length, n_patches in zip(image_shape[:2], shape, strict=True):
        first = jnp.arange(n_patches) * stride
        offset = jnp.arange(length)[:, None] - first[None, :]
        inside = (offset >= 0) & (offset < patch_size)
        along.append(jnp.sum(inside, axis=1, dtype=jnp.int32))
    return along[0][:, None] * along[1][None, :]


def average(
    patches: Float[ArrayLike, 'n rows cols d'],
    image_shape: Sequence[int],
    patch_size: int,
    stride: int = 1,
) -> Float[Array, 'n h w c']:
    """Images whose pixels are the mean over the patches that contain them; 0 where there is none.

    average(extract(x)) equals x on every covered pixel.

    Args:
      patches: This and the others as in `reassemble`.
      image_shape: Shape (h, w, c) of one image.
      patch_size: Height and width of a patch.
      stride: Distance between patches.

    Raises:
      TypeError: patches are not floating point.
      ValueError: As in `reassemble`.
    """
    patches = require_floating('patches', patches)
    total = reassemble(patches, image_shape, patch_size, stride)
    n_patches = jnp.maximum(counts(image_shape, patch_size, stride), 1).astype(total.dtype)
    return total / n_patches[None, :, :, None]


def normalize_contrast(
    x: Float[ArrayLike, '*batch d'], contrast_epsilon: Real[ArrayLike, '']
) -> Float[Array, '*batch d']:
    """Subtract the mean of every signal and divide by sqrt(variance + contrast_epsilon^2).

    Args:
      x: Signals.
      contrast_epsilon: Standard deviation below which a signal counts as flat (for pixels in [0, 1] about 0.04),
        nonnegative, in the unit of x; may be traced. A constant signal becomes 0, even for 0.

    Raises:
      TypeError: x is not floating point.

    References:
      Coates, Lee & Ng 2011, section 3.1, where contrast_epsilon^2 = 10 for pixels in [0, 255].
    """
    x = require_floating('x', x)
    centered = x - jnp.mean(x, axis=-1, keepdims=True)
    epsilon = jnp.asarray(contrast_epsilon, x.dtype)
    energy = jnp.mean(centered * centered, axis=-1, keepdims=True) + epsilon * epsilon
    return centered / jnp.sqrt(jnp.where(energy > 0, energy, 1))


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _overlap_add(pieces, axis, stride, length):
    """Sum of the pieces along an axis of a given length, the i-th placed at i, i + stride, ...."""

    def place(i, piece):
        used = i + (piece.shape[axis] - 1) * stride + 1
        config = [(0, 0, 0)] * piece.ndim
        config[axis] = (i, length - used, stride - 1)
        return lax.pad(piece, jnp.zeros((), piece.dtype), config)

    return functools.reduce(jnp.add, itertools.starmap(place, enumerate(pieces)))


def whiten(
    signals: Float[ArrayLike, 'n d'],
    contrast_epsilon: float,
    zca_epsilon: float,
    *,
    num_held_out: int = 0,
) -> tuple[Float[np.ndarray, 'n d'], linalg.Affine]:
    """Contrast-normalized and whitened patches, and the whitening.

    Args:
      signals: Patches.
      contrast_epsilon: As in `normalize_contrast`.
      zca_epsilon: As in `linalg.zca`.
      num_held_out: Number of first patches, which are whitened but do not determine the whitening.
    """
    normalized = normalize_contrast(jnp.asarray(signals), contrast_epsilon)
    whitening = linalg.zca(normalized[num_held_out:], zca_epsilon)
    return np.asarray(linalg.apply(whitening, normalized)), whitening
