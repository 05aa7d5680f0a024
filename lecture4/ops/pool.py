"""Pooling over windows: maximum, mean, plain subsampling; switches, and unpooling by them.

x is [n, h, w, ..., c] with any number of spatial axes; channels are pooled one by one. `window` and
`stride` are numbers, or one an axis; stride None is the window's. `edge` says what becomes of a
ragged right edge, see `geometry.windows`: 'floor' drops it, 'caffe' and 'torch' keep it.

Windows are products of intervals, so an axis is pooled after the other, as whole-array operations
on strided slices. On a CPU that is several times faster than XLA's reduce_window, most of all its
gradient (tests/benchmarks/conv_speed.py).
"""

import functools
import math
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax import lax

from lecture4.ops.prox import require_floating
from lecture4.ops.receptive_field import Edge, Padding, Sides, Windows, windows


def max_pool(
    x, window: Sides, stride: Sides | None = None, padding: Padding = 0, edge: Edge = 'floor'
):
    """Largest value of every window; padding never wins, also where all values are negative.

    Shapes  x [n, *size, c] float. Returns [n, *out, c], of x's dtype; NaN where a window has one.
    Domain  padding smaller than the window, so that every window sees a value.
    Grad    to the first maximum of a window, in row-major order, where several are equal.
    Errors  TypeError for integers; ValueError as `geometry.windows`, and outside the domain.
    """
    x, found = _placed(x, window, stride, padding, edge)
    y = _cover(x, found, -jnp.inf)
    for axis in reversed(range(len(found.size))):
        y = functools.reduce(_larger, _slices(y, found, axis))
    return y


def max_pool_with_switches(
    x, window: Sides, stride: Sides | None = None, padding: Padding = 0, edge: Edge = 'floor'
):
    """`max_pool`, and where each maximum came from.

    Shapes  returns (y, switches), both [n, *out, c]; switches int32, the flat position
            row * w + column (and so on) of the first maximum in x's spatial axes.
    Domain, errors  as `max_pool`; fewer than 2^31 positions.
    """
    x, found = _placed(x, window, stride, padding, edge)
    positions = np.arange(math.prod(found.size), dtype=np.int32).reshape(1, *found.size, 1)
    y, switches = _cover(x, found, -jnp.inf), _cover(jnp.asarray(positions), found, -1)
    for axis in reversed(range(len(found.size))):
        pairs = zip(_slices(y, found, axis), _slices(switches, found, axis), strict=True)
        y, switches = functools.reduce(_larger_with_position, pairs)
    return y, switches


def unpool(y, switches, shape, mode: Literal['assign', 'accumulate'] = 'assign'):
    """Puts every value back where its switch says, zeros elsewhere.

    mode    what becomes of windows that overlap and point to one place: 'assign' keeps the value of
            the last window in row-major order, on every device (what a loop in that order, as
            torch's max_unpool2d on one thread, leaves there); 'accumulate' adds them, which is the
            adjoint of max pooling at fixed switches.
    Shapes  y, switches [n, *out, c] (as `max_pool_with_switches`), shape (n, *size, c). Returns
            an array of that shape.
    Domain  0 <= switches < prod(size); others are dropped.
    Errors  TypeError for integer y or floating switches; ValueError where shapes do not fit.
    """
    y, switches = require_floating('y', y), jnp.asarray(switches)
    shape = tuple(shape)
    if not jnp.issubdtype(switches.dtype, jnp.integer):
        raise TypeError(f'switches have dtype {switches.dtype}; whole numbers are wanted')
    fits = y.shape == switches.shape and len(shape) == y.ndim
    if not fits or (shape[0], shape[-1]) != (y.shape[0], y.shape[-1]):
        raise ValueError(
            f'y {y.shape}, switches {switches.shape} and shape {shape} do not belong together; '
            "wanted [n, *out, c] twice and the pooled input's (n, *size, c)"
        )
    n, c = shape[0], shape[-1]
    n_places, n_windows = math.prod(shape[1:-1]), math.prod(y.shape[1:-1])
    at = jnp.where(switches < 0, n_places, switches).reshape(n, n_windows, c)
    sample, channel = np.arange(n)[:, None, None], np.arange(c)[None, None, :]
    values = y.reshape(n, n_windows, c)
    if mode == 'accumulate':
        flat = jnp.zeros((n, n_places, c), y.dtype).at[sample, at, channel].add(values, mode='drop')
    elif mode == 'assign':
        order = np.arange(n_windows, dtype=np.int32).reshape(1, -1, 1)
        order = jnp.broadcast_to(order, at.shape)
        last = jnp.full((n, n_places, c), -1, jnp.int32)
        last = last.at[sample, at, channel].max(order, mode='drop')
        found = jnp.take_along_axis(values, jnp.maximum(last, 0), axis=1)
        flat = jnp.where(last >= 0, found, 0)
    else:
        raise ValueError(f"mode is {mode!r}; 'assign' or 'accumulate' is wanted")
    return flat.reshape(shape)


