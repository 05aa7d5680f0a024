"""Machine code for ops/bilinear_cpu: a handler of XLA's foreign-function interface, for images [n, h, w, c].

Called with (images, y, x) it computes values, with (images, y, x, g) the gradients, one image after the other on all
threads of XLA's pool (ops/_ffi_threads). Arrays of an image are flat: pixels [h * w * c], positions x [p] and y [p] in
pixels, values and cotangents g [p * c]. Compiled by numba, without Python at run time and without the GIL; it must be
imported only where numba is installed. After a change of a module that it imports, its cache has to be removed.
"""

# The first parameter of an intrinsic is not an argument of its calls.
# pyright: reportCallIssue=false

from typing import Any, no_type_check

import numpy as np
from llvmlite import binding, ir  # pyright: ignore[reportMissingImports]
from numba import carray, cfunc, njit, types  # pyright: ignore[reportMissingImports]
from numba.core import cgutils  # pyright: ignore[reportMissingImports]
from numba.extending import intrinsic  # pyright: ignore[reportMissingImports]

from lecture4.ops._ffi_frame import answer_metadata, pointer, words
from lecture4.ops._ffi_threads import USER, finish, next_item, release, schedule, share

# Shared words: sizes, and from DATA on the addresses of images, y, x, g, and of values or gradients by images, y and x.
H, W, C, P, DATA = range(USER, USER + 5)
BLOCK = 1024  # points whose positions are computed in one vectorized loop, and stay in the cache
SERIAL = 2**12  # number of values up to which one thread is faster
# Positions of points without a pixel, which are zero, and of those with one or two, or that are NaN.
OUTSIDE, BORDER = np.uint32(2**32 - 1), np.uint32(2**32 - 2)
STEP = np.uint64(1)  # unsigned, since numba would count negative positions from the end
ZERO, ONE = np.float32(0), np.float32(1)
TASK = 'lecture4_bilinear_task'


@intrinsic
@no_type_check
def _task_address(typing_context):
    def build(context, builder, signature, values):
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)])
        task = cgutils.get_or_insert_function(builder.module, kind, TASK)
        return builder.ptrtoint(task, ir.IntType(64))

    return types.int64(), build


@njit(forceinline=True)
@no_type_check
def _locate(x, y, h, w, at, fx, fy):
    """Position of the upper left one of the four pixels around each point, and fractions of the way to the others."""
    width, right, bottom = np.int32(w), np.float32(w - 1), np.float32(h - 1)
    for j in range(x.size):
        column, row = np.floor(x[j]), np.floor(y[j])
        fx[j], fy[j] = x[j] - column, y[j] - row
        inside = (column >= ZERO) & (column < right) & (row >= ZERO) & (row < bottom)
        outside = (column < -ONE) | (column > right) | (row < -ONE) | (row > bottom)
        position = np.uint32(np.int32(row) * width + np.int32(column))
        at[j] = position if inside else OUTSIDE if outside else BORDER


@njit
@no_type_check
def _corner(x):
    if abs(x) < 2**30:
        return int(np.floor(x))
    return 0 if x != x else -2


@njit
@no_type_check
def _border_values(image, x, y, h, w, c, values):
    """Values of a point of which some pixels lie outside the image, where they are zero, or of a NaN."""
    values[:] = np.nan if x != x or y != y else 0
    column, row = _corner(x), _corner(y)
    for i in range(max(row, 0), min(row + 2, h)):
        for j in range(max(column, 0), min(column + 2, w)):
            weight = (1 - abs(y - i)) * (1 - abs(x - j))
            for k in range(c):
                values[k] += weight * image[(i * w + j) * c + k]


@njit
@no_type_check
def _border_gradients(image, x, y, h, w, c, g, d_image):
    """Gradients of such a point: those by x and y, which are returned; that by the image is added to d_image."""
    by_x = by_y = 0.0
    column, row = _corner(x), _corner(y)
    for i in range(max(row, 0), min(row + 2, h)):
        for j in range(max(column, 0), min(column + 2, w)):
            weight_y, weight_x = 1 - abs(y - i), 1 - abs(x - j)
            for k in range((i * w + j) * c, (i * w + j + 1) * c):
                g_k = g[k - (i * w + j) * c]
                d_image[k] += weight_x * weight_y * g_k
                by_x += (weight_y if j > column else -weight_y) * image[k] * g_k
                by_y += (weight_x if i > row else -weight_x) * image[k] * g_k
    return np.float32(by_x), np.float32(by_y)


@njit(forceinline=True)
@no_type_check
def _values(image, x, y, h, w, c, at, fx, fy, values):
    _locate(x, y, h, w, at, fx, fy)
    for j in range(x.size):
        if at[j] == OUTSIDE:
            for to in range(j * c, j * c + c):
                values[to] = 0
            continue
        if at[j] == BORDER:
            _border_values(image, x[j], y[j], h, w, c, values[j * c : (j + 1) * c])
            continue
        k, to = np.uint64(at[j]) * np.uint64(c), np.uint64(j * c)
        below, step = k + np.uint64(w * c), np.uint64(c)
        for _ in range(c):
            top = image[k] + (image[k + step] - image[k]) * fx[j]
            bottom = image[below] + (image[below + step] - image[below]) * fx[j]
            values[to] = top + (bottom - top) * fy[j]
            k, below, to = k + STEP, below + STEP, to + STEP


