"""The linear autoencoder: its optimum is the subspace of the principal components.

With x [n, d] centered, min over W [d, k], U [k, d] of mean ||x - x W U||^2 is reached exactly where
W U projects on the k leading eigenvectors of the covariance: the subspace is PCA's, the weights
are not. Any invertible G gives the same map, (W G)(G^-1 U), so that untied columns are neither
orthogonal nor ordered; tied ones, U = W', become orthonormal, but rotated. With k > d the input is copied.

The objective depends on the data only through their mean and covariance, from which it can be computed and minimized
exactly.
"""

import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, Shaped

from lecture4.autoencoder import network
from lecture4.autoencoder.network import Autoencoder, Dense
from lecture4.ops.losses import squared_error
from lecture4.ops.prox import require_floating
from lecture4.ops.varying import vary_like


def init(
    key: PRNGKeyArray,
    d: int,
    k: int,
    *,
    tied: bool = False,
    scale: str | float = 'glorot',
    dtype: DTypeLike = jnp.float32,
) -> Autoencoder:
    """An autoencoder d -> k -> d of two linear layers, under- or overcomplete.

    `network.init_autoencoder` makes encoders and decoders of other shapes; use them with the identity as activation.

    Raises:
      ValueError: d or k is below 1.
    """
    return network.init_autoencoder(key, (d, k), tied=tied, scale=scale, dtype=dtype)


def reconstruct(params: Autoencoder, x: Float[ArrayLike, 'n d']) -> Float[Array, 'n d']:
    """Reconstructions, through any number of linear layers."""
    code = network.encode(params, x, network.identity)
    return network.decode(params, code, network.identity)


def loss(params: Autoencoder, x: Float[ArrayLike, 'n d']) -> Float[Array, ' n']:
    """||x - reconstruction||^2 per example."""
    return squared_error(x, reconstruct(params, x))


def moments(x: Float[ArrayLike, 'n d']) -> tuple[Float[Array, ' d'], Float[Array, 'd d']]:
    """Mean and covariance (divided by n) of x, at full matrix-product precision.

    Raises:
      TypeError: x is an integer array.
    """
    x = require_floating('x', x)
    mean = jnp.mean(x, axis=0)
    centered = x - mean[None, :]
    return mean, _product(centered.T, centered) / x.shape[0]


def expected_loss(
    params: Autoencoder, mean: Float[Array, ' d'], covariance: Float[Array, 'd d']
) -> Float[Array, '']:
    """The mean of `loss` over all data with these moments, at the cost of one [d, d, k] product.

    With A the linear part of the reconstruction r and R = I - A: tr(R' C R) + ||mean - r(mean)||^2.
    """
    d = mean.shape[0]
    linear_part = reconstruct(params, jnp.eye(d, dtype=mean.dtype)) - reconstruct(
        params, jnp.zeros((1, d), mean.dtype)
    )
    residual = jnp.eye(d, dtype=mean.dtype) - linear_part
    bias = mean - reconstruct(params, mean[None, :])[0]
    return jnp.sum(residual * _product(covariance, residual)) + jnp.sum(bias * bias)


def alternating_least_squares(
    params: Autoencoder, mean: Float[Array, ' d'], covariance: Float[Array, 'd d']
) -> Autoencoder:
    """One iteration: the best decoder for the encoder, then the best encoder for that decoder (least squares).

    This is orthogonal iteration in another basis: the tangents of the angles to the principal
    subspace decrease by lambda_(k+1) / lambda_k per call.

    Args:
      params: Encoder and decoder, one untied layer each, k <= d.
      mean: Mean of the data.
      covariance: Covariance of the data.

    Raises:
      ValueError: The autoencoder is tied or has more layers, or k > d.
    """
    encoder, decoder = params
    if len(encoder) != 1 or len(decoder) != 1 or not isinstance(decoder[0], Dense):
        raise ValueError(
            'alternating_least_squares expects one untied linear layer each; train deeper or tied '
            'autoencoders by gradient descent'
        )
    W = encoder[0].weight
    if W.shape[1] > W.shape[0]:
        raise ValueError(
            f'latent dimension {W.shape[1]} exceeds the data dimension {W.shape[0]}: least squares '
            'is not unique; train by gradient descent'
        )
    CW = _product(covariance, W)
    U = jnp.linalg.solve(_product(W.T, CW), CW.T)
    W = jnp.linalg.solve(_product(U, U.T), U).T
    return Autoencoder((Dense(W, -_product(mean, W)),), (Dense(U, mean),))


