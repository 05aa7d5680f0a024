"""Autoencoders and the manifold of the data: denoising fields, scores, tangents, walks.

An autoencoder r = g(f(.)) that is trained to remove Gaussian noise of standard deviation s moves its
input towards the data: r(x) - x = s^2 grad log p_s(x), where p_s is the data's density smoothed by that
noise. That is exact for the best r at every s (Tweedie's formula); for the unsmoothed density it holds only as s goes
to 0. It does not hold for masking noise, for the cross-entropy, or for x that are improbable under p_s.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, ScalarLike

from lecture4.autoencoder import network
from lecture4.ops import random_numbers
from lecture4.ops.varying import vary_as_returned

TAU = 2 * jnp.pi


class Curve(NamedTuple):
    """A curve in the plane.

    Attributes:
      point: Positions [n] from 0 to 1 -> points [n, 2].
      closed: Whether positions 0 and 1 are the same point.
    """

    point: Callable[[Array], Array]
    closed: bool


def _circle(t):
    return jnp.stack([jnp.cos(TAU * t), jnp.sin(TAU * t)], axis=-1)


def _spiral(t):
    radius, angle = 0.2 + 0.8 * t, 2 * TAU * t
    return jnp.stack([radius * jnp.cos(angle), radius * jnp.sin(angle)], axis=-1)


CIRCLE = Curve(_circle, closed=True)
SPIRAL = Curve(_spiral, closed=False)  # two turns at a distance of 0.4


def velocity(curve: Curve, t: Float[Array, ' n']) -> Float[Array, 'n 2']:
    """D point / dt at positions t."""
    return jax.jvp(curve.point, (t,), (jnp.ones_like(t),))[1]


def tangent(curve: Curve, t: Float[Array, ' n']) -> Float[Array, 'n 2']:
    """The curve's unit tangents at positions t."""
    direction = velocity(curve, t)
    return direction / jnp.linalg.norm(direction, axis=1, keepdims=True)


def evenly_spaced(curve: Curve, n: int, n_fine: int = 4096) -> Float[Array, ' n']:
    """Positions of n points at equal arc lengths along the curve.

    Args:
      curve: A curve.
      n: Number of positions.
      n_fine: Number of segments by which arc length is measured.
    """
    fine = jnp.linspace(0, 1, n_fine + 1)
    middle = 0.5 * (fine[1:] + fine[:-1])
    segments = jnp.linalg.norm(velocity(curve, middle), axis=1)
    length = jnp.concatenate([jnp.zeros(1), jnp.cumsum(segments)])
    target = (jnp.arange(n, dtype=length.dtype) + (0 if curve.closed else 0.5)) / n * length[-1]
    return jnp.interp(target, length, fine)


def spaced_points(curve: Curve, n: int) -> Float[Array, '{n} 2']:
    """Place n points at equal arc lengths along the curve."""
    return curve.point(evenly_spaced(curve, n))


def _log_responsibilities(x, centers, variance):
    # |x|^2 is the same for all centers and drops out.
    product = jnp.matmul(x, centers.T, precision='highest')
    return (product - 0.5 * jnp.sum(centers**2, axis=1)[None]) / variance


def log_density(
    x: Float[Array, 'n d'], centers: Float[Array, 'm d'], std: ScalarLike
) -> Float[Array, ' n']:
    """Log p_s(x) for equally probable points, each smoothed by N(0, std^2).

    Args:
      x: Points at which the density is evaluated.
      centers: The points.
      std: Standard deviation of the smoothing, positive.
    """
    d, variance = x.shape[1], jnp.asarray(std, x.dtype) ** 2
    squared_norm = jnp.sum(x**2, axis=1)[:, None]
    logits = _log_responsibilities(x, centers, variance) - 0.5 * squared_norm / variance
    constant = 0.5 * d * jnp.log(TAU * variance) + jnp.log(jnp.asarray(len(centers), x.dtype))
    return jax.nn.logsumexp(logits, axis=1) - constant


