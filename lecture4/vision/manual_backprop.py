"""Backpropagation by hand: the delta rules of the layers of a convolutional network.

The delta of a layer is the derivative of the loss by its values. Each rule takes the delta behind a
layer to the one before it (`*_delta`, `upsample_*`), or to the gradient of the layer's parameters
(`*_gradients`); an activation function multiplies it by its slope. Nothing here differentiates:
that `jax.grad` finds the same is what the tests show.

`a` is what enters a layer, `z` what a layer makes before the activation function. All arrays have
a leading batch axis, images are [n, h, w, ..., c].
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import core, lax

from lecture4.ops import conv, pool
from lecture4.ops.receptive_field import Edge, Padding, PerAxis


def dense_delta(delta, W):
    """Through z = a W + b: delta W^T.  Shapes  delta [n, m], W [d, m]; returns [n, d]."""
    return delta @ W.T


def dense_gradients(a, delta):
    """Of W and b in z = a W + b: (a^T delta, sum delta).  Shapes  a [n, d], delta [n, m]."""
    return a.T @ delta, delta.sum(0)


def conv_delta(
    delta, kernel, size, stride: PerAxis = 1, padding: Padding = 0, groups=1, true_convolution=False
):
    """Through z = a * kernel + b: the full convolution of delta, spread by the stride, with kernel.

    Rows of a ragged edge that no window read get 0.

    true_convolution  whether the forward pass turns the kernel; then this one does not.
    Shapes  delta [n, *out, o], kernel [*window, c / groups, o], size (h, w, ...) of a. Returns
            [n, *size, c].
    """
    kernel = conv.flip(kernel) if true_convolution else kernel
    return conv.adjoint(delta, kernel, stride, padding, groups, size)


def conv_gradients(
    a, delta, window, stride: PerAxis = 1, padding: Padding = 0, groups=1, true_convolution=False
):
    """Of kernel and b in z = a * kernel + b: (a correlated with delta, sum of delta).

    Shapes  a [n, *size, c], delta [n, *out, o], window (kh, kw, ...). Returns
            ([*window, c / groups, o], [o]).
    """
    found = conv.kernel_adjoint(a, delta, window, stride, padding, groups)
    bias = jnp.sum(delta, axis=tuple(range(delta.ndim - 1)))
    return conv.flip(found) if true_convolution else found, bias


def relu_slope(z):
    """f'(z) of f = max(z, 0): 1 where z > 0, else 0."""
    return (z > 0).astype(z.dtype)


def sigmoid_slope(a):
    """f'(z) of f = 1 / (1 + exp(-z)), from its value a = f(z): a (1 - a)."""
    return a * (1 - a)


def upsample_mean(
    delta,
    shape,
    window: PerAxis,
    stride: PerAxis | None = None,
    padding: Padding = 0,
    edge: Edge = 'floor',
    count: Literal['window', 'padded', 'valid'] = 'padded',
):
    """Through mean pooling: each delta over its window's divisor, to every place of the window.

    Without overlap that is the lecture's `upsample`, a Kronecker product with ones / window^2;
    where windows overlap the shares add up, and at a ragged edge the divisor differs by window.

    Shapes  delta [n, *out, c], shape (n, *size, c) of what was pooled. Returns that shape.
    Errors  ValueError as `pool.mean_pool`, and where delta is not what pooling gives.
    """
    found = pool.pooling_windows(shape, window, stride, padding, edge)
    if delta.shape != (shape[0], *found.out, shape[-1]):
        raise ValueError(
            f'delta has shape {delta.shape}; pooling an input of shape {tuple(shape)} gives '
            f'{(shape[0], *found.out, shape[-1])}'
        )
    x = delta / jnp.asarray(pool.divisors(found, count), delta.dtype)
    zero = jnp.zeros((), delta.dtype)
    for axis, (W, F, S, (low, _), m) in enumerate(zip(*found, strict=True), start=1):
        parts = []
        for i in range(F):  # the i-th place of every window lies at i - low, i - low + stride, ...
            config = [(0, 0, 0)] * x.ndim
            config[axis] = (i - low, W - (i - low) - ((m - 1) * S + 1), S - 1)
            parts.append(lax.pad(x, zero, config))
        x = sum(parts[1:], parts[0])
    return x


def upsample_max(delta, switches, shape):
    """Through max pooling: each delta to the place of its window's maximum, added where they meet.

    Shapes  delta, switches [n, *out, c] (`pool.max_pool_with_switches`), shape (n, *size, c).
    """
    return pool.unpool(delta, switches, shape, 'accumulate')


def upsample_first(delta, shape, stride: PerAxis):
    """Through `pool.subsample(x, stride)`: each delta to the place that was kept, zeros between.

    Shapes  delta [n, *out, c], shape (n, *size, c). Returns that shape.
    """
    strides = (stride,) * (len(shape) - 2) if isinstance(stride, int) else tuple(stride)
    sides = zip(delta.shape[1:-1], shape[1:-1], strides, strict=True)
    config = [(0, W - ((m - 1) * S + 1), S - 1) for m, W, S in sides]
    return lax.pad(delta, jnp.zeros((), delta.dtype), [(0, 0, 0), *config, (0, 0, 0)])


def one_hot(labels, n_classes, dtype):
    """Rows with a one at the label.

    Shapes  labels whole numbers [n]; returns [n, n_classes].
    Errors  TypeError for floating labels; ValueError for one outside 0..n_classes-1. Where labels
            are traced such a row is not-a-number, and so is the loss.
    """
    if not jnp.issubdtype(jnp.asarray(labels).dtype, jnp.integer):
        raise TypeError(f'labels have dtype {labels.dtype}; whole numbers are wanted')
    if not isinstance(labels, core.Tracer):
        low, high = np.min(labels, initial=0), np.max(labels, initial=0)
        if low < 0 or high >= n_classes:
            raise ValueError(
                f'labels run from {low} to {high}, wanted 0 to {n_classes - 1}; number the classes '
                'from 0, or give the network more of them'
            )
    labels = jnp.asarray(labels)
    rows = jax.nn.one_hot(labels, n_classes, dtype=dtype)
    known = (labels >= 0) & (labels < n_classes)
    return jnp.where(known[:, None], rows, jnp.nan)


def softmax_loss(z, labels):
    """Mean of -log softmax(z)[label].  Shapes  z [n, k], labels [n] as in `one_hot`."""
    targets = one_hot(labels, z.shape[-1], z.dtype)
    return -jnp.sum(targets * jax.nn.log_softmax(z), -1).mean()


def softmax_delta(z, labels):
    """Of `softmax_loss` by z: (softmax(z) - one_hot) / n."""
    targets = one_hot(labels, z.shape[-1], z.dtype)
    return (jax.nn.softmax(z) - targets) / len(z)


def squared_loss(a, labels):
    """Mean over examples of 1/2 |a - one_hot|^2.  Shapes  a [n, k], labels [n]."""
    return 0.5 * jnp.square(a - one_hot(labels, a.shape[-1], a.dtype)).sum(-1).mean()


def squared_delta(a, labels):
    """Of `squared_loss` by a: (a - one_hot) / n; the slope of a's own activation comes on top."""
    return (a - one_hot(labels, a.shape[-1], a.dtype)) / len(a)
