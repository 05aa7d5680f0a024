"""Exact solution for codes on their support: in one step, what iterations only approach.

Once an iterative method has identified which codes are zero and the signs of the others, those
solve the normal equations G_SS a_S = D_S'x - weight_S sign(a_S). The residual at that point is also the best dual
point: it satisfies the constraints of the support with equality, whereas the residual of an iterate misses them in
proportion to its distance from the minimum. So one small system per signal replaces the last iterations and makes the
certificate tight.
"""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Int32, Num

from lecture4.ops.varying import vary_like
from lecture4.sparse.objective import L1, NONNEGATIVE, product
from lecture4.sparse.penalties import Penalty
from lecture4.sparse.solvers.certificate import SolverStatus
from lecture4.sparse.solvers.tiling import by_groups, select

SIZES = (16, 32, 64, 128, 256, 512)  # sizes of systems; the smallest sufficient one is used
GROUP_SIZE = 32  # signals whose systems have the same size
MAX_ATOMS = 8192  # largest number of atoms with a Gram matrix


def gram_for(D: Float[Array, 'd k'], penalty: Penalty) -> Float[Array, 'k k'] | None:
    """D'D if codes can be solved for on their support under this penalty, else None."""
    return product(D.T, D) if penalty in (L1, NONNEGATIVE) and D.shape[1] <= MAX_ATOMS else None


def slices_of(k: int) -> int:
    """Number of slices into which a row of k is split, so that a slice fills a few vector registers."""
    return 8 if k <= 256 else 16


def maximum_of_slices(part: Callable[[int], Any], n_slices: int) -> Num[Array, 'n width']:
    """Elementwise maximum of part(0), ..., part(n_slices - 1).

    A row's maximum of integers is computed this way because XLA's reduction along a row is scalar on the CPU and
    takes half the time of a pass over k = 512.
    """
    best = part(0)
    for i in range(1, n_slices):
        best = jnp.maximum(best, part(i))
    return best


