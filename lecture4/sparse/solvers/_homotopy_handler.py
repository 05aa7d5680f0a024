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
from lecture4.ops import _ffi_pool as pool

ZERO, ONE, TINY = np.float32(0), np.float32(1), np.float32(1e-6)
# An atom with a smaller fraction of its energy outside the span of the support does not join.
DEPENDENT = np.float32(1e-5)
PART = 16  # signals at least that a thread takes at a time


@njit(fastmath=True)
@no_type_check
def _append(i, sign, m, gram, rows, n_rows, b, v, new, factors):
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
    while (
        n_rows[0] < m + 4
    ):  # the products below take four rows at a time, also of those that were never written
        rows[n_rows[0]] = ZERO
        n_rows[0] += 1
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
def _follow(
    c, gram, weight, limit, codes, rows, n_rows, work, signs, atoms, skipped, low, is_nonnegative
):
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
                if _append(atoms[m], signs[m], m, gram, rows, n_rows, b, v, new, factors):
                    m += 1
            continue
        sign = ONE if b[i] > ZERO else -ONE
        if _append(i, sign, m, gram, rows, n_rows, b, v, new, factors):
            atoms[m], signs[m], newest, skipped[0], m = i, sign, m, k, m + 1
        else:
            skipped[n_skipped], n_skipped = i, n_skipped + 1
    codes[:] = ZERO
    for p in range(m):
        codes[atoms[p]] = max((-b[k + p] - t * v[k + p]) * signs[p], ZERO) * signs[p]
    return steps


@njit
@no_type_check
def _run(payload, part):
    """The codes of one of several parts of the signals."""
    o = ffi.words(payload, 12)
    n_parts, n, k, size, low, is_nonnegative = o[0], o[1], o[2], o[3], o[4], o[5] != 0
    c, gram = ffi.array(o[6], (n, k), np.float32), ffi.array(o[7], (k, k), np.float32)
    weight, limit = ffi.floats(o[8], n), ffi.array(o[9], (1,), np.int32)[0]
    codes, steps = ffi.array(o[10], (n, k), np.float32), ffi.array(o[11], (n,), np.int32)
    rows, signs = np.empty((size + 9, k + size + 8), np.float32), np.empty(size, np.float32)
    n_rows, atoms, skipped = (
        np.zeros(1, np.int64),
        np.empty(size, np.int64),
        np.empty(limit + 2, np.int64),
    )
    work = (rows[-1], rows[-2], rows[-3], rows[-4], rows[-5])
    for i in range(part * n // n_parts, (part + 1) * n // n_parts):
        signal = (c[i], gram, weight[i], limit, codes[i])
        arrays = (rows, n_rows, work, signs, atoms, skipped)
        steps[i] = _follow(*signal, *arrays, low, is_nonnegative)


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
        head = n_parts, shape[0], shape[1], options[0], options[1], options[2]
        given = ffi.data(a[0]), ffi.data(a[1]), ffi.data(a[2]), ffi.data(a[3])
        payload = head + given + (ffi.data(r[0]), ffi.data(r[1]))
        _run_parallel(address, positions, n_parts, payload)
        return 0

    return handle
