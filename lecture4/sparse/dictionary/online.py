"""Online dictionary learning: one pass over signals, a batch at a time (Mairal et al. 2009).

The state holds what the past says about the atoms: the sums over batches of mean(a a') in A and of
mean(x a') in B, both fading. A step codes a batch, adds it to A and B, and moves every atom in turn
to the minimum of the surrogate 0.5 tr(D'D A) - tr(D'B) under ||d_j||^2 <= C.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from lecture4.ops.prox import project_ball
from lecture4.ops.reduce import Reduce
from lecture4.sparse.dictionary import init as seeding
from lecture4.sparse.dictionary import statistics
from lecture4.sparse.objective import L1, product


class State(NamedTuple):
    """What the learner carries from batch to batch; a pytree, the same on every device."""

    atoms: jax.Array  # [d, k], ||d_j||^2 <= C
    A: jax.Array  # [k, k]
    B: jax.Array  # [d, k]
    usage: jax.Array  # [k] running share of signals that use the atom
    step: jax.Array  # int32 scalar, batches seen


def init(key, signals, n_atoms, *, norm_bound=1.0):
    """Atoms are random signals of norm sqrt(norm_bound); shapes and errors as seeding.from_signals."""
    atoms = seeding.from_signals(key, signals, n_atoms, norm_bound)
    d, dtype = atoms.shape[0], atoms.dtype
    return State(
        atoms=atoms,
        A=jnp.zeros((n_atoms, n_atoms), dtype),
        B=jnp.zeros((d, n_atoms), dtype),
        usage=jnp.zeros(n_atoms, dtype),
        step=jnp.zeros((), jnp.int32),
    )


def step(
    state,
    signals,
    key,
    *,
    weight,
    penalty=L1,
    norm_bound=1.0,
    forgetting=1.5,
    n_inner=8,
    block=1,
    reduce=Reduce(),
):
    """One batch: codes, statistics, every atom once, unused atoms replaced.

    The codes come from n_inner iterations (see statistics.collect). Statistics fade by
    1 - forgetting / (t + 1) a batch (0 forgets nothing, the paper's plain rule; the first batches
    fade whole). An atom that hardly any signal uses is replaced by one of the worst-coded signals of
    the batch.

    Shapes  signals [n, d] float; weight scalar, [k] or [n, 1]. Returns (State, metrics), scalars:
            objective        mean per signal, of the codes before the atoms move
            reconstruction   its first term
            density          share of codes that are not zero
            dead             unused atoms, before replacement
            replaced         how many were replaced
    Domain  weight > 0, norm_bound > 0 and forgetting >= 0 may be traced; n_inner >= 1 is static.
            block: atoms that move at once (see update_atoms); 32 on an accelerator. A signal that is
            not finite is not left out: the metrics say it, and a training loop stops there.
    Devices Statistics are averaged over the devices of `reduce`, so the state stays the same
            on all of them.
    Errors  TypeError for integers; ValueError where sizes disagree, naming both.
    Source  Mairal et al. 2009, algorithms 1 and 2 and section 3.4 (batches, forgetting, unused
            atoms); the fading is not theirs but close to (1 - 1/t)^forgetting of their 2010 paper.
    """
    seen = statistics.collect(
        signals, state.atoms, weight, penalty=penalty, n_inner=n_inner, reduce=reduce
    )
    t = state.step.astype(seen.x.dtype)
    forgetting = jnp.asarray(forgetting, seen.x.dtype)
    keep = jnp.clip(1 - forgetting / (t + 1), 0, 1)
    A = keep * state.A + seen.A
    B = keep * state.B + seen.B
    # The sum of the weights of the batches so far, to which A and B are not normalised.
    memory = jnp.maximum(1, (t + 2) / (1 + forgetting))
    usage = state.usage + (seen.share - state.usage) / memory

    atoms, usage, fresh, dead = seeding.reseed(
        update_atoms(state.atoms, A, B, norm_bound, block=block),
        usage,
        memory * seen.n_signals,
        seen.x,
        seen.losses,
        key,
        norm_bound=norm_bound,
        reduce=reduce,
    )
    stay = ~fresh
    A = jnp.where(stay[:, None] & stay[None, :], A, 0)
    B = jnp.where(stay[None, :], B, 0)
    metrics = seen.metrics | {'dead': dead, 'replaced': jnp.sum(fresh).astype(seen.x.dtype)}
    return State(atoms, A, B, usage, state.step + 1), metrics


def update_atoms(D, A, B, norm_bound=1.0, *, block=1):
    """Block coordinate descent on 0.5 tr(D'D A) - tr(D'B): each atom once, `block` of them at a time.

    Atoms in turn (block=1, the paper's order) are k small steps one after another, which a GPU waits
    for. The atoms of a block J move together, each by the curvature sum_(i in J) |A_ij| >= A_jj: as
    A_JJ <= diag(sum_i |A_ij|) no block raises the surrogate, and the bound on norms stays a
    projection of each atom by itself. Sparse codes leave little beside the diagonal: with 32 at once
    a pass learns nearly as much, in k / 32 steps. An atom with A_jj = 0, used by no signal, stays.

    Shapes  D [d, k], A [k, k] symmetric, B [d, k]; norm_bound scalar. Returns [d, k].
    Source  Mairal et al. 2009, algorithm 2; the norm is bounded by sqrt(norm_bound), not 1. The
            bound within a block is Gershgorin's.
    """
    D, A, B = (jnp.asarray(v) for v in (D, A, B))
    k = D.shape[1]
    block = min(block, k)
    diagonal = jnp.diagonal(A)
    used = diagonal > 1e-10 * jnp.max(diagonal)

    # Atoms lie in rows here: they are read and written a block at a time.
    padding = -k % block
    pad = lambda v: jnp.pad(v, ((0, padding),) + ((0, 0),) * (v.ndim - 1))  # noqa: E731
    rows, target, used = pad(D.T), pad(B.T), pad(used)[:, None]
    A = jnp.pad(A, ((0, padding), (0, padding)))

    def move(i, rows):
        start = i * block
        cut = lambda v: lax.dynamic_slice_in_dim(v, start, block)  # noqa: E731
        old, ours, free = cut(rows), cut(A), cut(used)
        among = lax.dynamic_slice_in_dim(ours, start, block, axis=1)
        curvature = jnp.sum(jnp.abs(among), axis=1, keepdims=True)
        moved = old + (cut(target) - product(ours, rows)) / jnp.where(free, curvature, 1)
        moved = jnp.where(free, project_ball(moved, norm_bound, axis=1), old)
        return lax.dynamic_update_slice_in_dim(rows, moved, start, axis=0)

    return lax.fori_loop(0, (k + padding) // block, move, rows)[:k].T
