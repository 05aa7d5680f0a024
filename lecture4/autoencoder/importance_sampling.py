"""Importance-weighted bounds of log p(x) of a variational autoencoder."""

import functools
import math
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, ScalarLike

from lecture4.autoencoder import vae
from lecture4.autoencoder.vae import Model
from lecture4.ops.varying import vary_as_returned


def log_weights(
    model: Model, params: Any, x: Float[Array, 'n d'], key: PRNGKeyArray
) -> Float[Array, ' n']:
    """Log p(x, z) - log q(z | x) at one z ~ q(z | x) for every example.

    The mean of its exponential is p(x). If q is the posterior, it equals log p(x) for every z.
    """
    outputs = model.encode(params, x)
    z = model.latent.sample(key, outputs)
    log_prior = model.latent.log_prob(jnp.zeros_like(outputs), z)
    log_joint = model.pixels.log_prob(model.decode(params, z), x) + log_prior
    return log_joint - model.latent.log_prob(outputs, z)


def importance_bound(
    model: Model,
    params: Any,
    x: Float[Array, 'n d'],
    key: PRNGKeyArray,
    *,
    n_samples: int,
    chunk: int = 0,
) -> Float[Array, ' n']:
    """E log 1/k sum_i w_i with k = n_samples: a lower bound of log p(x), tighter for larger k.

    k = 1 is the evidence lower bound with a sampled divergence. For pathwise distributions it may be used as training
    objective (an importance-weighted autoencoder).

    Args:
      model: The networks and distributions.
      params: Parameters of the model.
      x: Examples.
      key: A random key.
      n_samples: Number k of importance samples per example.
      chunk: Number of samples computed at a time; 0 computes all at once. Memory is proportional to n * chunk, unless
        a gradient is taken.

    Raises:
      ValueError: chunk does not divide n_samples.

    References:
      Burda, Grosse & Salakhutdinov 2016, eq. 8.
    """
    chunk = chunk or n_samples
    if n_samples < 1 or n_samples % chunk:
        raise ValueError(
            f'n_samples {n_samples} is not a multiple of chunk {chunk}; use {chunk} or '
            f'{(n_samples // chunk + 1) * chunk}'
        )

    def add_chunk(total, keys):
        weights = jax.vmap(lambda key: log_weights(model, params, x, key))(keys)
        return jnp.logaddexp(total, jax.nn.logsumexp(weights, axis=0)), None

    keys = jax.random.split(key, n_samples).reshape(n_samples // chunk, chunk)
    if len(keys) == 1:
        weights = jax.vmap(lambda key: log_weights(model, params, x, key))(keys[0])
        return jax.nn.logsumexp(weights, axis=0) - math.log(n_samples)
    start = jnp.full(x.shape[0], -jnp.inf, x.dtype)
    start = vary_as_returned(lambda total, keys: add_chunk(total, keys)[0], start, keys[0])
    total, _ = jax.lax.scan(add_chunk, start, keys)
    return total - math.log(n_samples)


def log_likelihood(
    model: Model,
    params: Any,
    x: Float[Array, 'n d'],
    key: PRNGKeyArray,
    *,
    n_samples: int,
    chunk: int,
    tile: int = 1000,
) -> Float[Array, ' n']:
    """`importance_bound` of many examples, `tile` at a time: an estimated lower bound of log p(x).

    Examples of the last tile are padded by repeating the last one.
    """
    n = x.shape[0]
    tile = min(tile, n)
    n_tiles = -(-n // tile)
    padded = jnp.concatenate([x, jnp.repeat(x[-1:], n_tiles * tile - n, axis=0)])

    def tile_bound(inputs):
        x, key = inputs
        return importance_bound(model, params, x, key, n_samples=n_samples, chunk=chunk)

    tiles = padded.reshape(n_tiles, tile, *x.shape[1:])
    return jax.lax.map(tile_bound, (tiles, jax.random.split(key, n_tiles))).reshape(-1)[:n]


def training_loss(
    model: Model,
    params: Any,
    x: Float[Array, 'n d'],
    key: PRNGKeyArray,
    *,
    objective: Literal['elbo', 'importance'] = 'elbo',
    n_samples: int = 1,
    beta: ScalarLike = 1.0,
    free_bits: ScalarLike = 0.0,
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
    """The training loss: the negative evidence lower bound, or the negative importance-weighted bound.

    Args:
      model: The networks and distributions.
      params: Parameters of the model.
      x: Examples.
      key: A random key.
      objective: 'elbo' for `vae.loss`, 'importance' for `importance_bound`.
      n_samples: Number of latent samples per example.
      beta: As in `vae.loss`; not used by 'importance'.
      free_bits: As in `vae.loss`; not used by 'importance'.

    Returns:
      (loss, metrics): means over examples; `elbo` and `kl` of 'elbo'.
    """
    if objective == 'importance':
        return -importance_bound(model, params, x, key, n_samples=n_samples).mean(), {}
    parts = vae.bound(model, params, x, key, n_samples=n_samples)
    value = vae.loss(parts, beta=beta, free_bits=free_bits)
    return value, {'elbo': parts.elbo.mean(), 'kl': parts.kl.sum(1).mean()}


def bound_records(
    model: Model, params: Any, x: Float[Array, 'n d'], key: PRNGKeyArray, samples: Sequence[int]
) -> list[dict[str, Any]]:
    """`log_likelihood` with several numbers of importance samples, mean over examples.

    Args:
      model: The networks and distributions.
      params: Parameters of the model.
      x: Examples.
      key: A random key, the same for all.
      samples: Numbers of importance samples per example.

    Returns:
      A record per number: `bound`, its name, and `log_likelihood` in nats.
    """
    records = []
    for k in samples:
        bound = functools.partial(log_likelihood, model, n_samples=k, chunk=math.gcd(k, 10))
        value = float(jax.jit(bound)(params, x, key).mean())
        records.append({'bound': f'importance-weighted, k = {k}', 'log_likelihood': value})
    return records
