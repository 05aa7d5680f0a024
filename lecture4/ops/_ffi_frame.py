"""Reading a call frame of XLA's foreign-function interface in machine code that numba compiles.

The layout is that of xla/ffi/api/c_api.h in `jax.ffi.include_dir()`. Addresses are int64 throughout, and memory is
addressed in words of 8 bytes. It must be imported only where numba is installed.
"""

from typing import no_type_check

import numpy as np
from llvmlite import ir  # pyright: ignore[reportMissingImports]
from numba import carray, njit, types  # pyright: ignore[reportMissingImports]
from numba.extending import intrinsic  # pyright: ignore[reportMissingImports]

METADATA = 1  # an extension of XLA


@intrinsic
@no_type_check
def pointer(typing_context, address):
    """The pointer with an address."""

    def build(context, builder, signature, values):
        return builder.inttoptr(values[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), build


@intrinsic
@no_type_check
def call(typing_context, address, argument):
    """The pointer that the C function at an address returns for one pointer."""

    def build(context, builder, signature, values):
        word = ir.IntType(64)
        function = builder.inttoptr(values[0], ir.FunctionType(word, [word]).as_pointer())
        return builder.call(function, [values[1]])

    return types.int64(types.int64, types.int64), build


@njit
@no_type_check
def words(address, n):
    """The n words at an address."""
    return carray(pointer(address), (n,), np.int64)


@njit
@no_type_check
def address_of(array):
    """The address of an array, which must be used again after every use of the address."""
    return np.int64(array.ctypes.data)


@njit
@no_type_check
def int32(word):
    """The field of 4 bytes at the start of a word."""
    return word & 0xFFFFFFFF


@njit
@no_type_check
def answer_metadata(frame, version):
    """Whether XLA only asks for the handler's version; if so, it is stored.

    Args:
      frame: Words of the call frame.
      version: Version of the interface: major + minor * 2**32.
    """
    if frame[1] == 0:
        return False
    extension = words(frame[1], 4)
    if int32(extension[1]) != METADATA:
        return False
    metadata = words(extension[3], 6)
    metadata[3], metadata[4], metadata[5] = version, 0, 0  # no traits, no state
    return True
