"""Machine code for ops/onednn: a handler of XLA's foreign-function interface that calls oneDNN's C interface.

Shapes are those of the buffers; strides and padding are an attribute of the call; so a compiled program refers to
nothing of the process that compiled it. Compiled by numba, without Python at run time and without the GIL. It must be
imported only where numba and oneDNN are installed.

References:
  oneDNN's C interface, version 3, dnnl.h and dnnl_types.h, for functions and constants.
"""

import ctypes
import functools
from collections.abc import Callable
from typing import Any, no_type_check

import numpy as np
from llvmlite import binding, ir  # pyright: ignore[reportMissingImports]
from numba import njit, types  # pyright: ignore[reportMissingImports]
from numba.extending import intrinsic  # pyright: ignore[reportMissingImports]

from lecture4.ops import _ffi_frame as ffi
from lecture4.ops import machine_code

FORWARD, INPUT_GRADIENT, KERNEL_GRADIENT = 0, 1, 2
F32, CPU, IN_ORDER, DIRECT, TRAINING, ANY, OWN_MEMORY = 3, 1, 1, 1, 64, 1, -1
IMPLEMENTATION, WEIGHTS, DIFF_WEIGHTS = 8, 131, 132  # dnnl_query_impl_info_str, ..._weights_md
FFI_F32, INTERNAL = 11, 13  # a type and an error code of XLA
# Slots of the objects that one call makes: descriptors of memory (x, kernel, y, kernel in oneDNN's layout), of
# primitives (forward, convolution, reordering of the kernel), primitives, memories.
ENGINE, STREAM, MD_X, MD_KERNEL, MD_Y, MD_ANY, HINT, DESC, REORDER_DESC = range(9)
PRIMITIVE, REORDER, X, KERNEL, Y, PACKED = range(9, 15)
SLOTS = 48  # the rest is scratch space

_symbols: dict[str, Any] = {}  # names of C functions that the machine code refers to
_MESSAGE = np.frombuffer(b'oneDNN could not compute a convolution\0', np.uint8)


def _external(name, arguments, result=types.int32):
    """A C function; arguments: p for a pointer, i for an int."""
    # Under a name of ours, since other libraries in the process may export a oneDNN of their own.
    _symbols[name] = f'lecture4_{name}'
    kinds = [types.int64 if kind == 'p' else types.int32 for kind in arguments]
    return types.ExternalFunction(_symbols[name], result(*kinds))


_create_engine = _external('dnnl_engine_create', 'pip')
_create_stream = _external('dnnl_stream_create', 'ppi')
_wait = _external('dnnl_stream_wait', 'p')
_describe = _external('dnnl_memory_desc_create_with_strides', 'pipip')
_describe_any = _external('dnnl_memory_desc_create_with_tag', 'pipii')
_create_memory = _external('dnnl_memory_create', 'pppp')
_forward = _external('dnnl_convolution_forward_primitive_desc_create', 'ppii' + 9 * 'p')
_backward_data = _external('dnnl_convolution_backward_data_primitive_desc_create', 'ppi' + 9 * 'p')
_backward_weights = _external(
    'dnnl_convolution_backward_weights_primitive_desc_create', 'ppi' + 10 * 'p'
)
_reorder = _external('dnnl_reorder_primitive_desc_create', 6 * 'p')
_query = _external('dnnl_primitive_desc_query', 'piip')
_query_memory_desc = _external('dnnl_primitive_desc_query_md', 'pii', types.int64)
_create_primitive = _external('dnnl_primitive_create', 'pp')
_execute = _external('dnnl_primitive_execute', 'ppip')
_destroy_memory = _external('dnnl_memory_destroy', 'p')
_destroy_primitive = _external('dnnl_primitive_destroy', 'p')
_destroy_desc = _external('dnnl_primitive_desc_destroy', 'p')
_destroy_memory_desc = _external('dnnl_memory_desc_destroy', 'p')
_destroy_stream = _external('dnnl_stream_destroy', 'p')
_destroy_engine = _external('dnnl_engine_destroy', 'p')
_set_num_threads = _external('omp_set_num_threads', 'i', types.void)


