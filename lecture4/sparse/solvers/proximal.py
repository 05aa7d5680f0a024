"""Proximal gradient: fista for every penalty, ista as the basic reference."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int, Real

from lecture4.ops.linalg import lipschitz
from lecture4.ops.varying import vary_like, vary_together
from lecture4.sparse.objective import (
    L1,
    bfloat16_product,
    check_codes,
    check_inputs,
    check_penalty_weight,
    objective_of_residual,
    product,
)
from lecture4.sparse.penalties import Penalty
from lecture4.sparse.solvers.certificate import Certifier
from lecture4.sparse.solvers.polish import certify_and_polish, gram_for
from lecture4.sparse.solvers.solution import Solution
from lecture4.sparse.solvers.tiling import check_tile, no_iterations, run_chunk, solve_in_tiles

L1_INIT_ITERATIONS = 30  # number of L1 iterations with init='l1'


def fista(
    x: Float[Array | np.ndarray, 'n d'],
    D: Float[Array | np.ndarray, 'd k'],
    penalty_weight: Real[ArrayLike, '...'],
    *,
    penalty: Penalty = L1,
    init: Float[Array | np.ndarray, 'n k'] | str | None = None,
    tolerance: Real[ArrayLike, ''] = 1e-4,
    max_iterations: Int[ArrayLike, ''] = 1000,
    check_every: Int[ArrayLike, ''] = 10,
    bfloat16_iterations: int = 0,
    polish: bool = False,
    tile: int | None = None,
) -> Solution:
    """Accelerated proximal gradient; a signal's momentum is restarted when it points uphill.

    For a penalty other than L1, a step that would increase the objective is replaced by a step without momentum, so
    the objective never increases; the result is a stationary point that depends on `init`.

    Stops at gap <= tolerance * objective, or <= 2 eps ||x||^2 (limited by precision), checked every
    `check_every` iterations. For penalty_weight >= max_l1_penalty(x, D) the L1 codes are exactly 0.
    Compiled once per shapes, dtype, penalty, tile, bfloat16_iterations and polish.

    Args:
      x: Signals; n may be 0.
      D: Dictionary, atoms in columns.
      penalty_weight: Scalar, [k], [n, 1] or [n, k], positive; it may be traced.
      penalty: Any penalty.
      init: Initial codes; None takes zeros. 'l1' starts from a few iterations of L1 codes: for
        the log penalty at weights where it is not convex this reaches a lower objective than
        zeros, as a rule.
      tolerance: Tolerance of the relative duality gap.
      max_iterations: Largest number of iterations for each signal.
      check_every: Number of iterations between two checks.
      bfloat16_iterations: Number of first iterations in bfloat16, see admm.
      polish: Whether to solve for the codes on their support at every check, see admm.
      tile: Number of signals solved together; None takes all of them, for accelerators. About 128 fit in a CPU core's
        cache, 1024 and more in a TPU's vector memory (tests/benchmarks/solver_kernels.py).

    Raises:
      TypeError: An input is an array of integers or 16-bit floats.
      ValueError: The sizes disagree, or a concrete penalty weight is not positive.

    References:
      Beck & Teboulle 2009, eq. 4.1-4.3; O'Donoghue & Candes 2015, section 3.2 (gradient).
    """
    return _prepare_and_solve(
        x,
        D,
        penalty_weight,
        init,
        tolerance,
        max_iterations,
        check_every,
        penalty=penalty,
        momentum=True,
        bfloat16_iterations=bfloat16_iterations,
        polish=polish,
        tile=tile,
    )


def ista(
    x: Float[Array | np.ndarray, 'n d'],
    D: Float[Array | np.ndarray, 'd k'],
    penalty_weight: Real[ArrayLike, '...'],
    *,
    penalty: Penalty = L1,
    init: Float[Array | np.ndarray, 'n k'] | str | None = None,
    tolerance: Real[ArrayLike, ''] = 1e-4,
    max_iterations: Int[ArrayLike, ''] = 1000,
    check_every: Int[ArrayLike, ''] = 10,
    tile: int | None = None,
) -> Solution:
    """Proximal gradient with constant step size: the slow reference, whose objective decreases in every step.

    Arguments, stopping and errors are those of `fista`.

    References:
      Daubechies, Defrise & De Mol 2004; Beck & Teboulle 2009, eq. 3.1.
    """
    return _prepare_and_solve(
        x,
        D,
        penalty_weight,
        init,
        tolerance,
        max_iterations,
        check_every,
        penalty=penalty,
        momentum=False,
        bfloat16_iterations=0,
        polish=False,
        tile=tile,
    )


def _prepare_and_solve(x, D, weight, init, tolerance, max_iterations, check_every, **static):
    check_penalty_weight(weight)
    x, D, weight = check_inputs(x, D, weight)
    check_tile(static['tile'])
    l1_init = isinstance(init, str)
    if l1_init and init != 'l1':
        raise ValueError(f"init={init!r}; expected codes [n, k], 'l1' or None")
    init = None if l1_init or init is None else check_codes(init, x, D)
    return _proximal(
        x, D, weight, init, tolerance, max_iterations, check_every, l1_init=l1_init, **static
    )


@functools.partial(
    jax.jit,
    static_argnames=('l1_init', 'penalty', 'momentum', 'bfloat16_iterations', 'polish', 'tile'),
)
def _proximal(
    x,
    D,
    weight,
    init,
    tolerance,
    max_iterations,
    check_every,
    *,
    l1_init,
    penalty,
    momentum,
    bfloat16_iterations,
    polish,
    tile,
):
    x, D, weight, init = vary_together(x, D, weight, init)
    slope = gradient_operator(D)
    gram = gram_for(D, penalty) if polish else None

    def examine(x, weight, codes, iterations):
        certifier = Certifier(x, D, weight, penalty, slope[0], tolerance)
        return certify_and_polish(certifier.certify, gram, codes, weight, iterations)

    def start(x, weight, init):
        if l1_init:
            step, codes, state = proximal_steps(x, D, weight, None, L1, slope, True)
            init = codes(lax.fori_loop(0, L1_INIT_ITERATIONS, lambda _, state: step(state), state))
        times = bfloat16_product if bfloat16_iterations else product
        step, codes, state = proximal_steps(x, D, weight, init, penalty, slope, momentum, times)
        if bfloat16_iterations:
            state = lax.fori_loop(0, bfloat16_iterations, lambda _, state: step(state), state)
        certified, status = examine(x, weight, codes(state), no_iterations(x) + bfloat16_iterations)
        return (state, certified), status

    def advance(data, state, status):
        x, weight, _ = data
        step, codes, _ = proximal_steps(x, D, weight, None, penalty, slope, momentum)
        state, iterations = run_chunk(step, state[0], status, max_iterations, check_every)
        certified, status = examine(x, weight, codes(state), iterations)
        return (state, certified), status

    data = (x, weight, init)
    return solve_in_tiles(start, advance, lambda state: state[1], data, tile, max_iterations)


def gradient_operator(
    D: Float[Array, 'd k'],
) -> tuple[Float[Array, ''], Float[Array, 'k k'] | None]:
    """The Lipschitz constant, and the Gram matrix if a product with it is cheaper than two with D."""
    L = lipschitz(D)
    d, k = D.shape
    return jnp.where(L > 0, L, 1), product(D.T, D) if k < 2 * d else None


def proximal_steps(
    x: Float[Array, 'n d'],
    D: Float[Array, 'd k'],
    weight: Float[Array, '_ _'],
    init: Float[Array, 'n k'] | None,
    penalty: Penalty,
    gradient_operator: tuple[Any, Any],
    momentum: bool,
    times: Callable[..., Any] = product,
) -> tuple[Callable[[Any], Any], Callable[[Any], Any], Any]:
    """One iteration (state -> state), state -> codes, and the initial state.

    Args:
      x: Signals.
      D: Dictionary.
      weight: Weight of the penalty, [1 or n, 1 or k].
      init: Initial codes, zeros where None.
      penalty: Penalty on the codes.
      gradient_operator: As the function of that name returns it.
      momentum: Whether steps are FISTA's; otherwise ISTA's.
      times: Matrix product.
    """
    L, gram = gradient_operator
    correlation = product(x, D)
    threshold = jnp.broadcast_to(weight / L, correlation.shape)

    def gradient(y):
        if gram is None:
            return times(times(y, D.T) - x, D)
        return times(y, gram) - correlation

    def step(state):
        a, y, t, value = state
        moved = penalty.prox(y - gradient(y) / L, threshold)
        if not momentum:
            return moved, moved, t, value
        restart = jnp.sum((y - moved) * (moved - a), axis=1, keepdims=True) > 0
        if penalty.gap is None:
            # Rejected: keep a, and take the next step without momentum, which cannot increase the objective.
            residual = x - product(moved, D.T)
            risen = objective_of_residual(residual, moved, weight, penalty)[:, None]
            eps = 8 * jnp.finfo(x.dtype).eps
            rejected = (t > 1) & ~(risen <= value * (1 + eps))
            moved, value = jnp.where(rejected, a, moved), jnp.where(rejected, value, risen)
            restart = restart | rejected
        t_next = jnp.where(restart, 1, 0.5 * (1 + jnp.sqrt(1 + 4 * t * t)))
        beta = jnp.where(restart, 0, (t - 1) / t_next)
        return moved, moved + beta * (moved - a), t_next, value

    a = initial_codes(correlation, weight, init, penalty)
    t = jnp.ones((x.shape[0], 1), x.dtype)
    value = t
    if momentum and penalty.gap is None:
        value = objective_of_residual(x - product(a, D.T), a, weight, penalty)[:, None]
    state = vary_like((a, a, t, value), (correlation, threshold, a))
    return step, lambda state: state[0], state


def load(correlation: Float[Array, 'n k'], weight: Float[Array, '_ _']) -> Float[Array, 'n 1']:
    """max_j |d_j'x| / weight_j: at most 1 where the L1 codes are 0."""
    ratio = jnp.where(correlation == 0, 0, jnp.abs(correlation) / weight)
    return jnp.max(ratio, axis=1, keepdims=True, initial=0)


def initial_codes(
    correlation: Float[Array, 'n k'],
    weight: Float[Array, '_ _'],
    init: Float[Array, 'n k'] | None,
    penalty: Penalty,
) -> Float[Array, 'n k']:
    """Initial codes; zeros where zeros are known to be the solution."""
    if init is None:
        return jnp.zeros_like(correlation)
    if penalty != L1:
        return init
    # From a warm start, iterations would approach a zero solution without ever reaching it.
    zero = load(correlation, weight) <= 1 + 8 * jnp.finfo(correlation.dtype).eps
    return jnp.where(zero, 0, init)
