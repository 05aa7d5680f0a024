"""Binarization of gray images: the protocols under which log-likelihoods in nats are compared."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, Shaped

from lecture4.ops import random_numbers
from lecture4.ops.losses import check_unit_interval


def binarize(key: PRNGKeyArray, x: Float[ArrayLike, '*shape']) -> Float[Array, '*shape']:
    """Pixels 0 or 1, each 1 with probability x: dynamic binarization if the key is new in every batch.

    Args:
      key: A random key.
      x: Probabilities in [0, 1]; a traced value outside counts as 0 or 1.

    Raises:
      TypeError: x is an integer array.
      ValueError: Known pixels lie outside [0, 1] or are NaN.
    """
    x = jnp.asarray(check_unit_interval(x, 'x'))
    return (random_numbers.uniform(key, x.shape, x.dtype) < x).astype(x.dtype)


def binarize_once(
    x: Float[np.ndarray, '*shape'],
    protocol: Literal['dynamic', 'static', 'threshold', 'gray'],
    seed: int,
) -> Float[np.ndarray, '*shape']:
    """A data set binarized for evaluation by a protocol: the same pixels every time.

    Args:
      x: Gray levels in [0, 1].
      protocol: 'dynamic' and 'static' sample every pixel once, like `binarize`; 'threshold' thresholds at 0.5; 'gray'
        leaves x unchanged.
      seed: Seed of the samples.
    """
    if protocol == 'gray':
        return x
    if protocol == 'threshold':
        return (x > 0.5).astype(x.dtype)
    return np.asarray(binarize(jax.random.key(seed), x))


def independent_pixels(train: Shaped[ArrayLike, 'n d'], test: Shaped[ArrayLike, 'm d']) -> float:
    """Baseline: mean log p(test) under independent Bernoulli pixels with the rates of `train`.

    Args:
      train: Training images with values 0 or 1.
      test: Test images with values 0 or 1.

    Returns:
      Nats per example.
    """
    train, test = np.asarray(train), np.asarray(test)
    rate = (np.sum(train, axis=0, dtype=np.float64) + 0.5) / (
        len(train) + 1
    )  # smoothed, so never 0 or 1
    mean = np.mean(test, axis=0, dtype=np.float64)
    return float(np.sum(mean * np.log(rate) + (1 - mean) * np.log1p(-rate)))
