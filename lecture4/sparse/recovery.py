"""Recovery of images from few components: denoising, inpainting, compression of patches.

An image is split into patches, every patch is approximated by few atoms of a dictionary, and where patches overlap
the approximations are averaged. The mean of a patch is always handled separately; atoms describe the deviations from
it. Images are grayscale, [h, w], usually with values in [0, 1].
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PRNGKeyArray, Real, Shaped

from lecture4.ops import patches
from lecture4.ops.prox import require_floating
from lecture4.ops.varying import vary_like, vary_together
from lecture4.sparse.dictionary import online
from lecture4.sparse.masked import masked_codes
from lecture4.sparse.objective import check_penalty_weight, product
from lecture4.sparse.solvers.pursuit import TILE, pursue


def extract_signals(
    image: Shaped[Array | np.ndarray, '...'], patch_size: int, stride: int = 1
) -> Float[Array, 'n d']:
    """All patches of an image [h, w] at multiples of stride, as signals [n, patch_size^2].

    Raises:
      TypeError: An input is an integer array.
      ValueError: Another rank, or no patch fits.
    """
    image = require_floating('image', image)
    if image.ndim != 2:
        raise ValueError(f'image of shape {image.shape}; expected a grayscale image [h, w]')
    dense = patches.extract(image[None, :, :, None], patch_size, stride)
    return dense.reshape(-1, patch_size * patch_size)


def learn_dictionary(
    key: PRNGKeyArray,
    signals: Float[Array | np.ndarray, 'n d'],
    n_atoms: int,
    *,
    l1_penalty: Real[ArrayLike, ''],
    n_steps: int,
    batch_size: int = 1024,
    init: Float[Array | np.ndarray, '_ _'] | None = None,
) -> Float[Array, 'd {n_atoms}']:
    """Learn atoms for signals by n_steps of online learning on random batches.

    This does in one call what `dictionary.online` does in a training loop, for a dictionary of a single image.

    Args:
      key: Random key of the initialization and the batches.
      signals: Signals to learn from.
      n_atoms: Number of atoms.
      l1_penalty: Weight of the l1 penalty, positive; it may be traced.
      n_steps: Number of steps; static.
      batch_size: Signals per step; static.
      init: Initial atoms [d, n_atoms]; None takes random signals.

    Raises:
      TypeError: As in online.step.
      ValueError: As in online.step, and where init is not [d, n_atoms].
    """
    check_penalty_weight(l1_penalty)
    signals = require_floating('signals', signals)
    if init is not None and init.shape != (signals.shape[1], n_atoms):
        raise ValueError(f'init of shape {init.shape}; expected {(signals.shape[1], n_atoms)}')
    return _learn_dictionary(
        key, signals, l1_penalty, init, n_atoms=n_atoms, n_steps=n_steps, batch_size=batch_size
    )


@functools.partial(jax.jit, static_argnames=('n_atoms', 'n_steps', 'batch_size'))
def _learn_dictionary(key, signals, l1_penalty, init, *, n_atoms, n_steps, batch_size):
    key, signals, l1_penalty, init = vary_together(key, signals, l1_penalty, init)
    batch_key, init_key = jax.random.split(key)
    state = online.init(init_key, signals, n_atoms)
    if init is not None:
        state = state._replace(atoms=init)

    def step(state, n):
        key = jax.random.fold_in(batch_key, n)
        rows = jax.random.randint(key, (batch_size,), 0, signals.shape[0])
        return online.step(state, signals[rows], key, penalty_weight=l1_penalty)[0], None

    return lax.scan(step, vary_like(state, signals), jnp.arange(n_steps))[0].atoms


def denoise(
    image: Float[Array | np.ndarray, 'h w'],
    D: Float[Array | np.ndarray, 'd k'],
    noise_std: Real[ArrayLike, ''],
    *,
    patch_size: int,
    stride: int = 1,
    gain: Real[ArrayLike, ''] = 1.1,
    noisy_weight: Real[ArrayLike, ''] = 0.0,
    max_atoms: int = 32,
    tile: int | None = TILE,
) -> Float[Array, 'h w']:
    """Denoise an image by approximating its overlapping patches up to the noise.

    A patch is approximated until its residual is at most gain^2 noise_std^2 per pixel, and the approximations are
    averaged, together with `noisy_weight` copies of the noisy image.

    Args:
      image: Noisy image.
      D: Dictionary [patch_size * patch_size, k].
      noise_std: Standard deviation of the noise in the unit of the pixels, nonnegative; it may be traced.
      patch_size: Height and width of the patches; static.
      stride: Distance in pixels between patches; static. With stride > 1, pixels that no patch covers stay unchanged.
      gain: Factor on the noise level, positive; it may be traced.
      noisy_weight: Weight of the noisy image, nonnegative.
      max_atoms: Largest number of atoms for each patch; static.
      tile: Number of patches approximated together; static.

    Raises:
      TypeError: An input is an integer array.
      ValueError: The dictionary, the patches and the image do not fit.

    References:
      Elad & Aharon 2006, with gain 1.15 and noisy_weight 30 / (255 sigma); atoms of BSD400 did
      better with 1.1 and 0 on images of BSD68. The dictionary is the caller's.
    """
    return _denoise(
        image,
        D,
        noise_std,
        gain,
        noisy_weight,
        patch_size=patch_size,
        stride=stride,
        max_atoms=max_atoms,
        tile=tile,
    )


@functools.partial(jax.jit, static_argnames=('patch_size', 'stride', 'max_atoms', 'tile'))
def _denoise(image, D, noise_std, gain, noisy_weight, *, patch_size, stride, max_atoms, tile):
    x = extract_signals(image, patch_size, stride)
    mean = jnp.mean(x, axis=1, keepdims=True)
    energy = jnp.asarray(gain * noise_std, x.dtype) ** 2 * patch_size * patch_size
    approximation, _ = pursue(x - mean, D, energy, max_atoms=max_atoms, tile=tile)
    noisy_weight = jnp.asarray(noisy_weight, x.dtype)
    total = _sum_patches(mean + approximation, image.shape, patch_size, stride)
    total = total + noisy_weight * image
    counts = patches.counts(image.shape, patch_size, stride).astype(x.dtype) + noisy_weight
    return jnp.where(counts > 0, total / jnp.where(counts > 0, counts, 1), image)


def inpaint(
    image: Float[Array | np.ndarray, 'h w'],
    known: Bool[Array | np.ndarray, 'h w'],
    D: Float[Array | np.ndarray, 'd k'],
    l1_penalty: Real[ArrayLike, '...'],
    *,
    patch_size: int,
    stride: int = 1,
    max_iterations: Int[ArrayLike, ''] = 200,
    tile: int = TILE,
) -> Float[Array, 'h w']:
    """Fill in the missing pixels of an image by patches coded on their known pixels alone.

    Known pixels keep their values; a missing pixel becomes the mean over the patches that cover it, each weighted by
    its number of known pixels, or the image's mean if no such patch has known pixels.

    Args:
      image: Image; values where `known` is False are never used, and may be NaN.
      known: Mask, False where a pixel is missing.
      D: Dictionary [patch_size * patch_size, k].
      l1_penalty: Weight of the l1 penalty, positive.
      patch_size: Height and width of the patches; static.
      stride: Distance in pixels between patches; static.
      max_iterations: Largest number of iterations of masked_codes.
      tile: Number of patches coded together; static.

    Raises:
      TypeError: An input is an integer array.
      ValueError: The dictionary, the patches and the image do not fit, or the penalty is not positive.

    References:
      Mairal, Elad & Sapiro 2008, sections II and III (masked patches), with L1 codes.
    """
    check_penalty_weight(l1_penalty)
    return _inpaint(
        image, known, D, l1_penalty, max_iterations, patch_size=patch_size, stride=stride, tile=tile
    )


@functools.partial(jax.jit, static_argnames=('patch_size', 'stride', 'tile'))
def _inpaint(image, known, D, l1_penalty, max_iterations, *, patch_size, stride, tile):
    image = jnp.where(known, image, 0)
    overall_mean = jnp.sum(image) / jnp.maximum(jnp.sum(known, dtype=image.dtype), 1)
    x = extract_signals(image, patch_size, stride)
    mask = extract_signals(jnp.where(known, 1, 0).astype(image.dtype), patch_size, stride)

    def fill(tile_rows):
        x, mask = tile_rows
        count = jnp.sum(mask, axis=1, keepdims=True)
        mean = jnp.sum(x, axis=1, keepdims=True) / jnp.maximum(count, 1)
        solution = masked_codes(
            x - mean, mask, D, l1_penalty, tolerance=1e-3, max_iterations=max_iterations
        )
        filled = (mean + product(solution.codes, D.T)) * count
        return filled, jnp.broadcast_to(count, x.shape)

    total, count = (
        _sum_patches(v, image.shape, patch_size, stride) for v in _by_tiles(fill, tile, x, mask)
    )
    mean = jnp.where(count > 0, total / jnp.maximum(count, 1), overall_mean)
    return jnp.where(known, image, mean)


def compress(
    image: Float[Array | np.ndarray, 'h w'],
    approximate_fn: Callable[[Any], Any],
    *,
    patch_size: int,
) -> tuple[Float[Array, 'h2 w2'], Float[Array, 'h2 w2']]:
    """The image reconstructed from non-overlapping patches, each stored as its mean and few coefficients.

    Args:
      image: Image; rows and columns beyond whole patches are cropped.
      approximate_fn: Signals [n, d] with mean 0 -> their approximations by few coefficients, [n, d].
      patch_size: Height and width of a patch.

    Returns:
      (reconstruction, original), both of whole patches.
    """
    h, w = (length // patch_size * patch_size for length in image.shape)
    image = jnp.asarray(image[:h, :w])
    x = extract_signals(image, patch_size, patch_size)
    mean = jnp.mean(x, axis=1, keepdims=True)
    approximation = mean + approximate_fn(x - mean)
    return _sum_patches(approximation, image.shape, patch_size, patch_size), image


def keep_largest(
    x: Float[Array, 'n d'], basis: Float[Array, 'd m'], n_nonzero: int
) -> Float[Array, 'n d']:
    """The best approximations of signals by n_nonzero coefficients in an orthonormal basis: the largest ones."""
    codes = product(x, basis)
    if n_nonzero < basis.shape[1]:
        at = lax.top_k(jnp.abs(codes), n_nonzero)[1]
        rows = jnp.arange(len(codes))[:, None]
        codes = jnp.zeros_like(codes).at[rows, at].set(codes[rows, at])
    return product(codes, basis.T)


def cosine_dictionary(patch_size: int, n_frequencies: int | None = None) -> Float[Array, 'd k']:
    """Discrete cosines of square patches without the constant one, unit norm and mean 0.

    With n_frequencies = patch_size (None) the orthonormal basis of the cosine transform; with more,
    the frequencies are closer: a redundant dictionary, the baseline for learned ones.

    Returns:
      [patch_size^2, n_frequencies^2 - 1].

    References:
      Elad & Aharon 2006, section V (16 frequencies for patches of 8 x 8).
    """
    n_frequencies = n_frequencies or patch_size
    position = jnp.arange(patch_size, dtype=jnp.float32)[None, :] + 0.5
    rows = jnp.cos(
        jnp.pi / n_frequencies * position * jnp.arange(n_frequencies, dtype=jnp.float32)[:, None]
    )
    D = jnp.kron(rows, rows)[1:].T
    D = D - jnp.mean(D, axis=0, keepdims=True)
    return D / jnp.linalg.norm(D, axis=0, keepdims=True)


def _sum_patches(signals, shape, patch_size, stride):
    """The sum of all patches at their positions: the adjoint of extract_signals, [h, w]."""
    grid = patches.grid(shape, patch_size, stride)
    dense = signals.reshape(1, *grid, patch_size * patch_size)
    return patches.reassemble(dense, (*shape, 1), patch_size, stride)[0, :, :, 0]


def _by_tiles(fn, tile, *arrays):
    """Fn applied to the arrays' rows, `tile` of them at a time; it returns a row for each."""
    n = len(arrays[0])
    tile = max(min(tile, n), 1)
    n_tiles = -(-n // tile)
    padded = tuple(
        jnp.pad(a, ((0, n_tiles * tile - n), (0, 0))).reshape(n_tiles, tile, -1) for a in arrays
    )
    tiled = lax.map(fn, padded)
    return jax.tree.map(lambda a: a.reshape(n_tiles * tile, -1)[:n], tiled)
