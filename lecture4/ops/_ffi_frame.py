"""Call frames of XLA's foreign-function interface, for handlers that numba compiles, where it is installed.

Their layout is that of xla/ffi/api/c_api.h in `jax.ffi.include_dir()`. Addresses are int64, memory is read in words of
8 bytes.
"""

from typing import no_type_check

import numpy as np
from numba import carray, njit, types  # pyright: ignore[reportMissingImports]
from numba.extending import intrinsic  # pyright: ignore[reportMissingImports]

METADATA = 1  # an extension
INT32 = 0xFFFFFFFF  # the field of 4 bytes at the start of a word


@intrinsic
@no_type_check
def _pointer(typing_context, address):
    def build(context, builder, signature, values):
        return builder.inttoptr(values[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), build


@njit
@no_type_check
def words(address, n):
    return carray(_pointer(address), (n,), np.int64)


@njit
@no_type_check
def is_metadata(address, version):
    """Whether XLA only asks for metadata, which is then filled in: no traits, no state."""
    extension = words(address, 2)[1]
    if extension == 0 or words(extension, 2)[1] & INT32 != METADATA:
        return False
    metadata = words(words(extension, 4)[3], 6)
    metadata[3], metadata[4], metadata[5] = version, 0, 0
    return True


@njit
@no_type_check
def unpack(address):
    """Addresses of the buffers (words: 2 dtype, 3 data, 4 rank, 5 shape), and the only attribute, of int64."""
    arguments, results = words(words(address, 10)[9], 8), words(words(address, 15)[14], 8)
    return arguments, results, words(words(words(words(address, 21)[20], 1)[0], 3)[2], 8)


@njit
@no_type_check
def data(buffer):
    return words(buffer, 6)[3]


@njit
@no_type_check
def array(address, shape, dtype):
    return carray(_pointer(address), shape, dtype)


@njit
@no_type_check
def floats(address, n):
    return carray(_pointer(address), (n,), np.float32)