@intrinsic
@no_type_check
def _call(typing_context, address, argument):
    """The pointer that the C function at an address returns for one pointer."""

    def build(context, builder, signature, values):
        word = ir.IntType(64)
        function = builder.inttoptr(values[0], ir.FunctionType(word, [word]).as_pointer())
        return builder.call(function, [values[1]])

    return types.int64(types.int64, types.int64), build


@njit
@no_type_check
def _address(array):
    return np.int64(array.ctypes.data)


@njit
@no_type_check
def _prepare(x, kernel, y, window, slots, dims):
    """Fill the descriptors; true if oneDNN has a primitive for x [n, h, w, c], kernel [h, w, c, o], y [n, h, w, o]."""
    dims[0:4] = x[0], x[3], x[1], x[2]
    dims[4:8] = x[1] * x[2] * x[3], 1, x[2] * x[3], x[3]
    dims[8:12] = kernel[3], kernel[2], kernel[0], kernel[1]
    dims[12:16] = 1, kernel[3], kernel[1] * kernel[2] * kernel[3], kernel[2] * kernel[3]
    dims[16:20] = y[0], y[3], y[1], y[2]
    dims[20:24] = y[1] * y[2] * y[3], 1, y[2] * y[3], y[3]
    dims[24:26] = window[1:3]
    dims[26:28] = 0  # no dilation
    dims[28:32] = window[3:7]
    kind, slot, dim = window[0], _address(slots), _address(dims)
    strides, dilation, low, high = dim + 8 * 24, dim + 8 * 26, dim + 8 * 28, dim + 8 * 30
    failed = _create_engine(slot + 8 * ENGINE, CPU, 0)
    if not failed:
        failed = _create_stream(slot + 8 * STREAM, slots[ENGINE], IN_ORDER)
    for i in range(3):
        if not failed:
            sizes = dim + 64 * i
            failed = _describe(slot + 8 * (MD_X + i), 4, sizes, F32, sizes + 32)
    if not failed:
        failed = _describe_any(slot + 8 * MD_ANY, 4, dim + 64, F32, ANY)
    if failed:
        return False
    engine, md_x, md_kernel, md_y = slots[ENGINE], slots[MD_X], slots[MD_ANY], slots[MD_Y]
    to = slot + 8 * (DESC if kind == FORWARD else HINT)
    failed = _forward(
        to, engine, TRAINING, DIRECT, md_x, md_kernel, 0, md_y, strides, dilation, low, high, 0
    )
    hint, to = slots[HINT], slot + 8 * DESC
    if kind == INPUT_GRADIENT and not failed:
        failed = _backward_data(
            to, engine, DIRECT, md_x, md_kernel, md_y, strides, dilation, low, high, hint, 0
        )
    if kind == KERNEL_GRADIENT and not failed:
        failed = _backward_weights(
            to, engine, DIRECT, md_x, md_kernel, 0, md_y, strides, dilation, low, high, hint, 0
        )
    return failed == 0 and dims[24] > 0  # a use of dims, which must outlive its address


@njit
@no_type_check
def _run(kind, x, kernel, y, slots):
    """Execute a prepared convolution on the data at three addresses; true if it succeeded."""
    slot, engine, stream = _address(slots), slots[ENGINE], slots[STREAM]
    gradient = kind == KERNEL_GRADIENT
    packed = _query_memory_desc(slots[DESC], DIFF_WEIGHTS if gradient else WEIGHTS, 0)
    source, target = (packed, slots[MD_KERNEL]) if gradient else (slots[MD_KERNEL], packed)
    if (
        packed == 0
        or _reorder(slot + 8 * REORDER_DESC, source, engine, target, engine, 0)
        or _create_primitive(slot + 8 * PRIMITIVE, slots[DESC])
        or _create_primitive(slot + 8 * REORDER, slots[REORDER_DESC])
        or _create_memory(slot + 8 * X, slots[MD_X], engine, x)
        or _create_memory(slot + 8 * KERNEL, slots[MD_KERNEL], engine, kernel)
        or _create_memory(slot + 8 * Y, slots[MD_Y], engine, y)
        or _create_memory(slot + 8 * PACKED, packed, engine, OWN_MEMORY)
    ):
        return False
    # Pairs of an argument's number in dnnl_types.h and a memory.
    slots[16:18] = 1, slots[PACKED if gradient else KERNEL]
    slots[18:20] = 17, slots[KERNEL if gradient else PACKED]
    slots[20:22] = 129 if kind == INPUT_GRADIENT else 1, slots[X]
    slots[22:24] = 161 if gradient else 33, slots[PACKED]
    slots[24:26] = 17 if kind == FORWARD else 145, slots[Y]
    failed = 0 if gradient else _execute(slots[REORDER], stream, 2, slot + 8 * 16)
    failed = failed or _execute(slots[PRIMITIVE], stream, 3, slot + 8 * 20)
    if gradient:
        failed = failed or _execute(slots[REORDER], stream, 2, slot + 8 * 16)
    waited = _wait(stream)
    return failed == 0 and waited == 0 and slots[ENGINE] != 0


