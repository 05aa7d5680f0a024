"""Dictionary initialization from data, and replacement of atoms that hardly any signal uses.

Every dictionary learner starts here. In many dimensions an atom initialized at random stays unused; a badly coded
signal is used at once, at least by itself.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, PRNGKeyArray, Real

from lecture4.ops.prox import require_floating
from lecture4.ops.reduce import Reduce
from lecture4.sparse.objective import product

MAX_REPLACED = 32  # largest number of atoms replaced in one step; the others wait for the next
UNUSED_FRACTION = 0.01  # an atom used this much less often than the average one counts as unused
MIN_USES = 10.0  # uses of an average atom before another atom can count as unused
JITTER = 0.01  # relative noise that separates atoms initialized from equal signals


def from_signals(
    key: PRNGKeyArray,
    signals: Float[ArrayLike, 'n d'],
    n_atoms: int,
    norm_bound: Real[ArrayLike, ''] = 1.0,
) -> Float[Array, 'd {n_atoms}']:
    """Random signals scaled to norm sqrt(norm_bound), without repetition if there are enough signals.

    Noise replaces zero signals, and is added to repeated ones (n < n_atoms, or equal signals).

    Args:
      key: Random key of the choice and the noise.
      signals: Signals, n >= 1.
      n_atoms: Number of atoms, at least 1.
      norm_bound: The C of ||d_j||^2 <= C, positive; it may be traced.

    Raises:
      TypeError: An input is an integer array.
      ValueError: A wrong rank, no signals or n_atoms < 1.
    """
    signals = require_floating('signals', signals)
    if signals.ndim != 2 or 0 in signals.shape:
        raise ValueError(f'signals of shape {signals.shape}; expected [n, d] with n, d >= 1')
    if n_atoms < 1:
        raise ValueError(f'n_atoms={n_atoms}; expected at least 1')
    return _from_signals(key, signals, norm_bound, n_atoms)


@functools.partial(jax.jit, static_argnums=3)
def _from_signals(key, signals, norm_bound, n_atoms):
    n, d = signals.shape
    dtype = signals.dtype
    order_key, noise_key = jax.random.split(key)
    empty = jnp.all(signals == 0, axis=1)
    # Signals in random order, the empty ones last.
    order = jnp.argsort(jax.random.uniform(order_key, (n,), dtype) + empty.astype(dtype))
    chosen = _normalize(signals[jnp.resize(order[:n_atoms], (n_atoms,))])
    noise = _normalize(jax.random.normal(noise_key, (n_atoms, d), dtype))
    cosine = jnp.abs(product(chosen, chosen.T))
    earlier = jnp.tril(jnp.ones((n_atoms, n_atoms), bool), -1)
    repeated = jnp.any(earlier & (cosine > 1 - 1e-5), axis=1) | jnp.all(chosen == 0, axis=1)
    # As much noise as signal: repeated atoms start well separated, not as near copies.
    chosen = _normalize(jnp.where(repeated[:, None], chosen + noise, chosen))
    return jnp.sqrt(jnp.asarray(norm_bound, dtype)) * chosen.T


class Replacement(NamedTuple):
    """A dictionary whose unused atoms have been replaced.

    Attributes:
      atoms: [d, k].
      usage: [k].
      replaced: [k], which atoms are new.
      n_dead: Number of unused atoms before replacement; a scalar of the atoms' dtype.
    """

    atoms: Float[Array, 'd k']
    usage: Float[Array, ' k']
    replaced: Bool[Array, ' k']
    n_dead: Float[Array, '']


def replace_unused_atoms(
    atoms: Float[Array, 'd k'],
    usage: Float[Array, ' k'],
    n_signals: Real[ArrayLike, ''],
    x: Float[Array, 'n d'],
    losses: Float[Array, ' n'],
    key: PRNGKeyArray,
    *,
    norm_bound: Real[ArrayLike, ''] = 1.0,
    reduce: Reduce = Reduce(),
) -> Replacement:
    """Replace atoms that hardly any signal uses by the worst-coded signals of a batch.

    At most MAX_REPLACED atoms in one call, and none before an average atom has had MIN_USES uses.

    Args:
      atoms: [d, k].
      usage: Fraction of signals that use each atom.
      n_signals: Approximate number of signals over which `usage` is averaged.
      x: This device's part of the batch.
      losses: Losses of the batch.
      key: Random key of the jitter; it may differ between devices.
      norm_bound: The C of ||d_j||^2 <= C.
      reduce: Reduction over devices.

    References:
      Mairal et al. 2009, section 3.4 (unused atoms); badly coded signals instead of random ones.
    """
    dtype = atoms.dtype
    typical = jnp.mean(usage)
    empty = jnp.sum(atoms * atoms, axis=0) <= 1e-12 * jnp.asarray(norm_bound, dtype)
    dead = (usage <= UNUSED_FRACTION * typical) | empty
    replaced = dead & (n_signals * typical >= MIN_USES)
    candidates = _worst_coded(x, losses, key, reduce, min(MAX_REPLACED, atoms.shape[1]))
    rank = jnp.cumsum(replaced) - 1
    replaced = replaced & (rank < candidates.shape[0])
    new = candidates[jnp.clip(rank, 0, candidates.shape[0] - 1)].T
    radius = jnp.sqrt(jnp.asarray(norm_bound, dtype))
    return Replacement(
        jnp.where(replaced[None, :], radius * new, atoms),
        # New atoms get some usage, or one that the next batch happens not to use would be replaced at once.
        jnp.where(replaced, 0.1 * typical, usage),
        replaced,
        jnp.sum(dead).astype(dtype),
    )


def _worst_coded(x, losses, key, reduce, n_candidates):
    """Directions [m, d] of the worst-coded signals of the global batch, m <= n_candidates."""
    n_local = min(n_candidates, x.shape[0])
    losses, rows = lax.top_k(losses, n_local)
    signals = x[rows]
    # Averaged, so that devices with different keys agree.
    noise = jax.random.normal(key, (n_candidates, x.shape[1]), x.dtype)
    if reduce.axis_name is not None:
        losses, signals = reduce.all_gather((losses, signals))
        noise = reduce.mean(noise)
        losses, rows = lax.top_k(losses, min(n_candidates, losses.shape[0]))
        signals = signals[rows]
    noise = _normalize(noise[: signals.shape[0]])
    return _normalize(_normalize(signals) + JITTER * noise)


def _normalize(rows):
    norm = jnp.linalg.norm(rows, axis=1, keepdims=True)
    return jnp.where(norm > 0, rows / jnp.where(norm > 0, norm, 1), 0)