def mean_pool(
    x,
    window: Sides,
    stride: Sides | None = None,
    padding: Padding = 0,
    edge: Edge = 'floor',
    count: Literal['window', 'padded', 'valid'] = 'padded',
):
    """Sum of every window over a divisor that says what counts as a value.

    count   'window'  the whole window's size, always
            'padded'  positions inside the padded input: Caffe, and torch's count_include_pad=True
            'valid'   positions inside the input: torch's count_include_pad=False
            They agree where nothing is padded and no ragged edge kept.
    Shapes  x [n, *size, c] float. Returns [n, *out, c].
    Domain, errors  as `max_pool`.
    """
    x, found = _placed(x, window, stride, padding, edge)
    y = _cover(x, found, 0)
    if all(S >= F for F, S in zip(found.window, found.stride, strict=True)):
        # Windows that share nothing: here XLA's own sum has the quicker gradient.
        window, stride = (1, *found.window, 1), (1, *found.stride, 1)
        y = lax.reduce_window(y, np.zeros((), y.dtype), lax.add, window, stride, 'VALID')
    else:
        for axis in reversed(range(len(found.size))):
            y = functools.reduce(jnp.add, _slices(y, found, axis))
    return y / jnp.asarray(divisors(found, count), y.dtype)


def divisors(found: Windows, count: Literal['window', 'padded', 'valid'] = 'padded'):
    """What `mean_pool` divides each window by: numpy float64 [1, *out, 1]."""
    if count not in ('window', 'padded', 'valid'):
        raise ValueError(f"count is {count!r}; 'window', 'padded' or 'valid' is wanted")
    sizes = np.ones((1,) * len(found.size))
    for axis, (W, F, S, (low, high), m) in enumerate(zip(*found, strict=True)):
        first = np.arange(m) * S - low
        if count == 'window':
            n = np.full(m, F)
        elif count == 'padded':
            n = np.minimum(first + F, W + high) - first
        else:
            n = np.minimum(first + F, W) - np.maximum(first, 0)
        sizes = sizes * np.expand_dims(n, [i for i in range(len(found.size)) if i != axis])
    return sizes[None, ..., None]


def subsample(x, stride: Sides, window: Sides = 1, edge: Edge = 'floor'):
    """The first value of every window, the rest dropped.

    With window 1 it is x[:, ::stride, ::stride], which keeps a ragged edge; with window = stride,
    edge 'floor' drops the cells that are not whole.

    Shapes  x [n, *size, c], any dtype. Returns [n, *out, c].
    Errors  ValueError as `geometry.windows`.
    """
    x = jnp.asarray(x)
    found = windows(x.shape[1:-1], window, stride, 0, edge, 'subsample')
    first = (0,) * x.ndim
    last = [(m - 1) * S + 1 for m, S in zip(found.out, found.stride, strict=True)]
    return lax.slice(x, first, (x.shape[0], *last, x.shape[-1]), (1, *found.stride, 1))


def placed(shape, window: Sides, stride: Sides | None, padding: Padding, edge: Edge) -> Windows:
    """The windows of pooling an input of shape (n, *size, c); errors as `max_pool`."""
    if len(shape) < 3:
        raise ValueError(f'x has shape {shape}; [n, h, w, c] is wanted (one picture: x[None])')
    found = windows(
        shape[1:-1], window, window if stride is None else stride, padding, edge, 'pool'
    )
    for F, (low, high) in zip(found.window, found.padding, strict=True):
        if max(low, high) >= F:
            raise ValueError(
                f'pool: padding {found.padding} is not smaller than the window {found.window}, so '
                'a window may hold no value; pad less'
            )
    return found


def _placed(x, window, stride, padding, edge):
    x = require_floating('x', x)
    return x, placed(x.shape, window, stride, padding, edge)


def _cover(x, found: Windows, value):
    """Pads, or crops, x to exactly what the windows cover."""
    config = [(0, 0, 0)]
    for W, F, S, (low, _), m in zip(*found, strict=True):
        config.append((low, (m - 1) * S + F - W - low, 0))
    return lax.pad(x, jnp.asarray(value, x.dtype), [*config, (0, 0, 0)])


def _slices(y, found: Windows, axis):
    """For every position of a window along an axis, the values there of all windows."""
    F, S, m = found.window[axis], found.stride[axis], found.out[axis]
    return [lax.slice_in_dim(y, i, i + (m - 1) * S + 1, S, axis + 1) for i in range(F)]


def _larger(y, v):
    # a select, for its gradient: that of jnp.maximum is shared between equal values
    return jnp.where((v > y) | (v != v), v, y)


def _larger_with_position(pair, other):
    (y, at), (v, at_v) = pair, other
    # padding (position -1) gives way to anything, even to a -inf of the input
    wins = (v > y) | (v != v) | (at < 0)
    return jnp.where(wins, v, y), jnp.where(wins, at_v, at)
