"""Paths through a latent space."""

from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from lecture4.autoencoder import vae


def interpolate(
    a: Float[Array, 'm k'],
    b: Float[Array, 'm k'],
    n_steps: int,
    path: Literal['straight', 'sphere'] = 'sphere',
) -> Float[Array, 'm n_steps k']:
    """n_steps codes from a to b, both included.

    'sphere' rotates at a constant rate and changes the length linearly. In many dimensions Gaussian codes lie near a
    sphere, and the middle of a straight line lies where the prior has almost no mass.

    Args:
      a: First codes.
      b: Last codes.
      n_steps: Number of codes, at least 2.
      path: Path along which the codes lie.

    Raises:
      ValueError: n_steps is below 2, or the path is unknown.
    """
    if n_steps < 2:
        raise ValueError(f'expected n_steps to be at least 2, both ends included, got {n_steps}')
    if path not in ('straight', 'sphere'):
        raise ValueError(f"expected path to be 'straight' or 'sphere', got {path!r}")
    t = jnp.linspace(0, 1, n_steps, dtype=a.dtype)[None, :, None]
    straight = (1 - t) * a[:, None] + t * b[:, None]
    if path == 'straight':
        return straight
    lengths = [jnp.linalg.norm(end, axis=1, keepdims=True)[:, None] for end in (a, b)]
    u, v = (
        end[:, None] / jnp.maximum(length, jnp.finfo(a.dtype).tiny)
        for end, length in zip((a, b), lengths, strict=True)
    )
    cosine = jnp.clip(jnp.sum(u * v, axis=2, keepdims=True), -1, 1)
    angle = jnp.arccos(cosine)
    turning = (
        jnp.sin(angle) > 1e-4
    )  # a and b are (nearly) collinear: the arc is the line, or has no plane
    safe = jnp.where(turning, jnp.sin(angle), 1)
    arc = (jnp.sin((1 - t) * angle) * u + jnp.sin(t * angle) * v) / safe
    return jnp.where(turning, arc * ((1 - t) * lengths[0] + t * lengths[1]), straight)


def survey(
    model: vae.Model, params: Any, x: Float[Array, 'n d'], key: PRNGKeyArray
) -> dict[str, Float[Array, '...']]:
    """Summary of a variational autoencoder's latent space for figures.

    Args:
      model: The networks and distributions.
      params: Parameters of the model.
      x: Examples, n >= 1.
      key: A random key.

    Returns:
      `means` [n, k] of the posteriors; `kl` [k] for every latent variable, mean over examples; `samples`
      [100, d], the decoder's means of samples of the prior; `paths` [6, 10, k] between pairs of examples, fewer
      where n < 12.
    """
    outputs = model.encode(params, x)
    means = model.latent.mean(outputs)
    n_paths = min(6, max(len(means) // 2, 1))
    return {
        'means': means,
        'kl': model.latent.kl(outputs, jnp.zeros_like(outputs)).mean(0),
        'samples': vae.sample(model, params, key, 100)[1],
        'paths': interpolate(means[:n_paths], jnp.roll(means, -n_paths, 0)[:n_paths], 10),
    }
