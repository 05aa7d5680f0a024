"""Codes solved for exactly on their support: what an iteration only approaches, in one step.

Once an iterative method knows which codes are zero and the signs of the others, those solve the
normal equations G_SS a_S = D_S'x - weight_S sign(a_S). The residual of that point is also the best
dual point there is: it meets the constraints of the support with equality, where the residual of
the iterate misses them by as much as the iterate has still to go. So one small factorisation a
signal replaces the last iterations and makes the certificate tight.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from lecture4.sparse.objective import L1, NONNEGATIVE, product
from lecture4.sparse.solvers.solution import select

SIZES = (8, 16, 24, 32, 48, 64, 96, 128)  # a tile solves systems of the smallest that is enough
N_SLICES = 16
MOST_ATOMS = 8192  # no Gram matrix beyond


def gram_for(D, penalty):
    """D'D where a support can be solved for under this penalty, else None."""
    return product(D.T, D) if penalty in (L1, NONNEGATIVE) and D.shape[1] <= MOST_ATOMS else None


def row_max(keys):
    """Maxima of the rows of [n, k], k a multiple of N_SLICES, in vector registers.

    XLA's reduction along a row is scalar on the CPU: half the time of a pass over k = 512.
    """
    width = keys.shape[1] // N_SLICES
    return jnp.max(fold(lambda i: keys[:, i * width : (i + 1) * width]), axis=1)


def fold(part):
    """Elementwise maximum of part(0), ..., part(N_SLICES - 1)."""
    best = part(0)
    for i in range(1, N_SLICES):
        best = jnp.maximum(best, part(i))
    return best


def support(a, size, top):
    """Indices of the codes that are not zero, [n, size]; k in the places left over.

    top (traced) is how many the fullest row has: the loop is no longer than that.
    """
    n, k = a.shape
    padded = -(-k // N_SLICES) * N_SLICES
    # The lower index has the higher key.
    keys = jnp.where(a != 0, k - lax.broadcasted_iota(jnp.int32, a.shape, 1), 0)
    keys = jnp.pad(keys, ((0, 0), (0, padded - k)))
    rows = jnp.arange(n)

    def take(i, carry):
        keys, found = carry
        index = k - row_max(keys)
        found = lax.dynamic_update_slice(found, index[:, None], (0, i))
        return keys.at[rows, index].set(0, mode='drop', unique_indices=True), found

    found = jnp.full((n, size), k, jnp.int32)
    return lax.fori_loop(0, jnp.minimum(top, size), take, (keys, found))[1]


def polish(a, correlation, weight, gram):
    """Codes with the minimum on their support put in place where that lowers the objective.

    Codes that would change sign become 0; a signal with a singular or too large support, or whose
    objective would not fall, keeps its codes.

    Shapes  a [n, k], correlation = D'(x - D a) [n, k], weight [1 or n, 1 or k], gram [k, k].
    """
    n, k = a.shape
    if k == 0 or n == 0:
        return a
    counts = jnp.sum(a != 0, axis=1)
    sizes = [m for m in SIZES if m < k] or [min(k, SIZES[-1])]
    sizes += [k] if sizes[-1] < k <= SIZES[-1] else []
    counts = jnp.where(counts <= sizes[-1], counts, 0)
    a_wanted = jnp.where((counts > 0)[:, None], a, 0)
    top = jnp.max(counts, initial=0)
    found = support(a_wanted, sizes[-1], top)
    branch = jnp.searchsorted(jnp.asarray(sizes), top)
    weight = jnp.broadcast_to(weight, a.shape)
    rows = jnp.arange(n)[:, None]

    def solve(size):
        def branch(_):
            index = found[:, :size]
            used = index < k
            at = jnp.minimum(index, k - 1)
            pick = lambda v: jnp.where(used, v[rows, at], 0)  # noqa: E731
            old, pull, price = pick(a), pick(correlation), pick(weight)
            both = used[:, :, None] & used[:, None, :]
            part = jnp.where(both, gram[at[:, :, None], at[:, None, :]], 0)
            part = part + jnp.where(used[:, :, None], 0, jnp.eye(size, dtype=a.dtype)[None])
            # A correction, not the codes themselves: its rounding is relative to what is missing.
            factor = lax.linalg.cholesky(part, symmetrize_input=False)
            wanted = jnp.where(used, pull - price * jnp.sign(old), 0)
            new = old + jax.scipy.linalg.cho_solve((factor, True), wanted[..., None])[..., 0]
            new = jnp.where(new * old > 0, new, 0)
            move = new - old
            curve = jnp.einsum('ni,nij,nj->n', move, part, move, precision='highest')
            change = 0.5 * curve - jnp.sum(move * pull, axis=1)
            change = change + jnp.sum(price * (jnp.abs(new) - jnp.abs(old)), axis=1)
            sane = jnp.max(jnp.abs(new), axis=1) <= 100 * jnp.max(jnp.abs(old), axis=1)
            better = jnp.all(jnp.isfinite(new), axis=1) & sane & (change < 0)
            new = jnp.where(better[:, None], new, old)
            return a.at[rows, index].set(new, mode='drop', unique_indices=True)

        return branch

    return lax.switch(branch, [solve(size) for size in sizes], None)


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
