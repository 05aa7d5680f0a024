"""Denoising autoencoders: the input is corrupted, the target is the clean example.

    min E -log p(x | g(f(x~))),   x~ drawn anew from q(x~ | x) at every visit.

A corruption is any function (key, x) -> x~ of x's shape; those of the papers are here. With squared
error and Gaussian noise of variance s^2 the best reconstruction r gives the score of the SMOOTHED
density p_s, p convolved with the noise, exactly at every s: r(x~) - x~ = s^2 grad log p_s(x~)
(Tweedie). The score of the data's own density is its limit for small s. Neither holds for masking
noise, or for a cross-entropy whose outputs are confined to (0, 1).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lecture4.ops.prox import require_floating


def gaussian(key, x, std):
    """The corruption x + std * noise, of any shape.

    Domain  std >= 0; it may be traced.
    Errors  TypeError for integers; ValueError for a known std below 0.
    """
    x = require_floating('x', x)
    _check('std', std, 0, None)
    return x + jnp.asarray(std, x.dtype) * jax.random.normal(key, x.shape, x.dtype)


def masking(key, x, share):
    """Each value set to 0 with probability `share`. The others stay as they are: no rescaling.

    Domain  0 <= share <= 1; it may be traced.
    Errors  TypeError for integers; ValueError for a known share outside.
    Source  Vincent et al. 2008.
    """
    x = require_floating('x', x)
    _check('share', share, 0, 1)
    hit = jax.random.uniform(key, x.shape, x.dtype) < jnp.asarray(share, x.dtype)
    return jnp.where(hit, 0, x)


def salt_and_pepper(key, x, share, low=0.0, high=1.0):
    """Each value set to `low` or `high`, by a fair coin, with probability `share`.

    Domain  0 <= share <= 1; it may be traced. low and high are the least and greatest values.
    Errors  TypeError for integers; ValueError for a known share outside.
    Source  Vincent et al. 2010.
    """
    x = require_floating('x', x)
    _check('share', share, 0, 1)
    draw = jax.random.uniform(key, x.shape, x.dtype)
    share = jnp.asarray(share, x.dtype)
    extreme = jnp.where(draw < share / 2, jnp.asarray(low, x.dtype), jnp.asarray(high, x.dtype))
    return jnp.where(draw < share, extreme, x)


def loss(reconstruct, nll, corrupt, x, key, *, emphasis=None):
    """-log p(x | reconstruct(corrupt(key, x))) per example, [n].

    reconstruct  x~ [n, d] -> the decoder's parameters [n, d]: logits, or means.
    nll          (output, x) -> [n]: losses.bernoulli_nll, losses.squared_error, or the negative
                 log_prob of any stochastic.Family, as that of a Gaussian.
    corrupt      (key, x) -> x~.
    emphasis     (alpha, beta): the terms of values that were changed weigh alpha, the others beta.
                 None weighs all by 1.
    Source  Vincent et al. 2008, 2010 (emphasis: section 4.5).
    """
    noisy = corrupt(key, x)
    if noisy.shape != x.shape:
        raise ValueError(
            f'the corruption turned x {x.shape} into {noisy.shape}; it is to keep the shape'
        )
    output = reconstruct(noisy)
    if emphasis is None:
        return nll(output, x)
    if output.shape != x.shape:
        raise ValueError(
            f'emphasis weighs values one by one, and {output.shape[1:]} outputs do not stand for '
            f'{x.shape[1:]} values one by one; use a decoder of means alone, or emphasis=None'
        )
    each = nll(output.reshape(-1, 1), x.reshape(-1, 1)).reshape(x.shape)
    changed, kept = (jnp.asarray(weight, x.dtype) for weight in emphasis)
    weight = jnp.where(noisy != x, changed, kept)
    return jnp.sum((weight * each).reshape(x.shape[0], -1), axis=1)


def smoothed_score(reconstruct, x, std):
    """(reconstruct(x) - x) / std^2: the score of the data's density smoothed by the noise.

    For a network trained with squared error and Gaussian noise of that std; x [n, d] near the noisy
    data, where it was trained.
    Source  Alain & Bengio 2014; the exact form is Tweedie's (Robbins 1956, Efron 2011).
    """
    return (reconstruct(x) - x) / jnp.asarray(std, x.dtype) ** 2


class Affine(NamedTuple):
    """x -> x @ matrix + offset."""

    matrix: np.ndarray  # [d, d]
    offset: np.ndarray  # [d]

    def __call__(self, x):
        """Shapes x [n, d]. Returns [n, d]."""
        return x @ self.matrix + self.offset[None, :]


def best_linear(clean, noisy, ridge=1e-6) -> Affine:
    """The yardstick: the affine map that least squares fit from noisy to clean, on the host.

    A linear denoising autoencoder converges to it. Of Gaussian noise of variance s^2 on data of
    covariance C it is x -> mean + C (C + s^2 I)^-1 (x - mean).

    ridge   share of the mean variance that is added to every direction's.
    Shapes  clean, noisy [n, d].
    """
    clean, noisy = (np.asarray(part, np.float64) for part in (clean, noisy))
    wanted, mean = clean.mean(0), noisy.mean(0)
    centred = noisy - mean
    gram = centred.T @ centred / len(clean)
    gram += ridge * np.trace(gram) / len(gram) * np.eye(len(gram))
    matrix = np.linalg.solve(gram, centred.T @ (clean - wanted) / len(clean))
    return Affine(matrix.astype(np.float32), (wanted - mean @ matrix).astype(np.float32))


def wiener(clean, std) -> Affine:
    """The best affine map for Gaussian noise: C (C + std^2 I)^-1 about the mean of clean [n, d]."""
    clean = np.asarray(clean, np.float64)
    mean, C = clean.mean(0), np.cov(clean.T, bias=True)
    matrix = np.linalg.solve(C + std**2 * np.eye(len(C)), C)
    return Affine(matrix.astype(np.float32), (mean - mean @ matrix).astype(np.float32))


def _check(name, value, low, high):
    """ValueError where a known level is outside its domain, NaN included."""
    if isinstance(value, jax.core.Tracer):
        return
    if not (value >= low and (high is None or value <= high)):
        wanted = f'between {low} and {high}' if high is not None else f'at least {low}'
        raise ValueError(f'{name} of a corruption is {value}; it has to be {wanted}')
