"""Variational autoencoders: networks, the evidence lower bound, samples, active units.

A `Model` pairs an encoder p_encoder(z | x), written q below, with a decoder p_decoder(x | z); both are networks whose
outputs are the parameters of a `stochastic.Distribution`; the prior p(z) is the latent distribution at outputs 0.
Pixels and latent variables are summed over, never averaged: a mean over pixels would be another objective, a beta-VAE
with beta equal to the number of pixels.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, PRNGKeyArray, ScalarLike

from lecture4.autoencoder import network, stochastic


class Model(NamedTuple):
    """A variational autoencoder of vectors [n, d] as pure functions.

    Attributes:
      init: key -> params.
      encode: (params, x [n, d]) -> outputs [n, p], the parameters of `latent`.
      decode: (params, z [n, v]) -> outputs [n, r], the parameters of `pixels`.
      latent: Distribution of the `latent_dim` latent variables.
      pixels: Distribution of the pixels.
      latent_dim: Number of latent variables.
    """

    init: Callable[[PRNGKeyArray], Any]
    encode: Callable[[Any, Array], Array]
    decode: Callable[[Any, Array], Array]
    latent: stochastic.Distribution
    pixels: stochastic.Distribution
    latent_dim: int


class Params(NamedTuple):
    """Parameters of a model.

    Attributes:
      encoder: Parameters of the encoder.
      decoder: Parameters of the decoder.
      log_std: Log standard deviation of all pixels if it is learned, else None.
    """

    encoder: Any
    decoder: Any
    log_std: Float[Array, ''] | None = None


class Bound(NamedTuple):
    """The two parts of the evidence lower bound, of every example.

    Attributes:
      reconstruction: E_q log p(x | z), in nats.
      kl: KL(q(z_j | x) || p(z_j)) of every latent variable, in nats.
    """

    reconstruction: Float[Array, ' n']
    kl: Float[Array, 'n k']

    @property
    def elbo(self) -> Float[Array, ' n']:
        """The bound of log p(x), without beta and free bits."""
        return self.reconstruction - jnp.sum(self.kl, axis=1)


def mlp(
    n_pixels: int,
    hidden_dims: Sequence[int],
    latent_dim: int,
    *,
    pixels: stochastic.Distribution = stochastic.BERNOULLI,
    latent: stochastic.Distribution = stochastic.GAUSSIAN,
    learn_std: bool = False,
    activation: Callable = jax.nn.relu,
) -> Model:
    """Fully connected encoder n_pixels - hidden - latent, and its mirror image as decoder.

    Args:
      n_pixels: Number of values per example.
      hidden_dims: Numbers of units of the hidden layers; () makes both networks affine.
      latent_dim: Number of latent variables.
      pixels: Distribution of the pixels.
      latent: Distribution of the latent variables.
      learn_std: Whether one standard deviation for all pixels is learned; then `pixels` is GAUSSIAN, and the network
        outputs only the means.
      activation: Activation of the hidden layers.

    Raises:
      ValueError: A dimension is below 1, or learn_std is set without GAUSSIAN.
    """
    check_options(latent_dim, pixels, learn_std)
    n_outputs = n_pixels if learn_std else pixels.n_outputs(n_pixels)

    def init(key):
        encoder_key, decoder_key = jax.random.split(key)
        return Params(
            network.init(encoder_key, (n_pixels, *hidden_dims, latent.n_outputs(latent_dim))),
            network.init(decoder_key, (latent.n_values(latent_dim), *hidden_dims[::-1], n_outputs)),
            jnp.zeros(()) if learn_std else None,
        )

    def encode(params, x):
        return network.apply(params.encoder, x, activation)

    def decode(params, z):
        return append_log_std(params, network.apply(params.decoder, z, activation))

    return Model(init, encode, decode, latent, pixels, latent_dim)


def pixel_options(
    decoder: Literal['bernoulli', 'gaussian', 'gaussian_learned'], std: ScalarLike
) -> dict[str, Any]:
    """`pixels` and `learn_std` of a model by the name of its decoder.

    Args:
      decoder: 'bernoulli', 'gaussian' (known standard deviation) or 'gaussian_learned'.
      std: Standard deviation of 'gaussian'.
    """
    if decoder == 'gaussian':
        return {'pixels': stochastic.gaussian(jnp.log(std))}
    if decoder == 'gaussian_learned':
        return {'pixels': stochastic.GAUSSIAN, 'learn_std': True}
    return {'pixels': stochastic.BERNOULLI}


def check_options(latent_dim: int, pixels: stochastic.Distribution, learn_std: bool) -> None:
    """Raise a ValueError unless there is a latent variable, and a learned std belongs to a Gaussian."""
    if latent_dim < 1:
        raise ValueError(f'expected latent_dim to be at least 1, got {latent_dim}')
    if learn_std and pixels is not stochastic.GAUSSIAN:
        raise ValueError(
            'learn_std learns the log standard deviation of pixels=stochastic.GAUSSIAN; pass that '
            'distribution, or learn_std=False'
        )


def append_log_std(params: Params, outputs: Float[Array, 'n d']) -> Float[Array, 'n outputs']:
    """The decoder's means, followed by the log standard deviation of all pixels if it is learned."""
    if params.log_std is None:
        return outputs
    return jnp.concatenate([outputs, jnp.broadcast_to(params.log_std, outputs.shape)], axis=1)


