"""Machine code for ops/bilinear_cpu: a handler of XLA's foreign-function interface for images of one channel.

A vectorized loop over a block of points finds four pixels around each, within the image; an instruction reads pairs of
pixels of many points; and another vectorized loop sums them, weighted by the kernel, max(0, 1 - distance), which is
zero beyond the border. Only the gradient with respect to the image is summed one point after the other. XLA's threads
share the work: blocks of points, or images where gradients are summed.
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
from lecture4.ops import _ffi_pool as pool

ZERO, ONE, TWO = np.float32(0), np.float32(1), np.float32(2)
BELOW_1 = np.nextafter(ONE, ZERO)
LANES, BLOCK = 16, 512  # points of a call of _read_pairs, and of a block, which stays in the cache
PART, MAX_PARTS = 4096, 32  # points at least, and parts of the work at most, that threads share
# Rows of the work space: positions along both axes from the first of two pixels, and the four pixels. Their distance is
# no power of 2: equal low bits of addresses would be slow.
ROW = BLOCK + LANES
X, Y, P00, P01, P10, P11 = (ROW * i for i in range(6))
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
def _locate(x, half, start, end, limit):
    """The first of the two pixels next to x along an axis, and x in pixels from it, in [0, 1] within the image."""
    # From the nearer end, as sampling.to_pixels.
    distance = (ONE - abs(x)) * half
    q = start + distance if x < ZERO else end - distance
    inside = q if q > ZERO else ZERO  # also of NaN
    first = np.floor(inside if inside < limit else limit)
    return first, q - first


@vectorized(forceinline=True)
@no_type_check
def _weights(d):
    """Weights of the two pixels."""
    w0, w1 = ONE - abs(d), ONE - abs(d - ONE)
    return ZERO if w0 < ZERO else w0, ZERO if w1 < ZERO else w1


@vectorized(forceinline=True)
@no_type_check
def _slopes(d, half):
    """Derivatives of the weights by the normalized coordinate, to the right where there are two."""
    step = np.floor(d)
    d0 = -half if step == ZERO else half if step == -ONE else ZERO
    d1 = half if step == ZERO else -half if step == ONE else ZERO
    return d0, d1


@vectorized(forceinline=True)
@no_type_check
def _locate_all(width, y_axis, x_axis, points, at, s, n):
    width = np.float32(width)
    for j in range(n):
        x, s[j + X] = _locate(points[2 * j], *x_axis)
        y, s[j + Y] = _locate(points[2 * j + 1], *y_axis)
        at[j] = np.int32(y * width + x)


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
    _locate_all(width, y_axis, x_axis, points, at, s, len(values))
    _read(image, width, len(values), at, s)
    for j in range(len(values)):
        (left, right), (above, below) = _weights(s[j + X]), _weights(s[j + Y])
        upper = s[j + P00] * left + s[j + P01] * right
        lower = s[j + P10] * left + s[j + P11] * right
        values[j] = upper * above + lower * below


@vectorized(forceinline=True)
@no_type_check
def _differentiate(image, width, y_axis, x_axis, points, at, s, g, d_image, d_points):
    _locate_all(width, y_axis, x_axis, points, at, s, len(g))
    _read(image, width, len(g), at, s)
    for j in range(len(g)):
        p00, p01, p10, p11 = s[j + P00], s[j + P01], s[j + P10], s[j + P11]
        (left, right), (above, below) = _weights(s[j + X]), _weights(s[j + Y])
        d_left, d_right = _slopes(s[j + X], x_axis[0])
        d_above, d_below = _slopes(s[j + Y], y_axis[0])
        by_left, by_right = p00 * above + p10 * below, p01 * above + p11 * below
        by_above, by_below = p00 * left + p01 * right, p10 * left + p11 * right
        d_points[2 * j] = g[j] * (by_left * d_left + by_right * d_right)
        d_points[2 * j + 1] = g[j] * (by_above * d_above + by_below * d_below)
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
    """Arguments of _locate: pixels per unit, the pixel coordinates of -1 and 1, and the largest one below the last."""
    n = np.float32(length)
    half, margin = ((n - ONE) / TWO, ZERO) if is_aligned else (n / TWO, ONE / TWO)
    return half, -margin, n - ONE + margin, (n - ONE) * BELOW_1


@njit
@no_type_check
def _run(payload, part):
    """One of several parts of the values of all images, block by block, or of both gradients, image by image."""
    o = ffi.words(payload, 12)
    n_parts, n, height, width, p, is_aligned = o[0], o[1], o[2], o[3], o[4], o[5]
    image, grid, result, g, d_grid = o[6], o[7], o[8], o[9], o[10]
    y_axis, x_axis = _axis(height, is_aligned), _axis(width, is_aligned)
    at, s, size = np.zeros(ROW, np.int32), np.zeros(6 * ROW, np.float32), height * width
    length = p if g else BLOCK
    blocks = (p + length - 1) // length
    units = n * blocks
    for unit in range(part * units // n_parts, (part + 1) * units // n_parts):
        i, first = unit // blocks, unit % blocks * length
        if g:
            d_image = ffi.floats(result + 4 * i * size, size)
            d_image[:] = ZERO
        for j in range(i * p + first, i * p + min(first + length, p), BLOCK):
            m = min(BLOCK, (i + 1) * p - j)
            points = ffi.floats(grid + 8 * j, 2 * m)
            args = image + 4 * i * size, width, y_axis, x_axis, points, at, s
            if g:
                g_points, d_points = ffi.floats(g + 4 * j, m), ffi.floats(d_grid + 8 * j, 2 * m)
                _differentiate(*args, g_points, d_image, d_points)
            else:
                _sample(*args, ffi.floats(result + 4 * j, m))


_run_parallel = pool.parallel(_run)


def make_handler(version: int) -> Callable[[int], int]:
    positions = pool.api_positions()

    # Variables of a closure belong to the key of numba's cache.
    @no_type_check
    def handle(address):
        if ffi.is_metadata(address, version):
            return 0
        arguments, results, o = ffi.unpack(address)
        image, grid = ffi.data(arguments[0]), ffi.data(arguments[1])
        result, g, d_grid = ffi.data(results[0]), 0, 0
        if o[5]:
            g, d_grid = ffi.data(arguments[2]), ffi.data(results[1])
        units = o[0] if g else o[0] * ((o[3] + BLOCK - 1) // BLOCK)
        n_parts = min(units, o[0] * o[3] // PART)
        n_parts = min(max(n_parts, 1), MAX_PARTS)
        payload = n_parts, o[0], o[1], o[2], o[3], o[4], image, grid, result, g, d_grid
        _run_parallel(address, positions, n_parts, payload)
        return 0

    return handle
