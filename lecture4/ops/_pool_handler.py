"""Machine code for ops/pool_cpu: a handler of XLA's foreign-function interface for max pooling and its gradient.

Loops over windows, within them over their positions, and innermost, vectorized, over channels, whose maxima stay in the
cache. The gradient finds the maxima again, which takes less than to read positions that the forward pass wrote. XLA's
threads share rows of windows, or images where gradients are summed.
"""

import functools
from collections.abc import Callable
from typing import no_type_check

import numpy as np
from numba import njit  # pyright: ignore[reportMissingImports]

from lecture4.ops import _ffi_frame as ffi
from lecture4.ops import _ffi_pool as pool

ZERO = np.float32(0)
PART, MAX_PARTS = 2**15, 32  # numbers of x at least, and parts at most, that threads share
vectorized = functools.partial(njit, fastmath={'contract', 'nsz'}, error_model='numpy')  # keeps NaN


@vectorized
@no_type_check
def _larger(x, y):
    for j in range(len(y)):
        v, best = x[j], y[j]
        y[j] = v if (v > best) | (v != v) else best


@vectorized
@no_type_check
def _larger_with_position(x, k, y, position):
    for j in range(len(y)):
        v, best = x[j], y[j]
        wins = (v > best) | (v != v)
        y[j] = v if wins else best
        position[j] = k if wins else position[j]


@vectorized
@no_type_check
def _add_where(position, k, g, dx):
    for j in range(len(g)):
        dx[j] += g[j] if position[j] == k else ZERO


@njit
@no_type_check
def _inside(i, size, stride, low, length):
    """First and last + 1 of window i's positions that are not padding."""
    return max(i * stride - low, 0), min(i * stride - low + size, length)


@njit
@no_type_check
def _forward(x, y, o, first, end):
    """Rows of windows, numbered over all images."""
    height, width = x.shape[1], x.shape[2]
    for at in range(first, end):
        image, i = at // y.shape[1], at % y.shape[1]
        top, bottom = _inside(i, o[1], o[3], o[5], height)
        for j in range(y.shape[2]):
            left, right = _inside(j, o[2], o[4], o[6], width)
            best = y[image, i, j]
            best[:] = x[image, top, left]
            for column in range(left + 1, right):
                _larger(x[image, top, column], best)
            for row in range(top + 1, bottom):
                for column in range(left, right):
                    _larger(x[image, row, column], best)


@njit
@no_type_check
def _backward(x, g, dx, o, first, end):
    _, height, width, channels = x.shape
    best, position = np.empty(channels, np.float32), np.empty(channels, np.int32)
    for image in range(first, end):
        dx[image] = ZERO
        for i in range(g.shape[1]):
            top, bottom = _inside(i, o[1], o[3], o[5], height)
            for j in range(g.shape[2]):
                left, right = _inside(j, o[2], o[4], o[6], width)
                best[:] = x[image, top, left]
                position[:] = 0
                for k in range(1, (bottom - top) * (right - left)):
                    row, column = top + k // (right - left), left + k % (right - left)
                    _larger_with_position(x[image, row, column], np.int32(k), best, position)
                signal = g[image, i, j]
                for k in range((bottom - top) * (right - left)):
                    row, column = top + k // (right - left), left + k % (right - left)
                    _add_where(position, np.int32(k), signal, dx[image, row, column])


@njit
@no_type_check
def _run(payload, part):
    """One of several parts: of the rows of windows of all images, or of the gradients of the images."""
    o = ffi.words(payload, 18)
    n_parts, units, options, x_shape, y_shape = o[0], o[1], o[2:9], o[9:13], o[13:15]
    n, channels = x_shape[0], x_shape[3]
    of_x, of_y = (n, x_shape[1], x_shape[2], channels), (n, y_shape[0], y_shape[1], channels)
    first, end = part * units // n_parts, (part + 1) * units // n_parts
    x = ffi.array(o[15], of_x, np.float32)
    if options[0]:
        g, dx = ffi.array(o[16], of_y, np.float32), ffi.array(o[17], of_x, np.float32)
        _backward(x, g, dx, options, first, end)
    else:
        _forward(x, ffi.array(o[17], of_y, np.float32), options, first, end)


_run_parallel = pool.parallel(_run)


def make_handler(version: int) -> Callable[[int], int]:
    positions = pool.api_positions()

    # Variables of a closure belong to the key of numba's cache.
    @no_type_check
    def handle(address):
        if ffi.is_metadata(address, version):
            return 0
        arguments, results, o = ffi.unpack(address)
        s = ffi.words(ffi.words(arguments[0], 6)[5], 4)
        pooled, g = ffi.words(results[0], 6), 0
        if o[0]:
            pooled, g = ffi.words(arguments[1], 6), ffi.data(arguments[1])
        p = ffi.words(pooled[5], 3)
        units = s[0] if o[0] else s[0] * p[1]
        n_parts = max(min(units, s[0] * s[1] * s[2] * s[3] // PART, MAX_PARTS), 1)
        options = n_parts, units, o[0], o[1], o[2], o[3], o[4], o[5], o[6]
        shapes = s[0], s[1], s[2], s[3], p[1], p[2]
        addresses = ffi.data(arguments[0]), g, ffi.data(results[0])
        _run_parallel(address, positions, n_parts, options + shapes + addresses)
        return 0

    return handle