def kl_standard_normal(
    mean: Float[ArrayLike, '*shape'], log_std: Float[ArrayLike, '*shape']
) -> Float[ArrayLike, '*shape']:
    """KL(N(mean, std^2) || N(0, 1)) = 1/2 (std^2 + mean^2 - 1 - log std^2), elementwise, in nats.

    The lecture's slide sums std^2 + mean^2 - log std - 1: log std in place of log std^2, and no 1/2. That is not a
    divergence: it is smallest at std = 1/sqrt 2, where it is -0.153 at mean 0, and it pulls every posterior there.
      With log std^2 but without the 1/2 it is a beta-VAE with
    beta = 2.

    Args:
      mean: Means.
      log_std: Log standard deviations, below 44 in float32, where std^2 overflows.

    References:
      Kingma & Welling 2014, appendix B.
    """
    return 0.5 * (jnp.expm1(2 * log_std) + mean**2) - log_std


def bound(
    model: Model,
    params: Any,
    x: Float[Array, 'n d'],
    key: PRNGKeyArray,
    *,
    n_samples: int = 1,
    estimator: stochastic.Estimator | None = None,
) -> Bound:
    """The evidence lower bound: E_q log p(x | z) by sampling, the divergence in closed form.

    The gradient is unbiased with respect to params, for discrete latent variables too.

    Args:
      model: The networks and distributions.
      params: Parameters of the model.
      x: Examples.
      key: A random key.
      n_samples: Number of latent samples per example.
      estimator: As in `stochastic.expectation`.

    Raises:
      ValueError: Known pixels lie outside [0, 1] under a Bernoulli decoder.
    """
    outputs = model.encode(params, x)
    reconstruction = stochastic.expectation(
        key,
        model.latent,
        outputs,
        lambda z: model.pixels.log_prob(model.decode(params, z), x),
        n_samples=n_samples,
        estimator=estimator,
    )
    return Bound(reconstruction, model.latent.kl(outputs, jnp.zeros_like(outputs)))


def enumerated_bound(
    model: Model, params: Any, x: Float[Array, 'n d'], states: Float[ArrayLike, 'm v']
) -> Float[Array, ' n']:
    """The evidence lower bound of discrete latent variables as the exact sum over their states.

    Args:
      model: The networks and distributions.
      params: Parameters of the model.
      x: Examples; memory grows with n * m.
      states: Every value of the latent variables, from `stochastic.enumerate_states`.
    """
    states = jnp.asarray(states)
    outputs = model.encode(params, x)
    decoded = model.decode(params, states)

    def expected_log_prob(outputs, x):
        repeated = jnp.broadcast_to(outputs[None], (len(states), *outputs.shape))
        log_p = model.pixels.log_prob(decoded, jnp.broadcast_to(x[None], decoded.shape))
        return jnp.sum(jnp.exp(model.latent.log_prob(repeated, states)) * log_p)

    kl = model.latent.kl(outputs, jnp.zeros_like(outputs))
    return jax.vmap(expected_log_prob)(outputs, x) - jnp.sum(kl, axis=1)


def loss(parts: Bound, *, beta: ScalarLike = 1.0, free_bits: ScalarLike = 0.0) -> Float[Array, '']:
    """The training loss -reconstruction + beta sum_j max(free_bits, KL_j), averaged over examples.

    Args:
      parts: From `bound`.
      beta: Weight of the KL divergence: 1 gives the bound, larger values a more factorial code; may be traced, as in
        warm-up.
      free_bits: Nats per latent variable that are not penalized: KL_j is the mean over the batch,
        and below free_bits it has no gradient.

    References:
      Higgins et al. 2017 (beta); Kingma et al. 2016, eq. 15 (free bits).
    """
    kl = jnp.mean(parts.kl, axis=0)
    return jnp.asarray(beta, kl.dtype) * jnp.sum(jnp.maximum(kl, free_bits)) - jnp.mean(
        parts.reconstruction
    )


