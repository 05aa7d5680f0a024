"""Online dictionary learning: one pass over signals, a batch at a time (Mairal et al. 2009).

The state holds what the past says about the atoms: the sums over batches of mean(a a') in A and of
mean(x a') in B, both fading. A step codes a batch, adds it to A and B, and moves every atom in turn
to the minimum of the surrogate 0.5 tr(D'D A) - tr(D'B) under ||d_j||^2 <= C.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from lecture4.ops.prox import project_ball, require_floating
from lecture4.sparse import solvers
from lecture4.sparse.objective import L1, check, objective, product

N_CANDIDATES = 32  # most atoms replaced in one step; the others wait for the next
SELDOM = 0.01  # an atom used this much less often than the average one counts as unused
EVIDENCE = 10.0  # uses that an average atom must have had before another is called unused
JITTER = 0.01  # noise, relative, that tells apart atoms taken from equal signals


class State(NamedTuple):
    """What the learner carries from batch to batch; a pytree, the same on every device."""

    atoms: jax.Array  # [d, k], ||d_j||^2 <= C
    A: jax.Array  # [k, k]
    B: jax.Array  # [d, k]
    usage: jax.Array  # [k] running share of signals that use the atom
    step: jax.Array  # int32 scalar, batches seen


def init(key, signals, n_atoms, *, norm_bound=1.0):
    """Atoms are random signals of norm sqrt(norm_bound), no signal twice while there are enough.

    Noise takes the place of zero signals, and is added to repeated ones (n < n_atoms, or equal
    signals).

    Shapes  signals [n, d] float, n >= 1. Returns State.
    Domain  norm_bound > 0, the C of ||d_j||^2 <= C; it may be traced.
    Errors  TypeError for integers; ValueError for a wrong rank, no signals or n_atoms < 1.
    """
    signals = require_floating('signals', signals)
    if signals.ndim != 2 or 0 in signals.shape:
        raise ValueError(f'signals have shape {signals.shape}; [n, d] with n, d >= 1 is wanted')
    if n_atoms < 1:
        raise ValueError(f'n_atoms {n_atoms} must be at least 1')
    n, d = signals.shape
    dtype = signals.dtype
    order_key, noise_key = jax.random.split(key)
    empty = jnp.all(signals == 0, axis=1)
    # Signals in random order, the empty ones last.
    order = jnp.argsort(jax.random.uniform(order_key, (n,), dtype) + empty.astype(dtype))
    chosen = _normalise(signals[jnp.resize(order[:n_atoms], n_atoms)])
    noise = _normalise(jax.random.normal(noise_key, (n_atoms, d), dtype))
    cosine = jnp.abs(product(chosen, chosen.T))
    earlier = jnp.tril(jnp.ones((n_atoms, n_atoms), bool), -1)
    repeated = jnp.any(earlier & (cosine > 1 - 1e-5), axis=1) | jnp.all(chosen == 0, axis=1)
    # As much noise as signal: repeated atoms start well apart, not as near copies.
    chosen = _normalise(jnp.where(repeated[:, None], chosen + noise, chosen))
    radius = jnp.sqrt(jnp.asarray(norm_bound, dtype))
    return State(
        atoms=radius * chosen.T,
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
    axis_name=None,
):
    """One batch: codes, statistics, every atom once, unused atoms replaced.

    The codes come from n_inner iterations, not from a converged solver: more changes what is
    learned by less than the batches differ. Statistics fade by 1 - forgetting / (t + 1) a batch (0
    forgets nothing, the paper's plain rule; the first batches fade whole). An atom that hardly any
    signal uses is replaced by one of the worst-coded signals of the batch.

    Shapes  signals [n, d] float; weight scalar, [k] or [n, 1]. Returns (State, metrics), scalars:
            objective        mean per signal, of the codes before the atoms move
            reconstruction   its first term
            density          share of codes that are not zero
            dead             unused atoms, before replacement
            replaced         how many were replaced
    Domain  weight > 0, norm_bound > 0 and forgetting >= 0 may be traced; n_inner >= 1 is static.
    Devices With axis_name (pmap, shard_map) the statistics are averaged over the devices, so the
            state stays the same on all of them; under jit over a mesh nothing need be said.
    Errors  TypeError for integers; ValueError where sizes disagree, naming both.
    Source  Mairal et al. 2009, algorithms 1 and 2 and section 3.4 (batches, forgetting, unused
            atoms); the fading is not theirs but close to (1 - 1/t)^forgetting of their 2010 paper.
    """
    D = state.atoms
    x, D, weight = check(signals, D, weight)
    if x.shape[0] == 0:
        raise ValueError('the batch has no signals; a step wants at least one')
    n_devices = 1 if axis_name is None else lax.psum(1, axis_name)
    mean = (lambda v: v) if axis_name is None else (lambda v: lax.pmean(v, axis_name))
    n = x.shape[0]

    a = solvers.approximate(x, D, weight, penalty=penalty, n_iterations=n_inner)
    residual = x - product(a, D.T)
    losses = objective(residual, a, weight, penalty)
    used = (a != 0).astype(x.dtype)
    new_A, new_B, share, value, error = mean(
        (
            product(a.T, a) / n,
            product(x.T, a) / n,
            jnp.mean(used, axis=0),
            jnp.mean(losses),
            0.5 * jnp.mean(jnp.sum(residual * residual, axis=1)),
        )
    )

    t = state.step.astype(x.dtype)
    forgetting = jnp.asarray(forgetting, x.dtype)
    keep = jnp.clip(1 - forgetting / (t + 1), 0, 1)
    A = keep * state.A + new_A
    B = keep * state.B + new_B
    # The sum of the weights of the batches so far, to which A and B are not normalised.
    memory = jnp.maximum(1, (t + 2) / (1 + forgetting))
    usage = state.usage + (share - state.usage) / memory

    atoms = update_atoms(D, A, B, norm_bound)

    typical = jnp.mean(usage)
    empty = jnp.sum(atoms * atoms, axis=0) <= 1e-12 * jnp.asarray(norm_bound, x.dtype)
    dead = (usage <= SELDOM * typical) | empty
    replace = dead & (memory * n * n_devices * typical >= EVIDENCE)
    candidates = _worst(x, losses, key, axis_name, min(N_CANDIDATES, D.shape[1]))
    rank = jnp.cumsum(replace) - 1
    replace = replace & (rank < candidates.shape[0])
    fresh = candidates[jnp.clip(rank, 0, candidates.shape[0] - 1)].T
    radius = jnp.sqrt(jnp.asarray(norm_bound, x.dtype))
    stay = ~replace
    state = State(
        atoms=jnp.where(replace[None, :], radius * fresh, atoms),
        A=jnp.where(stay[:, None] & stay[None, :], A, 0),
        B=jnp.where(stay[None, :], B, 0),
        # Some credit, or an atom that the next batch happens not to use would go at once.
        usage=jnp.where(replace, 0.1 * typical, usage),
        step=state.step + 1,
    )
    metrics = {
        'objective': value,
        'reconstruction': error,
        'density': jnp.mean(share),
        'dead': jnp.sum(dead).astype(x.dtype),
        'replaced': jnp.sum(replace).astype(x.dtype),
    }
    return state, metrics


def update_atoms(D, A, B, norm_bound=1.0):
    """Block coordinate descent on 0.5 tr(D'D A) - tr(D'B): each atom once, in order.

    An atom with A_jj = 0, used by no signal, stays as it is.

    Shapes  D [d, k], A [k, k] symmetric, B [d, k]; norm_bound scalar. Returns [d, k].
    Source  Mairal et al. 2009, algorithm 2; the norm is bounded by sqrt(norm_bound), not 1.
    """
    D, A, B = (jnp.asarray(v) for v in (D, A, B))
    diagonal = jnp.diagonal(A)
    floor = 1e-10 * jnp.max(diagonal)
    used = diagonal > floor
    rate = jnp.where(used, 1 / jnp.where(used, diagonal, 1), 0)
    target = B.T

    # Atoms lie in rows here: they are read and written one at a time.
    def move(j, rows):
        atom = rows[j] + rate[j] * (target[j] - product(A[j], rows))
        return rows.at[j].set(jnp.where(used[j], project_ball(atom, norm_bound), rows[j]))

    return lax.fori_loop(0, D.shape[1], move, D.T).T


def _worst(x, losses, key, axis_name, n_wanted):
    """Directions [m, d] of the worst-coded signals of the global batch, m <= n_wanted."""
    n_local = min(n_wanted, x.shape[0])
    losses, rows = lax.top_k(losses, n_local)
    signals = x[rows]
    # Averaged, so that devices which were given different keys agree.
    noise = jax.random.normal(key, (n_wanted, x.shape[1]), x.dtype)
    if axis_name is not None:
        losses, signals = _gather(losses, axis_name), _gather(signals, axis_name)
        noise = lax.pmean(noise, axis_name)
        losses, rows = lax.top_k(losses, min(n_wanted, losses.shape[0]))
        signals = signals[rows]
    noise = _normalise(noise[: signals.shape[0]])
    return _normalise(_normalise(signals) + JITTER * noise)


def _gather(rows, axis_name):
    """The rows of all devices; a sum, because shard_map knows a sum to be the same on all of them."""
    everywhere = jnp.zeros((lax.psum(1, axis_name), *rows.shape), rows.dtype)
    everywhere = lax.psum(everywhere.at[lax.axis_index(axis_name)].set(rows), axis_name)
    return everywhere.reshape(-1, *rows.shape[1:])


def _normalise(rows):
    norm = jnp.linalg.norm(rows, axis=1, keepdims=True)
    return jnp.where(norm > 0, rows / jnp.where(norm > 0, norm, 1), 0)
