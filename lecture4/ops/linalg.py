"""Largest eigenvalue of a Gram matrix; principal components and whitening as affine maps."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from lecture4.ops.prox import require_floating


def lipschitz(D: Float[ArrayLike, 'd k'], n_iterations: int = 7) -> Float[Array, '']:
    """Upper bound of the largest eigenvalue of D'D, the Lipschitz constant of a -> D'(D a - x).

    The power method on all start vectors at once: the Gram matrix G is squared n_iterations times,
    and with p = 2^n_iterations and m = min(d, k)
        largest <= (tr G^2p)^(1/2p) <= largest * m^(1/2p).
    So the bound always holds (for any spectrum, without a start vector), and even if all m eigenvalues are equal it
    is too large by a factor of only m^(1/2p): 1.9 % for m = 128 and the default, typically less than 0.1 %. It is
    increased by 4 eps m for the rounding of the squares. A zero D gives 0.

    Args:
      D: Dictionary with its atoms in columns.
      n_iterations: Number of products of [m, m] matrices, at precision 'highest'.

    Raises:
      TypeError: D is not floating point.
      ValueError: D is not a matrix.
    """
    D = require_floating('D', D)
    if D.ndim != 2:
        raise ValueError(f'expected a dictionary D of shape [d, k], got {D.shape}')
    size = min(D.shape)
    if size == 0:
        return jnp.zeros((), D.dtype)
    # Scaled first: the squares of a very small or large D would leave the range of float32.
    scale = jnp.max(jnp.abs(D))
    D = D / jnp.where(scale > 0, scale, 1)
    matmul = functools.partial(jnp.matmul, precision='highest')
    G = matmul(D.T, D) if D.shape[1] == size else matmul(D, D.T)
    # G^(2^i) = exp(log_norm 2^i) M with ||M||_F = 1.
    norm = jnp.linalg.norm(G)
    M, log_norm = G / jnp.where(norm > 0, norm, 1), jnp.log(norm)

    def square(_, carry):
        M, log_norm, exponent = carry
        M = matmul(M, M)
        norm = jnp.linalg.norm(M)
        exponent = 0.5 * exponent
        return M / jnp.where(norm > 0, norm, 1), log_norm + exponent * jnp.log(norm), exponent

    carry = (M, log_norm, jnp.ones((), D.dtype))
    _, log_norm, _ = jax.lax.fori_loop(0, n_iterations, square, carry)
    inflation = 1 + 4 * float(jnp.finfo(D.dtype).eps) * size
    return jnp.where(scale > 0, jnp.exp(log_norm) * scale * scale * inflation, 0)


class Affine(NamedTuple):
    """The map x -> (x - mean) @ matrix.

    Attributes:
      mean: Mean of the signals.
      matrix: Matrix of the map.
    """

    mean: Float[Array, 'd']
    matrix: Float[Array, 'd m']


def apply(affine: Affine, x: Float[ArrayLike, '*batch d']) -> Float[Array, '*batch m']:
    """(x - mean) @ matrix.

    Args:
      affine: The map.
      x: Signals.

    Raises:
      ValueError: The last axis of x differs from the map's d.
    """
    x = jnp.asarray(x)
    if x.shape[-1] != affine.mean.shape[0]:
        raise ValueError(
            f'x of shape {x.shape} has signals of {x.shape[-1]} values, the affine map was fitted '
            f'to {affine.mean.shape[0]}; give it signals of that length'
        )
    centered = x - affine.mean.reshape((1,) * (x.ndim - 1) + (-1,))
    return jnp.matmul(centered, affine.matrix, precision='highest')


def pseudo_inverse(affine: Affine) -> Float[Array, 'm d']:
    """The pseudo-inverse of the map's matrix: maps an atom of the mapped space back.

    For a whitening it unwhitens, for principal components it embeds. A dictionary D [m, k] learned
    on mapped signals is, in signal space, pseudo_inverse(affine).T @ D.
    """
    return jnp.linalg.pinv(affine.matrix)


def inverse_transform(affine: Affine, y: Float[ArrayLike, '*batch m']) -> Float[Array, '*batch d']:
    """The x with affine(x) = y, up to what the map discards.

    Args:
      affine: The map.
      y: Mapped signals.
    """
    y = jnp.asarray(y)
    x = jnp.matmul(y, pseudo_inverse(affine), precision='highest')
    return x + affine.mean.reshape((1,) * (y.ndim - 1) + (-1,))


def pca(
    x: Float[ArrayLike, 'n d'], n_components: int
) -> tuple[Affine, Float[Array, '{n_components}']]:
    """Principal components of the signals, by the eigenvectors of their covariance.

    The sign of a component makes its entry of largest magnitude positive.

    Args:
      x: Signals.
      n_components: Number of components, 1 <= n_components <= d.

    Returns:
      The map, matrix [d, n_components], and the components' variances, descending; the variance has divisor n.

    Raises:
      TypeError: x is not floating point.
      ValueError: x has another rank, there are no signals, or too many components.
    """
    mean, values, vectors = _spectrum(x)
    if not 1 <= n_components <= mean.shape[0]:
        raise ValueError(
            f'n_components {n_components} is not between 1 and {mean.shape[0]}, '
            f'the length of the signals'
        )
    vectors = vectors[:, ::-1][:, :n_components]
    largest = jnp.argmax(jnp.abs(vectors), axis=0)
    signs = jnp.sign(jnp.take_along_axis(vectors, largest[None, :], axis=0))
    return Affine(mean, vectors * signs), values[::-1][:n_components]


def zca(x: Float[ArrayLike, 'n d'], epsilon: Real[ArrayLike, '']) -> Affine:
    """The whitening closest to the identity (ZCA): U diag(1 / sqrt(lambda_i + r)) U'.

    lambda and U are the eigenvalues and eigenvectors of the covariance (which divides by n), and
    r = epsilon * mean(lambda): epsilon has no unit, it is relative to the mean variance of a
    coordinate. The covariance of the result is U diag(lambda_i / (lambda_i + r)) U'.
    Directions without variance (below d eps times the largest) are mapped to 0 if r = 0.

    Args:
      x: Signals.
      epsilon: Nonnegative regularization, 0.01 to 0.1 for natural image patches; may be traced.

    Returns:
      The map, matrix [d, d].

    Raises:
      TypeError: x is not floating point.
      ValueError: x has another rank, or there are no signals.

    References:
      Bell & Sejnowski 1997; the regularization as in Coates, Lee & Ng 2011.
    """
    mean, values, vectors = _spectrum(x)
    shifted = values + jnp.asarray(epsilon, values.dtype) * jnp.mean(values)
    smallest = values.shape[0] * jnp.finfo(values.dtype).eps * values[-1]
    scale = jnp.where(
        shifted > smallest, 1 / jnp.sqrt(jnp.where(shifted > smallest, shifted, 1)), 0
    )
    return Affine(mean, jnp.matmul(vectors * scale[None, :], vectors.T, precision='highest'))


def _spectrum(x):
    """Mean [d], eigenvalues [d] ascending and not negative, eigenvectors [d, d] in columns."""
    x = require_floating('x', x)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f'expected signals x of shape [n, d] with n, d >= 1, got {x.shape}')
    mean = jnp.mean(x, axis=0)
    # Both factors carry the 1/sqrt(n): the product then has the size of a variance.
    centered = (x - mean[None, :]) / math.sqrt(x.shape[0])
    covariance = jnp.matmul(centered.T, centered, precision='highest')
    values, vectors = jnp.linalg.eigh(covariance)
    return mean, jnp.maximum(values, 0), vectors
