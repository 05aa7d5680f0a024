"""Manual backpropagation: the delta rules of the layers of a convolutional network.

The delta of a layer is the derivative of the loss with respect to its values. Each rule maps the delta after a layer
to the delta before it (`*_delta`, `upsample_*`), or to the gradient of the layer's parameters (`*_gradients`); an
activation function multiplies it by its derivative. Nothing here uses automatic differentiation; tests compare the
results with `jax.grad`.

`a` is the input of a layer, `z` its output before the activation function. All arrays have a leading batch
axis; images are [n, h, w, ..., c].
"""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import core, lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Shaped

from lecture4.ops import conv, pool
from lecture4.ops.receptive_field import Edge, Padding, PerAxis


def dense_delta(
    delta: Float[Array | np.ndarray, 'n m'], W: Float[Array | np.ndarray, 'd m']
) -> Float[Array, 'n d']:
    """Delta before z = a W + b: delta W^T."""
    return jnp.asarray(delta) @ jnp.asarray(W).T


def dense_gradients(
    a: Float[Array | np.ndarray, 'n d'], delta: Float[Array | np.ndarray, 'n m']
) -> tuple[Float[Array, 'd m'], Float[Array, 'm']]:
    """Gradients of W and b in z = a W + b: (a^T delta, sum of delta)."""
    delta = jnp.asarray(delta)
    return jnp.asarray(a).T @ delta, delta.sum(0)


def conv_delta(
    delta: Float[Array | np.ndarray, 'n *out o'],
    kernel: Float[Array | np.ndarray, '*window i o'],
    input_size: Sequence[int],
    stride: PerAxis = 1,
    padding: Padding = 0,
    groups: int = 1,
    true_convolution: bool = False,
) -> Float[Array, 'n *size c']:
    """Delta before z = a * kernel + b: the full convolution of delta, dilated by the stride, with kernel.

    Rows of an incomplete window that are not read get 0.

    Args:
      delta: Delta after the layer.
      kernel: [*window, c / groups, o].
      input_size: Spatial size (h, w, ...) of a.
      stride: As in `ops.conv.cross_correlate`.
      padding: As in `ops.conv.cross_correlate`.
      groups: As in `ops.conv.cross_correlate`.
      true_convolution: Whether the forward pass flips the kernel; if so, the backward pass does not.
    """
    kernel = conv.flip(kernel) if true_convolution else kernel
    return conv.adjoint(delta, kernel, stride, padding, groups, input_size)


def conv_gradients(
    a: Float[Array | np.ndarray, 'n *size c'],
    delta: Float[Array | np.ndarray, 'n *out o'],
    kernel_size: Sequence[int],
    stride: PerAxis = 1,
    padding: Padding = 0,
    groups: int = 1,
    true_convolution: bool = False,
) -> tuple[Float[Array, '*window i o'], Float[Array, 'o']]:
    """Gradients of kernel and b in z = a * kernel + b: (a correlated with delta, sum of delta).

    Args:
      a: Input of the layer.
      delta: Delta after the layer.
      kernel_size: Size (kh, kw, ...) of the kernel.
      stride: As in `ops.conv.cross_correlate`.
      padding: As in `ops.conv.cross_correlate`.
      groups: As in `ops.conv.cross_correlate`.
      true_convolution: As in `conv_delta`.

    Returns:
      Gradients [*kernel_size, c / groups, o] and [o].
    """
    kernel = conv.kernel_adjoint(a, delta, kernel_size, stride, padding, groups)
    bias = jnp.sum(delta, axis=tuple(range(delta.ndim - 1)))
    return conv.flip(kernel) if true_convolution else kernel, bias


def relu_derivative(z: Float[Array, '*shape']) -> Float[Array, '*shape']:
    """f'(z) of f = max(z, 0): 1 where z > 0, else 0."""
    return (z > 0).astype(z.dtype)


def sigmoid_derivative(a: Float[Array, '*shape']) -> Float[Array, '*shape']:
    """f'(z) of f = 1 / (1 + exp(-z)), from its value a = f(z): a (1 - a)."""
    return a * (1 - a)


def tanh_derivative(a: Float[Array, '*shape']) -> Float[Array, '*shape']:
    """f'(z) of f = tanh z, from its value a = f(z): 1 - a^2."""
    return 1 - a * a


def upsample_mean(
    delta: Float[Array | np.ndarray, 'n *out c'],
    input_shape: Sequence[int],
    window: PerAxis,
    stride: PerAxis | None = None,
    padding: Padding = 0,
    edge: Edge = 'floor',
    count: Literal['window', 'padded', 'valid'] = 'padded',
) -> Float[Array, 'n *size c']:
    """Delta before mean pooling: each delta, divided by its window's divisor, at every position of the window.

    Without overlap this is the lecture's `upsample`, a Kronecker product with ones / window^2; where windows overlap
    the parts add up, and for incomplete windows the divisor differs.

    Args:
      delta: Delta after the pooling.
      input_shape: Shape (n, *size, c) of the pooled input.
      window: As in `ops.pool.mean_pool`, like the rest.
      stride: Stride; None takes the window.
      padding: Number of zeros around the input.
      edge: Treatment of incomplete windows at the end.
      count: Values that count in the divisor.

    Raises:
      ValueError: As in `ops.pool.mean_pool`, and where delta has another shape than the pooled input.
    """
    windows = pool.pooling_windows(input_shape, window, stride, padding, edge)
    expected = (input_shape[0], *windows.out, input_shape[-1])
    if delta.shape != expected:
        raise ValueError(
            f'delta has shape {delta.shape}; pooling an input of shape {tuple(input_shape)} gives '
            f'{expected}'
        )
    x = jnp.asarray(delta) / jnp.asarray(pool.divisors(windows, count), delta.dtype)
    zero = jnp.zeros((), delta.dtype)
    for axis, (W, F, S, (low, _), m) in enumerate(zip(*windows, strict=True), start=1):
        parts = []
        for i in range(F):  # position i of every window is at i - low, i - low + stride, ...
            config = [(0, 0, 0)] * x.ndim
            config[axis] = (i - low, W - (i - low) - ((m - 1) * S + 1), S - 1)
            parts.append(lax.pad(x, zero, config))
        x = sum(parts[1:], parts[0])
    return x


