"""Sparse autoencoders: L(x, g(f(x))) + Omega(h), h = f(x), with Omega the L1 norm or a KL penalty.

Two objectives, each of one hidden layer:

    l1_loss   ReLU codes, linear decoder with rows of norm 1, mean ||x - g(h)||^2 + l1_penalty |h|_1.
              The norms are fixed because otherwise codes shrink while the decoder grows, which evades the penalty.
    kl_loss   logistic codes and outputs, 0.5 ||x - g(h)||^2, weight decay, and the divergence of
              each unit's mean activation from a small target.

Codes with a fixed number of nonzero units are in `topk`.

The lecture's slide calls Omega(h) of this formula the "DAE penalty". It is the sparse autoencoder's: a denoising
autoencoder has no penalty; it corrupts the input (`denoising.loss`).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, ScalarLike, Shaped

from lecture4.autoencoder import network
from lecture4.autoencoder.network import Autoencoder, Dense
from lecture4.ops.losses import squared_error


def l1(h: Float[ArrayLike, '*batch k'], weight: Shaped[ArrayLike, '...']) -> Float[Array, '*batch']:
    """Weighted L1 norm sum_j weight_j |h_j| of each code.

    Args:
      h: Codes.
      weight: Weight, a scalar or one value per unit [k].
    """
    h = jnp.asarray(h)
    weight = jnp.asarray(weight, h.dtype)
    weight = weight.reshape((1,) * (h.ndim - weight.ndim) + weight.shape)
    return jnp.sum(weight * jnp.abs(h), axis=-1)


def laplace_nll(
    h: Float[ArrayLike, '*batch k'], inverse_scale: Shaped[ArrayLike, '...']
) -> Float[Array, '*batch']:
    """-log p(h) of k independent Laplace variables, density s / 2 exp(-s |h_j|), s = inverse_scale.

    It is the L1 penalty plus a constant, s |h|_1 - k log(s / 2). The constant matters if s is learned or compared.
    With Gaussian noise of variance sigma^2, ||x - g(h)||^2 + lambda |h|_1 is -2 sigma^2 log p(x, h) up to a constant,
    lambda = 2 sigma^2 s.

    Args:
      h: Codes.
      inverse_scale: Inverse scale s, positive; a scalar, or one value per unit [k].

    Returns:
      Nats per example.
    """
    h = jnp.asarray(h)
    inverse_scale = jnp.broadcast_to(jnp.asarray(inverse_scale, h.dtype), h.shape[-1:])
    return l1(h, inverse_scale) - jnp.sum(jnp.log(inverse_scale / 2))


def kl_penalty(
    mean_activation: Float[Array, '*units'], target: Shaped[ArrayLike, '...']
) -> Float[Array, '*units']:
    """KL(target || mean activation) of Bernoulli variables, elementwise.

    The mean is over all data: the penalty is convex, so that means of small batches overstate it
    (by Jensen's inequality). Use the whole set, or a running mean. The gradient is
    -target / m + (1 - target) / (1 - m), kept finite at m = 0 and 1.

    Args:
      mean_activation: Mean of each unit over the data, in [0, 1].
      target: Target mean activation in (0, 1); a scalar, or one value per unit.

    Returns:
      Nats per unit.
    """
    target = jnp.broadcast_to(jnp.asarray(target, mean_activation.dtype), mean_activation.shape)
    # Shrunk by a rounding error into the open interval: clipping would set the gradient to 0.
    eps = jnp.finfo(mean_activation.dtype).eps
    m = eps + (1 - 2 * eps) * mean_activation
    return target * jnp.log(target / m) + (1 - target) * jnp.log((1 - target) / (1 - m))


def normalize_decoder(params: Autoencoder) -> Autoencoder:
    """The same autoencoder with every unit's decoder weights divided by their norm (0 stays 0)."""
    weight, bias = params.decoder[0]
    energy = jnp.sum(weight * weight, axis=1, keepdims=True)
    weight = weight / jnp.sqrt(jnp.where(energy > 0, energy, 1))
    return Autoencoder(params.encoder, (Dense(weight, bias),))


def l1_encode(params: Autoencoder, x: Float[ArrayLike, 'n d']) -> Float[Array, 'n k']:
    """ReLU codes, with exact zeros."""
    return network.encode(params, x, network.identity, jax.nn.relu)


def l1_loss(
    params: Autoencoder, x: Float[ArrayLike, 'n d'], l1_penalty: ScalarLike
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
    """Mean ||x - g(h)||^2 + l1_penalty |h|_1 with unit decoder rows.

    Args:
      params: One encoder and one decoder layer.
      x: Examples.
      l1_penalty: Weight of the l1 penalty, nonnegative; may be traced.

    Returns:
      (loss, metrics): `reconstruction`, `l1` (without its weight) and `l0` (units that are not
      exactly 0), means over the batch.
    """
    x = jnp.asarray(x)
    code = l1_encode(params, x)
    error = squared_error(x, network.decode(normalize_decoder(params), code, network.identity))
    norm = l1(code, 1.0)
    value = jnp.mean(error) + jnp.asarray(l1_penalty, x.dtype) * jnp.mean(norm)
    return value, {
        'reconstruction': jnp.mean(error),
        'l1': jnp.mean(norm),
        'l0': jnp.mean(count_active(code)),
    }


def kl_encode(params: Autoencoder, x: Float[ArrayLike, 'n d']) -> Float[Array, 'n k']:
    """Logistic codes."""
    return network.encode(params, x, network.identity, jax.nn.sigmoid)


def kl_loss(
    params: Autoencoder,
    x: Float[ArrayLike, 'n d'],
    *,
    target: ScalarLike = 0.01,
    kl_weight: ScalarLike = 3.0,
    weight_decay: ScalarLike = 1e-4,
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
    """Mean 0.5 ||x - g(h)||^2 + weight_decay / 2 (|W|^2 + |U|^2) + kl_weight sum_j KL_j.

    Biases have no weight decay.

    Args:
      params: An encoder and a decoder of logistic units.
      x: The whole data set (see `kl_penalty`), values in (0, 1), which logistic outputs can reach.
      target: Target mean activation, in (0, 1).
      kl_weight: Weight of the sum of the units' divergences.
      weight_decay: Weight of the squared norms of both weight matrices.

    Returns:
      (loss, metrics): `reconstruction` (with its half), `penalty` (without its weight) and
      `activation` (mean over units of the mean activation).

    References:
      Ng, CS294A lecture notes (2011) and the UFLDL exercise, whose values are the defaults.
    """
    x = jnp.asarray(x)
    code = kl_encode(params, x)
    output = network.decode(params, code, network.identity, jax.nn.sigmoid)
    reconstruction = 0.5 * jnp.mean(squared_error(x, output))
    mean_activation = jnp.mean(code, axis=0)
    penalty = jnp.sum(kl_penalty(mean_activation, target))
    layers = (*params.encoder, *network.decoder_layers(params))
    energy = sum(jnp.sum(layer.weight**2) for layer in layers)
    decay, weight = (jnp.asarray(value, x.dtype) for value in (weight_decay, kl_weight))
    value = reconstruction + 0.5 * decay * energy + weight * penalty
    return value, {
        'reconstruction': reconstruction,
        'penalty': penalty,
        'activation': jnp.mean(mean_activation),
    }


def count_active(
    code: Float[Array, '*batch k'], tolerance: ScalarLike = 0.0
) -> Float[Array, '*batch']:
    """Number of units of each example that exceed the tolerance in absolute value."""
    return jnp.sum(jnp.abs(code) > tolerance, axis=-1).astype(code.dtype)


def evaluate(
    x: Float[ArrayLike, 'n d'], code: Float[Array, 'n k'], reconstruction: Float[Array, 'n d']
) -> dict[str, Float[Array, '']]:
    """Explained variance and sparsity of codes.

    Args:
      x: Examples.
      code: Their codes.
      reconstruction: Reconstruction of the examples from the codes.

    Returns:
      `explained`, the explained fraction of the variance of x; `l0`, the mean number of units per example that are
      not 0; `dead`, the number of units that no example uses.
    """
    x = jnp.asarray(x)
    error = jnp.mean(squared_error(x, reconstruction))
    variance = jnp.mean(squared_error(x, jnp.broadcast_to(jnp.mean(x, axis=0), x.shape)))
    return {
        'explained': 1 - error / variance,
        'l0': jnp.mean(count_active(code)),
        'dead': jnp.sum(~jnp.any(code != 0, axis=0)).astype(x.dtype),
    }


def sparseness(code: Float[Array, '*batch k']) -> Float[Array, '*batch']:
    """1 - (mean |h|)^2 / mean h^2 over units, in [0, 1).

    0 where all units are equal, 1 - 2 / pi = 0.36 for Gaussian codes; independent of the scale.

    References:
      Treves & Rolls 1991.
    """
    energy = jnp.mean(code**2, axis=-1)
    return 1 - jnp.mean(jnp.abs(code), axis=-1) ** 2 / jnp.where(energy > 0, energy, 1)