def denoiser(
    x: Float[Array, 'n d'], centers: Float[Array, 'm d'], std: ScalarLike, tile: int = 256
) -> Float[Array, 'n d']:
    """E[clean | x]: the best denoiser in squared error, for a data set of `centers`.

    Args:
      x: Noisy points.
      centers: The clean points.
      std: Standard deviation of the noise, positive.
      tile: Number of rows of x computed at a time.
    """
    variance = jnp.asarray(std, x.dtype) ** 2

    def posterior_mean(row):
        logits = _log_responsibilities(row[None], centers, variance)
        return jnp.matmul(jax.nn.softmax(logits, axis=1), centers, precision='highest')[0]

    return jax.lax.map(posterior_mean, x, batch_size=min(tile, len(x)))


def score(
    x: Float[Array, 'n d'], centers: Float[Array, 'm d'], std: ScalarLike
) -> Float[Array, 'n d']:
    """Grad log p_s(x) = (E[clean | x] - x) / std^2, in closed form; arguments as in `log_density`."""
    return (denoiser(x, centers, std) - x) / jnp.asarray(std, x.dtype) ** 2


def field_error(field: Float[Array, 'n d'], truth: Float[Array, 'n d']) -> Float[Array, '']:
    """Relative error sqrt(sum |field - truth|^2 / sum |truth|^2); 1 is as good as a zero field.

    Evaluate it at noisy points; far from the data, where the autoencoder was not trained, no agreement is claimed.
    """
    return jnp.sqrt(jnp.sum((field - truth) ** 2) / jnp.sum(truth**2))


def init_autoencoder(
    key: PRNGKeyArray, x: Float[Array, 'n d'], hidden_dims: Sequence[int], std: ScalarLike
) -> network.Autoencoder:
    """An autoencoder whose first units can distinguish a point from its noisy copy.

    The noise changes the input of each unit by about 0.7, and the slope of each is largest at some point of the data;
    with smaller weights the learned field is far too smooth.

    Args:
      key: A random key.
      x: Points of the data.
      hidden_dims: Numbers of units of the encoder's layers, the latent dimension last; the decoder mirrors them.
      std: Standard deviation of the noise, positive.
    """
    key, weight_key, center_key = jax.random.split(key, 3)
    params = network.init_autoencoder(key, (x.shape[1], *hidden_dims))
    shape = params.encoder[0].weight.shape
    scale = 0.7 / (std * shape[0] ** 0.5)
    weight = jax.random.normal(weight_key, shape) * scale
    centers = x[jax.random.randint(center_key, shape[1:], 0, len(x))]
    first = network.Dense(weight, -jnp.sum(centers * weight.T, axis=1))
    return params._replace(encoder=(first, *params.encoder[1:]))


def encode(params: network.Autoencoder, x: Float[Array, 'n d']) -> Float[Array, 'n k']:
    """f(x), with tanh in every layer."""
    return network.encode(params, x, jnp.tanh, jnp.tanh)


def reconstruct(params: network.Autoencoder, x: Float[Array, 'n d']) -> Float[Array, 'n d']:
    """r(x) = g(f(x)) with tanh in every layer, so that the Jacobian is smooth."""
    return network.decode(params, encode(params, x), jnp.tanh)


def tangents(
    f: Callable[[Array], Array], x: Float[Array, 'n d'], k: int
) -> tuple[Float[Array, 'n k d'], Float[Array, 'n values']]:
    """The k directions to which f is most sensitive at x, by its Jacobian's singular vectors.

    For a reconstruction or an encoder f of data near a manifold of k dimensions, they span its tangent space: f
    follows x along the manifold and ignores directions away from it.

    Args:
      f: [n, d] -> [n, m], rows independently.
      x: Points.
      k: Number of directions.

    Returns:
      (directions, values): orthonormal directions, and all min(m, d) singular values, descending.

    Raises:
      ValueError: k is not between 1 and min(m, d).

    References:
      Rifai et al. 2011, The manifold tangent classifier, section 3.
    """
    d = x.shape[1]
    m = jax.eval_shape(f, x).shape[1]
    if not 1 <= k <= min(m, d):
        raise ValueError(
            f'a map from {d} to {m} dimensions has 1 to {min(m, d)} tangent directions, got k {k}'
        )
    differentiate = jax.jacfwd if d <= m else jax.jacrev
    jacobian = jax.vmap(differentiate(lambda row: f(row[None])[0]))(x)
    _, values, vectors = jnp.linalg.svd(jacobian, full_matrices=False)
    return vectors[:, :k], values