def upsample_max(
    delta: Float[Array | np.ndarray, 'n *out c'],
    switches: Int[Array | np.ndarray, 'n *out c'],
    input_shape: Sequence[int],
) -> Float[Array, 'n *size c']:
    """Delta before max pooling: each delta at the position of its window's maximum, added where they coincide.

    Args:
      delta: Delta after the pooling.
      switches: Switches, as `ops.pool.max_pool_with_switches` returns them.
      input_shape: Shape (n, *size, c) of the pooled input.
    """
    return pool.unpool(delta, switches, tuple(input_shape), 'accumulate')


def upsample_subsample(
    delta: Float[Array | np.ndarray, 'n *out c'], input_shape: Sequence[int], stride: PerAxis
) -> Float[Array, 'n *size c']:
    """Delta before `ops.pool.subsample(x, stride)`: each delta at the position that is kept, zeros elsewhere.

    Args:
      delta: Delta after the subsampling.
      input_shape: Shape (n, *size, c) of the subsampled input.
      stride: Stride, a number or one per axis.
    """
    strides = (stride,) * (len(input_shape) - 2) if isinstance(stride, int) else tuple(stride)
    axes = zip(delta.shape[1:-1], input_shape[1:-1], strides, strict=True)
    config = [(0, W - ((m - 1) * S + 1), S - 1) for m, W, S in axes]
    return lax.pad(delta, jnp.zeros((), delta.dtype), [(0, 0, 0), *config, (0, 0, 0)])


def one_hot(
    labels: Shaped[Array | np.ndarray, 'n'], n_classes: int, dtype: DTypeLike
) -> Float[Array, 'n n_classes']:
    """Rows with a one at the label.

    For traced labels the row of a label out of range is NaN, and so is the loss.

    Args:
      labels: Integers in 0 .. n_classes - 1.
      n_classes: Number of classes.
      dtype: Dtype of the result.

    Raises:
      TypeError: The labels are not integers.
      ValueError: A label is out of range.
    """
    if not jnp.issubdtype(jnp.asarray(labels).dtype, jnp.integer):
        raise TypeError(f'labels have dtype {labels.dtype}; expected integers')
    if not isinstance(labels, core.Tracer):
        known = np.asarray(
            labels
        )  # if a compiled function closes over labels, their jnp methods are traced
        low, high = np.min(known, initial=0), np.max(known, initial=0)
        if low < 0 or high >= n_classes:
            raise ValueError(
                f'labels range from {low} to {high}, expected 0 to {n_classes - 1}; number the '
                'classes from 0, or give the network more of them'
            )
    labels = jnp.asarray(labels)
    rows = jax.nn.one_hot(labels, n_classes, dtype=dtype)
    valid = (labels >= 0) & (labels < n_classes)
    return jnp.where(valid[:, None], rows, jnp.nan)


def softmax_loss(
    z: Float[Array, 'n k'], labels: Shaped[Array | np.ndarray, 'n']
) -> Float[Array, '']:
    """Mean of -log softmax(z)[label]; labels and errors as in `one_hot`."""
    targets = one_hot(labels, z.shape[-1], z.dtype)
    return -jnp.sum(targets * jax.nn.log_softmax(z), -1).mean()


def softmax_delta(
    z: Float[Array, 'n k'], labels: Shaped[Array | np.ndarray, 'n']
) -> Float[Array, 'n k']:
    """Derivative of `softmax_loss` with respect to z: (softmax(z) - one_hot) / n."""
    targets = one_hot(labels, z.shape[-1], z.dtype)
    return (jax.nn.softmax(z) - targets) / len(z)


def squared_loss(
    a: Float[Array, 'n k'], labels: Shaped[Array | np.ndarray, 'n']
) -> Float[Array, '']:
    """Mean over examples of 1/2 |a - one_hot|^2; labels and errors as in `one_hot`."""
    return 0.5 * jnp.square(a - one_hot(labels, a.shape[-1], a.dtype)).sum(-1).mean()


def squared_delta(
    a: Float[Array, 'n k'], labels: Shaped[Array | np.ndarray, 'n']
) -> Float[Array, 'n k']:
    """Derivative of `squared_loss` with respect to a: (a - one_hot) / n.

    The derivative of the activation function of a is a further factor.
    """
    return (a - one_hot(labels, a.shape[-1], a.dtype)) / len(a)
