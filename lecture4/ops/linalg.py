"""Largest eigenvalue of a Gram matrix; principal components and whitening as affine maps."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lecture4.ops.prox import require_floating


def lipschitz(D, n_iterations=7):
    """Upper bound of the largest eigenvalue of D'D, the Lipschitz constant of a -> D'(D a - x).

    The power method on all start vectors at once: the Gram matrix G is squared n_iterations times,
    and with p = 2^n_iterations and m = min(d, k)
        largest <= (tr G^2p)^(1/2p) <= largest * m^(1/2p).
    So the bound is certain (no unlucky start vector, no need of a gap in the spectrum), and even if
    all m eigenvalues were equal it would be only m^(1/2p) too large: 1.9 % for m = 128 and the
    default, typically less than 0.1 %. It is inflated by 4 eps m for the rounding of the squares.
    n_iterations products of [m, m] matrices at precision 'highest'. A zero D gives 0.

    Shapes  D [d, k] float. Returns a scalar of D's dtype.
    Errors  TypeError where D is not floating; ValueError where it is not a matrix.
    """
    D = require_floating('D', D)
    if D.ndim != 2:
        raise ValueError(f'D has shape {D.shape}; a dictionary [d, k] is wanted')
    size = min(D.shape)
    if size == 0:
        return jnp.zeros((), D.dtype)
    # Scaled first: the squares of a very small or large D would leave the range of float32.
    scale = jnp.max(jnp.abs(D))
    D = D / jnp.where(scale > 0, scale, 1)
    matmul = lambda a, b: jnp.matmul(a, b, precision='highest')  # noqa: E731
    G = matmul(D.T, D) if D.shape[1] == size else matmul(D, D.T)
    # G^(2^i) = exp(log_norm 2^i) M with ||M||_F = 1.
    norm = jnp.linalg.norm(G)
    M, log_norm = G / jnp.where(norm > 0, norm, 1), jnp.log(norm)

    def square(_, carry):
        M, log_norm, share = carry
        M = matmul(M, M)
        norm = jnp.linalg.norm(M)
        share = 0.5 * share
        return M / jnp.where(norm > 0, norm, 1), log_norm + share * jnp.log(norm), share

    carry = (M, log_norm, jnp.ones((), D.dtype))
    _, log_norm, _ = jax.lax.fori_loop(0, n_iterations, square, carry)
    inflation = 1 + 4 * float(jnp.finfo(D.dtype).eps) * size
    return jnp.where(scale > 0, jnp.exp(log_norm) * scale * scale * inflation, 0)


class Affine(NamedTuple):
    """The map x -> (x - mean) @ matrix."""

    mean: jax.Array  # [d]
    matrix: jax.Array  # [d, m]


def apply(affine, x):
    """(x - mean) @ matrix.

    Shapes  x [..., d]. Returns [..., m].
    Errors  ValueError where the last axis of x is not the map's d.
    """
    if x.shape[-1] != affine.mean.shape[0]:
        raise ValueError(
            f'x of shape {x.shape} has signals of {x.shape[-1]} values, the affine map was fitted '
            f'to {affine.mean.shape[0]}; give it signals of that length'
        )
    centred = x - affine.mean.reshape((1,) * (x.ndim - 1) + (-1,))
    return jnp.matmul(centred, affine.matrix, precision='highest')


def inverse(affine):
    """The pseudo-inverse [m, d] of the map's matrix: takes an atom of the mapped space back.

    For a whitening it unwhitens, for principal components it embeds. A dictionary D [m, k] learned
    on mapped signals is seen in signal space as inverse(affine).T @ D.
    """
    return jnp.linalg.pinv(affine.matrix)


def restore(affine, y):
    """The x [..., d] whose image is y [..., m], up to what the map has thrown away."""
    back = jnp.matmul(y, inverse(affine), precision='highest')
    return back + affine.mean.reshape((1,) * (y.ndim - 1) + (-1,))


def pca(x, n_components):
    """Principal components of the signals, by the eigenvectors of their covariance.

    The sign of a component makes its entry of largest magnitude positive.

    Shapes  x [n, d] float, 1 <= n_components <= d. Returns (Affine with matrix [d, n_components],
            the components' variances [n_components], descending). The variance divides by n.
    Errors  TypeError for integers; ValueError for a wrong rank, no signals or too many components.
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


def zca(x, regulariser):
    """Whitening that stays closest to the signals: U diag(1 / sqrt(lambda_i + r)) U'.

    lambda and U are the eigenvalues and eigenvectors of the covariance (which divides by n), and
    r = regulariser * mean(lambda): the regulariser has no unit, it is relative to the mean variance
    of a coordinate. The covariance of the result is U diag(lambda_i / (lambda_i + r)) U'.
    Directions of no variance (below d eps times the largest) are mapped to 0 where r = 0.

    Shapes  x [n, d] float; regulariser scalar (it may be traced). Returns Affine, matrix [d, d].
    Domain  regulariser >= 0; natural image patches want 0.01 to 0.1.
    Errors  TypeError for integers; ValueError for a wrong rank or no signals.
    Source  Bell & Sejnowski 1997; the regulariser as in Coates, Lee & Ng 2011.
    """
    mean, values, vectors = _spectrum(x)
    shifted = values + jnp.asarray(regulariser, values.dtype) * jnp.mean(values)
    floor = values.shape[0] * jnp.finfo(values.dtype).eps * values[-1]
    scale = jnp.where(shifted > floor, 1 / jnp.sqrt(jnp.where(shifted > floor, shifted, 1)), 0)
    return Affine(mean, jnp.matmul(vectors * scale[None, :], vectors.T, precision='highest'))


def _spectrum(x):
    """Mean [d], eigenvalues [d] ascending and not negative, eigenvectors [d, d] in columns."""
    x = require_floating('x', x)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f'x has shape {x.shape}; signals [n, d] with n, d >= 1 are wanted')
    mean = jnp.mean(x, axis=0)
    # Both factors carry the 1/sqrt(n): the product then has the size of a variance.
    centred = (x - mean[None, :]) / math.sqrt(x.shape[0])
    covariance = jnp.matmul(centred.T, centred, precision='highest')
    values, vectors = jnp.linalg.eigh(covariance)
    return mean, jnp.maximum(values, 0), vectors
