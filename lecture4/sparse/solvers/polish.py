"""Codes solved for exactly on their support: what an iteration only approaches, in one step.

Once an iterative method knows which codes are zero and the signs of the others, those solve the
normal equations G_SS a_S = D_S'x - weight_S sign(a_S). The residual of that point is also the best
dual point there is: it meets the constraints of the support with equality, where the residual of
the iterate misses them by as much as the iterate has still to go. So one small system a signal
replaces the last iterations and makes the certificate tight.
"""

import math

import jax.numpy as jnp
from jax import lax

from lecture4.sparse.objective import L1, NONNEGATIVE, product
from lecture4.sparse.solvers.solution import in_groups, select

SIZES = (16, 32, 64, 128, 256, 512)  # systems have the smallest size that is enough
GROUP = 32  # signals whose systems have the same size
MOST_ATOMS = 8192  # no Gram matrix beyond


def gram_for(D, penalty):
    """D'D where a support can be solved for under this penalty, else None."""
    return product(D.T, D) if penalty in (L1, NONNEGATIVE) and D.shape[1] <= MOST_ATOMS else None


def slices_of(k):
    """Into how many slices a row of k is cut, so that one is some vector registers wide."""
    return 8 if k <= 256 else 16


def fold(part, n_slices):
    """Elementwise maximum of part(0), ..., part(n_slices - 1).

    A row's maximum of integers is taken so: XLA's own along a row is scalar on the CPU, half the
    time of a pass over k = 512.
    """
    best = part(0)
    for i in range(1, n_slices):
        best = jnp.maximum(best, part(i))
    return best


