"""Atoms taken from data: at the start, and in place of atoms that hardly any signal uses.

Every dictionary learner begins and repairs itself here. A direction drawn at random stays unused in
many dimensions; a signal that is badly coded is used at once, by itself.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from lecture4.ops.prox import require_floating
from lecture4.ops.reduce import Reduce
from lecture4.sparse.objective import product

N_CANDIDATES = 32  # most atoms replaced in one step; the others wait for the next
SELDOM = 0.01  # an atom used this much less often than the average one counts as unused
EVIDENCE = 10.0  # uses that an average atom must have had before another is called unused
JITTER = 0.01  # noise, relative, that tells apart atoms taken from equal signals


def from_signals(key, signals, n_atoms, norm_bound=1.0):
    """Random signals of norm sqrt(norm_bound), no signal twice while there are enough: [d, n_atoms].

    Noise takes the place of zero signals, and is added to repeated ones (n < n_atoms, or equal
    signals).

    Shapes  signals [n, d] float, n >= 1.
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
    return jnp.sqrt(jnp.asarray(norm_bound, dtype)) * chosen.T


class Seeded(NamedTuple):
    """A dictionary whose unused atoms have been replaced."""

    atoms: jax.Array  # [d, k]
    usage: jax.Array  # [k]
    fresh: jax.Array  # [k] bool, which atoms are new
    dead: jax.Array  # how many were unused, before replacement


def reseed(atoms, usage, n_seen, x, losses, key, *, norm_bound=1.0, reduce=Reduce()):
    """Replaces atoms that hardly any signal uses by the worst-coded signals of a batch.

    usage   [k] share of signals that use each atom, over about n_seen of them.
    losses  [n] of the batch x [n, d], this device's part of it; key may differ between devices.
    At most N_CANDIDATES atoms go in one call, and none before an average atom has had EVIDENCE uses.
    Source  Mairal et al. 2009, section 3.4 (unused atoms); badly coded signals instead of random ones.
    """
    dtype = atoms.dtype
    typical = jnp.mean(usage)
    empty = jnp.sum(atoms * atoms, axis=0) <= 1e-12 * jnp.asarray(norm_bound, dtype)
    dead = (usage <= SELDOM * typical) | empty
    fresh = dead & (n_seen * typical >= EVIDENCE)
    candidates = _worst(x, losses, key, reduce, min(N_CANDIDATES, atoms.shape[1]))
    rank = jnp.cumsum(fresh) - 1
    fresh = fresh & (rank < candidates.shape[0])
    new = candidates[jnp.clip(rank, 0, candidates.shape[0] - 1)].T
    radius = jnp.sqrt(jnp.asarray(norm_bound, dtype))
    return Seeded(
        jnp.where(fresh[None, :], radius * new, atoms),
        # Some credit, or an atom that the next batch happens not to use would go at once.
        jnp.where(fresh, 0.1 * typical, usage),
        fresh,
        jnp.sum(dead).astype(dtype),
    )


def _worst(x, losses, key, reduce, n_wanted):
    """Directions [m, d] of the worst-coded signals of the global batch, m <= n_wanted."""
    n_local = min(n_wanted, x.shape[0])
    losses, rows = lax.top_k(losses, n_local)
    signals = x[rows]
    # Averaged, so that devices which were given different keys agree.
    noise = jax.random.normal(key, (n_wanted, x.shape[1]), x.dtype)
    if reduce.axis_name is not None:
        losses, signals = reduce.all_gather((losses, signals))
        noise = reduce.mean(noise)
        losses, rows = lax.top_k(losses, min(n_wanted, losses.shape[0]))
        signals = signals[rows]
    noise = _normalise(noise[: signals.shape[0]])
    return _normalise(_normalise(signals) + JITTER * noise)


def _normalise(rows):
    norm = jnp.linalg.norm(rows, axis=1, keepdims=True)
    return jnp.where(norm > 0, rows / jnp.where(norm > 0, norm, 1), 0)
