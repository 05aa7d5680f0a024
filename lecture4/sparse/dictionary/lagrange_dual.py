"""Dictionary learning in whole batches: the best atoms for the codes, by the Lagrange dual (Lee 2006).

At fixed codes the best dictionary under ||d_j||^2 <= C is a least squares problem with k bounds.
Its dual has one multiplier for each atom, however long the atoms are, and Newton's method finds
them in a few steps of k x k systems: D = B (A + diag(multipliers))^-1. A step is one alternation:
codes of all signals, then the atoms that are best for them; nothing is remembered of other batches.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import cho_solve

from lecture4.ops.prox import project_ball
from lecture4.ops.reduce import Reduce
from lecture4.sparse.dictionary import init as seeding
from lecture4.sparse.dictionary import statistics
from lecture4.sparse.objective import L1, product


class State(NamedTuple):
    """What the learner carries from one alternation to the next; the same on every device."""

    atoms: jax.Array  # [d, k], ||d_j||^2 <= C
    multipliers: jax.Array  # [k], where Newton's method starts the next time; negative: nowhere yet
    usage: jax.Array  # [k] share of the signals that use the atom
    step: jax.Array  # int32 scalar, alternations done


def init(key, signals, n_atoms, *, norm_bound=1.0):
    """Atoms are random signals of norm sqrt(norm_bound); shapes and errors as seeding.from_signals."""
    atoms = seeding.from_signals(key, signals, n_atoms, norm_bound)
    none = jnp.full(n_atoms, -1, atoms.dtype)
    return State(atoms, none, jnp.zeros(n_atoms, atoms.dtype), jnp.zeros((), jnp.int32))


def step(
    state,
    signals,
    key,
    *,
    weight,
    penalty=L1,
    norm_bound=1.0,
    n_inner=30,
    n_newton=30,
    reduce=Reduce(),
):
    """One alternation: codes of the batch, then the best dictionary for them, unused atoms replaced.

    Give it all signals, or so many that their codes determine the atoms: a batch that uses an atom
    only now and then would throw away what earlier ones knew of it (`dictionary` remembers).

    Shapes, domain, devices and errors as dictionary.step. Its metrics, and dual_gap: how far, at
            most and relative to the fit's energy, the atoms are from the best for these codes.
    Source  Lee et al. 2006, section 4.
    """
    seen = statistics.collect(
        signals, state.atoms, weight, penalty=penalty, n_inner=n_inner, reduce=reduce
    )
    found = solve(
        seen.A, seen.B, norm_bound, atoms=state.atoms, start=state.multipliers, n_newton=n_newton
    )
    atoms, usage, fresh, dead = seeding.reseed(
        found.atoms,
        seen.share,
        seen.n_signals,
        seen.x,
        seen.losses,
        key,
        norm_bound=norm_bound,
        reduce=reduce,
    )
    replaced = jnp.sum(fresh).astype(atoms.dtype)
    metrics = seen.metrics | {'dead': dead, 'replaced': replaced, 'dual_gap': found.gap}
    multipliers = jnp.where(fresh, -1, found.multipliers)
    return State(atoms, multipliers, usage, state.step + 1), metrics


class Best(NamedTuple):
    """The minimum of 0.5 tr(D'D A) - tr(D'B) under ||d_j||^2 <= C, certified."""

    atoms: jax.Array  # [d, k], feasible
    multipliers: jax.Array  # [k], 0 where the bound does not hold the atom
    gap: jax.Array  # (value of the atoms - value of the dual) / |value of the dual|
    iterations: jax.Array  # int32, Newton steps


def solve(A, B, norm_bound=1.0, *, atoms=None, start=None, tolerance=None, n_newton=30):
    """The best dictionary for codes of second moments A = mean(a a') and B = mean(x a').

    Newton's method on the dual -0.5 tr(B (A + L)^-1 B') - 0.5 C tr(L), L = diag(l), l >= 0, which is
    concave: multipliers at 0 whose slope points outside stay there, the step is halved until the
    dual rises. Without a start l_j = max(0, ||b_j|| / sqrt(C) - A_jj), the answer were A diagonal.

    Shapes  A [k, k] symmetric, B [d, k]; norm_bound scalar, may be traced; atoms [d, k]: what
            becomes of those with A_jj = 0, which no signal uses (zero where None); start [k].
    Stop    gap <= tolerance (None: 100 eps), or n_newton steps.
    Source  Lee et al. 2006, eq. 8-11, with the bound C and both signs of the slack seen to.
    """
    A, B = jnp.asarray(A), jnp.asarray(B)
    dtype, k = B.dtype, B.shape[1]
    tolerance = 100 * jnp.finfo(dtype).eps if tolerance is None else tolerance
    C: Any = jnp.asarray(norm_bound, dtype)
    diagonal = jnp.diagonal(A)
    used = diagonal > 1e-10 * jnp.max(diagonal)
    both = used[:, None] & used[None, :]
    # Unused atoms: a row of the identity and no pull, so that they come out as zero.
    A = jnp.where(both, A, 0)
    B = jnp.where(used[None, :], B, 0)
    idle = jnp.where(used, 0, 1).astype(dtype)
    # A direction that no code tells apart would make A + L singular where L is 0.
    ridge = 4 * k * jnp.finfo(dtype).eps * jnp.max(diagonal)

    def examine(l):
        """D(l), its inverse, the dual's value, and that of the nearest feasible atoms."""
        factor = jnp.linalg.cholesky(A + jnp.diag(l + idle + ridge))
        inverse = cho_solve((factor, True), jnp.eye(k, dtype=dtype))
        D = product(B, inverse)
        dual = -0.5 * jnp.sum(D * B) - 0.5 * C * jnp.sum(l)
        inside = project_ball(D, C)
        primal = 0.5 * jnp.sum(product(inside, A) * inside) - jnp.sum(inside * B)
        return D, inverse, jnp.where(jnp.isfinite(dual), dual, -jnp.inf), inside, primal

    def unfinished(carry):
        n, _, (_, _, dual, _, primal), moving = carry
        return (n < n_newton) & moving & (primal - dual > tolerance * jnp.abs(dual))

    def newton(carry):
        n, l, (D, inverse, dual, _, _), _ = carry
        slope = 0.5 * (jnp.sum(D * D, axis=0) - C)
        free = used & ((l > 0) | (slope > 0))
        curvature = inverse * product(D.T, D)
        pairs = free[:, None] & free[None, :]
        held = jnp.where(free, 0, 1).astype(dtype)
        ridge = 4 * k * jnp.finfo(dtype).eps * jnp.max(jnp.diagonal(curvature))
        matrix = jnp.where(pairs, curvature, 0) + jnp.diag(held + ridge)
        factor = jnp.linalg.cholesky(matrix)
        move = cho_solve((factor, True), jnp.where(free, slope, 0))
        move = jnp.where(jnp.isfinite(move), move, slope)

        def shorten(search):
            size, _, _, tries = search
            size = 0.5 * size
            new = jnp.maximum(l + size * move, 0)
            return size, new, examine(new), tries + 1

        def lower(search):
            _, _, seen, tries = search
            return (seen[2] < dual) & (tries < 20)

        first = jnp.maximum(l + move, 0)
        _, new, seen, _ = lax.while_loop(
            lower, shorten, (jnp.ones((), dtype), first, examine(first), jnp.zeros((), jnp.int32))
        )
        better = seen[2] > dual
        keep = lambda a, b: jnp.where(better, a, b)  # noqa: E731
        return n + 1, keep(new, l), jax.tree.map(keep, seen, carry[2]), better

    guess = jnp.maximum(jnp.linalg.norm(B, axis=0) / jnp.sqrt(C) - diagonal, 0)
    first = guess if start is None else jnp.where(start < 0, guess, start)
    first = jnp.where(used, first, 0).astype(dtype)
    carry = (jnp.zeros((), jnp.int32), first, examine(first), jnp.ones((), bool))
    n, l, (_, _, dual, inside, primal), _ = lax.while_loop(unfinished, newton, carry)
    scale = jnp.maximum(jnp.abs(dual), jnp.finfo(dtype).tiny)
    rest = jnp.zeros_like(B) if atoms is None else atoms
    return Best(jnp.where(used[None, :], inside, rest), l, (primal - dual) / scale, n)
