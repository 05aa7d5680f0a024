"""Features for self-taught learning: codes of whole signals, or pooled codes of an image's dense patches.

The encoder is any function from signals to responses (sparse codes through a dictionary, principal
components, ...), so that kinds of features differ only in the encoder.
"""

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Real

from lecture4.classifiers import linear, newton, softmax, svm
from lecture4.ops import linalg, patches
from lecture4.ops.prox import soft_threshold
from lecture4.sparse import solvers

Encoder = Callable[[Any], Any]


def sparse_encoder(
    D: Float[Array, 'd k'],
    l1_penalty: Real[ArrayLike, ''],
    solver: Callable[..., Any] = solvers.admm,
    **options: Any,
) -> Encoder:
    """An encoder: signals [n, d] -> L1 codes [n, k] through D.

    Args:
      D: Dictionary, atoms in columns.
      l1_penalty: Weight of the l1 penalty on the codes.
      solver: One of lecture4.sparse.solvers.
      **options: Options of the solver.
    """
    return lambda x: solver(x, D, l1_penalty, **options).codes


def threshold_encoder(D: Float[Array, 'd k'], threshold: Real[ArrayLike, '']) -> Encoder:
    """An encoder: signals [n, d] -> soft thresholds of their products with D, [n, k].

    This is the first step of a proximal solver: one product instead of an optimization. Coates & Ng find that with
    enough labels it does as well as sparse codes, for any atoms.

    Args:
      D: Dictionary, atoms in columns.
      threshold: Nonnegative.

    References:
      Coates & Ng 2011, section 3 (their alpha is the threshold).
    """
    return lambda x: soft_threshold(jnp.matmul(x, D), threshold)


def linear_encoder(affine: linalg.Affine) -> Encoder:
    """An encoder: signals [n, d] -> (signals - mean) @ matrix, such as principal components."""
    return lambda x: linalg.apply(affine, x)


def rectify(responses: Float[Array, '*batch k']) -> Float[Array, '*batch 2*k']:
    """Positive and negative parts, concatenated, both nonnegative: [..., k] -> [..., 2k].

    Pooling would otherwise let an atom's positive and negative uses cancel.

    References:
      Coates & Ng 2011, section 3.
    """
    return jnp.concatenate([jnp.maximum(responses, 0), jnp.maximum(-responses, 0)], axis=-1)


def pool_responses(
    responses: Float[Array, 'n rows cols k'],
    pooling_grid: int,
    pooling: Literal['mean', 'sum', 'max'] = 'mean',
) -> Float[Array, 'n {pooling_grid}*{pooling_grid}*k']:
    """Pool a map of responses over the cells of a square grid on the image.

    Args:
      responses: Responses of dense patches.
      pooling_grid: Number of cells along each side. If rows are not divisible, borders are rounded, so that cells
        differ by at most one row.
      pooling: 'mean', 'sum' or 'max'.

    Returns:
      [n, pooling_grid^2 * k], cell by cell.

    Raises:
      ValueError: More cells than rows or columns, or another kind of pooling.
    """
    _, rows, cols, _ = responses.shape
    if pooling_grid < 1 or pooling_grid > min(rows, cols):
        raise ValueError(
            f'pooling_grid={pooling_grid} does not fit {rows} x {cols} responses; '
            f'use 1 to {min(rows, cols)}, or a smaller stride'
        )
    functions = {'mean': jnp.mean, 'sum': jnp.sum, 'max': jnp.max}
    if pooling not in functions:
        raise ValueError(f"pooling={pooling!r}; expected 'mean', 'sum' or 'max'")
    pool = functions[pooling]
    row_edges = [round(i * rows / pooling_grid) for i in range(pooling_grid + 1)]
    col_edges = [round(i * cols / pooling_grid) for i in range(pooling_grid + 1)]
    cells = [
        pool(responses[:, top:bottom, left:right], axis=(1, 2))
        for top, bottom in itertools.pairwise(row_edges)
        for left, right in itertools.pairwise(col_edges)
    ]
    return jnp.concatenate(cells, axis=1)