@njit
@no_type_check
def _destroy(slots):
    for i in range(PACKED, -1, -1):
        if slots[i] == 0:
            continue
        if i >= X:
            _destroy_memory(slots[i])
        elif i >= PRIMITIVE:
            _destroy_primitive(slots[i])
        elif i >= HINT:
            _destroy_desc(slots[i])
        elif i >= MD_X:
            _destroy_memory_desc(slots[i])
        elif i == STREAM:
            _destroy_stream(slots[i])
        else:
            _destroy_engine(slots[i])


@no_type_check
def _supports(x, kernel, y, window):
    slots, dims, text = np.zeros(SLOTS, np.int64), np.zeros(32, np.int64), np.zeros(1, np.int64)
    supported = _prepare(x, kernel, y, window, slots, dims)
    if supported and _query(slots[DESC], IMPLEMENTATION, 0, _address(text)) == 0:
        # 'ref:...' is the slow implementation, for shapes that no other one takes
        supported = ffi.words(text[0], 1)[0] & 0xFFFFFF != 0x666572
    _destroy(slots)
    return supported


def make_handler(version: int) -> Callable[[int], int]:
    # Variables of a closure belong to the key of numba's cache.
    @no_type_check
    def handle(address):
        if ffi.is_metadata(address, version):
            return 0
        arguments, results, window = ffi.unpack(address)
        a, b = ffi.words(arguments[0], 6), ffi.words(arguments[1], 6)
        frame, result = ffi.words(address, 4), ffi.words(results[0], 6)
        api = ffi.words(frame[2], 19)
        kind = window[0]
        x, kernel, y = a, b, result
        if kind == INPUT_GRADIENT:
            x, kernel, y = result, b, a
        elif kind == KERNEL_GRADIENT:
            x, kernel, y = a, result, b
        slots, dims = np.zeros(SLOTS, np.int64), np.zeros(32, np.int64)
        slots[32:36] = 32, 0, frame[3], _address(slots) + 8 * 36
        # The number of threads of XLA's pool. Numba passes the first parameter of an intrinsic.
        error = _call(api[18], _address(slots) + 8 * 32)  # pyright: ignore[reportCallIssue]
        if error == 0 and slots[36] > 0:
            _set_num_threads(np.int32(slots[36]))
        done = False
        for buffer in (x, kernel, y):
            if buffer[2] & ffi.INT32 != FFI_F32 or buffer[4] != 4:
                kind = -1
        if kind >= 0 and _prepare(
            ffi.words(x[5], 4), ffi.words(kernel[5], 4), ffi.words(y[5], 4), window, slots, dims
        ):
            done = _run(kind, x[3], kernel[3], y[3], slots)
        _destroy(slots)
        if done:
            return 0
        message = _MESSAGE.copy()
        slots[32:36] = 32, 0, _address(message), INTERNAL
        error = _call(api[6], _address(slots) + 8 * 32)  # pyright: ignore[reportCallIssue]
        message[0] = slots[32]  # a use: both must outlive their addresses
        return error

    return handle


def compile_supports(library: ctypes.CDLL) -> Any:
    """Name oneDNN's functions for machine code, and compile (or read from numba's cache) `supports`.

    Returns:
      Function (x, kernel, y, window) -> whether oneDNN has an optimized primitive, of shapes and an attribute as int64
      arrays.
    """
    for name, symbol in _symbols.items():
        binding.add_symbol(symbol, ctypes.cast(getattr(library, name), ctypes.c_void_p).value)
    shape = types.Array(types.int64, 1, 'C')
    signature = types.boolean(shape, shape, shape, shape)
    return machine_code.compile_cached(functools.partial(njit, signature), _supports)
