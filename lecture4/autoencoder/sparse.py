"""Sparse autoencoders: L(x, g(f(x))) + Omega(h), h = f(x), with Omega the L1 norm or a KL penalty.

Two objectives, each of one hidden layer:

    l1_loss   ReLU codes, linear decoder with rows of norm 1, mean ||x - g(h)||^2 + weight |h|_1.
              The norms are fixed because otherwise codes shrink while the decoder grows, and the
              penalty costs nothing.
    kl_loss   logistic codes and outputs, 0.5 ||x - g(h)||^2, weight decay, and the divergence of
              each unit's mean activation from a small target.

Codes with a fixed number of non-zeros: `topk`.
"""

import jax
import jax.numpy as jnp

from lecture4.autoencoder import network
from lecture4.autoencoder.network import Autoencoder, Dense
from lecture4.ops.losses import squared_error


def l1(h, weight):
    """The penalty weight * |h|_1 per example: h [n, k] -> [n]; weight a scalar or [k]."""
    weight = jnp.asarray(weight, h.dtype)
    weight = weight.reshape((1,) * (h.ndim - weight.ndim) + weight.shape)
    return jnp.sum(weight * jnp.abs(h), axis=-1)


def laplace_nll(h, weight):
    """-log p(h) of k independent Laplace variables with density weight / 2 exp(-weight |h_j|).

    It is the L1 penalty and a constant, weight |h|_1 - k log(weight / 2). The constant matters as
    soon as the weight is learned or compared. Beside Gaussian noise of variance sigma^2,
    ||x - g(h)||^2 + lambda |h|_1 is -2 sigma^2 log p(x, h) up to a constant, lambda = 2 sigma^2 weight.

    Shapes  h [n, k], weight scalar or [k]. Returns [n], nats.
    Domain  weight > 0.
    """
    weight = jnp.broadcast_to(jnp.asarray(weight, h.dtype), h.shape[-1:])
    return l1(h, weight) - jnp.sum(jnp.log(weight / 2))


def kl_penalty(mean_activation, target):
    """KL(target || mean activation) of Bernoulli variables, elementwise.

    The mean is over all data: it is convex, so that means of small batches overstate the penalty
    (by Jensen's inequality). Take the whole set, or a running mean.

    Shapes  mean_activation [k] in [0, 1], target scalar or [k] in (0, 1). Returns [k].
    Grad    -target / m + (1 - target) / (1 - m), kept finite at m = 0 and 1.
    """
    target = jnp.broadcast_to(jnp.asarray(target, mean_activation.dtype), mean_activation.shape)
    # Squeezed by a rounding error into the open interval: clipping would cut the gradient off.
    eps = jnp.finfo(mean_activation.dtype).eps
    m = eps + (1 - 2 * eps) * mean_activation
    return target * jnp.log(target / m) + (1 - target) * jnp.log((1 - target) / (1 - m))


def normalised(params: Autoencoder) -> Autoencoder:
    """The same autoencoder with every unit's decoder weights divided by their norm (0 stays 0)."""
    weight, bias = params.decoder[0]
    energy = jnp.sum(weight * weight, axis=1, keepdims=True)
    weight = weight / jnp.sqrt(jnp.where(energy > 0, energy, 1))
    return Autoencoder(params.encoder, (Dense(weight, bias),))


def l1_encode(params: Autoencoder, x):
    """ReLU codes, with exact zeros: [n, d] -> [n, k]."""
    return network.encode(params, x, network.identity, jax.nn.relu)


def l1_loss(params: Autoencoder, x, weight):
    """Mean ||x - g(h)||^2 + weight |h|_1 with unit decoder rows; (loss, metrics).

    metrics  reconstruction, l1 (without its weight), l0 (units that are not exactly 0), means over
             the batch.
    """
    code = l1_encode(params, x)
    error = squared_error(x, network.decode(normalised(params), code, network.identity))
    norm = l1(code, 1.0)
    value = jnp.mean(error) + jnp.asarray(weight, x.dtype) * jnp.mean(norm)
    return value, {
        'reconstruction': jnp.mean(error),
        'l1': jnp.mean(norm),
        'l0': jnp.mean(active(code)),
    }


def kl_encode(params: Autoencoder, x):
    """Logistic codes: [n, d] -> [n, k]."""
    return network.encode(params, x, network.identity, jax.nn.sigmoid)


def kl_loss(params: Autoencoder, x, *, target=0.01, weight=3.0, decay=1e-4):
    """Mean 0.5 ||x - g(h)||^2 + decay / 2 (|W|^2 + |U|^2) + weight sum_j KL_j; (loss, metrics).

    x is to be the whole set (see kl_penalty). Biases are not decayed.

    Domain  x in (0, 1), which logistic outputs can reach; 0 < target < 1.
    metrics  reconstruction (with its half), penalty (without its weight), activation (mean over
             units of the mean).
    Source  Ng, CS294A lecture notes (2011) and the UFLDL exercise, whose values are the defaults.
    """
    code = kl_encode(params, x)
    output = network.decode(params, code, network.identity, jax.nn.sigmoid)
    reconstruction = 0.5 * jnp.mean(squared_error(x, output))
    mean_activation = jnp.mean(code, axis=0)
    penalty = jnp.sum(kl_penalty(mean_activation, target))
    layers = (*params.encoder, *network.decoder_layers(params))
    energy = sum(jnp.sum(layer.weight**2) for layer in layers)
    as_dtype = lambda value: jnp.asarray(value, x.dtype)  # noqa: E731
    value = reconstruction + 0.5 * as_dtype(decay) * energy + as_dtype(weight) * penalty
    return value, {
        'reconstruction': reconstruction,
        'penalty': penalty,
        'activation': jnp.mean(mean_activation),
    }


def active(code, tolerance=0.0):
    """How many units of each example exceed the tolerance in absolute value: [n, k] -> [n] float."""
    return jnp.sum(jnp.abs(code) > tolerance, axis=-1).astype(code.dtype)


def sparseness(code):
    """1 - (mean |h|)^2 / mean h^2 over units, in [0, 1): 0 where all are equal, whatever the scale.

    Shapes  code [n, k]. Returns [n]. Gaussian codes have 1 - 2 / pi = 0.36.
    Source  Treves & Rolls 1991.
    """
    energy = jnp.mean(code**2, axis=-1)
    return 1 - jnp.mean(jnp.abs(code), axis=-1) ** 2 / jnp.where(energy > 0, energy, 1)
