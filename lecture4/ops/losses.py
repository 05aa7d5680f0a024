"""Reconstruction losses and likelihoods: one value per example, summed over everything else.

Sums, not means, over pixels: a likelihood is a sum, and the mean of one beside a KL divergence that
is a sum is another objective, a beta-VAE whose beta is the number of pixels. Average over the batch
where it is wanted.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from lecture4.ops.prox import require_floating

LOG_2PI = math.log(2 * math.pi)


def squared_error(x, y):
    """||x - y||^2 per example, without a half.

    Shapes  x, y [n, ...] of one shape. Returns [n].
    Errors  TypeError for integers; ValueError where the shapes differ.
    """
    x, y = _alike('x', x, 'y', y)
    return _sum((x - y) ** 2)


def bernoulli_nll(logits, x):
    """-log p(x) of independent Bernoulli pixels with p = sigmoid(logits), in nats.

    With x strictly between 0 and 1 (grey levels) it is the cross-entropy of papers, no likelihood:
    its minimum over logits is the sum of the pixels' entropies, not 0.

    Shapes  logits, x [n, ...] of one shape. Returns [n].
    Domain  x in [0, 1]; pixels outside are refused where they are known (not traced).
    Grad    sigmoid(logits) - x; values and gradient are finite at every finite logit.
    Errors  TypeError for integers; ValueError where the shapes differ, or as check_unit_interval.
    """
    logits, x = _alike('logits', logits, 'x', x)
    x = check_unit_interval(x)
    return _sum(_cross_entropy(logits, x))


@jax.custom_jvp
def _cross_entropy(logits, x):
    # softplus(l) - x l, with the part that cancels taken out of the logarithm: exact far out.
    far = jnp.maximum(logits, 0) - x * logits
    return far + jnp.log1p(jnp.exp(-jnp.abs(logits)))


@_cross_entropy.defjvp
def _cross_entropy_jvp(primals, tangents):
    logits, x = primals
    logits_dot, x_dot = tangents
    # Of the formula itself it would be wrong at 0, where the kinks of its two parts cancel.
    slope = jax.nn.sigmoid(logits) - x
    return _cross_entropy(logits, x), slope * logits_dot - logits * x_dot


def gaussian_nll(x, mean, log_std):
    """-log N(x; mean, exp(log_std)^2), in nats; a density, so that it may be negative.

    Shapes  x, mean [n, ...] of one shape; log_std broadcastable to it: a scalar, a value per
            coordinate, or one for each value of x. Returns [n].
    Errors  TypeError for integers; ValueError where shapes do not fit.
    """
    x, mean = _alike('x', x, 'mean', mean)
    log_std = jnp.asarray(log_std, x.dtype)
    try:
        log_std = jnp.broadcast_to(log_std, x.shape)
    except ValueError:
        message = f'log_std of shape {log_std.shape} does not broadcast to x {x.shape}'
        raise ValueError(message) from None
    scaled = (x - mean) * jnp.exp(-log_std)
    return _sum(0.5 * scaled**2 + log_std + 0.5 * LOG_2PI)


def categorical_nll(logits, labels):
    """-log softmax(logits)[label], in nats, summed over positions where there are several.

    Shapes  logits [n, ..., c] float, labels [n, ...] integer. Returns [n].
    Domain  labels in 0 .. c - 1; known ones outside are refused, traced ones are not seen.
    Errors  TypeError for the wrong kind of number; ValueError where shapes do not fit, or for a
            known label outside.
    """
    logits, labels = require_floating('logits', logits), jnp.asarray(labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f'labels have dtype {labels.dtype}; class numbers are integers')
    if logits.ndim != labels.ndim + 1 or logits.shape[:-1] != labels.shape:
        raise ValueError(
            f'logits {logits.shape} and labels {labels.shape} do not fit; labels have the shape of '
            'logits without the last axis, the classes'
        )
    n_classes = logits.shape[-1]
    if _known(labels) and labels.size:
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= n_classes:
            raise ValueError(
                f'labels from {low} to {high}; {n_classes} classes are numbered from 0'
            )
    chosen = jnp.take_along_axis(logits, labels[..., None], axis=-1)
    return _sum(jax.nn.logsumexp(logits, axis=-1) - chosen[..., 0])


def check_unit_interval(x, name='x'):
    """The pixels themselves; ValueError where known ones lie outside [0, 1] or are NaN.

    Traced values pass: check the data before it goes into a compiled step.
    Errors  TypeError for integers (bytes 0..255 are no probabilities); ValueError with the range
            that came, and the mend.
    """
    x = require_floating(name, x)
    if _known(x) and x.size:
        values = np.asarray(x)
        n_nan = int(np.isnan(values).sum())
        if n_nan:
            raise ValueError(
                f'{name} holds NaN in {n_nan} of {x.size} values; drop or mend those examples'
            )
        low, high = float(values.min()), float(values.max())
        if low < 0 or high > 1:
            raise ValueError(
                f'{name} lies in [{low:g}, {high:g}]; a Bernoulli decoder wants [0, 1]: rescale '
                'the pixels or take the Gaussian decoder'
            )
    return x


def _known(x) -> bool:
    return not isinstance(x, jax.core.Tracer)


def _alike(first, a, second, b):
    a, b = require_floating(first, a), require_floating(second, b)
    if a.shape != b.shape or not a.ndim:
        raise ValueError(
            f'{first} {a.shape} and {second} {b.shape} are to have one shape, [n, ...]'
        )
    return a, b


def _sum(values):
    return jnp.sum(values, axis=tuple(range(1, values.ndim)))
