"""Learned encoders: a few layers that predict the codes of an optimization (LISTA).

One iteration of proximal gradient is z <- soft(x W + z S, t) with W = D / L, S = I - D'D / L and
t = weight / L. A learned encoder keeps the form, truncates it to a few layers, and learns W, S and
t from pairs of signals and codes: it has to be accurate for signals of one distribution only, whereas the iteration
works for all signals. Its cost is small and known in advance; there is no certificate.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Real

from lecture4.ops.linalg import lipschitz
from lecture4.ops.prox import soft_threshold
from lecture4.sparse.objective import check_inputs, check_penalty_weight, product


class Encoder(NamedTuple):
    """Parameters of the layers, shared by all layers or separate: the first axis is 1 or n_layers.

    The threshold is stored as its logarithm, so that it stays positive after any step.

    Attributes:
      W: [d, k], signals to codes, shared by all layers.
      S: [1 or n_layers, k, k], codes to codes (an encoder with no layers has an unused one).
      log_threshold: [n_layers + 1, k] or [1, k], logarithms of the thresholds.
    """

    W: Float[Array, 'd k']
    S: Float[Array, '_ k k']
    log_threshold: Float[Array, '_ k']


def init(
    D: Float[Array | np.ndarray, 'd k'],
    l1_penalty: Real[ArrayLike, '...'],
    n_layers: int,
    *,
    tied: bool = True,
) -> Encoder:
    """The encoder that equals n_layers + 1 iterations of ISTA from zero: the initialization.

    Args:
      D: Dictionary, atoms in columns.
      l1_penalty: Weight of the l1 penalty, a scalar or [k], positive.
      n_layers: Number of applications of S, at least 0.
      tied: Whether all layers share S and the thresholds, as in the paper.

    Raises:
      TypeError: An input is an integer array.
      ValueError: n_layers < 0, a penalty per signal or one that is not positive.

    References:
      Gregor & LeCun 2010, section 3 and algorithm 3.
    """
    if n_layers < 0:
        raise ValueError(f'n_layers={n_layers}; expected at least 0')
    check_penalty_weight(l1_penalty)
    _, D, weight = check_inputs(jnp.zeros((1, D.shape[0]), D.dtype), D, l1_penalty)
    k = D.shape[1]
    L = lipschitz(D)
    L = jnp.where(L > 0, L, 1)
    S = jnp.eye(k, dtype=D.dtype) - product(D.T, D) / L
    n_sets = 1 if tied else max(n_layers, 1)
    threshold = jnp.broadcast_to(jnp.log(weight / L), (1 if tied else n_layers + 1, k))
    return Encoder(D / L, jnp.broadcast_to(S, (n_sets, k, k)), threshold)


def encode(encoder: Encoder, x: Float[ArrayLike, 'n d'], n_layers: int) -> Float[Array, 'n k']:
    """Codes predicted by the encoder, in 2 d k + n_layers 2 k^2 flops per signal.

    Args:
      encoder: Parameters of the encoder.
      x: Signals.
      n_layers: As in init; a tied encoder may be run with another number.

    Raises:
      ValueError: The encoder is untied and has another number of layers.
    """
    n_sets, n_thresholds = len(encoder.S), len(encoder.log_threshold)
    if n_layers and n_sets not in (1, n_layers):
        raise ValueError(
            f'n_layers={n_layers} for an encoder of {n_sets} layers; expected {n_sets}'
        )
    drive = jnp.matmul(x, encoder.W)
    thresholds = jnp.exp(encoder.log_threshold)
    z = soft_threshold(drive, thresholds[:1])
    if not n_layers:
        return z
    if n_sets == n_thresholds == 1:

        def layer(_, z):
            return soft_threshold(drive + jnp.matmul(z, encoder.S[0]), thresholds)

        # A loop of known length: reverse differentiation goes through it.
        return lax.fori_loop(0, n_layers, layer, z)
    for i in range(n_layers):
        z = soft_threshold(drive + jnp.matmul(z, encoder.S[i]), thresholds[i + 1 : i + 2])
    return z


def loss(
    encoder: Encoder, x: Float[ArrayLike, 'n d'], codes: Float[ArrayLike, 'n k'], n_layers: int
) -> Float[Array, '']:
    """0.5 ||predicted - codes||^2, mean over signals: the training loss of the encoder.

    Args:
      encoder: Parameters of the encoder.
      x: Signals.
      codes: Exact codes.
      n_layers: As in encode.

    References:
      Gregor & LeCun 2010, eq. 4.
    """
    error = encode(encoder, x, n_layers) - codes
    return 0.5 * jnp.mean(jnp.sum(error * error, axis=1))


def prediction_error(
    predicted: Float[ArrayLike, 'n k'], codes: Float[ArrayLike, 'n k']
) -> Float[Array, '']:
    """Sum of squared errors over signals, relative to that of predicting zero."""
    predicted, codes = jnp.asarray(predicted), jnp.asarray(codes)
    return jnp.sum((predicted - codes) ** 2) / jnp.sum(codes**2)
