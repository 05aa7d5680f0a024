"""Machine code for ops/bilinear_cpu: a handler of XLA's foreign-function interface for images of one channel.

A vectorized loop over a block of points finds four pixels around each, within the image, and their weights by the
kernel, max(0, 1 - distance), which are zero beyond the border; an instruction reads pairs of pixels of many points; and
another vectorized loop sums. Only the gradient with respect to the image is summed one point after the other.
"""

import functools
from collections.abc import Callable
from typing import no_type_check

import numpy as np
from llvmlite import ir  # pyright: ignore[reportMissingImports]
from numba import njit, types  # pyright: ignore[reportMissingImports]
from numba.core import cgutils  # pyright: ignore[reportMissingImports]
from numba.extending import intrinsic  # pyright: ignore[reportMissingImports]

from lecture4.ops import _ffi_frame as ffi

ZERO, ONE, TWO = np.float32(0), np.float32(1), np.float32(2)
LANES, BLOCK = 16, 512  # points of a call of _read_pairs, and of a block, which stays in the cache
# Rows of the work space: weights of the pixels left, right, above and below, their derivatives, and the four pixels.
# Their distance is no power of 2: equal low bits of addresses would be slow.
ROW = BLOCK + LANES
LEFT, RIGHT, ABOVE, BELOW, D_LEFT, D_RIGHT, D_ABOVE, D_BELOW, P00, P01, P10, P11 = (
    ROW * i for i in range(12)
)
vectorized = functools.partial(njit, fastmath={'contract', 'nsz'}, error_model='numpy')  # keeps NaN


@intrinsic
@no_type_check
def _read_pairs(typing_context, image, positions, pairs):
    """image[at] and, a row further, image[at + 1] for LANES positions; all are addresses."""

    def build(context, builder, signature, values):
        n, word, half = LANES // 2, ir.IntType(64), ir.IntType(32)
        words, halves = ir.VectorType(word, n), ir.VectorType(half, n)
        floats, mask = ir.VectorType(ir.FloatType(), LANES), ir.VectorType(ir.IntType(1), n)
        pointers, empty = ir.VectorType(ir.PointerType(), n), ir.Constant(words, ir.Undefined)
        kind = ir.FunctionType(words, [pointers, half, mask, words])
        name = f'llvm.masked.gather.v{n}i64.v{n}p0'
        gather = cgutils.get_or_insert_function(builder.module, kind, name)
        base = builder.insert_element(empty, values[0], half(0))
        base = builder.shuffle_vector(base, empty, halves([0] * n))
        pairs = []
        for start in (0, 4 * n):
            at = builder.inttoptr(builder.add(values[1], word(start)), halves.as_pointer())
            at = builder.shl(builder.sext(builder.load(at, align=4), words), words([2] * n))
            at = builder.inttoptr(builder.add(base, at), pointers)
            pair = builder.call(gather, [at, half(4), mask([1] * n), empty])
            pairs.append(builder.bitcast(pair, floats))
        for odd in (0, 1):
            lanes = ir.VectorType(half, LANES)([*range(odd, 2 * LANES, 2)])
            to = builder.add(values[2], word(4 * ROW * odd))
            to = builder.inttoptr(to, floats.as_pointer())
            builder.store(builder.shuffle_vector(*pairs, lanes), to, align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), build


@vectorized(forceinline=True)
@no_type_check
def _locate(x, length, half, shift):
    """Pixel, weights of it and of the next one, and their derivatives by x, along an axis."""
    # From the nearer end, as sampling.to_pixels.
    q = (x + ONE) * half + shift if x < ZERO else (TWO * half + shift) - (ONE - x) * half
    q = -TWO if q < -TWO else q
    q = length + ONE if q > length + ONE else q
    floor, last = np.floor(q), length - TWO
    first = floor if floor > ZERO else ZERO
    first = first if first < last else last
    w0, w1, step = ONE - abs(q - first), ONE - abs(q - first - ONE), floor - first
    d0 = -half if step == ZERO else half if step == -ONE else ZERO
    d1 = half if step == ZERO else -half if step == ONE else ZERO
    return first, ZERO if w0 < ZERO else w0, ZERO if w1 < ZERO else w1, d0, d1


@vectorized(forceinline=True)
@no_type_check
def _read(image, width, n, at, s):
    """The four pixels of n points."""
    positions, rows = np.int64(at.ctypes.data), np.int64(s.ctypes.data)
    for j in range(0, 4 * n, 4 * LANES):
        _read_pairs(image, positions + j, rows + 4 * P00 + j)
        _read_pairs(image + 4 * width, positions + j, rows + 4 * P10 + j)


