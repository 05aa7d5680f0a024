"""Online dictionary learning: one pass over signals, a batch at a time (Mairal et al. 2009).

The state holds what past batches determine about the atoms: the exponentially forgotten sums over batches of mean(a
a') in A and of mean(x a') in B. A step codes a batch, adds it to A and B, and moves every atom in turn to the minimum
of the surrogate 0.5 tr(D'D A) - tr(D'B) under ||d_j||^2 <= C.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int32, PRNGKeyArray, Real

from lecture4.ops.prox import project_ball
from lecture4.ops.reduce import Reduce
from lecture4.ops.varying import vary_together
from lecture4.sparse.dictionary import init as initialization
from lecture4.sparse.dictionary import statistics
from lecture4.sparse.objective import L1, check_inputs, check_penalty_weight, product
from lecture4.sparse.penalties import Penalty


class State(NamedTuple):
    """The learner's state between batches; a pytree, the same on every device.

    Attributes:
      atoms: [d, k], ||d_j||^2 <= C.
      A: [k, k] statistics of the codes.
      B: [d, k] statistics of signals and codes.
      usage: [k] running fraction of signals that use each atom.
      step: int32, number of batches seen.
    """

    atoms: Float[Array, 'd k']
    A: Float[Array, 'k k']
    B: Float[Array, 'd k']
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
    d, dtype = atoms.shape[0], atoms.dtype
    return State(
        atoms=atoms,
        A=jnp.zeros((n_atoms, n_atoms), dtype),
        B=jnp.zeros((d, n_atoms), dtype),
        usage=jnp.zeros(n_atoms, dtype),
        step=jnp.zeros((), jnp.int32),
    )


def step(
    state: State,
    signals: Float[ArrayLike, 'n d'],
    key: PRNGKeyArray,
    *,
    penalty_weight: Real[ArrayLike, '...'],
    penalty: Penalty = L1,
    norm_bound: Real[ArrayLike, ''] = 1.0,
    forgetting: Real[ArrayLike, ''] = 1.5,
    n_iterations: int = 8,
    block_size: int = 1,
    reduce: Reduce = Reduce(),
) -> tuple[State, dict[str, Float[Array, '']]]:
    """One batch: codes, statistics, one update of every atom, replacement of unused atoms.

    Statistics are multiplied by 1 - forgetting / (t + 1) in each batch (0 forgets nothing, the paper's basic rule;
    the first batches are forgotten entirely). An atom that hardly any signal uses is replaced by one of the
    worst-coded signals of the batch. A signal that is not finite is not left out: the metrics show it, and a training
    loop stops. Compiled once per shapes and static arguments.

    Args:
      state: As `init` or `step` returns it.
      signals: A batch, on each device its part.
      key: Random key of the replacement.
      penalty_weight: Scalar, [k] or [n, 1], positive; it may be traced.
      penalty: Penalty on the codes; static.
      norm_bound: The C of ||d_j||^2 <= C, positive.
      forgetting: Rate of forgetting, nonnegative.
      n_iterations: Number of iterations of solvers.approximate, at least 1; static.
      block_size: Number of atoms that are updated at once (see update_atoms); 32 on an accelerator; static.
      reduce: Reduction over devices (pmap, shard_map): statistics are averaged, so that the state stays the
        same on all of them.

    Returns:
      (State, metrics), scalars: objective, mean per signal, of the codes before the atoms move;
      reconstruction, its first term; density, fraction of codes that are not zero; dead, unused
      atoms before replacement; replaced, how many were replaced.

    Raises:
      TypeError: An input is an integer array.
      ValueError: The sizes disagree, or a concrete penalty weight is not positive.

    References:
      Mairal et al. 2009, algorithms 1 and 2 and section 3.4 (batches, forgetting, unused atoms);
      this forgetting is not theirs, but close to the factor (1 - 1/t)^forgetting of their 2010 paper.
    """
    check_penalty_weight(penalty_weight)
    signals, _, weight = check_inputs(signals, state.atoms, penalty_weight)
    return _step(
        state,
        signals,
        key,
        weight,
        norm_bound,
        forgetting,
        penalty=penalty,
        n_iterations=n_iterations,
        block_size=block_size,
        reduce=reduce,
    )


@functools.partial(jax.jit, static_argnames=('penalty', 'n_iterations', 'block_size', 'reduce'))
def _step(
    state,
    signals,
    key,
    weight,
    norm_bound,
    forgetting,
    *,
    penalty,
    n_iterations,
    block_size,
    reduce,
):
    batch = statistics.collect(
        signals, state.atoms, weight, penalty=penalty, n_iterations=n_iterations, reduce=reduce
    )
    t = state.step.astype(batch.x.dtype)
    forgetting = jnp.asarray(forgetting, batch.x.dtype)
    keep = jnp.clip(1 - forgetting / (t + 1), 0, 1)
    A = keep * state.A + batch.A
    B = keep * state.B + batch.B
    # Sum of the weights of the batches so far; A and B are not normalized by it.
    n_batches = jnp.maximum(1, (t + 2) / (1 + forgetting))
    usage = state.usage + (batch.usage - state.usage) / n_batches

    atoms, usage, replaced, n_dead = initialization.replace_unused_atoms(
        update_atoms(state.atoms, A, B, norm_bound, block_size=block_size),
        usage,
        n_batches * batch.n_signals,
        batch.x,
        batch.losses,
        key,
        norm_bound=norm_bound,
        reduce=reduce,
    )
    kept = ~replaced
    A = jnp.where(kept[:, None] & kept[None, :], A, 0)
    B = jnp.where(kept[None, :], B, 0)
    n_replaced = jnp.sum(replaced).astype(batch.x.dtype)
    metrics = batch.metrics | {'dead': n_dead, 'replaced': n_replaced}
    return State(atoms, A, B, usage, state.step + 1), metrics


def update_atoms(
    D: Float[ArrayLike, 'd k'],
    A: Float[ArrayLike, 'k k'],
    B: Float[ArrayLike, 'd k'],
    norm_bound: Real[ArrayLike, ''] = 1.0,
    *,
    block_size: int = 1,
) -> Float[Array, 'd k']:
    """Block coordinate descent on 0.5 tr(D'D A) - tr(D'B): each atom once, a block at a time.

    One atom after another (block_size=1, as in the paper) means k small sequential steps, which leave a GPU idle. The
    atoms of a block J are updated together, each by the curvature sum_(i in J) |A_ij| >= A_jj: as A_JJ <= diag(sum_i
    |A_ij|) no block increases the surrogate, and the bound on norms remains a projection of each atom. For sparse
    codes A is nearly diagonal: with 32 atoms at once a pass learns nearly as much, in k / 32 steps. An atom with A_jj
    = 0, used by no signal, is unchanged.

    Args:
      D: Dictionary, atoms in columns.
      A: Symmetric.
      B: mean(x a').
      norm_bound: The C of ||d_j||^2 <= C.
      block_size: Number of atoms updated at once; static.

    References:
      Mairal et al. 2009, algorithm 2; the norm is bounded by sqrt(norm_bound), not 1. The bound
      within a block is Gershgorin's.
    """
    return _update_atoms(
        jnp.asarray(D), jnp.asarray(A), jnp.asarray(B), norm_bound, block_size=block_size
    )


@functools.partial(jax.jit, static_argnames='block_size')
def _update_atoms(D, A, B, norm_bound, *, block_size):
    D, A, B, norm_bound = vary_together(D, A, B, norm_bound)
    k = D.shape[1]
    block_size = min(block_size, k)
    diagonal = jnp.diagonal(A)
    used = diagonal > 1e-10 * jnp.max(diagonal)

    # Atoms are in rows here: they are read and written a block at a time.
    padding = -k % block_size

    def pad(v):
        return jnp.pad(v, ((0, padding),) + ((0, 0),) * (v.ndim - 1))

    rows, target, used = pad(D.T), pad(B.T), pad(used)[:, None]
    A = jnp.pad(A, ((0, padding), (0, padding)))

    def move(i, rows):
        start = i * block_size

        def block(v):
            return lax.dynamic_slice_in_dim(v, start, block_size)

        old, A_block, free = block(rows), block(A), block(used)
        within = lax.dynamic_slice_in_dim(A_block, start, block_size, axis=1)
        curvature = jnp.sum(jnp.abs(within), axis=1, keepdims=True)
        residual = block(target) - product(A_block, rows)
        moved = old + residual / jnp.where(free, curvature, 1)
        moved = jnp.where(free, project_ball(moved, norm_bound, axis=1), old)
        return lax.dynamic_update_slice_in_dim(rows, moved, start, axis=0)

    return lax.fori_loop(0, (k + padding) // block_size, move, rows)[:k].T
