"""Self-taught learning's features: codes of whole signals, and of an image's dense patches, pooled.

The encoder is any function from signals to responses (sparse codes through a dictionary, principal
components, ...), so that two kinds of features differ in nothing but the encoder.
"""

import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from lecture4.ops import linalg, patches
from lecture4.ops.prox import soft_threshold
from lecture4.sparse import solvers


def sparse_encoder(D, weight, solver=solvers.admm, **options) -> Callable[[jax.Array], jax.Array]:
    """An encoder: signals [n, d] -> L1 codes [n, k] through D [d, k]; options are the solver's."""
    return lambda x: solver(x, D, weight, **options).codes


def threshold_encoder(D, threshold) -> Callable[[jax.Array], jax.Array]:
    """An encoder: signals [n, d] -> soft thresholds of their products with D [d, k], [n, k].

    The first step of a proximal solver, and all of it: one product instead of an optimisation.
    Coates & Ng find that with enough labels it does as well as sparse codes, whatever the atoms.
    Source  Coates & Ng 2011, section 3 (their alpha is threshold).
    """
    return lambda x: soft_threshold(jnp.matmul(x, D), threshold)


def linear_encoder(affine: linalg.Affine) -> Callable[[jax.Array], jax.Array]:
    """An encoder: signals [n, d] -> (signals - mean) @ matrix, such as principal components."""
    return lambda x: linalg.apply(affine, x)


def rectify(responses):
    """[..., k] -> [..., 2k]: positive and negative parts side by side, both non-negative.

    Pooling would otherwise let an atom's positive and negative uses cancel.
    Source  Coates & Ng 2011, section 3.
    """
    return jnp.concatenate([jnp.maximum(responses, 0), jnp.maximum(-responses, 0)], axis=-1)


def pool_regions(responses, regions: int, reduce: str = 'mean'):
    """Pool a map of responses over regions x regions equal parts of the picture.

    Shapes  responses [n, rows, cols, k] -> [n, regions * regions * k], region by region. Where
            rows are not divisible the borders are rounded, so parts differ by at most one row.
    Errors  ValueError where there are more regions than rows or columns, or for another `reduce`.
    """
    _, rows, cols, _ = responses.shape
    if regions < 1 or regions > min(rows, cols):
        raise ValueError(
            f'{regions} x {regions} regions do not fit a map of {rows} x {cols} responses; '
            f'use 1 to {min(rows, cols)} regions or a smaller stride'
        )
    pools = {'mean': jnp.mean, 'sum': jnp.sum, 'max': jnp.max}
    if reduce not in pools:
        raise ValueError(f"reduce is 'mean', 'sum' or 'max', not {reduce!r}")
    pool = pools[reduce]
    row_edges = [round(i * rows / regions) for i in range(regions + 1)]
    col_edges = [round(i * cols / regions) for i in range(regions + 1)]
    parts = [
        pool(responses[:, top:bottom, left:right], axis=(1, 2))
        for top, bottom in itertools.pairwise(row_edges)
        for left, right in itertools.pairwise(col_edges)
    ]
    return jnp.concatenate(parts, axis=1)


def preprocess(signals, floor, whitening: linalg.Affine):
    """Contrast-normalised and whitened signals: what dictionaries are learned on.

    Shapes  signals [..., d] -> [..., m]; floor as in patches.normalize_contrast.
    """
    return linalg.apply(whitening, patches.normalize_contrast(signals, floor))


def encode_images(
    images,
    encoder,
    *,
    size: int,
    stride: int,
    floor,
    whitening: linalg.Affine,
    regions: int = 1,
    reduce: str = 'mean',
    tile: int = 16,
):
    """Features of images: dense patches, preprocessed, encoded, rectified, pooled.

    Works through `tile` images at a time, so that memory does not grow with their number.
    Shapes  images [n, h, w, c] float; encoder signals [p, m] -> responses [p, k]. Returns
            [n, regions^2 * 2k] of the responses' dtype.
    Errors  ValueError where a patch, the regions or the whitening do not fit the images.
    Source  Raina et al. 2007, section 3; pooling as in Coates, Lee & Ng 2011.
    """
    n, *image_shape = images.shape

    def features(tile_images):
        dense = patches.extract(tile_images, size, stride)
        shape = dense.shape[:3]
        signals = preprocess(dense.reshape(math.prod(shape), dense.shape[-1]), floor, whitening)
        responses = encoder(signals)
        responses = responses.reshape(*shape, responses.shape[-1])
        return pool_regions(rectify(responses), regions, reduce)

    tile = min(tile, max(n, 1))
    n_tiles = -(-n // tile)
    padded = jnp.pad(images, ((0, n_tiles * tile - n), (0, 0), (0, 0), (0, 0)))
    if n_tiles <= 1:
        return features(padded)[:n]
    tiled = jax.lax.map(features, padded.reshape(n_tiles, tile, *image_shape))
    return tiled.reshape(n_tiles * tile, tiled.shape[-1])[:n]


def standardise(learned, *others, floor=0.01):
    """Features with each dimension's mean taken out and its deviation made 1, by the learned set's.

    Deviations far below the typical one are noise and stay small: to the variances, floor times
    their mean is added.

    Shapes  learned [n, p], others [m, p]. Returns a tuple of the same shapes.
    Source  Coates, Lee & Ng 2011 (who add 0.01 to variances of sums).
    """
    mean = jnp.mean(learned, axis=0, keepdims=True)
    variance = jnp.var(learned, axis=0, keepdims=True)
    constant = variance <= (4 * jnp.finfo(learned.dtype).eps * mean) ** 2  # but for rounding
    variance = variance + floor * jnp.mean(variance)
    scale = jnp.where(constant, 0, 1 / jnp.sqrt(jnp.where(constant, 1, variance)))
    return tuple((x - mean) * scale for x in (learned, *others))


def with_raw(features, raw):
    """Features beside the raw values, each block scaled to unit mean squared norm.

    Shapes  features [n, p], raw [n, d] -> [n, p + d].
    Source  Raina et al. 2007, table 5, where raw + codes beat either on characters.
    """

    def scaled(block):
        energy = jnp.mean(jnp.sum(block * block, axis=1))
        return block / jnp.sqrt(jnp.where(energy > 0, energy, 1))

    return jnp.concatenate([scaled(features), scaled(raw)], axis=1)