def support(a: Num[Array, 'n k'], size: int, max_count: Int[Array, '']) -> Int32[Array, 'n {size}']:
    """Indices of the codes that are not zero, [n, size]; k in unused entries.

    Args:
      a: Codes, or their signs.
      size: Length of the lists.
      max_count: Number of non-zero codes of the fullest row (traced), the length of the loop.
    """
    n, k = a.shape
    n_slices = slices_of(k)
    width = -(-k // n_slices)
    # The lower index has the higher key.
    keys = jnp.where(a != 0, k - lax.broadcasted_iota(jnp.int32, a.shape, 1), 0)
    keys = jnp.pad(keys, ((0, 0), (0, width * n_slices - k)))
    rows = jnp.arange(n)

    def take(i, carry):
        keys, indices = carry
        best = maximum_of_slices(lambda i: keys[:, i * width : (i + 1) * width], n_slices)
        index = k - jnp.max(best, axis=1)
        indices = lax.dynamic_update_slice(indices, index[:, None], (0, i))
        return keys.at[rows, index].set(0, mode='drop', unique_indices=True), indices

    unused = vary_like(jnp.full((n, size), k, jnp.int32), keys)
    return lax.fori_loop(0, jnp.minimum(max_count, size), take, (keys, unused))[1]


def polish(
    a: Float[Array, 'n k'],
    correlation: Float[Array, 'n k'],
    weight: Float[Array, '_ _'],
    gram: Float[Array, 'k k'],
) -> Float[Array, 'n k']:
    """Replace codes by the minimum on their support where that decreases the objective.

    Codes that would change sign become 0; a signal whose support is too large or whose objective would not decrease
    keeps its codes.

    Args:
      a: Codes.
      correlation: D'(x - D a).
      weight: [1 or n, 1 or k].
      gram: D'D.
    """
    if 0 in a.shape:
        return a
    weight = jnp.broadcast_to(weight, (a.shape[0], weight.shape[1]))

    def choose(old, new, gram_part, correlation, weight):
        new = jnp.where(new * old > 0, new, 0)
        change = _objective_change(old, new - old, gram_part, correlation, weight)
        return jnp.where((change < 0)[:, None], new, old)

    def solve(a, correlation, weight):
        return _on_support(choose, a, jnp.sign(a), correlation, weight, gram)[0]

    return by_groups(solve, GROUP_SIZE, a, correlation, weight)


def solve_on_support(
    a: Float[Array, 'n k'],
    signs: Float[Array, 'n k'],
    correlation: Float[Array, 'n k'],
    weight: Float[Array, 'n _'],
    gram: Float[Array, 'k k'],
) -> tuple[Float[Array, 'n k'], Bool[Array, ' n']]:
    """Move codes towards the minimum for given signs, as far as the objective decreases.

    The result is the best of that minimum and the points on the way at which a code becomes 0.

    Args:
      a: Codes.
      signs: -1, 0 or 1 for every code.
      correlation: D'(x - D a).
      weight: [n, 1 or k].
      gram: D'D.

    Returns:
      The codes, and whether they are the minimum for these signs.
    """

    def choose(old, new, gram_part, correlation, weight):
        step = new - old
        crossing = -old / jnp.where(step == 0, 1, step)
        crossing = jnp.where((step != 0) & (crossing > 0) & (crossing < 1), crossing, 1)
        curvature = jnp.sum(step * _rows_times(gram_part, step), axis=1, keepdims=True)
        slope = jnp.sum(step * correlation, axis=1, keepdims=True)
        at = jnp.concatenate([crossing, jnp.ones_like(slope)], axis=1)
        length = jnp.abs(old[:, None, :] + at[:, :, None] * step[:, None, :])
        # Change of the penalty per atom: the difference of two sums would be dominated by rounding.
        gain = jnp.sum(weight[:, None, :] * (length - jnp.abs(old)[:, None, :]), axis=2)
        change = 0.5 * at * at * curvature - at * slope + gain
        best = jnp.argmin(change, axis=1)
        rows = jnp.arange(old.shape[0])
        t = at[rows, best][:, None]
        moved = jnp.where(t < 1, jnp.where(crossing == t, 0, old + t * step), new)
        return jnp.where((change[rows, best] < 0)[:, None], moved, old)

    return _on_support(choose, a, signs, correlation, weight, gram)


def _on_support(choose, a, signs, correlation, weight, gram):
    """Codes chosen between the old ones and the minimum for these signs on their support.

    choose(old, new, gram_part, correlation, weight) -> codes, all [n, m] or (gram_part) [n, m, m] on
    the support. Returns the codes [n, k], and where they are that minimum [n].
    """
    n, k = a.shape
    counts = jnp.sum(signs != 0, axis=1)
    sizes = [m for m in SIZES if m < k] or [min(k, SIZES[-1])]
    sizes += [k] if sizes[-1] < k <= SIZES[-1] else []
    fits = counts <= sizes[-1]
    counts = jnp.where(fits, counts, 0)
    max_count = jnp.max(counts, initial=0)
    indices = support(jnp.where(fits[:, None], signs, 0), sizes[-1], max_count)
    rows = jnp.arange(n)[:, None]
    flat = gram.reshape(-1)

    def solve(size):
        def branch(_):
            index = indices[:, :size]
            used = index < k
            at = jnp.minimum(index, k - 1)

            def pick(v):
                return jnp.where(used, v[rows, at], 0)

            old, c = pick(a), pick(correlation)
            w = jnp.where(used, weight, 0) if weight.shape[1] == 1 else pick(weight)
            gram_part = jnp.take(flat, at[:, :, None] * k + at[:, None, :], mode='clip')
            gram_part = jnp.where(used[:, :, None] & used[:, None, :], gram_part, 0)
            # Solve for the correction rather than the codes: its rounding is relative to its own size.
            new = old + _conjugate_gradients(gram_part, c - w * pick(signs))
            finite = jnp.all(jnp.isfinite(new), axis=1, keepdims=True)
            new = jnp.where(finite, new, old)
            chosen = choose(old, new, gram_part, c, w)
            # No change is also the minimum, up to rounding.
            is_minimum = jnp.all(chosen == new, axis=1) | jnp.all(chosen == old, axis=1)
            return a.at[rows, index].set(chosen, mode='drop', unique_indices=True), is_minimum

        return branch

    smallest = jnp.searchsorted(jnp.asarray(sizes), max_count)
    return lax.switch(smallest, [solve(m) for m in sizes], None)


def _objective_change(old, step, gram_part, correlation, weight):
    """Change of the objective, [n]."""
    change = 0.5 * jnp.sum(step * _rows_times(gram_part, step), axis=1)
    change = change - jnp.sum(step * correlation, axis=1)
    return change + jnp.sum(weight * (jnp.abs(old + step) - jnp.abs(old)), axis=1)


def _rows_times(gram_part, v):
    return jnp.einsum('nij,nj->ni', gram_part, v, precision='highest')


def _conjugate_gradients(gram_part, b):
    """Solutions of gram_part [n, m, m] s = b [n, m], to a hundredth of sqrt(eps), in at most m + 2 steps.

    A Cholesky factorization costs m^3; this costs about ten products if atoms are not strongly correlated, and
    tolerates rows of zeros and singular systems.
    """
    m = b.shape[1]
    # Linearly dependent atoms leave directions in which the codes are not determined: a ridge below the accuracy that
    # a correction needs bounds them.
    diagonal = jnp.max(jnp.einsum('nii->ni', gram_part), axis=1, keepdims=True, initial=0)
    ridge = (0.1 * jnp.sqrt(jnp.finfo(b.dtype).eps)).astype(b.dtype) * diagonal
    enough = jnp.sum(b * b, axis=1) * (1e-4 * jnp.finfo(b.dtype).eps)

    def step(carry):
        i, s, r, p, energy = carry
        q = _rows_times(gram_part, p) + ridge * p
        curvature = jnp.sum(p * q, axis=1)
        active = (energy > enough) & (curvature > 0)
        alpha = jnp.where(active, energy / jnp.where(active, curvature, 1), 0)[:, None]
        s, r = s + alpha * p, r - alpha * q
        new_energy = jnp.where(active, jnp.sum(r * r, axis=1), 0)
        beta = new_energy / jnp.where(energy > 0, energy, 1)
        return i + 1, s, r, r + beta[:, None] * p, new_energy

    def unfinished(carry):
        return (carry[0] < m + 2) & jnp.any(carry[4] > enough)

    start = (jnp.zeros((), jnp.int32), jnp.zeros_like(b), b, b, jnp.sum(b * b, axis=1))
    return lax.while_loop(unfinished, step, start)[1]


def certify_and_polish(
    certify: Callable[..., tuple[SolverStatus, Any]],
    gram: Float[Array, 'k k'] | None,
    codes: Float[Array, 'n k'],
    weight: Float[Array, '_ _'],
    iterations: Int32[Array, ' n'],
) -> tuple[Float[Array, 'n k'], SolverStatus]:
    """(codes, status); codes that do not pass are polished if that reduces their gap.

    Args:
      certify: The method of a Certifier.
      gram: D'D, or None to leave the codes unchanged.
      codes: Codes to certify.
      weight: [1 or n, 1 or k].
      iterations: Number of iterations so far.
    """
    status, correlation = certify(codes, iterations)
    if gram is None:
        return codes, status

    def refine(_):
        polished = polish(codes, correlation, weight, gram)
        new, _ = certify(polished, iterations)
        better = new.valid & ~status.done & (new.gap < status.gap)
        return select(better, (polished, new), (codes, status))

    return lax.cond(jnp.all(status.done), lambda _: (codes, status), refine, None)


def bits_for(k: int) -> int:
    """Number of low bits that hold an index below k."""
    return max(1, math.ceil(math.log2(max(k, 2))))
