"""Machine code for solvers/homotopy: a handler of XLA's foreign-function interface that follows paths of L1 codes.

For signs s on a support A, codes at the penalty weight t are a_ls - t u, with least-squares codes a_ls = G_AA^-1 c_A
and u = G_AA^-1 s; the correlations of all atoms are b + t v, where b are those with the least-squares residual and
v = G_:A u. So an atom joins at t = |b_j| / (1 - sign(b_j) v_j), one division, and a code leaves at t = a_ls_j / u_j.
Row p of `rows` is a direction of an orthonormal basis of the span of the support, by Gram-Schmidt: its products with
all atoms, then its coefficients over the support. When an atom joins, b, v, -a_ls and u change by multiples of its row.
"""

from collections.abc import Callable
from typing import no_type_check

import numpy as np
from numba import njit  # pyright: ignore[reportMissingImports]

from lecture4.ops import _ffi_frame as ffi

ZERO, ONE, TINY = np.float32(0), np.float32(1), np.float32(1e-6)
# An atom with a smaller fraction of its energy outside the span of the support does not join.
DEPENDENT = np.float32(1e-5)


@njit(fastmath=True)
@no_type_check
def _append(i, sign, m, gram, rows, b, v, new, factors):
    """Make atom i the m-th of the support; false if it depends on the others."""
    k, row, free = len(gram), rows[m], gram[i, i]
    for p in range(m):
        factors[p] = rows[p, i]
        free -= factors[p] * factors[p]
    if not free > DEPENDENT * gram[i, i]:
        return False
    for j in range(k):
        new[j] = gram[i, j]
    for p in range(m + 4):
        new[k + p], factors[m + p % 4] = ZERO, ZERO
    new[k + m] = ONE
    for p in range(0, m, 4):
        f0, f1, f2, f3 = factors[p], factors[p + 1], factors[p + 2], factors[p + 3]
        r0, r1, r2, r3 = rows[p], rows[p + 1], rows[p + 2], rows[p + 3]
        for j in range(k + m):
            new[j] -= (f0 * r0[j] + f1 * r1[j]) + (f2 * r2[j] + f3 * r3[j])
    scale = ONE / np.sqrt(free)
    y, z = b[i] * scale, (sign - v[i]) * scale
    b[k + m], v[k + m], row[k + m + 1 :] = ZERO, ZERO, ZERO
    for j in range(k + m + 1):
        r = scale * new[j]
        row[j], b[j], v[j] = r, b[j] - y * r, v[j] + z * r
    row[-2], row[-1] = y, z
    return True


@njit(fastmath=True)
@no_type_check
def _follow(c, gram, weight, limit, codes, rows, work, signs, atoms, skipped, low, is_nonnegative):
    """Codes [k] at a weight, from correlations c [k] with the signal; the number of steps, at most limit."""
    (b, v, join, new, factors), k = work, len(c)
    bits, low = join.view(np.int32), np.int32(low)
    m, steps, newest, t = 0, 0, -1, np.float32(1e30)
    skipped[0], n_skipped = k, 1  # atoms that do not join; the first one at the next step only
    for j in range(k):
        b[j], v[j] = c[j], ZERO
    while True:
        for j in range(k):
            size = max(b[j], ZERO) if is_nonnegative else abs(b[j])
            slope = v[j] if is_nonnegative or b[j] > ZERO else -v[j]
            join[j] = size / max(ONE - slope, TINY)
        for p in range(m):
            join[atoms[p]] = ZERO
        for p in range(n_skipped):
            join[skipped[p]] = ZERO
        best, leaving, zero = np.int32(0), -1, ZERO
        for j in range(k):  # the largest, by its bits with the index in place of the lowest ones
            best = max(best, np.int32((bits[j] & ~low) | np.int32(j)))
        i = min(best & low, k - 1)
        at = min(join[i], t)
        for p in range(m):
            b_p, v_p = b[k + p] * signs[p], v[k + p] * signs[p]
            if b_p > ZERO and v_p < ZERO and p != newest and min(-b_p / v_p, t) > zero:
                leaving, zero = p, min(-b_p / v_p, t)
        if not max(at, zero) > weight:
            t = weight
            break
        if steps >= limit or (m == len(atoms) and not zero > at):
            break
        steps, t = steps + 1, max(at, zero)
        if zero > at:  # undo its row and those after it, and append them again without it
            skipped[0], n_skipped, newest, before, m = atoms[leaving], 1, -1, m, leaving
            for p in range(before - 1, leaving - 1, -1):
                row, y, z = rows[p], rows[p, -2], rows[p, -1]
                for j in range(k + before):
                    b[j], v[j] = b[j] + y * row[j], v[j] - z * row[j]
            for p in range(leaving + 1, before):
                atoms[m], signs[m] = atoms[p], signs[p]
                if _append(atoms[m], signs[m], m, gram, rows, b, v, new, factors):
                    m += 1
            continue
        sign = ONE if b[i] > ZERO else -ONE
        if _append(i, sign, m, gram, rows, b, v, new, factors):
            atoms[m], signs[m], newest, skipped[0], m = i, sign, m, k, m + 1
        else:
            skipped[n_skipped], n_skipped = i, n_skipped + 1
    codes[:] = ZERO
    for p in range(m):
        codes[atoms[p]] = max((-b[k + p] - t * v[k + p]) * signs[p], ZERO) * signs[p]
    return steps


def make_handler(version: int) -> Callable[[int], int]:
    # Variables of a closure belong to the key of numba's cache.
    @no_type_check
    def handle(address):
        if ffi.is_metadata(address, version):
            return 0
        arguments, results, options = ffi.unpack(address)
        shape, size = ffi.words(ffi.words(arguments[0], 6)[5], 2), options[0]
        n, k = shape[0], shape[1]
        c = ffi.array(arguments[0], (n, k), np.float32)
        gram = ffi.array(arguments[1], (k, k), np.float32)
        weight = ffi.array(arguments[2], (n,), np.float32)
        limit = ffi.array(arguments[3], (1,), np.int32)[0]
        codes = ffi.array(results[0], (n, k), np.float32)
        steps = ffi.array(results[1], (n,), np.int32)
        rows, signs = np.zeros((size + 9, k + size + 8), np.float32), np.zeros(size, np.float32)
        work = (rows[-1], rows[-2], rows[-3], rows[-4], rows[-5])
        arrays = (rows, work, signs, np.zeros(size, np.int64), np.zeros(limit + 2, np.int64))
        for i in range(n):
            signal = (c[i], gram, weight[i], limit, codes[i])
            steps[i] = _follow(*signal, *arrays, options[1], options[2] != 0)
        return 0

    return handle
