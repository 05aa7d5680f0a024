"""Machine code for solvers/greedy_updates: a handler of XLA's foreign-function interface that updates L1 codes.

One pass over the atoms subtracts the last step's row from the correlations and finds the next step, so that an update
loads codes, correlations and the row once. The pass is in vector instructions: its maximum is one of integers, the bits
of |step| with the atom's index in place of the lowest ones. XLA's threads share the signals.
"""

from collections.abc import Callable
from typing import no_type_check

import numpy as np
from numba import njit, types  # pyright: ignore[reportMissingImports]
from numba.extending import intrinsic  # pyright: ignore[reportMissingImports]

from lecture4.ops import _ffi_frame as ffi
from lecture4.ops import _ffi_pool as pool

ZERO, ONE, INFINITE = np.float32(0), np.float32(1), np.float32(3e38)
PART = 8  # signals at least that a thread takes at a time
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


@njit
@no_type_check
def _run(payload, part):
    """The codes of one of several parts of the signals."""
    o = ffi.words(payload, 14)
    n_parts, n, k, low, upper = o[0], o[1], o[2], o[3], INFINITE if o[4] != 0 else ONE
    y, c = ffi.array(o[5], (n, k), np.float32), ffi.array(o[6], (n, k), np.float32)
    step_tolerance, budget = ffi.floats(o[7], n), ffi.array(o[8], (n,), np.int32)
    rows = ffi.array(o[9], (k, k), np.float32)
    new_y, new_c = ffi.array(o[10], (n, k), np.float32), ffi.array(o[11], (n, k), np.float32)
    updates, done = ffi.array(o[12], (n,), np.int32), ffi.array(o[13], (n,), np.uint8)
    for i in range(part * n // n_parts, (part + 1) * n // n_parts):
        z, correlation = new_y[i], new_c[i]
        for j in range(k):
            z[j], correlation[j] = -y[i, j], c[i, j]
        updates[i], done[i] = 0, 0
        if budget[i] > 0:
            signal = (z, correlation, step_tolerance[i], budget[i])
            updates[i], done[i] = _descend(*signal, rows, low, upper)
        for j in range(k):
            z[j] = -z[j]


_run_parallel = pool.parallel(_run)


def make_handler(version: int) -> Callable[[int], int]:
    positions = pool.api_positions()

    # Variables of a closure belong to the key of numba's cache.
    @no_type_check
    def handle(address):
        if ffi.is_metadata(address, version):
            return 0
        a, r, options = ffi.unpack(address)
        shape = ffi.words(ffi.words(a[0], 6)[5], 2)
        n_parts = max(shape[0] // PART, 1)
        head = n_parts, shape[0], shape[1], options[0], options[1]
        given = ffi.data(a[0]), ffi.data(a[1]), ffi.data(a[2]), ffi.data(a[3]), ffi.data(a[4])
        returned = ffi.data(r[0]), ffi.data(r[1]), ffi.data(r[2]), ffi.data(r[3])
        _run_parallel(address, positions, n_parts, head + given + returned)
        return 0

    return handle
