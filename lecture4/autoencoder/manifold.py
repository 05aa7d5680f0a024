"""Autoencoders and the manifold of the data: denoising fields, scores, tangents, walks.

An autoencoder r = g(f(.)) that takes Gaussian noise of standard deviation s off its input points
back to the data: r(x) - x = s^2 grad log p_s(x), where p_s is the data's density smoothed by that
noise. That is exact for the best r at every s (Tweedie's formula); against the density itself,
unsmoothed, it holds for small s only. It fails for masking noise, for the cross-entropy, and where
x is nothing that p_s would give.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

TAU = 2 * jnp.pi


class Curve(NamedTuple):
    """A curve in the plane, of points at [n] positions from 0 to 1: [n, 2]."""

    at: Callable[[jax.Array], jax.Array]
    closed: bool


def _circle(t):
    return jnp.stack([jnp.cos(TAU * t), jnp.sin(TAU * t)], axis=-1)


def _spiral(t):
    radius, angle = 0.2 + 0.8 * t, 2 * TAU * t
    return jnp.stack([radius * jnp.cos(angle), radius * jnp.sin(angle)], axis=-1)


CIRCLE = Curve(_circle, closed=True)
SPIRAL = Curve(_spiral, closed=False)  # two turns, 0.4 apart


def speed(curve: Curve, t):
    """D curve / dt at positions [n]: [n, 2]."""
    return jax.jvp(curve.at, (t,), (jnp.ones_like(t),))[1]


def tangent(curve: Curve, t):
    """The curve's unit tangents at positions [n]: [n, 2]."""
    direction = speed(curve, t)
    return direction / jnp.linalg.norm(direction, axis=1, keepdims=True)


def evenly(curve: Curve, n: int, n_fine: int = 4096):
    """N positions [n] at equal distances along the curve; its length lies between them evenly."""
    fine = jnp.linspace(0, 1, n_fine + 1)
    middle = 0.5 * (fine[1:] + fine[:-1])
    pieces = jnp.linalg.norm(speed(curve, middle), axis=1)
    length = jnp.concatenate([jnp.zeros(1), jnp.cumsum(pieces)])
    wanted = (jnp.arange(n, dtype=length.dtype) + (0 if curve.closed else 0.5)) / n * length[-1]
    return jnp.interp(wanted, length, fine)


def _responsibilities(x, centres, variance):
    # |x|^2 is the same for all centres and drops out.
    product = jnp.matmul(x, centres.T, precision='highest')
    return (product - 0.5 * jnp.sum(centres**2, axis=1)[None]) / variance


def log_density(x, centres, std):
    """Log p_s(x) of equally likely points, each blurred by N(0, std^2).

    Shapes  x [n, d], centres [m, d]. Returns [n].
    """
    d, variance = x.shape[1], jnp.asarray(std, x.dtype) ** 2
    logits = (
        _responsibilities(x, centres, variance) - 0.5 * jnp.sum(x**2, axis=1)[:, None] / variance
    )
    constant = 0.5 * d * jnp.log(TAU * variance) + jnp.log(jnp.asarray(len(centres), x.dtype))
    return jax.nn.logsumexp(logits, axis=1) - constant


def denoiser(x, centres, std, tile: int = 256):
    """E[clean | x]: the function that takes noise off best, for a data set of `centres`.

    Shapes  x [n, d], centres [m, d]. Returns [n, d]; `tile` rows of x are worked on at a time.
    """
    variance = jnp.asarray(std, x.dtype) ** 2

    def one(row):
        share = jax.nn.softmax(_responsibilities(row[None], centres, variance), axis=1)
        return jnp.matmul(share, centres, precision='highest')[0]

    return jax.lax.map(one, x, batch_size=min(tile, len(x)))


def score(x, centres, std):
    """Grad log p_s(x) = (E[clean | x] - x) / std^2, in closed form; [n, d]."""
    return (denoiser(x, centres, std) - x) / jnp.asarray(std, x.dtype) ** 2


