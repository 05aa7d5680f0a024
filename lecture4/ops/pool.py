"""Pooling over windows: maximum, mean, subsampling; switches, and unpooling by them.

x is [n, h, w, ..., c] with any number of spatial axes; channels are pooled one by one. `window`,
`stride` and `dilation` are numbers, or one per axis; stride None takes the window. `edge` is the treatment of
incomplete windows at the end, see `receptive_field.windows`: 'floor' drops them, 'caffe' and 'torch' keep them.

Windows are products of intervals, so one axis is pooled after the other, as whole-array operations
on strided slices. On a CPU this is several times faster than XLA's reduce_window, in particular for the gradient
(tests/benchmarks/conv_speed.py).
"""

import functools
import math
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int, Integer, Shaped

from lecture4.ops import pool_cpu
from lecture4.ops.prox import require_floating
from lecture4.ops.receptive_field import Edge, Padding, PerAxis, Windows, per_axis, windows

Count = Literal['window', 'padded', 'valid']


def max_pool(
    x: Float[ArrayLike, 'n *size c'],
    window: PerAxis,
    stride: PerAxis | None = None,
    padding: Padding = 0,
    edge: Edge = 'floor',
    dilation: PerAxis = 1,
) -> Float[Array, 'n *out c']:
    """Largest value of every window; padding never wins, also where all values are negative.

    Gradient: to the first maximum of a window, in row-major order, where several are equal.

    Args:
      x: Input.
      window: Window size.
      stride: Distance between windows.
      padding: Padding, smaller than the (dilated) window, so that every window contains a value.
      edge: Treatment of incomplete windows at the end.
      dilation: Distance between the positions of a window, as torch.nn.MaxPool2d's.

    Returns:
      The maxima, of x's dtype; NaN where a window has one.

    Raises:
      TypeError: x is not floating point.
      ValueError: As in `receptive_field.windows`; a window contains no value; a dilation is below 1.
    """
    x, placed, dilations = _arguments(x, window, stride, padding, edge, dilation)
    if pool_cpu.applies(x, dilations):
        return _max_pool_on_cpu(x, placed)
    return _max_pool(x, placed, dilations)


def max_pool_with_switches(
    x: Float[ArrayLike, 'n *size c'],
    window: PerAxis,
    stride: PerAxis | None = None,
    padding: Padding = 0,
    edge: Edge = 'floor',
    dilation: PerAxis = 1,
) -> tuple[Float[Array, 'n *out c'], Int[Array, 'n *out c']]:
    """`max_pool`, with the position of each maximum.

    Args:
      x: Input with fewer than 2^31 positions.
      window: This and the others as in `max_pool`.
      stride: Distance between windows.
      padding: Padding, smaller than the (dilated) window.
      edge: Treatment of incomplete windows at the end.
      dilation: Distance between the positions of a window.

    Returns:
      (y, switches); switches are int32, the flat position row * w + column (and so on) of the first
      maximum in x's spatial axes.

    Raises:
      TypeError: As in `max_pool`.
      ValueError: As in `max_pool`.
    """
    return _max_pool_with_switches(*_arguments(x, window, stride, padding, edge, dilation))


def unpool(
    y: Float[ArrayLike, 'n *out c'],
    switches: Integer[ArrayLike, 'n *out c'],
    shape: Sequence[int],
    mode: Literal['assign', 'accumulate'] = 'assign',
) -> Float[Array, 'n *size c']:
    """Put every value back at its switch, with zeros elsewhere.

    Args:
      y: Pooled values.
      switches: Positions in 0 .. prod(size) - 1, as `max_pool_with_switches` returns them; values with other
        positions are dropped.
      shape: Shape (n, *size, c) of the pooled input.
      mode: Treatment of windows that overlap and point to one position. 'assign' keeps the value of
        the last window in row-major order, on every device (the result of a loop in that order, such as torch's
        max_unpool2d on one thread); 'accumulate' adds them, which is the adjoint of max pooling at fixed switches.

    Raises:
      TypeError: y is not floating point, or switches are.
      ValueError: The shapes do not fit; the mode is unknown.
    """
    y, switches = require_floating('y', y), jnp.asarray(switches)
    shape = tuple(shape)
    if not jnp.issubdtype(switches.dtype, jnp.integer):
        raise TypeError(f'switches have dtype {switches.dtype}, expected an integer dtype')
    fits = y.shape == switches.shape and len(shape) == y.ndim
    if not fits or (shape[0], shape[-1]) != (y.shape[0], y.shape[-1]):
        raise ValueError(
            f'y {y.shape}, switches {switches.shape} and shape {shape} do not fit together; '
            "expected [n, *out, c] twice and the pooled input's (n, *size, c)"
        )
    if mode not in ('assign', 'accumulate'):
        raise ValueError(f"expected mode 'assign' or 'accumulate', got {mode!r}")
    return _unpool(y, switches, shape, mode)


