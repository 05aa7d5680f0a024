"""Denoising autoencoders: the input is corrupted, the target is the clean example.

    min E -log p(x | g(f(x~))),   x~ ~ q(x~ | x), sampled in every batch.

A corruption is any function (key, x) -> x~ of x's shape; this module has those of the papers. With squared
error and Gaussian noise of variance s^2 the best reconstruction r gives the score of the SMOOTHED
density p_s, p convolved with the noise, exactly at every s: r(x~) - x~ = s^2 grad log p_s(x~)
(Tweedie). The score of the data's own density is its limit for small s. Neither holds for masking
noise, or for a cross-entropy whose outputs are confined to (0, 1).

The lecture's slide minimizes ||g(f(x~)) - x~||^2. The identity then has no loss and nothing is denoised: the
target is x. Its score g(f(x)) - x lacks the factor 1 / s^2, and is that of p_s.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, ScalarLike, Shaped

from lecture4.ops import random_numbers
from lecture4.ops.prox import require_floating


def gaussian(
    key: PRNGKeyArray, x: Float[ArrayLike, '*shape'], std: ScalarLike
) -> Float[Array, '*shape']:
    """Additive noise: x + std * noise.

    Args:
      key: A random key.
      x: Clean values.
      std: Standard deviation of the noise, nonnegative; may be traced.

    Raises:
      TypeError: x is an integer array.
      ValueError: std is a known number below 0.
    """
    x = require_floating('x', x)
    _check('std', std, 0, None)
    return x + jnp.asarray(std, x.dtype) * random_numbers.normal(key, x.shape, x.dtype)


def masking(
    key: PRNGKeyArray, x: Float[ArrayLike, '*shape'], mask_rate: ScalarLike
) -> Float[Array, '*shape']:
    """Each value set to 0 with probability mask_rate; the others are not rescaled.

    Args:
      key: A random key.
      x: Clean values.
      mask_rate: Probability in [0, 1]; may be traced.

    Raises:
      TypeError: x is an integer array.
      ValueError: mask_rate is a known number outside [0, 1].

    References:
      Vincent et al. 2008.
    """
    x = require_floating('x', x)
    _check('mask_rate', mask_rate, 0, 1)
    masked = random_numbers.uniform(key, x.shape, x.dtype) < jnp.asarray(mask_rate, x.dtype)
    return jnp.where(masked, 0, x)


def salt_and_pepper(
    key: PRNGKeyArray,
    x: Float[ArrayLike, '*shape'],
    flip_rate: ScalarLike,
    low: ScalarLike = 0.0,
    high: ScalarLike = 1.0,
) -> Float[Array, '*shape']:
    """Each value set to `low` or `high`, by a fair coin, with probability flip_rate.

    Args:
      key: A random key.
      x: Clean values.
      flip_rate: Probability in [0, 1]; may be traced.
      low: Smallest value.
      high: Largest value.

    Raises:
      TypeError: x is an integer array.
      ValueError: flip_rate is a known number outside [0, 1].

    References:
      Vincent et al. 2010.
    """
    x = require_floating('x', x)
    _check('flip_rate', flip_rate, 0, 1)
    u = random_numbers.uniform(key, x.shape, x.dtype)
    flip_rate = jnp.asarray(flip_rate, x.dtype)
    extreme = jnp.where(u < flip_rate / 2, jnp.asarray(low, x.dtype), jnp.asarray(high, x.dtype))
    return jnp.where(u < flip_rate, extreme, x)


def corruption(
    name: Literal['gaussian', 'masking', 'salt_and_pepper'], level: ScalarLike
) -> Callable[[PRNGKeyArray, Array], Array]:
    """A corruption (key, x) -> x~ by its name.

    Args:
      name: Name of one of the functions above.
      level: Standard deviation of 'gaussian'; for the others, the fraction of values that are corrupted.
    """
    function = {'gaussian': gaussian, 'masking': masking, 'salt_and_pepper': salt_and_pepper}[name]
    return lambda key, x: function(key, x, level)


def loss(
    reconstruct: Callable[[Array], Array],
    nll: Callable[[Array, Array], Array],
    corrupt: Callable[[PRNGKeyArray, Array], Array],
    x: Float[ArrayLike, 'n *shape'],
    key: PRNGKeyArray,
    *,
    emphasis: tuple[ScalarLike, ScalarLike] | None = None,
) -> Float[Array, ' n']:
    """-log p(x | reconstruct(corrupt(key, x))) per example.

    Args:
      reconstruct: x~ [n, d] -> the decoder's parameters [n, d]: logits, or means.
      nll: (output, x) -> [n]: losses.bernoulli_nll, losses.squared_error, or the negative log_prob
        of any stochastic.Distribution, such as the Gaussian.
      corrupt: (key, x) -> x~.
      x: Clean examples.
      key: A random key for the corruption.
      emphasis: (alpha, beta): weights of the terms of changed values (alpha) and of the others (beta); None weights
        all by 1.

    Raises:
      ValueError: The corruption changes the shape, or `emphasis` is given for a decoder whose outputs do not
        correspond to the values of x one to one.

    References:
      Vincent et al. 2008, 2010 (emphasis: section 4.5).
    """
    x = jnp.asarray(x)
    noisy = corrupt(key, x)
    if noisy.shape != x.shape:
        raise ValueError(
            f'expected a corruption that keeps the shape {x.shape} of x, got {noisy.shape}'
        )
    output = reconstruct(noisy)
    if emphasis is None:
        return nll(output, x)
    if output.shape != x.shape:
        raise ValueError(
            f'emphasis weights values one by one, but {output.shape[1:]} outputs do not correspond '
            f'to {x.shape[1:]} values; use a decoder of means alone, or emphasis=None'
        )
    each = nll(output.reshape(-1, 1), x.reshape(-1, 1)).reshape(x.shape)
    alpha, beta = (jnp.asarray(weight, x.dtype) for weight in emphasis)
    weight = jnp.where(noisy != x, alpha, beta)
    return jnp.sum((weight * each).reshape(x.shape[0], -1), axis=1)


def smoothed_score(
    reconstruct: Callable[[Array], Array], x: Float[ArrayLike, 'n d'], std: ScalarLike
) -> Float[Array, 'n d']:
    """(reconstruct(x) - x) / std^2: the score of the data's density smoothed by the noise.

    Args:
      reconstruct: A network trained with squared error and Gaussian noise of standard deviation `std`.
      x: Points near the noisy data, where the network was trained.
      std: Standard deviation of the noise.

    References:
      Alain & Bengio 2014; the exact form is Tweedie's (Robbins 1956, Efron 2011).
    """
    x = jnp.asarray(x)
    return (reconstruct(x) - x) / jnp.asarray(std, x.dtype) ** 2


class Affine(NamedTuple):
    """The map x -> x @ matrix + offset."""

    matrix: Float[np.ndarray, 'd d']
    offset: Float[np.ndarray, ' d']

    def __call__(self, x: Float[Array | np.ndarray, 'n d']) -> Float[Array | np.ndarray, 'n d']:
        """Apply the map to every row of x."""
        return x @ self.matrix + self.offset[None, :]


def best_linear(
    clean: Shaped[ArrayLike, 'n d'], noisy: Shaped[ArrayLike, 'n d'], ridge: float = 1e-6
) -> Affine:
    """Baseline: the least-squares affine map from noisy to clean examples, computed on the host.

    A linear denoising autoencoder converges to it. For Gaussian noise of variance s^2 on data of
    covariance C it is x -> mean + C (C + s^2 I)^-1 (x - mean).

    Args:
      clean: Clean examples.
      noisy: The same examples, corrupted.
      ridge: Fraction of the mean variance that is added to the variance of every direction.
    """
    clean, noisy = (np.asarray(part, np.float64) for part in (clean, noisy))
    target, mean = clean.mean(0), noisy.mean(0)
    centered = noisy - mean
    gram = centered.T @ centered / len(clean)
    gram += ridge * np.trace(gram) / len(gram) * np.eye(len(gram))
    matrix = np.linalg.solve(gram, centered.T @ (clean - target) / len(clean))
    return Affine(matrix.astype(np.float32), (target - mean @ matrix).astype(np.float32))


def wiener(clean: Shaped[ArrayLike, 'n d'], std: float) -> Affine:
    """The best affine map for Gaussian noise: C (C + std^2 I)^-1 about the mean of `clean`."""
    clean = np.asarray(clean, np.float64)
    mean, C = clean.mean(0), np.cov(clean.T, bias=True)
    matrix = np.linalg.solve(C + std**2 * np.eye(len(C)), C)
    return Affine(matrix.astype(np.float32), (mean - mean @ matrix).astype(np.float32))


def _check(name, value, low, high):
    """Raise a ValueError if a known level is outside its domain, or NaN."""
    if isinstance(value, Tracer):
        return
    value = np.asarray(value)
    if not (value >= low and (high is None or value <= high)):
        domain = f'between {low} and {high}' if high is not None else f'at least {low}'
        raise ValueError(f'expected {name} {domain}, got {value}')