@vectorized(forceinline=True)
@no_type_check
def _sample(image, width, y_axis, x_axis, points, at, s, values):
    for j in range(len(values)):
        x, s[j + LEFT], s[j + RIGHT], _, _ = _locate(points[2 * j], *x_axis)
        y, s[j + ABOVE], s[j + BELOW], _, _ = _locate(points[2 * j + 1], *y_axis)
        at[j] = np.int32(y * x_axis[0] + x)
    _read(image, width, len(values), at, s)
    for j in range(len(values)):
        above = s[j + P00] * s[j + LEFT] + s[j + P01] * s[j + RIGHT]
        below = s[j + P10] * s[j + LEFT] + s[j + P11] * s[j + RIGHT]
        values[j] = above * s[j + ABOVE] + below * s[j + BELOW]


@vectorized(forceinline=True)
@no_type_check
def _differentiate(image, width, y_axis, x_axis, points, at, s, g, d_image, d_points):
    for j in range(len(g)):
        x, s[j + LEFT], s[j + RIGHT], s[j + D_LEFT], s[j + D_RIGHT] = _locate(
            points[2 * j], *x_axis
        )
        y, s[j + ABOVE], s[j + BELOW], s[j + D_ABOVE], s[j + D_BELOW] = _locate(
            points[2 * j + 1], *y_axis
        )
        at[j] = np.int32(y * x_axis[0] + x)
    _read(image, width, len(g), at, s)
    for j in range(len(g)):
        p00, p01, p10, p11 = s[j + P00], s[j + P01], s[j + P10], s[j + P11]
        left, right, above, below = s[j + LEFT], s[j + RIGHT], s[j + ABOVE], s[j + BELOW]
        by_left, by_right = p00 * above + p10 * below, p01 * above + p11 * below
        by_above, by_below = p00 * left + p01 * right, p10 * left + p11 * right
        d_points[2 * j] = g[j] * (by_left * s[j + D_LEFT] + by_right * s[j + D_RIGHT])
        d_points[2 * j + 1] = g[j] * (by_above * s[j + D_ABOVE] + by_below * s[j + D_BELOW])
        above, below = g[j] * above, g[j] * below
        s[j + P00], s[j + P01] = above * left, above * right
        s[j + P10], s[j + P11] = below * left, below * right
    d01, d10, d11 = d_image[1:], d_image[width:], d_image[width + 1 :]
    for j in range(len(g)):
        i = np.uint32(at[j])  # unsigned: numba counts negative ones from the end
        d_image[i] += s[j + P00]
        d01[i] += s[j + P01]
        d10[i] += s[j + P10]
        d11[i] += s[j + P11]


@njit
@no_type_check
def _axis(length, is_aligned):
    n = np.float32(length)
    return (n, (n - ONE) / TWO, ZERO) if is_aligned else (n, n / TWO, -ONE / TWO)


@njit
@no_type_check
def _run(sizes, image, grid, g, result, d_grid):
    """Values of all images or, if there is a g, both gradients; arrays by their addresses."""
    n, height, width, p, is_aligned = sizes
    y_axis, x_axis = _axis(height, is_aligned), _axis(width, is_aligned)
    at, s, size = np.zeros(ROW, np.int32), np.zeros(12 * ROW, np.float32), height * width
    for i in range(n):
        if g:
            d_image = ffi.floats(result + 4 * i * size, size)
            d_image[:] = ZERO
        for j in range(i * p, (i + 1) * p, BLOCK):
            m = min(BLOCK, (i + 1) * p - j)
            points = ffi.floats(grid + 8 * j, 2 * m)
            args = image + 4 * i * size, width, y_axis, x_axis, points, at, s
            if g:
                g_points, d_points = ffi.floats(g + 4 * j, m), ffi.floats(d_grid + 8 * j, 2 * m)
                _differentiate(*args, g_points, d_image, d_points)
            else:
                _sample(*args, ffi.floats(result + 4 * j, m))


def make_handler(version: int) -> Callable[[int], int]:
    # Variables of a closure belong to the key of numba's cache.
    @no_type_check
    def handle(address):
        if ffi.is_metadata(address, version):
            return 0
        arguments, results, o = ffi.unpack(address)
        image, grid = ffi.words(arguments[0], 6)[3], ffi.words(arguments[1], 6)[3]
        result, g, d_grid = ffi.words(results[0], 6)[3], 0, 0
        if o[5]:
            g, d_grid = ffi.words(arguments[2], 6)[3], ffi.words(results[1], 6)[3]
        _run((o[0], o[1], o[2], o[3], o[4]), image, grid, g, result, d_grid)
        return 0

    return handle