@njit(forceinline=True)
@no_type_check
def _gradients(image, x, y, h, w, c, at, fx, fy, g, d_image, d_x, d_y):
    _locate(x, y, h, w, at, fx, fy)
    for j in range(x.size):
        if at[j] == OUTSIDE:
            d_x[j] = d_y[j] = 0
            continue
        if at[j] == BORDER:
            g_point = g[j * c : (j + 1) * c]
            d_x[j], d_y[j] = _border_gradients(image, x[j], y[j], h, w, c, g_point, d_image)
            continue
        k, source = np.uint64(at[j]) * np.uint64(c), np.uint64(j * c)
        below, step = k + np.uint64(w * c), np.uint64(c)
        by_x = by_y = ZERO
        for _ in range(c):
            lower = g[source] * fy[j]
            upper = g[source] - lower
            top, bottom = image[k + step] - image[k], image[below + step] - image[below]
            down = image[below] - image[k]
            by_x += top * upper + bottom * lower
            by_y += g[source] * (down + (bottom - top) * fx[j])
            d_image[k] += upper - upper * fx[j]
            d_image[k + step] += upper * fx[j]
            d_image[below] += lower - lower * fx[j]
            d_image[below + step] += lower * fx[j]
            k, below, source = k + STEP, below + STEP, source + STEP
        d_x[j], d_y[j] = by_x, by_y


@njit
@no_type_check
def _part(address, i, length):
    """The part of an array that belongs to image i."""
    return carray(pointer(address + 4 * i * length), (length,), np.float32)


@njit(forceinline=True)
@no_type_check
def _one_image(i, h, w, c, p, data, at, fx, fy):
    """Values or, if there is a g, gradients of image i, in blocks of points; `data` are addresses as in DATA."""
    size = h * w * c
    image, y, x = _part(data[0], i, size), _part(data[1], i, p), _part(data[2], i, p)
    g, values = _part(data[3], i, p * c), _part(data[4], i, p * c)
    d_image, d_y, d_x = _part(data[4], i, size), _part(data[5], i, p), _part(data[6], i, p)
    if data[3]:
        d_image[:] = 0
    for start in range(0, p, BLOCK):
        b = slice(start, min(start + BLOCK, p))
        bc = slice(b.start * c, b.stop * c)
        if data[3]:
            _gradients(image, x[b], y[b], h, w, c, at, fx, fy, g[bc], d_image, d_x[b], d_y[b])
        else:
            _values(image, x[b], y[b], h, w, c, at, fx, fy, values[bc])


@njit
@no_type_check
def _work(shared):
    state = words(shared, DATA + 7)
    h, w, c, p = state[H], state[W], state[C], state[P]
    at, fractions = np.empty(BLOCK, np.uint32), np.empty((2, BLOCK), np.float32)
    i = next_item(shared, True)
    while i >= 0:
        if c == 1:  # loops over channels disappear
            _one_image(i, h, w, 1, p, state[DATA:], at, fractions[0], fractions[1])
        else:
            _one_image(i, h, w, c, p, state[DATA:], at, fractions[0], fractions[1])
        i = next_item(shared, False)


@no_type_check
def _task(shared):
    _work(shared)
    release(shared)


@no_type_check
def _handler(version):
    # Variables of a closure belong to the key of numba's cache.
    def handle(address):
        frame = words(address, 21)
        if answer_metadata(frame, version):
            return 0
        n_arguments, n_results = frame[7], frame[12]
        arguments, results = words(frame[9], n_arguments), words(frame[14], n_results)
        sizes, points = words(words(arguments[0], 6)[5], 4), words(words(arguments[1], 6)[5], 2)
        shared = share(sizes[0], DATA + 7 - USER)
        state = words(shared, DATA + 7)
        state[H:P], state[P] = sizes[1:], points[1]
        for i in range(n_arguments):
            state[DATA + i] = words(arguments[i], 6)[3]
        for i in range(n_results):
            state[DATA + 4 + i] = words(results[i], 6)[3]
        if sizes[0] * state[P] * state[C] > SERIAL:
            schedule(frame, shared, _task_address())
        _work(shared)
        finish(shared)
        return 0

    return handle


def compile_handler(version: int) -> tuple[Any, ...]:
    """Compile the handler, or read it from numba's cache.

    Args:
      version: Version of XLA's foreign-function interface: major + minor * 2**32.

    Returns:
      The handler, a numba cfunc, and the cfunc of a task; both must be kept alive.
    """
    kinds = types.void(types.int64), types.int64(types.int64)
    try:
        task = cfunc(kinds[0], cache=True)(_task)
        binding.add_symbol(TASK, task.address)
        return cfunc(kinds[1], cache=True)(_handler(version)), task
    except RuntimeError:  # no directory for the cache can be written
        task = cfunc(kinds[0])(_task)
        binding.add_symbol(TASK, task.address)
        return cfunc(kinds[1])(_handler(version)), task