def warm_up(n: ScalarLike, n_steps: int) -> ScalarLike:
    """The factor on beta at step n: linear from 0 to 1 over n_steps, then 1.

    References:
      Bowman et al. 2016; Sonderby et al. 2016.
    """
    return jnp.clip(jnp.asarray(n, float) / jnp.maximum(n_steps, 1), 0.0, 1.0) if n_steps else 1.0


def sample(
    model: Model, params: Any, key: PRNGKeyArray, n: int
) -> tuple[Float[Array, 'n v'], Float[Array, 'n d']]:
    """Draw n latent samples from the prior; returns (z, the decoder's mean of each)."""
    z = model.latent.sample(key, jnp.zeros((n, model.latent.n_outputs(model.latent_dim))))
    return z, model.pixels.mean(model.decode(params, z))


def reconstruct(model: Model, params: Any, x: Float[Array, 'n d']) -> Float[Array, 'n d']:
    """The decoder's mean at the encoder's mean."""
    z = model.latent.mean(model.encode(params, x))
    return model.pixels.mean(model.decode(params, z))


def image_functions(model: Model, image_shape: Sequence[int]) -> dict[str, Callable[..., Any]]:
    """The trained model as functions: `encode`, `decode` and `reconstruct` (params, x), all by means, and `sample`.

    `sample` (params, key, n) decodes n latent variables drawn from the prior, n static.

    Args:
      model: The networks and distributions.
      image_shape: Shape of one decoded image; encoded ones may have any shape [n, ...] of as many pixels.
    """

    def encode(params, images):
        return model.latent.mean(model.encode(params, images.reshape(len(images), -1)))

    def decode(params, z):
        return model.pixels.mean(model.decode(params, z)).reshape(-1, *image_shape)

    def reconstruct(params, images):
        return decode(params, encode(params, images))

    def sample_images(params, key, n):
        return sample(model, params, key, n)[1].reshape(n, *image_shape)

    functions = {'encode': encode, 'decode': decode, 'reconstruct': reconstruct}
    return {**functions, 'sample': sample_images}


def sample_reconstructions(
    model: Model, params: Any, key: PRNGKeyArray, x: Float[Array, 'n d'], n_samples: int = 3
) -> Float[Array, 'rows n d']:
    """Examples, decoded samples of their latent variables, and sampled pixels of the last.

    Args:
      model: The networks and distributions.
      params: Parameters of the model.
      key: A random key.
      x: Examples.
      n_samples: Number of latent samples of each example.

    Returns:
      Rows of images: the examples, the decoder's means for each sample, pixels sampled for the last.
    """
    outputs = model.encode(params, x)
    keys = jax.random.split(key, n_samples + 1)
    decoded = [model.decode(params, model.latent.sample(own, outputs)) for own in keys[:-1]]
    pixels = model.pixels.sample(keys[-1], decoded[-1])
    return jnp.stack([x, *map(model.pixels.mean, decoded), pixels])


def active_units(means: Float[Array, 'n k'], threshold: ScalarLike = 0.01) -> Bool[Array, ' k']:
    """Mask of the latent variables that carry information: the variance over x of E[z | x] is > threshold.

    References:
      Burda, Grosse & Salakhutdinov 2016, section 5; 0.01 is theirs.
    """
    return jnp.var(means, axis=0) > threshold


def evaluate(
    model: Model, params: Any, x: Float[Array, 'n d'], key: PRNGKeyArray
) -> dict[str, Float[Array, '']]:
    """Means over examples of elbo, kl and reconstruction, in nats, and the number of active_units.

    Args:
      model: The networks and distributions.
      params: Parameters of the model.
      x: Examples.
      key: A random key, for one latent sample per example.
    """
    parts = bound(model, params, x, key)
    means = model.latent.mean(model.encode(params, x))
    return {
        'elbo': jnp.mean(parts.elbo),
        'kl': jnp.mean(jnp.sum(parts.kl, axis=1)),
        'reconstruction': jnp.mean(parts.reconstruction),
        'active_units': jnp.sum(active_units(means)).astype(jnp.float32),
    }


def warn_of_collapse(n_active: int, latent_dim: int, min_fraction: float = 0.5) -> str:
    """Warn where fewer than min_fraction of the latent variables are active.

    Collapse may be optimal: with a fixed standard deviation s a linear latent variable survives only if its variance
    in the data exceeds s^2.

    Returns:
      The text of the warning, '' if there is none.
    """
    if n_active >= min_fraction * latent_dim:
        return ''
    text = (
        f'posterior collapse: {n_active} of {latent_dim} latent variables are active; lower beta, '
        'warm it up, allow free bits, or learn the standard deviation of a Gaussian decoder'
    )
    warnings.warn(text, stacklevel=2)
    return text