def support(a, size, top):
    """Indices of the codes that are not zero, [n, size]; k in the places left over.

    top (traced) is how many the fullest row has: the loop is no longer than that.
    """
    n, k = a.shape
    n_slices = slices_of(k)
    width = -(-k // n_slices)
    # The lower index has the higher key.
    keys = jnp.where(a != 0, k - lax.broadcasted_iota(jnp.int32, a.shape, 1), 0)
    keys = jnp.pad(keys, ((0, 0), (0, width * n_slices - k)))
    rows = jnp.arange(n)

    def take(i, carry):
        keys, found = carry
        best = fold(lambda i: keys[:, i * width : (i + 1) * width], n_slices)
        index = k - jnp.max(best, axis=1)
        found = lax.dynamic_update_slice(found, index[:, None], (0, i))
        return keys.at[rows, index].set(0, mode='drop', unique_indices=True), found

    found = jnp.full((n, size), k, jnp.int32)
    return lax.fori_loop(0, jnp.minimum(top, size), take, (keys, found))[1]


def polish(a, correlation, weight, gram):
    """Codes with the minimum on their support put in place where that lowers the objective.

    Codes that would change sign become 0; a signal with too large a support, or whose objective
    would not fall, keeps its codes.

    Shapes  a [n, k], correlation = D'(x - D a) [n, k], weight [1 or n, 1 or k], gram [k, k].
    """
    if 0 in a.shape:
        return a
    weight = jnp.broadcast_to(weight, (a.shape[0], weight.shape[1]))

    def finish(old, new, part, pull, price):
        new = jnp.where(new * old > 0, new, 0)
        change = _change(old, new - old, part, pull, price)
        return jnp.where((change < 0)[:, None], new, old)

    def group(a, correlation, weight):
        return _on_support(finish, a, jnp.sign(a), correlation, weight, gram)[0]

    return in_groups(group, GROUP, a, correlation, weight)


def solve_on_support(a, signs, correlation, weight, gram):
    """Codes [n, k] moved towards the minimum for these signs: the best of the points where one
    becomes 0 and that minimum, and whether it is that minimum [n].

    Shapes  a, signs, correlation = D'(x - D a) [n, k]; weight [n, 1 or k]; gram [k, k].
    """

    def search(old, new, part, pull, price):
        move = new - old
        crossing = -old / jnp.where(move == 0, 1, move)
        crossing = jnp.where((move != 0) & (crossing > 0) & (crossing < 1), crossing, 1)
        curve = jnp.sum(move * _rows_times(part, move), axis=1, keepdims=True)
        slope = jnp.sum(move * pull, axis=1, keepdims=True)
        at = jnp.concatenate([crossing, jnp.ones_like(slope)], axis=1)
        length = jnp.abs(old[:, None, :] + at[:, :, None] * move[:, None, :])
        # What the penalty gains, atom by atom: the difference of two sums would be rounding.
        gain = jnp.sum(price[:, None, :] * (length - jnp.abs(old)[:, None, :]), axis=2)
        change = 0.5 * at * at * curve - at * slope + gain
        best = jnp.argmin(change, axis=1)
        rows = jnp.arange(old.shape[0])
        t = at[rows, best][:, None]
        moved = jnp.where(t < 1, jnp.where(crossing == t, 0, old + t * move), new)
        return jnp.where((change[rows, best] < 0)[:, None], moved, old)

    return _on_support(search, a, signs, correlation, weight, gram)


def _on_support(choose, a, signs, correlation, weight, gram):
    """Codes chosen between the old ones and the minimum for these signs on their support.

    choose(old, new, part, pull, price) -> codes, all [n, m] or (part) [n, m, m] on the support.
    Returns the codes [n, k], and where they are that minimum [n].
    """
    n, k = a.shape
    counts = jnp.sum(signs != 0, axis=1)
    sizes = [m for m in SIZES if m < k] or [min(k, SIZES[-1])]
    sizes += [k] if sizes[-1] < k <= SIZES[-1] else []
    fits = counts <= sizes[-1]
    counts = jnp.where(fits, counts, 0)
    top = jnp.max(counts, initial=0)
    found = support(jnp.where(fits[:, None], signs, 0), sizes[-1], top)
    rows = jnp.arange(n)[:, None]
    flat = gram.reshape(-1)

    def solve(size):
        def branch(_):
            index = found[:, :size]
            used = index < k
            at = jnp.minimum(index, k - 1)
            pick = lambda v: jnp.where(used, v[rows, at], 0)  # noqa: E731
            old, pull = pick(a), pick(correlation)
            price = jnp.where(used, weight, 0) if weight.shape[1] == 1 else pick(weight)
            part = jnp.take(flat, at[:, :, None] * k + at[:, None, :], mode='clip')
            part = jnp.where(used[:, :, None] & used[:, None, :], part, 0)
            # A correction, not the codes themselves: its rounding is relative to what is missing.
            new = old + _conjugate_gradients(part, pull - price * pick(signs))
            sane = jnp.all(jnp.isfinite(new), axis=1, keepdims=True)
            new = jnp.where(sane, new, old)
            chosen = choose(old, new, part, pull, price)
            # Nothing gained is the minimum too, up to rounding.
            there = jnp.all(chosen == new, axis=1) | jnp.all(chosen == old, axis=1)
            return a.at[rows, index].set(chosen, mode='drop', unique_indices=True), there

        return branch

    return lax.switch(jnp.searchsorted(jnp.asarray(sizes), top), [solve(m) for m in sizes], None)


def _change(old, move, part, pull, price):
    """By how much the objective changes, [n]."""
    change = 0.5 * jnp.sum(move * _rows_times(part, move), axis=1) - jnp.sum(move * pull, axis=1)
    return change + jnp.sum(price * (jnp.abs(old + move) - jnp.abs(old)), axis=1)


def _rows_times(part, v):
    return jnp.einsum('nij,nj->ni', part, v, precision='highest')


def _conjugate_gradients(part, b):
    """The solutions of part [n, m, m] s = b [n, m], to a hundredth of sqrt(eps), in m steps at most.

    Where a Cholesky factorisation costs m^3, this costs some ten products with atoms that are not
    much alike; and it minds neither rows of zeros nor a singular system.
    """
    m = b.shape[1]
    # Atoms that depend on each other leave directions in which nothing holds the codes: a ridge
    # below what a correction must be right to bounds them.
    diagonal = jnp.max(jnp.einsum('nii->ni', part), axis=1, keepdims=True, initial=0)
    ridge = (0.1 * jnp.sqrt(jnp.finfo(b.dtype).eps)).astype(b.dtype) * diagonal
    enough = jnp.sum(b * b, axis=1) * (1e-4 * jnp.finfo(b.dtype).eps)

    def step(carry):
        i, s, r, p, energy = carry
        q = _rows_times(part, p) + ridge * p
        curve = jnp.sum(p * q, axis=1)
        going = (energy > enough) & (curve > 0)
        length = jnp.where(going, energy / jnp.where(going, curve, 1), 0)[:, None]
        s, r = s + length * p, r - length * q
        new = jnp.where(going, jnp.sum(r * r, axis=1), 0)
        ratio = new / jnp.where(energy > 0, energy, 1)
        return i + 1, s, r, r + ratio[:, None] * p, new

    def unfinished(carry):
        return (carry[0] < m + 2) & jnp.any(carry[4] > enough)

    begin = (jnp.zeros((), jnp.int32), jnp.zeros_like(b), b, b, jnp.sum(b * b, axis=1))
    return lax.while_loop(unfinished, step, begin)[1]


def check_and_polish(certify, gram, found, weight, iterations):
    """(codes, facts) of codes that were found, polished where they do not pass as they are."""
    facts, correlation = certify(found, iterations)
    if gram is None:
        return found, facts

    def refine(_):
        codes = polish(found, correlation, weight, gram)
        seen, _ = certify(codes, iterations)
        take = seen.alive & ~facts.converged & (seen.gap < facts.gap)
        return select(take, (codes, seen), (found, facts))

    return lax.cond(jnp.all(facts.converged), lambda _: (found, facts), refine, None)


def bits_for(k):
    """Low bits that hold an index below k."""
    return max(1, math.ceil(math.log2(max(k, 2))))