def angle_between(
    directions: Float[Array, 'n k d'], truth: Float[Array, 'n j d']
) -> Float[Array, ' n']:
    """The largest angle, in radians, from the space of `truth` to the space of `directions`.

    Args:
      directions: Orthonormal rows.
      truth: Orthonormal rows, j <= k.
    """
    # By the sine: arccos of a cosine near 1 would lose half the digits.
    inside = jnp.matmul(truth, jnp.swapaxes(directions, 1, 2), precision='highest')
    rest = truth - jnp.matmul(inside, directions, precision='highest')
    return jnp.arcsin(jnp.clip(jnp.linalg.norm(rest, ord=2, axis=(1, 2)), 0, 1))


def tangent_walk(
    reconstruct: Callable[[Array], Array],
    start: Float[Array, 'n d'],
    *,
    n_steps: int,
    step_size: ScalarLike,
    k: int = 1,
    n_projections: int = 2,
) -> Float[Array, 'time n d']:
    """Steps along the tangent, each projected back onto the manifold by the autoencoder.

    The direction of a step is that of the previous step, projected onto the tangent space.

    Args:
      reconstruct: The autoencoder, [n, d] -> [n, d].
      start: Starting points.
      n_steps: Number of steps.
      step_size: Length of a step.
      k: The manifold's dimension.
      n_projections: Number of reconstructions after each step.

    Returns:
      The n_steps + 1 positions of every walk.
    """

    def project(x):
        x = vary_as_returned(reconstruct, x)
        return jax.lax.fori_loop(0, n_projections, lambda _, x: reconstruct(x), x)

    def step(carry, _):
        x, heading = carry
        directions, _ = tangents(reconstruct, x, k)
        along = jnp.einsum('nkd,nd->nk', directions, heading)
        heading = jnp.einsum('nk,nkd->nd', along, directions)
        heading = heading / jnp.linalg.norm(heading, axis=1, keepdims=True)
        x = project(x + jnp.asarray(step_size, x.dtype) * heading)
        return (x, heading), x

    start = project(start)
    first = tangents(reconstruct, start, k)[0][:, 0]
    walk = vary_as_returned(lambda carry: step(carry, None)[0], (start, first))
    _, path = jax.lax.scan(step, walk, None, length=n_steps)
    return jnp.concatenate([start[None], path])


def random_walk(
    key: PRNGKeyArray,
    reconstruct: Callable[[Array], Array],
    start: Float[Array, 'n d'],
    *,
    n_steps: int,
    std: ScalarLike,
) -> Float[Array, 'time n d']:
    """The Markov chain x -> r(x + noise), which stays near the data.

    Args:
      key: A random key.
      reconstruct: The autoencoder r, [n, d] -> [n, d].
      start: Starting points.
      n_steps: Number of steps.
      std: Standard deviation of the noise.

    Returns:
      The n_steps + 1 positions of every chain.

    References:
      Bengio, Yao, Alain & Vincent 2013, without the noise of the reconstruction.
    """

    def step(x, key):
        noise = random_numbers.normal(key, x.shape, x.dtype)
        x = reconstruct(x + jnp.asarray(std, x.dtype) * noise)
        return x, x

    start = vary_as_returned(lambda x: step(x, key)[0], start)
    _, path = jax.lax.scan(step, start, jax.random.split(key, n_steps))
    return jnp.concatenate([start[None], path])