def mean_pool(
    x: Float[ArrayLike, 'n *size c'],
    window: PerAxis,
    stride: PerAxis | None = None,
    padding: Padding = 0,
    edge: Edge = 'floor',
    count: Count = 'padded',
) -> Float[Array, 'n *out c']:
    """Sum of every window divided by the number of values in it.

    Args:
      x: Input.
      window: This and the next three as in `max_pool`.
      stride: Distance between windows.
      padding: Padding, smaller than the window.
      edge: Treatment of incomplete windows at the end.
      count: Values to count. 'window': the whole window, always. 'padded': positions inside
        the padded input: Caffe, and torch's count_include_pad=True. 'valid': positions inside the
        input: torch's count_include_pad=False. They agree without padding and incomplete windows.

    Raises:
      TypeError: As in `max_pool`.
      ValueError: As in `max_pool`; or `count` is unknown.
    """
    x, placed, _ = _arguments(x, window, stride, padding, edge)
    return _window_sums(x, placed) / jnp.asarray(divisors(placed, count), x.dtype)


@functools.partial(jax.jit, static_argnums=1)
def _window_sums(x, placed):
    y = _cover(x, placed, 0)
    if all(S >= F for F, S in zip(placed.window, placed.stride, strict=True)):
        # For windows that do not overlap the gradient of XLA's sum is faster.
        shape, strides = (1, *placed.window, 1), (1, *placed.stride, 1)
        y = lax.reduce_window(y, np.zeros((), y.dtype), lax.add, shape, strides, 'VALID')
    else:
        for axis in reversed(range(len(placed.size))):
            y = functools.reduce(jnp.add, _slices(y, placed, axis))
    return y


def divisors(placed: Windows, count: Count = 'padded') -> Float[np.ndarray, '1 *out 1']:
    """The divisors of each window's sum in `mean_pool`, float64.

    Args:
      placed: The windows.
      count: As in `mean_pool`.

    Raises:
      ValueError: An unknown count.
    """
    if count not in ('window', 'padded', 'valid'):
        raise ValueError(f"expected count 'window', 'padded' or 'valid', got {count!r}")
    sizes = np.ones((1,) * len(placed.size))
    for axis, (W, F, S, (low, high), m) in enumerate(zip(*placed, strict=True)):
        first = np.arange(m) * S - low
        if count == 'window':
            n = np.full(m, F)
        elif count == 'padded':
            n = np.minimum(first + F, W + high) - first
        else:
            n = np.minimum(first + F, W) - np.maximum(first, 0)
        sizes = sizes * np.expand_dims(n, [i for i in range(len(placed.size)) if i != axis])
    return sizes[None, ..., None]


def subsample(
    x: Shaped[ArrayLike, 'n *size c'], stride: PerAxis, window: PerAxis = 1, edge: Edge = 'floor'
) -> Shaped[Array, 'n *out c']:
    """The first value of every window.

    With window 1 it is x[:, ::stride, ::stride], which keeps incomplete windows; with window = stride, edge 'floor'
    drops them.

    Args:
      x: Input of any dtype.
      stride: Distance between windows.
      window: Window size.
      edge: Treatment of incomplete windows at the end.

    Raises:
      ValueError: As in `receptive_field.windows`.
    """
    x = jnp.asarray(x)
    placed = windows(x.shape[1:-1], window, stride, 0, edge, 'subsample')
    first = (0,) * x.ndim
    last = [(m - 1) * S + 1 for m, S in zip(placed.out, placed.stride, strict=True)]
    return lax.slice(x, first, (x.shape[0], *last, x.shape[-1]), (1, *placed.stride, 1))


def pooling_windows(
    shape: Sequence[int],
    window: PerAxis,
    stride: PerAxis | None = None,
    padding: Padding = 0,
    edge: Edge = 'floor',
    dilation: PerAxis = 1,
) -> Windows:
    """The windows of pooling an input of shape (n, *size, c).

    Args:
      shape: Shape of the input.
      window: This and the others as in `max_pool`.
      stride: Distance between windows.
      padding: Padding, smaller than the (dilated) window.
      edge: Treatment of incomplete windows at the end.
      dilation: Distance between the positions of a window.

    Returns:
      The windows; `window` is the extent (window - 1) * dilation + 1 of a dilated one.

    Raises:
      ValueError: As in `max_pool`.
    """
    return _windows(shape, window, stride, padding, edge, dilation)[0]