def field_error(field, truth):
    """Root of sum |field - truth|^2 / sum |truth|^2: 0 is right, 1 is as good as no field.

    Shapes  field, truth [n, d]. Take points as the noise leaves them; far from the data, where
            the autoencoder never was, no agreement is claimed.
    """
    return jnp.sqrt(jnp.sum((field - truth) ** 2) / jnp.sum(truth**2))


def tangents(f: Callable, x, k: int):
    """The k directions to which f is most sensitive at x, by its Jacobian's singular vectors.

    For f a reconstruction, or an encoder, of data near a manifold of k dimensions they span its
    tangent space: f follows x along the manifold and ignores what leads away from it.

    Shapes  x [n, d], f [n, d] -> [n, m]. Returns (directions [n, k, d], orthonormal, and all
            min(m, d) singular values [n, .], descending).
    Errors  ValueError where k is not between 1 and min(m, d).
    Source  Rifai et al. 2011, The manifold tangent classifier, section 3.
    """
    d = x.shape[1]
    m = jax.eval_shape(f, x).shape[1]
    if not 1 <= k <= min(m, d):
        raise ValueError(f'{k} tangent directions of a map from {d} to {m}: use 1 to {min(m, d)}')
    differentiate = jax.jacfwd if d <= m else jax.jacrev
    jacobian = jax.vmap(differentiate(lambda row: f(row[None])[0]))(x)
    _, values, vectors = jnp.linalg.svd(jacobian, full_matrices=False)
    return vectors[:, :k], values


def angle_between(directions, truth):
    """The largest angle, in radians, from the space of `truth` to the space of `directions`.

    Shapes  both orthonormal, directions [n, k, d], truth [n, j, d] with j <= k. Returns [n].
    """
    # By the sine: arccos of a cosine near 1 would lose half the digits.
    inside = jnp.matmul(truth, jnp.swapaxes(directions, 1, 2), precision='highest')
    rest = truth - jnp.matmul(inside, directions, precision='highest')
    return jnp.arcsin(jnp.clip(jnp.linalg.norm(rest, ord=2, axis=(1, 2)), 0, 1))


def walk(
    reconstruct: Callable, start, *, n_steps: int, length: float, k: int = 1, n_returns: int = 2
):
    """Steps along the tangent, each brought back to the manifold by the autoencoder.

    The direction is kept as well as the tangent space allows: the last one, projected onto it.

    Shapes  start [n, d]; k the manifold's dimension; length of a step. Returns [n_steps + 1, n, d].
    """

    def settle(x):
        return jax.lax.fori_loop(0, n_returns, lambda _, x: reconstruct(x), x)

    def step(carry, _):
        x, heading = carry
        directions, _ = tangents(reconstruct, x, k)
        along = jnp.einsum('nkd,nd->nk', directions, heading)
        heading = jnp.einsum('nk,nkd->nd', along, directions)
        heading = heading / jnp.linalg.norm(heading, axis=1, keepdims=True)
        x = settle(x + jnp.asarray(length, x.dtype) * heading)
        return (x, heading), x

    start = settle(start)
    first = tangents(reconstruct, start, k)[0][:, 0]
    _, path = jax.lax.scan(step, (start, first), None, length=n_steps)
    return jnp.concatenate([start[None], path])


def random_walk(key, reconstruct: Callable, start, *, n_steps: int, std):
    """X -> r(x + noise), again and again: a Markov chain that stays near the data.

    Shapes  start [n, d]. Returns [n_steps + 1, n, d].
    Source  Bengio, Yao, Alain & Vincent 2013, without the noise of the reconstruction.
    """

    def step(x, key):
        noise = jax.random.normal(key, x.shape, x.dtype)
        x = reconstruct(x + jnp.asarray(std, x.dtype) * noise)
        return x, x

    _, path = jax.lax.scan(step, start, jax.random.split(key, n_steps))
    return jnp.concatenate([start[None], path])
