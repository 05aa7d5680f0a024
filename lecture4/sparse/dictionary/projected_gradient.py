"""Dictionary learning by gradient steps: any optax optimizer, with each atom projected onto its norm ball.

The rule of Olshausen & Field with adaptive step sizes. Past batches enter only through the optimizer's state
(momentum, scales); no k x k statistics are needed.

When to use it: for dictionaries whose Gram matrix does not fit in memory, or that are part of a
larger model trained by the same optimizer. Otherwise `online` learns more per batch.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Float, Int32, PRNGKeyArray, Real

from lecture4.ops.prox import project_ball
from lecture4.ops.reduce import Reduce
from lecture4.ops.updates import apply_gradients
from lecture4.sparse.dictionary import init as initialization
from lecture4.sparse.dictionary import statistics
from lecture4.sparse.objective import L1, check_inputs, check_penalty_weight, product
from lecture4.sparse.penalties import Penalty


class State(NamedTuple):
    """What the learner carries from batch to batch; a pytree, the same on every device.

    Attributes:
      atoms: [d, k], ||d_j||^2 <= C.
      opt_state: State of the optimizer.
      usage: [k] running fraction of signals that use the atom.
      step: int32, batches seen.
    """

    atoms: Float[Array, 'd k']
    opt_state: Any
    usage: Float[Array, ' k']
    step: Int32[Array, '']


def init(
    key: PRNGKeyArray,
    signals: Float[ArrayLike, 'n d'],
    n_atoms: int,
    *,
    optimizer: optax.GradientTransformation,
    norm_bound: Real[ArrayLike, ''] = 1.0,
) -> State:
    """Initialize atoms with random signals of norm sqrt(norm_bound), as in init.from_signals; optimizer as in step."""
    atoms = initialization.from_signals(key, signals, n_atoms, norm_bound)
    usage = jnp.zeros(n_atoms, atoms.dtype)
    return State(atoms, optimizer.init(atoms), usage, jnp.zeros((), jnp.int32))


def step(
    state: State,
    signals: Float[ArrayLike, 'n d'],
    key: PRNGKeyArray,
    *,
    optimizer: optax.GradientTransformation,
    penalty_weight: Real[ArrayLike, '...'],
    penalty: Penalty = L1,
    norm_bound: Real[ArrayLike, ''] = 1.0,
    n_iterations: int = 8,
    usage_window: Real[ArrayLike, ''] = 20.0,
    reduce: Reduce = Reduce(),
) -> tuple[State, dict[str, Float[Array, '']]]:
    """One batch: codes, the gradient D A - B of the mean objective, one update, the projection.

    The optimizer's statistics of a replaced atom are kept, and are forgotten like all others. Compiled once per
    shapes, optimizer object and static arguments. Metrics and errors are those of online.step.

    Args:
      state: As `init` or `step` returns it.
      signals: A batch, on each device its part.
      key: Random key of the replacement.
      optimizer: The same as in `init`; static.
      penalty_weight: Scalar, [k] or [n, 1], positive.
      penalty: Penalty on the codes; static.
      norm_bound: The C of ||d_j||^2 <= C, positive.
      n_iterations: Number of iterations of solvers.approximate; static.
      usage_window: Number of batches over which the use of atoms is averaged.
      reduce: Reduction over devices.

    References:
      Olshausen & Field 1996 (the gradient); the projection is that of Mairal et al. 2009.
    """
    check_penalty_weight(penalty_weight)
    signals, _, weight = check_inputs(signals, state.atoms, penalty_weight)
    return _step(
        state,
        signals,
        key,
        weight,
        norm_bound,
        usage_window,
        optimizer=optimizer,
        penalty=penalty,
        n_iterations=n_iterations,
        reduce=reduce,
    )


@functools.partial(jax.jit, static_argnames=('optimizer', 'penalty', 'n_iterations', 'reduce'))
def _step(
    state,
    signals,
    key,
    weight,
    norm_bound,
    usage_window,
    *,
    optimizer,
    penalty,
    n_iterations,
    reduce,
):
    D = state.atoms
    batch = statistics.collect(
        signals, D, weight, penalty=penalty, n_iterations=n_iterations, reduce=reduce
    )
    gradient = product(D, batch.A) - batch.B
    updated, opt_state = apply_gradients(optimizer, gradient, state.opt_state, D)
    moved = project_ball(updated, norm_bound)
    t = state.step.astype(D.dtype)
    n_batches = jnp.minimum(t + 1, jnp.asarray(usage_window, D.dtype))
    usage = state.usage + (batch.usage - state.usage) / n_batches
    atoms, usage, replaced, n_dead = initialization.replace_unused_atoms(
        moved,
        usage,
        n_batches * batch.n_signals,
        batch.x,
        batch.losses,
        key,
        norm_bound=norm_bound,
        reduce=reduce,
    )
    n_replaced = jnp.sum(replaced).astype(D.dtype)
    metrics = batch.metrics | {'dead': n_dead, 'replaced': n_replaced}
    return State(atoms, opt_state, usage, state.step + 1), metrics
