"""Machine code for ops/pool_cpu: a handler of XLA's foreign-function interface for max pooling and its gradient.

Loops over windows, within them over their positions, and innermost, vectorized, over channels, whose maxima stay in the
cache. The gradient finds the maxima again, which takes less than to read positions that the forward pass wrote.
"""

import functools
from collections.abc import Callable
from typing import no_type_check

import numpy as np
from numba import njit  # pyright: ignore[reportMissingImports]

from lecture4.ops import _ffi_frame as ffi

ZERO = np.float32(0)
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
def _forward(x, y, o):
    n, height, width, _ = x.shape
    for image in range(n):
        for i in range(y.shape[1]):
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
def _backward(x, g, dx, o):
    n, height, width, channels = x.shape
    best, position = np.empty(channels, np.float32), np.empty(channels, np.int32)
    dx[:] = ZERO
    for image in range(n):
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
def _array(buffer):
    shape = ffi.words(ffi.words(buffer, 6)[5], 4)
    return ffi.array(buffer, (shape[0], shape[1], shape[2], shape[3]), np.float32)


def make_handler(version: int) -> Callable[[int], int]:
    # Variables of a closure belong to the key of numba's cache.
    @no_type_check
    def handle(address):
        if ffi.is_metadata(address, version):
            return 0
        arguments, results, options = ffi.unpack(address)
        x, result = _array(arguments[0]), _array(results[0])
        if options[0]:
            _backward(x, _array(arguments[1]), result, options)
        else:
            _forward(x, result, options)
        return 0

    return handle
