"""The linear autoencoder: its optimum is the subspace of the principal components.

With x [n, d] centred, min over W [d, k], U [k, d] of mean ||x - x W U||^2 is reached exactly where
W U projects on the k leading eigenvectors of the covariance: the subspace is PCA's, the weights
are not. Any invertible G gives the same map, (W G)(G^-1 U), so that untied columns are neither
orthogonal nor ordered; tied ones, U = W', end orthonormal, but turned. k > d copies the input.

Everything about the data that the objective sees is its mean and covariance, so it can be computed
and minimised exactly from those two.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lecture4.autoencoder import network
from lecture4.autoencoder.network import Autoencoder, Dense
from lecture4.ops.losses import squared_error
from lecture4.ops.prox import require_floating


def init(key, d, k, *, tied=False, scale: str | float = 'glorot', dtype=jnp.float32) -> Autoencoder:
    """An autoencoder d -> k -> d of two linear layers, under- or overcomplete.

    Encoders and decoders of other shapes: network.init_autoencoder, with the identity as activation.
    Errors  ValueError for a width below 1.
    """
    return network.init_autoencoder(key, (d, k), tied=tied, scale=scale, dtype=dtype)


def reconstruct(params: Autoencoder, x):
    """The decoded code of x: [n, d] -> [n, d], through any number of linear layers."""
    code = network.encode(params, x, network.identity)
    return network.decode(params, code, network.identity)


def loss(params: Autoencoder, x):
    """||x - reconstruction||^2 per example, [n]."""
    return squared_error(x, reconstruct(params, x))


def moments(x):
    """Mean [d] and covariance [d, d] (divided by n) of x [n, d], at full precision."""
    x = require_floating('x', x)
    mean = jnp.mean(x, axis=0)
    centred = x - mean[None, :]
    return mean, _product(centred.T, centred) / x.shape[0]


def expected_loss(params: Autoencoder, mean, covariance):
    """The mean of `loss` over all data with these moments; a scalar, at the cost of one [d, d, k].

    With A the linear part of the reconstruction and R = I - A: tr(R' C R) + ||mean - r(mean)||^2.
    """
    d = mean.shape[0]
    linear_part = reconstruct(params, jnp.eye(d, dtype=mean.dtype)) - reconstruct(
        params, jnp.zeros((1, d), mean.dtype)
    )
    residual = jnp.eye(d, dtype=mean.dtype) - linear_part
    bias = mean - reconstruct(params, mean[None, :])[0]
    return jnp.sum(residual * _product(covariance, residual)) + jnp.sum(bias * bias)


def alternate(params: Autoencoder, mean, covariance) -> Autoencoder:
    """The best decoder for the encoder, then the best encoder for that decoder (least squares).

    Untied, one layer each, k <= d. It is orthogonal iteration in another basis: the tangents of the
    angles to the principal subspace fall by lambda_(k+1) / lambda_k a call.
    Errors  ValueError for a tied or deeper autoencoder, or k > d.
    """
    encoder, decoder = params
    if len(encoder) != 1 or len(decoder) != 1 or not isinstance(decoder[0], Dense):
        raise ValueError('alternate wants one untied linear layer each; train deeper ones')
    W = encoder[0].weight
    if W.shape[1] > W.shape[0]:
        raise ValueError(
            f'a code of {W.shape[1]} for data of {W.shape[0]} has no unique least squares; train it'
        )
    CW = _product(covariance, W)
    U = jnp.linalg.solve(_product(W.T, CW), CW.T)
    W = jnp.linalg.solve(_product(U, U.T), U).T
    return Autoencoder((Dense(W, -_product(mean, W)),), (Dense(U, mean),))


def directions(params: Autoencoder):
    """The decoder's linear part [d, k]: its columns span what can be reconstructed."""
    k = params.encoder[-1].weight.shape[1]
    dtype = params.encoder[-1].weight.dtype
    decode = lambda code: network.decode(params, code, network.identity)  # noqa: E731
    return (decode(jnp.eye(k, dtype=dtype)) - decode(jnp.zeros((1, k), dtype))).T


def principal_angles(A, B):
    """Angles between the column spaces of A [d, k] and B [d, m], in radians, ascending, [min(k, m)].

    Cosines are exact for large angles and sines for small ones: each is used where it is good.
    Errors  ValueError where the columns have different lengths.
    Source  Bjorck & Golub 1973, section 3.
    """
    if A.ndim != 2 or B.ndim != 2 or A.shape[0] != B.shape[0]:
        raise ValueError(f'A {A.shape} and B {B.shape} are to be [d, k] and [d, m]')
    if A.shape[1] < B.shape[1]:
        A, B = B, A
    P, Q = jnp.linalg.qr(A)[0], jnp.linalg.qr(B)[0]
    inner = _product(P.T, Q)
    cosine = jnp.linalg.svd(inner, compute_uv=False)
    sine = jnp.linalg.svd(Q - _product(P, inner), compute_uv=False)[::-1]
    sine = sine[: cosine.shape[0]]
    small = cosine**2 > 0.5
    return jnp.where(small, jnp.arcsin(jnp.minimum(sine, 1)), jnp.arccos(jnp.minimum(cosine, 1)))


class Principal(NamedTuple):
    """Principal components: mean [d], components [d, d] in columns, variances [d], descending."""

    mean: np.ndarray
    components: np.ndarray
    variances: np.ndarray

    def code(self, x, k):
        """Coordinates of x [n, d] along the first k components, [n, k]."""
        return (x - self.mean) @ self.components[:, :k]

    def reconstruct(self, x, k):
        """The point of the mean plus the first k components that is nearest to x [n, d]."""
        return self.mean + self.code(x, k) @ self.components[:, :k].T

    def error(self, x, k):
        """Mean over x [n, d] of the squared error that the first k components leave."""
        return float(((x - self.reconstruct(x, k)) ** 2).sum(1).mean())


def principal(x) -> Principal:
    """The yardstick: principal components of x [n, d] on the host, in float64.

    In float32 the components of pictures are off by a few thousandths of a degree.
    """
    mean = np.asarray(np.mean(x, axis=0, dtype=np.float64))
    centred = np.asarray(x, np.float64) - mean
    variances, components = np.linalg.eigh(centred.T @ centred / len(x))
    return Principal(mean, components[:, ::-1].copy(), variances[::-1].copy())


def _product(a, b):
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
