"""Machine code for solvers/greedy_updates: a handler of XLA's foreign-function interface that updates L1 codes.

One pass over the atoms subtracts the last step's row from the correlations and finds the next step, so that an update
loads codes, correlations and the row once. The pass is in vector instructions: its maximum is one of integers, the bits
of |step| with the atom's index in place of the lowest ones.
"""

from collections.abc import Callable
from typing import no_type_check

import numpy as np
from numba import njit, types  # pyright: ignore[reportMissingImports]
from numba.extending import intrinsic  # pyright: ignore[reportMissingImports]

from lecture4.ops import _ffi_frame as ffi

ZERO, ONE, INFINITE = np.float32(0), np.float32(1), np.float32(3e38)
SIZE = 0x7FFFFFFF  # the bits of a float32 without its sign


@intrinsic
@no_type_check
def _key(typing_context, step, mask, index):
    # Written for LLVM, because numba's integers have 64 bits: half as many in a register.
    def build(context, builder, signature, values):
        int32 = context.get_value_type(types.int32)
        bits = builder.and_(builder.bitcast(values[0], int32), values[1])
        return builder.or_(bits, builder.trunc(values[2], int32))

    return types.int32(types.float32, types.int32, types.int64), build


@njit(fastmath=True)
@no_type_check
def _descend(z, c, step_tolerance, budget, rows, low, upper):
    """Updates of the codes -z [k] and correlations c [k]; their number, and whether the next step is small."""
    mask, updates, i, step = np.int32(SIZE & ~low), 0, 0, ZERO
    while True:
        row, best = rows[i], np.int32(0)
        for j in range(len(z)):
            c_j = c[j] - step * row[j]
            c[j] = c_j
            # The soft threshold of y + c, less y: exactly -y where the code becomes 0.
            best = max(best, _key(max(min(z[j], c_j + upper), c_j - ONE), mask, j))
        i = best & low
        step = max(min(z[i], c[i] + upper), c[i] - ONE)
        done = not abs(step) > step_tolerance
        if done or updates >= budget:
            return updates, done
        z[i] -= step
        updates += 1


def make_handler(version: int) -> Callable[[int], int]:
    # Variables of a closure belong to the key of numba's cache.
    @no_type_check
    def handle(address):
        if ffi.is_metadata(address, version):
            return 0
        arguments, results, options = ffi.unpack(address)
        shape = ffi.words(ffi.words(arguments[0], 6)[5], 2)
        n, k = shape[0], shape[1]
        y = ffi.array(arguments[0], (n, k), np.float32)
        c = ffi.array(arguments[1], (n, k), np.float32)
        step_tolerance = ffi.array(arguments[2], (n,), np.float32)
        budget = ffi.array(arguments[3], (n,), np.int32)
        rows = ffi.array(arguments[4], (k, k), np.float32)
        new_y = ffi.array(results[0], (n, k), np.float32)
        new_c = ffi.array(results[1], (n, k), np.float32)
        updates = ffi.array(results[2], (n,), np.int32)
        done = ffi.array(results[3], (n,), np.uint8)
        low, upper = options[0], INFINITE if options[1] != 0 else ONE
        for i in range(n):
            z, correlation = new_y[i], new_c[i]
            for j in range(k):
                z[j], correlation[j] = -y[i, j], c[i, j]
            updates[i], done[i] = 0, 0
            if budget[i] > 0:
                signal = (z, correlation, step_tolerance[i], budget[i])
                updates[i], done[i] = _descend(*signal, rows, low, upper)
            for j in range(k):
                z[j] = -z[j]
        return 0

    return handle