def converge(
    params: Autoencoder,
    x: Float[ArrayLike, 'n d'],
    components: Float[Array | np.ndarray, 'd k'],
    n_iterations: int,
) -> tuple[Autoencoder, Float[Array, ' n_iterations']]:
    """Repeat `alternating_least_squares`, and return the worst angle to a subspace after each iteration.

    Args:
      params: As in `alternating_least_squares`.
      x: The data.
      components: Principal components in columns.
      n_iterations: Number of iterations.

    Returns:
      (params, worst principal angle in radians after each iteration).

    Raises:
      ValueError: As in `alternating_least_squares`.
    """
    mean, covariance = jax.jit(moments)(x)
    components = jnp.asarray(components)

    def body(params, _):
        params = alternating_least_squares(params, mean, covariance)
        return params, principal_angles(decoder_matrix(params), components)[-1]

    params = vary_like(params, (mean, covariance))
    return jax.jit(lambda p: jax.lax.scan(body, p, None, n_iterations))(params)


def max_cosine(weight: Shaped[ArrayLike, 'd k']) -> float:
    """The largest |cosine| between two columns; 0 where they are orthogonal."""
    weight = np.asarray(weight, float)
    unit = weight / np.linalg.norm(weight, axis=0)
    return float(abs(unit.T @ unit - np.eye(unit.shape[1])).max())


def decoder_matrix(params: Autoencoder) -> Float[Array, 'd k']:
    """The decoder's linear part: its columns span what can be reconstructed."""
    k = params.encoder[-1].weight.shape[1]
    dtype = params.encoder[-1].weight.dtype

    def decode(code):
        return network.decode(params, code, network.identity)

    return (decode(jnp.eye(k, dtype=dtype)) - decode(jnp.zeros((1, k), dtype))).T


def principal_angles(A: Float[Array, 'd k'], B: Float[Array, 'd m']) -> Float[Array, ' min(k,m)']:
    """Angles between the column spaces of A and B, in radians, ascending.

    Cosines are accurate for large angles and sines for small ones; each is used in its range.

    Raises:
      ValueError: The columns have different lengths.

    References:
      Bjorck & Golub 1973, section 3.
    """
    if A.ndim != 2 or B.ndim != 2 or A.shape[0] != B.shape[0]:
        raise ValueError(f'expected A [d, k] and B [d, m], got {A.shape} and {B.shape}')
    if A.shape[1] < B.shape[1]:
        A, B = B, A
    P, Q = jnp.linalg.qr(A)[0], jnp.linalg.qr(B)[0]
    inner = _product(P.T, Q)
    cosine = jnp.linalg.svd(inner, compute_uv=False)
    sine = jnp.linalg.svd(Q - _product(P, inner), compute_uv=False)[::-1]
    sine = sine[: cosine.shape[0]]
    small = cosine**2 > 0.5
    return jnp.where(small, jnp.arcsin(jnp.minimum(sine, 1)), jnp.arccos(jnp.minimum(cosine, 1)))


class PrincipalComponents(NamedTuple):
    """Principal components on the host, in float64.

    Attributes:
      mean: Mean of the data.
      components: Components in columns.
      variances: Variance along each component, descending.
    """

    mean: Float[np.ndarray, ' d']
    components: Float[np.ndarray, 'd d']
    variances: Float[np.ndarray, ' d']

    def encode(self, x: Shaped[np.ndarray, 'n d'], k: int) -> Float[np.ndarray, 'n k']:
        """Coordinates of x along the first k components."""
        return (x - self.mean) @ self.components[:, :k]

    def reconstruct(self, x: Shaped[np.ndarray, 'n d'], k: int) -> Float[np.ndarray, 'n d']:
        """The point of the mean plus the span of the first k components that is nearest to x."""
        return self.mean + self.encode(x, k) @ self.components[:, :k].T

    def reconstruction_error(self, x: Shaped[np.ndarray, 'n d'], k: int) -> float:
        """Mean over x of the squared error, summed over d, of the reconstruction from the first k components."""
        return float(((x - self.reconstruct(x, k)) ** 2).sum(1).mean())


def principal_components(x: Shaped[ArrayLike, 'n d']) -> PrincipalComponents:
    """Baseline: principal components of x on the host, in float64.

    In float32 the components of images deviate by a few thousandths of a degree.
    """
    x = np.asarray(x)
    mean = np.asarray(np.mean(x, axis=0, dtype=np.float64))
    centered = np.asarray(x, np.float64) - mean
    variances, components = np.linalg.eigh(centered.T @ centered / len(x))
    return PrincipalComponents(mean, components[:, ::-1].copy(), variances[::-1].copy())


def baseline_directions(
    white: Float[np.ndarray, 'n r'], *, seed: int
) -> dict[str, Float[np.ndarray, 'r r']]:
    """Baseline directions in a whitened space.

    Args:
      white: Whitened signals.
      seed: Seed of the random directions and of FastICA.

    Returns:
      'random directions', 'PCA' (the coordinates) and scikit-learn's 'FastICA', in rows.

    References:
      Hyvarinen 1999 (FastICA).
    """
    from sklearn.decomposition import FastICA

    rank = white.shape[1]
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(rank, rank)))[0]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # warnings about convergence; the results show it
        fast = FastICA(whiten=False, max_iter=300, random_state=seed)  # pyright: ignore
        fast.fit(white)
    return {'random directions': rotation, 'PCA': np.eye(rank), 'FastICA': fast.components_}


def _product(a, b):
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
