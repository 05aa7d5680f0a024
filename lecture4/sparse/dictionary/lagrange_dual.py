"""Dictionary learning in whole batches: the best atoms for the codes, by the Lagrange dual (Lee 2006).

At fixed codes the best dictionary under ||d_j||^2 <= C is a least squares problem with k bounds.
Its dual has one multiplier for each atom, whatever the dimension of the atoms, and Newton's method finds them in a
few steps, each a k x k system: D = B (A + diag(multipliers))^-1. A step is one
alternation: codes of all signals, then the best atoms for these codes; nothing is carried over from other batches.

When to use it: for the alternation of Lee et al. itself, where all signals fit in one batch, or to
solve for a dictionary of given codes to a certified gap (`solve`). For streams of batches `online` is much faster.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import cho_solve
from jaxtyping import Array, ArrayLike, Float, Int, Int32, PRNGKeyArray, Real

from lecture4.ops.prox import project_ball
from lecture4.ops.reduce import Reduce
from lecture4.ops.varying import vary_together
from lecture4.sparse.dictionary import init as initialization
from lecture4.sparse.dictionary import statistics
from lecture4.sparse.objective import L1, check_inputs, check_penalty_weight, product
from lecture4.sparse.penalties import Penalty


class State(NamedTuple):
    """The learner's state between alternations; the same on every device.

    Attributes:
      atoms: [d, k], ||d_j||^2 <= C.
      multipliers: [k], starting point of Newton's method in the next alternation; negative values are not known yet.
      usage: [k] fraction of the signals that use each atom.
      step: int32, number of alternations done.
    """

    atoms: Float[Array, 'd k']
    multipliers: Float[Array, ' k']
    usage: Float[Array, ' k']
    step: Int32[Array, '']


def init(
    key: PRNGKeyArray,
    signals: Float[ArrayLike, 'n d'],
    n_atoms: int,
    *,
    norm_bound: Real[ArrayLike, ''] = 1.0,
) -> State:
    """Atoms are random signals of norm sqrt(norm_bound); arguments and errors as init.from_signals."""
    atoms = initialization.from_signals(key, signals, n_atoms, norm_bound)
    unknown = jnp.full(n_atoms, -1, atoms.dtype)
    return State(atoms, unknown, jnp.zeros(n_atoms, atoms.dtype), jnp.zeros((), jnp.int32))


def step(
    state: State,
    signals: Float[ArrayLike, 'n d'],
    key: PRNGKeyArray,
    *,
    penalty_weight: Real[ArrayLike, '...'],
    penalty: Penalty = L1,
    norm_bound: Real[ArrayLike, ''] = 1.0,
    n_iterations: int = 30,
    max_newton_steps: Int[ArrayLike, ''] = 30,
    reduce: Reduce = Reduce(),
) -> tuple[State, dict[str, Float[Array, '']]]:
    """One alternation: codes of the batch, then the best dictionary for them, unused atoms replaced.

    Pass all signals, or enough that their codes determine the atoms: a batch that rarely uses an atom would discard
    what earlier batches determined about it (`online` keeps it). Arguments and errors are those of online.step.

    Args:
      state: As `init` or `step` returns it.
      signals: A batch; on each device, its part.
      key: Random key of the replacement.
      penalty_weight: Weight of the penalty, a scalar, [k] or [n, 1], positive.
      penalty: Penalty on the codes; static.
      norm_bound: The C of ||d_j||^2 <= C, positive.
      n_iterations: Number of iterations of solvers.approximate; static.
      max_newton_steps: Largest number of Newton steps in `solve`.
      reduce: Reduction over devices.

    Returns:
      (State, metrics): the metrics of online.step, and dual_gap, an upper bound of the distance of the atoms'
        objective from the minimum for these codes, relative to the energy of the fit.

    References:
      Lee et al. 2006, section 4.
    """
    check_penalty_weight(penalty_weight)
    signals, _, weight = check_inputs(signals, state.atoms, penalty_weight)
    return _step(
        state,
        signals,
        key,
        weight,
        norm_bound,
        max_newton_steps,
        penalty=penalty,
        n_iterations=n_iterations,
        reduce=reduce,
    )


@functools.partial(jax.jit, static_argnames=('penalty', 'n_iterations', 'reduce'))
def _step(
    state, signals, key, weight, norm_bound, max_newton_steps, *, penalty, n_iterations, reduce
):
    batch = statistics.collect(
        signals, state.atoms, weight, penalty=penalty, n_iterations=n_iterations, reduce=reduce
    )
    best = solve(
        batch.A,
        batch.B,
        norm_bound,
        atoms=state.atoms,
        init_multipliers=state.multipliers,
        max_newton_steps=max_newton_steps,
    )
    atoms, usage, replaced, n_dead = initialization.replace_unused_atoms(
        best.atoms,
        batch.usage,
        batch.n_signals,
        batch.x,
        batch.losses,
        key,
        norm_bound=norm_bound,
        reduce=reduce,
    )
    n_replaced = jnp.sum(replaced).astype(atoms.dtype)
    metrics = batch.metrics | {'dead': n_dead, 'replaced': n_replaced, 'dual_gap': best.gap}
    multipliers = jnp.where(replaced, -1, best.multipliers)
    return State(atoms, multipliers, usage, state.step + 1), metrics


class BestDictionary(NamedTuple):
    """The minimum of 0.5 tr(D'D A) - tr(D'B) under ||d_j||^2 <= C, certified.

    Attributes:
      atoms: [d, k], feasible.
      multipliers: [k], 0 where the bound is not active.
      gap: (value of the atoms - value of the dual) / |value of the dual|.
      iterations: int32, Newton steps.
    """

    atoms: Float[Array, 'd k']
    multipliers: Float[Array, ' k']
    gap: Float[Array, '']
    iterations: Int32[Array, '']


def solve(
    A: Float[ArrayLike, 'k k'],
    B: Float[ArrayLike, 'd k'],
    norm_bound: Real[ArrayLike, ''] = 1.0,
    *,
    atoms: Float[ArrayLike, 'd k'] | None = None,
    init_multipliers: Float[ArrayLike, ' k'] | None = None,
    tolerance: Real[ArrayLike, ''] | None = None,
    max_newton_steps: Int[ArrayLike, ''] = 30,
) -> BestDictionary:
    """The best dictionary for codes of second moments A = mean(a a') and B = mean(x a').

    Newton's method on the dual -0.5 tr(B (A + L)^-1 B') - 0.5 C tr(L), L = diag(l), l >= 0, which is
    concave: multipliers at 0 whose slope points outside stay there, and the step is halved until the dual increases.
      Without initial multipliers l_j = max(0, ||b_j|| / sqrt(C) - A_jj), exact for a
    diagonal A.

    Args:
      A: mean(a a'), symmetric.
      B: mean(x a').
      norm_bound: C, positive.
      atoms: Atoms to return where A_jj = 0, which no signal uses; None returns zeros there.
      init_multipliers: Starting point; negative entries are not known.
      tolerance: Tolerance of the gap; None takes 100 eps.
      max_newton_steps: Largest number of Newton steps.

    References:
      Lee et al. 2006, eq. 8-11, with the bound C and both signs of the slack handled.
    """
    return _solve(
        jnp.asarray(A),
        jnp.asarray(B),
        norm_bound,
        atoms,
        init_multipliers,
        tolerance,
        max_newton_steps,
    )


@jax.jit
def _solve(A, B, norm_bound, atoms, init_multipliers, tolerance, max_newton_steps):
    A, B, norm_bound, atoms, init_multipliers = vary_together(
        A, B, norm_bound, atoms, init_multipliers
    )
    dtype, k = B.dtype, B.shape[1]
    tolerance = 100 * jnp.finfo(dtype).eps if tolerance is None else tolerance
    C: Any = jnp.asarray(norm_bound, dtype)
    diagonal = jnp.diagonal(A)
    used = diagonal > 1e-10 * jnp.max(diagonal)
    both = used[:, None] & used[None, :]
    # # Unused atoms get a row of the identity and target 0, so that they are returned as zero.
    A = jnp.where(both, A, 0)
    B = jnp.where(used[None, :], B, 0)
    unused = jnp.where(used, 0, 1).astype(dtype)
    # A direction that no code distinguishes would make A + L singular where L is 0.
    ridge = 4 * k * jnp.finfo(dtype).eps * jnp.max(diagonal)

    def evaluate(l):
        """D(l), its inverse, the dual's value, and that of the nearest feasible atoms."""
        factor = jnp.linalg.cholesky(A + jnp.diag(l + unused + ridge))
        inverse = cho_solve((factor, True), jnp.eye(k, dtype=dtype))
        D = product(B, inverse)
        dual = -0.5 * jnp.sum(D * B) - 0.5 * C * jnp.sum(l)
        feasible = project_ball(D, C)
        primal = 0.5 * jnp.sum(product(feasible, A) * feasible) - jnp.sum(feasible * B)
        return D, inverse, jnp.where(jnp.isfinite(dual), dual, -jnp.inf), feasible, primal

    def unfinished(carry):
        n, _, (_, _, dual, _, primal), rising = carry
        return (n < max_newton_steps) & rising & (primal - dual > tolerance * jnp.abs(dual))

    def newton(carry):
        n, l, (D, inverse, dual, _, _), _ = carry
        slope = 0.5 * (jnp.sum(D * D, axis=0) - C)
        free = used & ((l > 0) | (slope > 0))
        curvature = inverse * product(D.T, D)
        pairs = free[:, None] & free[None, :]
        fixed = jnp.where(free, 0, 1).astype(dtype)
        ridge = 4 * k * jnp.finfo(dtype).eps * jnp.max(jnp.diagonal(curvature))
        matrix = jnp.where(pairs, curvature, 0) + jnp.diag(fixed + ridge)
        factor = jnp.linalg.cholesky(matrix)
        direction = cho_solve((factor, True), jnp.where(free, slope, 0))
        direction = jnp.where(jnp.isfinite(direction), direction, slope)

        def halve(search):
            size, _, _, tries = search
            size = 0.5 * size
            new = jnp.maximum(l + size * direction, 0)
            return size, new, evaluate(new), tries + 1

        def lower(search):
            _, _, values, tries = search
            return (values[2] < dual) & (tries < 20)

        full = jnp.maximum(l + direction, 0)
        search = (jnp.ones((), dtype), full, evaluate(full), jnp.zeros((), jnp.int32))
        _, new, values, _ = lax.while_loop(lower, halve, search)
        better = values[2] > dual
        new, values = jax.tree.map(lambda a, b: jnp.where(better, a, b), (new, values), carry[1:3])
        return n + 1, new, values, better

    guess = jnp.maximum(jnp.linalg.norm(B, axis=0) / jnp.sqrt(C) - diagonal, 0)
    if init_multipliers is not None:
        guess = jnp.where(init_multipliers < 0, guess, init_multipliers)
    first = jnp.where(used, guess, 0).astype(dtype)
    carry = (jnp.zeros((), jnp.int32), first, evaluate(first), jnp.ones((), bool))
    n, l, (_, _, dual, feasible, primal), _ = lax.while_loop(
        unfinished, newton, vary_together(*carry)
    )
    scale = jnp.maximum(jnp.abs(dual), jnp.finfo(dtype).tiny)
    rest = jnp.zeros_like(B) if atoms is None else atoms
    return BestDictionary(jnp.where(used[None, :], feasible, rest), l, (primal - dual) / scale, n)
