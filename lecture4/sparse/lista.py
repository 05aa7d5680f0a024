"""Learned encoders: a few layers that predict the codes an optimisation would find (LISTA).

One iteration of proximal gradient is z <- soft(x W + z S, t) with W = D / L, S = I - D'D / L and
t = weight / L. A learned encoder keeps the form, cuts it off after a few layers, and learns W, S and
t from pairs of signals and codes: it need be right for the signals of one kind only, the iteration
for all there are. Cost is known beforehand and small; there is no certificate.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from lecture4.ops.linalg import lipschitz
from lecture4.ops.prox import soft_threshold
from lecture4.sparse.objective import check, check_positive, product


class Encoder(NamedTuple):
    """The layers' arrays, one set for all layers or one for each: the first axis is 1 or n_layers.

    The threshold is kept as its logarithm: it stays positive whatever step is taken.
    """

    W: jnp.ndarray  # [d, k], signals to codes, shared by all layers
    S: jnp.ndarray  # [1 or layers, k, k], codes to codes (an encoder of no layers has one, unused)
    log_threshold: jnp.ndarray  # [layers + 1, k] (one for each) or [1, k]


def init(D, weight, n_layers, *, tied=True):
    """The encoder that is n_layers + 1 iterations of ISTA from zero: where learning starts.

    Shapes  D [d, k]; weight scalar or [k]. Returns Encoder.
    Domain  n_layers >= 0: how often S is applied. tied: the same S and thresholds in every layer, as
            in the paper; else every layer has its own.
    Errors  ValueError for n_layers < 0, a weight per signal or one that is not positive; TypeError
            for integers.
    Source  Gregor & LeCun 2010, section 3 and algorithm 3.
    """
    if n_layers < 0:
        raise ValueError(f'n_layers {n_layers} must not be negative')
    check_positive(weight)
    _, D, weight = check(jnp.zeros((1, D.shape[0]), D.dtype), D, weight)
    k = D.shape[1]
    L = lipschitz(D)
    L = jnp.where(L > 0, L, 1)
    S = jnp.eye(k, dtype=D.dtype) - product(D.T, D) / L
    n_sets = 1 if tied else max(n_layers, 1)
    threshold = jnp.broadcast_to(jnp.log(weight / L), (1 if tied else n_layers + 1, k))
    return Encoder(D / L, jnp.broadcast_to(S, (n_sets, k, k)), threshold)


def encode(encoder, x, n_layers):
    """Codes predicted by the encoder: 2 d k + n_layers 2 k^2 flops a signal, and no loop to wait for.

    Shapes  x [n, d]. Returns [n, k]. n_layers as in init; a tied encoder may be run with another.
    Errors  ValueError where an encoder of untied layers has another number.
    """
    n_sets, n_thresholds = len(encoder.S), len(encoder.log_threshold)
    if n_layers and n_sets not in (1, n_layers):
        raise ValueError(f'the encoder has {n_sets} layers of its own, {n_layers} are asked for')
    drive = jnp.matmul(x, encoder.W)
    thresholds = jnp.exp(encoder.log_threshold)
    z = soft_threshold(drive, thresholds[:1])
    if not n_layers:
        return z
    if n_sets == n_thresholds == 1:

        def again(_, z):
            return soft_threshold(drive + jnp.matmul(z, encoder.S[0]), thresholds)

        # A loop of known length: reverse differentiation goes through it.
        return lax.fori_loop(0, n_layers, again, z)
    for layer in range(n_layers):
        z = soft_threshold(
            drive + jnp.matmul(z, encoder.S[layer]), thresholds[layer + 1 : layer + 2]
        )
    return z


def loss(encoder, x, codes, n_layers):
    """0.5 ||predicted - codes||^2, mean over signals: what the encoder learns by.

    Shapes  x [n, d], codes [n, k], exact ones. Returns a scalar.
    Source  Gregor & LeCun 2010, eq. 4.
    """
    error = encode(encoder, x, n_layers) - codes
    return 0.5 * jnp.mean(jnp.sum(error * error, axis=1))


def prediction_error(predicted, codes):
    """Sum of squared errors over signals, relative to that of predicting zero; a scalar."""
    return jnp.sum((predicted - codes) ** 2) / jnp.sum(codes**2)
