"""Gradient estimators of a variational autoencoder compared with its exact gradient."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Float

from lecture4.autoencoder import stochastic, vae

# Caption of a table of `compare`, with fields num_gradients, num_images and reference.
CAPTION = (
    'Gradient with respect to all parameters, {num_gradients} samples, trained parameters, {num_images} images. '
    'Noise: root of the total variance over the norm of the gradient. Bias ratio: squared distance of the mean '
    'from {reference}, relative to its expectation by the variance; near 1 if the estimator is unbiased.'
)


def compare(
    model: vae.Model,
    params: Any,
    x: Float[Array, 'n d'],
    *,
    samples: Sequence[int],
    num_gradients: int,
    states: Float[ArrayLike, 'm v'] | None = None,
) -> tuple[list[dict[str, Any]], str]:
    """Noise and bias of every estimator of the gradient of the mean evidence lower bound.

    Args:
      model: The networks and distributions.
      params: Parameters at which the gradient is taken.
      x: Examples.
      samples: Numbers of latent samples per example, each at least 2.
      num_gradients: Number of gradients from which the mean and the variance of an estimator are estimated.
      states: All latent states, over which the exact gradient is summed; None takes the mean of the least noisy
        estimator as the reference.

    Returns:
      (records, description of the reference). A record per estimator and number of samples: `estimator`,
      `samples`; `noise`, the root of the total variance over the norm of the exact gradient; `bias_ratio`, the
      squared distance of the mean from the reference divided by its expectation by the variance, near 1 without bias.
    """
    names: list[stochastic.Estimator] = ['score', 'leave-one-out']
    if model.latent.pathwise:
        names.append('pathwise')

    def measure(params, key, name: stochastic.Estimator, n: int):
        def gradient(key):
            bound = functools.partial(vae.bound, model, n_samples=n, estimator=name)
            return jax.grad(lambda params: bound(params, x, key).elbo.mean())(params)

        return stochastic.gradient_moments(gradient, key, num_gradients)

    moments = {}
    for name in names:
        for n in samples:
            run = jax.jit(functools.partial(measure, name=name, n=n))
            moments[name, n] = run(params, jax.random.key(n))
    if states is None:
        name, n = names[-1], samples[-1]
        exact, variance = moments.pop((name, n))
        reference_variance = variance / num_gradients
        reference = f'the mean of {name} with {n} samples'
    else:

        def bound(params):
            return vae.enumerated_bound(model, params, x, states).mean()

        exact, reference_variance = jax.jit(jax.grad(bound))(params), 0.0
        reference = 'the sum over all latent states'
    records, squared_norm = [], optax.tree.norm(exact, squared=True)
    for (name, n), (mean, variance) in moments.items():
        distance = optax.tree.norm(jax.tree.map(jnp.subtract, mean, exact), squared=True)
        expected = variance / num_gradients + reference_variance
        noise, bias_ratio = float(jnp.sqrt(variance / squared_norm)), float(distance / expected)
        records.append({'estimator': name, 'samples': n, 'noise': noise, 'bias_ratio': bias_ratio})
    return records, reference