def preprocess(
    signals: Float[Array, '*batch d'],
    contrast_epsilon: Real[ArrayLike, ''],
    whitening: linalg.Affine,
) -> Float[Array, '*batch m']:
    """Contrast-normalized and whitened signals, on which dictionaries are learned.

    Args:
      signals: Patches or whole images.
      contrast_epsilon: As in patches.normalize_contrast.
      whitening: Whitening from d to m dimensions.
    """
    return linalg.apply(whitening, patches.normalize_contrast(signals, contrast_epsilon))


def encode_images(
    images: Float[Array | np.ndarray, 'n h w c'],
    encoder: Encoder,
    *,
    patch_size: int,
    stride: int,
    contrast_epsilon: Real[ArrayLike, ''],
    whitening: linalg.Affine,
    pooling_grid: int = 1,
    pooling: Literal['mean', 'sum', 'max'] = 'mean',
    tile: int = 16,
) -> Float[Array, 'n features']:
    """Features of images: dense patches, preprocessed, encoded, rectified, pooled.

    Args:
      images: Any number of images; patches of `tile` of them are in memory at a time.
      encoder: Signals [p, m] -> responses [p, k].
      patch_size: Height and width of the patches in pixels.
      stride: Distance in pixels between patches.
      contrast_epsilon: As in patches.normalize_contrast.
      whitening: Whitening of patches to m dimensions.
      pooling_grid: As in `pool_responses`.
      pooling: As in `pool_responses`.
      tile: Number of images encoded together.

    Returns:
      [n, pooling_grid^2 * 2k] of the responses' dtype.

    Raises:
      ValueError: A patch, the grid or the whitening does not fit the images.

    References:
      Raina et al. 2007, section 3; pooling as in Coates, Lee & Ng 2011.
    """
    n, *image_shape = images.shape

    def features(some_images):
        dense = patches.extract(some_images, patch_size, stride)
        shape = dense.shape[:3]
        signals = preprocess(
            dense.reshape(math.prod(shape), dense.shape[-1]), contrast_epsilon, whitening
        )
        responses = encoder(signals)
        responses = responses.reshape(*shape, responses.shape[-1])
        return pool_responses(rectify(responses), pooling_grid, pooling)

    tile = min(tile, max(n, 1))
    n_tiles = -(-n // tile)
    padded = jnp.pad(images, ((0, n_tiles * tile - n), (0, 0), (0, 0), (0, 0)))
    if n_tiles <= 1:
        return features(padded)[:n]
    tiled = jax.lax.map(features, padded.reshape(n_tiles, tile, *image_shape))
    return tiled.reshape(n_tiles * tile, tiled.shape[-1])[:n]


def pooled_encoders(
    encoders: Mapping[str, tuple[Callable[[Any, Any], Any], linalg.Affine]], **options: Any
) -> dict[str, Callable[[Any, Any], Any]]:
    """`encode_images` with each of several encoders.

    Args:
      encoders: Name -> ((params, signals [p, m]) -> responses [p, k], whitening of patches).
      **options: Options of `encode_images`, the same for all.

    Returns:
      {name: (params, images [n, h, w, c]) -> features [n, p]}.
    """

    def pooled(params, images, *, encode, whitening):
        encoder = functools.partial(encode, params)
        return encode_images(images, encoder, whitening=whitening, **options)

    return {
        name: functools.partial(pooled, encode=encode, whitening=whitening)
        for name, (encode, whitening) in encoders.items()
    }


def image_features(
    images: Float[Array, 'n h w c'],
    encoder: Encoder,
    whitening: linalg.Affine,
    *,
    patch_size: int,
    contrast_epsilon: Real[ArrayLike, ''],
    stride: int = 1,
    pooling_grid: int = 1,
    tile: int = 16,
) -> Float[Array, 'n features']:
    """Features of images by dense patches (`encode_images`), or by whole images as single signals.

    Args:
      images: A batch.
      encoder: Signals [p, m] -> responses [p, k].
      whitening: Whitening of signals to m dimensions.
      patch_size: Height and width of the patches in pixels; 0 encodes every image as one signal, and returns the
        responses unchanged: neither rectified nor pooled.
      contrast_epsilon: As in patches.normalize_contrast.
      stride: As in `encode_images`, and so are the other arguments; ignored for whole images.
      pooling_grid: As in `encode_images`.
      tile: As in `encode_images`.

    Raises:
      ValueError: As in `encode_images`.
    """
    if not patch_size:
        return encoder(preprocess(images.reshape(len(images), -1), contrast_epsilon, whitening))
    return encode_images(
        images,
        encoder,
        patch_size=patch_size,
        stride=stride,
        contrast_epsilon=contrast_epsilon,
        whitening=whitening,
        pooling_grid=pooling_grid,
        tile=tile,
    )


def signal_shape(image_shape: Sequence[int], patch_size: int) -> tuple[int, int, int]:
    """Height, width and channels of the signals of `image_features`, for images [h, w, c]."""
    height, width, channels = image_shape
    return patch_size or height, patch_size or width, channels


CLASSIFIERS: dict[str, Callable[..., linear.Fit]] = {
    'squared hinge': newton.fit,
    'hinge': functools.partial(svm.fit, loss='hinge'),
    'softmax': softmax.fit,
}


def full_data_accuracy(
    train_features: Float[Array | np.ndarray, 'n p'],
    test_features: Float[Array | np.ndarray, 'm p'],
    train_labels: Int[Array | np.ndarray, ' n'],
    test_labels: Int[Array | np.ndarray, ' m'],
    *,
    C: float,
    loss: Literal['squared hinge', 'hinge', 'softmax'] = 'squared hinge',
) -> float:
    """Test accuracy, a fraction, of one linear classifier on all labels and standardized features.

    Args:
      train_features: Features of the training set.
      test_features: Features of the test set.
      train_labels: Classes 0 to c - 1.
      test_labels: Classes 0 to c - 1.
      C: Weight of the losses relative to |w|^2 / 2.
      loss: Squared hinge or plain hinge, one class against the rest (linear SVMs), or the
        cross-entropy of softmax regression.
    """
    train, test = standardize(jnp.asarray(train_features), jnp.asarray(test_features))
    fit = CLASSIFIERS[loss](train, train_labels, n_classes=int(np.max(train_labels)) + 1, C=C)
    return float(np.mean(np.asarray(linear.predict(fit, test)) == np.asarray(test_labels)))


def standardize(
    train: Float[Array, 'n p'],
    *others: Float[Array, '_ p'],
    variance_epsilon: Real[ArrayLike, ''] = 0.01,
) -> tuple[Float[Array, '_ p'], ...]:
    """Features with mean 0 and std 1 in every dimension, by the training set's mean and variance.

    Standard deviations far below the typical one are noise and stay small: `variance_epsilon` times the mean variance
    is added to all variances.

    Args:
      train: Features that determine the mean and variance.
      *others: Other features.
      variance_epsilon: Fraction of the mean variance, nonnegative.

    Returns:
      (train, *others), standardized.

    References:
      Coates, Lee & Ng 2011 (who add 0.01 to variances of sums).
    """
    mean = jnp.mean(train, axis=0, keepdims=True)
    variance = jnp.var(train, axis=0, keepdims=True)
    # Constant up to rounding.
    constant = variance <= (4 * jnp.finfo(train.dtype).eps * mean) ** 2
    variance = variance + variance_epsilon * jnp.mean(variance)
    scale = jnp.where(constant, 0, 1 / jnp.sqrt(jnp.where(constant, 1, variance)))
    return tuple((x - mean) * scale for x in (train, *others))


def with_raw(features: Float[Array, 'n p'], raw: Float[Array, 'n d']) -> Float[Array, 'n p+d']:
    """Features concatenated with the raw values, each block scaled to unit mean squared norm.

    References:
      Raina et al. 2007, table 5, where raw + codes beat either on characters.
    """

    def scaled(block):
        energy = jnp.mean(jnp.sum(block * block, axis=1))
        return block / jnp.sqrt(jnp.where(energy > 0, energy, 1))

    return jnp.concatenate([scaled(features), scaled(raw)], axis=1)