def _windows(shape, window, stride, padding, edge, dilation):
    """The windows, by their extent, and the dilation of every axis."""
    if len(shape) < 3:
        raise ValueError(f'expected x of shape [n, h, w, c] (one image: x[None]), got {shape}')
    size = shape[1:-1]
    dilations = per_axis('pool', 'dilation', dilation, len(size))
    window = per_axis('pool', 'window', window, len(size))
    extent = [(F - 1) * d + 1 for F, d in zip(window, dilations, strict=True)]
    placed = windows(size, extent, window if stride is None else stride, padding, edge, 'pool')
    for W, F, S, (low, high), m, d in zip(*placed, dilations, strict=True):
        positions = np.arange(m)[:, None] * S - low + np.arange(0, F, d)
        sees_value = ((positions >= 0) & (positions < W)).any(1)
        if max(low, high) >= F or not sees_value.all():
            raise ValueError(
                f'pool: a window may contain only padding: padding {placed.padding} is not '
                f'smaller than the window {placed.window}, or dilation {dilations} steps over the '
                f'input {tuple(size)}; pad or dilate less'
            )
    return placed, dilations


def _arguments(x, window, stride, padding, edge, dilation: PerAxis = 1):
    x = require_floating('x', x)
    return x, *_windows(x.shape, window, stride, padding, edge, dilation)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _max_pool(x, placed, dilations):
    y = _cover(x, placed, -jnp.inf)
    for axis in reversed(range(len(placed.size))):
        y = functools.reduce(_larger, _slices(y, placed, axis, dilations[axis]))
    return y


_max_pool_on_cpu = pool_cpu.accelerated(lambda x, placed: _max_pool(x, placed, (1, 1)))


@functools.partial(jax.jit, static_argnums=(1, 2))
def _max_pool_with_switches(x, placed, dilations):
    positions = np.arange(math.prod(placed.size), dtype=np.int32).reshape(1, *placed.size, 1)
    y, switches = _cover(x, placed, -jnp.inf), _cover(jnp.asarray(positions), placed, -1)
    for axis in reversed(range(len(placed.size))):
        pairs = zip(
            _slices(y, placed, axis, dilations[axis]),
            _slices(switches, placed, axis, dilations[axis]),
            strict=True,
        )
        y, switches = functools.reduce(_larger_with_position, pairs)
    # Windows of 1 involve no comparison, and would leave the positions without batch and channel axes.
    return y, jnp.broadcast_to(switches, y.shape)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _unpool(y, switches, shape, mode):
    n, c = shape[0], shape[-1]
    n_positions, n_windows = math.prod(shape[1:-1]), math.prod(y.shape[1:-1])
    position = jnp.where(switches < 0, n_positions, switches).reshape(n, n_windows, c)
    sample, channel = np.arange(n)[:, None, None], np.arange(c)[None, None, :]
    values = y.reshape(n, n_windows, c)
    if mode == 'accumulate':
        zeros = jnp.zeros((n, n_positions, c), y.dtype)
        return zeros.at[sample, position, channel].add(values, mode='drop').reshape(shape)
    order = np.arange(n_windows, dtype=np.int32).reshape(1, -1, 1)
    order = jnp.broadcast_to(order, position.shape)
    last = jnp.full((n, n_positions, c), -1, jnp.int32)
    last = last.at[sample, position, channel].max(order, mode='drop')
    kept = jnp.take_along_axis(values, jnp.maximum(last, 0), axis=1)
    return jnp.where(last >= 0, kept, 0).reshape(shape)


def _cover(x, placed: Windows, value):
    """Pad or crop x to exactly the positions that the windows cover."""
    config = [(0, 0, 0)]
    for W, F, S, (low, _), m in zip(*placed, strict=True):
        config.append((low, (m - 1) * S + F - W - low, 0))
    return lax.pad(x, jnp.asarray(value, x.dtype), [*config, (0, 0, 0)])


def _slices(y, placed: Windows, axis, dilation=1):
    """For every position of a window along an axis, the values there of all windows."""
    F, S, m = placed.window[axis], placed.stride[axis], placed.out[axis]
    return [lax.slice_in_dim(y, i, i + (m - 1) * S + 1, S, axis + 1) for i in range(0, F, dilation)]


def _larger(y, v):
    # A select because of its gradient: that of jnp.maximum is divided among equal values.
    return jnp.where((v > y) | (v != v), v, y)


def _larger_with_position(pair, other):
    (y, position), (v, position_v) = pair, other
    # Padding (position -1) gives way to anything, even to a -inf of the input.
    wins = (v > y) | (v != v) | (position < 0)
    return jnp.where(wins, v, y), jnp.where(wins, position_v, position)
