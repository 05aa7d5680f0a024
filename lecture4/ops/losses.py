"""Reconstruction losses and likelihoods: one value per example, summed over everything else.

Sums, not means, over pixels: a likelihood is a sum, and its mean combined with a summed KL divergence is another
objective, a beta-VAE whose beta is the number of pixels. The average over the batch is left to the caller.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import core
from jaxtyping import Array, ArrayLike, Float, Integer, Real

from lecture4.ops.prox import require_floating

LOG_2PI = math.log(2 * math.pi)


def squared_error(
    x: Float[ArrayLike, 'n *shape'], y: Float[ArrayLike, 'n *shape']
) -> Float[Array, 'n']:
    """||x - y||^2 per example, without a factor 1/2.

    Args:
      x: Examples.
      y: Their reconstructions.

    Raises:
      TypeError: An input is an integer array.
      ValueError: The shapes differ.
    """
    x, y = _same_shape('x', x, 'y', y)
    return _sum((x - y) ** 2)


def bernoulli_nll(
    logits: Float[ArrayLike, 'n *shape'], x: Float[ArrayLike, 'n *shape']
) -> Float[Array, 'n']:
    """-log p(x) of independent Bernoulli pixels with p = sigmoid(logits), in nats.

    With x strictly between 0 and 1 (gray levels) it is a cross-entropy, as in papers, not a likelihood:
    its minimum over logits is the sum of the pixels' entropies, not 0.

    Gradient: sigmoid(logits) - x; value and gradient are finite at every finite logit.

    Args:
      logits: Outputs of the decoder.
      x: Pixels in [0, 1]; values outside raise an error unless they are traced.

    Raises:
      TypeError: An input is an integer array.
      ValueError: The shapes differ, or as `check_unit_interval`.
    """
    logits, x = _same_shape('logits', logits, 'x', x)
    x = check_unit_interval(x)
    return _sum(_cross_entropy(logits, x))


@jax.custom_jvp
def _cross_entropy(logits, x):
    # softplus(l) - x l, with the part that cancels outside the logarithm: exact at large |l|.
    linear = jnp.maximum(logits, 0) - x * logits
    return linear + jnp.log1p(jnp.exp(-jnp.abs(logits)))


@_cross_entropy.defjvp
def _cross_entropy_jvp(primals, tangents):
    logits, x = primals
    logits_dot, x_dot = tangents
    # Differentiating the formula itself is wrong at 0, where the kinks of its two terms cancel.
    slope = jax.nn.sigmoid(logits) - x
    return _cross_entropy(logits, x), slope * logits_dot - logits * x_dot


def gaussian_nll(
    x: Float[ArrayLike, 'n *shape'],
    mean: Float[ArrayLike, 'n *shape'],
    log_std: Real[ArrayLike, '...'],
) -> Float[Array, 'n']:
    """-log N(x; mean, exp(log_std)^2), in nats; for a density, so that it may be negative.

    Args:
      x: Examples.
      mean: Means, of x's shape.
      log_std: Log standard deviations, broadcastable to x: a scalar, a value per coordinate, or one for each value of
        x.

    Raises:
      TypeError: An input is an integer array.
      ValueError: The shapes do not fit.
    """
    x, mean = _same_shape('x', x, 'mean', mean)
    log_std = jnp.asarray(log_std, x.dtype)
    try:
        log_std = jnp.broadcast_to(log_std, x.shape)
    except ValueError:
        message = f'log_std of shape {log_std.shape} does not broadcast to x {x.shape}'
        raise ValueError(message) from None
    scaled = (x - mean) * jnp.exp(-log_std)
    return _sum(0.5 * scaled**2 + log_std + 0.5 * LOG_2PI)


def categorical_nll(
    logits: Float[ArrayLike, 'n *shape c'], labels: Integer[ArrayLike, 'n *shape']
) -> Float[Array, 'n']:
    """-log softmax(logits)[label], in nats, summed over positions where there are several.

    Args:
      logits: Scores per class.
      labels: Classes in 0 .. c - 1; others raise an error unless they are traced.

    Raises:
      TypeError: Logits are integers, or labels are not integers.
      ValueError: The shapes do not fit, or a label that is not traced is outside its domain.
    """
    logits, labels = require_floating('logits', logits), jnp.asarray(labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f'labels have dtype {labels.dtype}, expected an integer dtype')
    if logits.ndim != labels.ndim + 1 or logits.shape[:-1] != labels.shape:
        raise ValueError(
            f'logits {logits.shape} and labels {labels.shape} do not fit; labels have the shape of '
            'logits without the last axis, the classes'
        )
    n_classes = logits.shape[-1]
    if _known(labels) and labels.size:
        known = np.asarray(labels)  # not jnp, which would trace the check if labels are closed over
        low, high = int(known.min()), int(known.max())
        if low < 0 or high >= n_classes:
            raise ValueError(
                f'labels from {low} to {high}; {n_classes} classes are numbered from 0'
            )
    chosen = jnp.take_along_axis(logits, labels[..., None], axis=-1)
    return _sum(jax.nn.logsumexp(logits, axis=-1) - chosen[..., 0])


def check_unit_interval(x: Float[ArrayLike, '*shape'], name: str = 'x') -> Float[Array, '*shape']:
    """Check pixels, and return them; values outside [0, 1] or NaN raise an error unless they are traced.

    Traced values pass: check the data before it enters a compiled step.

    Args:
      x: Pixels.
      name: Name of the pixels in the error message.

    Raises:
      TypeError: The pixels are integers (bytes 0..255 are not probabilities).
      ValueError: Values lie outside [0, 1]; the message has their range and the fix.
    """
    x = require_floating(name, x)
    if _known(x) and x.size:
        values = np.asarray(x)
        n_nan = int(np.isnan(values).sum())
        if n_nan:
            raise ValueError(
                f'{name} is NaN in {n_nan} of {x.size} values; drop or fix those examples'
            )
        low, high = float(values.min()), float(values.max())
        if low < 0 or high > 1:
            rescale = 'divide by 255' if low >= 0 and 128 <= high <= 255 else 'rescale them'
            raise ValueError(
                f'{name} lies in [{low:g}, {high:g}], expected [0, 1] for a Bernoulli decoder: '
                f'{rescale}, or use a Gaussian decoder where the model has one'
            )
    return x


def _known(x) -> bool:
    return not isinstance(x, core.Tracer)


def _same_shape(first, a, second, b):
    a, b = require_floating(first, a), require_floating(second, b)
    if a.shape != b.shape or not a.ndim:
        raise ValueError(
            f'expected {first} and {second} of one shape [n, ...], got {first} {a.shape} and '
            f'{second} {b.shape}'
        )
    return a, b


def _sum(values):
    return jnp.sum(values, axis=tuple(range(1, values.ndim)))
