"""Matching pursuit: codes of at most so many atoms, or of as few as explain a signal well enough."""

import jax
import jax.numpy as jnp
from jax import lax

from lecture4.sparse.objective import check, product
from lecture4.sparse.solvers.solution import Solution

TILE = 128  # signals that a core works on together: their state stays in its cache
CHUNK = 4  # vectors of a basis that are read together
# Of an atom of unit norm: what is left of one inside the span of the others is rounding.
INSIDE = 1e-4


def matching_pursuit(x, D, n_nonzero, *, energy: float | jax.Array = 0.0, tile=TILE):
    """Codes of at most n_nonzero atoms, chosen one at a time: orthogonal matching pursuit.

    A signal is done when |x - D a|^2 <= energy, when n_nonzero atoms are in use, or when no atom
    outside their span is left. Each atom is the one most like the residual, norms apart; all codes
    are then fitted anew. No minimum of anything is claimed: what the gap certifies is the fit, the
    largest |d_j'(x - D a)| / (|d_j| |x|) of the atoms used, which is rounding where it is right.

    Shapes  x [n, d], D [d, k], n_nonzero int, energy scalar or [n]. Returns Solution: iterations
            count atoms, objective is 0.5 |x - D a|^2. tile: signals solved together (None: all).
    Domain  energy >= 0 and 1 <= n_nonzero. A signal with NaN or infinity comes back as NaN.
    Errors  TypeError for integers; ValueError where sizes disagree, there is no atom, or n_nonzero or
            tile is below 1.
    Source  Pati, Rezaiifar & Krishnaprasad 1993; by orthogonal bases as in Rubinstein et al. 2008.
    """
    x, D, _ = check(x, D, 1.0)
    if n_nonzero < 1:
        raise ValueError(f'n_nonzero {n_nonzero} must be at least 1 atom')
    d, k = D.shape
    m = min(n_nonzero, d, k)
    norm, unit = _unit_atoms(D)

    def code(x, energy):
        _, count, chosen, basis, share = _pursue(x, unit, energy, m)
        # Of the atoms' coordinates in the basis: upper triangular, and 1 where there is no atom.
        used = jnp.arange(m, dtype=jnp.int32)[None, :] < count[:, None]
        atoms = unit.T[chosen]
        R = jnp.einsum('tid,tjd->tij', basis, atoms, precision='highest')
        R = jnp.where(
            used[:, :, None] & used[:, None, :], jnp.triu(R), jnp.eye(m, dtype=x.dtype)[None]
        )
        values = lax.linalg.triangular_solve(
            R, jnp.where(used, share, 0)[..., None], left_side=True, lower=False
        )[..., 0]
        at = jnp.where(used, chosen, k)
        here = jnp.arange(x.shape[0])[:, None]
        codes = jnp.zeros((x.shape[0], k), x.dtype).at[here, at].set(values, mode='drop')
        codes = codes / norm[None, :]
        residual = x - product(codes, D.T)
        misfit = jnp.where(used, jnp.sum(residual[:, None, :] * atoms, axis=2), 0)
        left = jnp.sum(residual * residual, axis=1)
        size = jnp.linalg.norm(x, axis=1)
        gap = jnp.max(jnp.abs(misfit), axis=1) / jnp.where(size > 0, size, 1)
        alive = jnp.isfinite(left)
        exact = gap <= jnp.sqrt(jnp.finfo(x.dtype).eps)
        return Solution(
            codes=jnp.where(alive[:, None], codes, jnp.nan),
            gap=jnp.where(alive, gap, jnp.nan),
            iterations=count,
            converged=alive & exact,
            objective=jnp.where(alive, 0.5 * left, jnp.nan),
        )

    return _by_size(code, x, energy, tile)


def pursue(x, D, energy, *, max_atoms=32, tile=TILE):
    """The approximation of every signal by as few atoms as leave |x - D a|^2 <= energy.

    matching_pursuit without its codes: the approximation is x less what is orthogonal to the chosen
    atoms, all that denoising asks for.

    Shapes  x [n, d], D [d, k], energy scalar or [n]. Returns the approximations [n, d] and how many
            atoms are in each, int32 [n].
    Domain, errors and source as matching_pursuit.
    """
    x, D, _ = check(x, D, 1.0)
    _, unit = _unit_atoms(D)
    m = min(max_atoms, *D.shape)

    def rest(x, energy):
        return _pursue(x, unit, energy, m)[:2]

    left, count = _by_size(rest, x, energy, tile)
    return x - left, count


def _by_size(solve, x, energy, tile):
    """solve(x, energy) by tiles: a tile takes as long as its longest, so like sizes go together."""
    n = x.shape[0]
    energy = jnp.asarray(energy, x.dtype)
    if energy.shape not in ((), (n,)):
        raise ValueError(f'energy of shape {energy.shape} is neither a scalar nor [{n}]')
    if tile is not None and tile < 1:
        raise ValueError(f'tile {tile} must be at least 1 signal, or None for all at once')
    energy = jnp.broadcast_to(energy, (n,))
    if n == 0:
        return solve(x, energy)
    tile = n if tile is None else min(tile, n)
    order = jnp.argsort(jnp.sum(x * x, axis=1))
    n_tiles = -(-n // tile)
    rows = jnp.pad(order, (0, n_tiles * tile - n), mode='edge').reshape(n_tiles, tile)
    solved = lax.map(lambda i: solve(x[i], energy[i]), rows)
    back = jnp.argsort(order)
    return jax.tree.map(lambda v: v.reshape(-1, *v.shape[2:])[back], solved)


def _unit_atoms(D):
    if D.shape[1] == 0:
        raise ValueError(f'D has shape {D.shape}: no atom to choose from')
    norm = jnp.linalg.norm(D, axis=0)
    norm = jnp.where(norm > 0, norm, 1)
    return norm, D / norm[None, :]


def _pursue(x, unit, energy, m):
    """Pursuit by m unit atoms [d, k] at most of signals [t, d].

    Returns what is left of them [t, d], the number of atoms [t], which [t, m], the orthonormal
    basis that they were turned into [t, m, d] and the signals' coordinates in it [t, m].
    """

    def left(residual):
        # Not `<=`: a residual that is NaN is left alone.
        return jnp.sum(residual * residual, axis=1) > energy

    def step(state):
        n, residual, count, chosen, basis, share = state
        best = jnp.argmax(jnp.abs(product(residual, unit)), axis=1)
        v = unit.T[best]
        for _ in range(2):  # once leaves rounding of the size of what atoms share
            v = v - _within(basis, v, n)
        size = jnp.linalg.norm(v, axis=1, keepdims=True)
        use = left(residual)[:, None] & (size > INSIDE)
        v = jnp.where(use, v / jnp.where(use, size, 1), 0)
        along = jnp.sum(v * residual, axis=1, keepdims=True)
        put = lax.dynamic_update_index_in_dim
        return (
            n + 1,
            residual - along * v,
            count + use[:, 0].astype(jnp.int32),
            put(chosen, best.astype(jnp.int32), n, axis=1),
            put(basis, v, n, axis=1),
            put(share, along[:, 0], n, axis=1),
        )

    def unfinished(state):
        return (state[0] < m) & jnp.any(left(state[1]))

    t, d = x.shape
    none = jnp.zeros(t, jnp.int32)
    empty = jnp.zeros((t, m), x.dtype)
    start = (jnp.zeros((), jnp.int32), x, none, none[:, None] + jnp.zeros((1, m), jnp.int32))
    start = (*start, jnp.zeros((t, -(-m // CHUNK) * CHUNK, d), x.dtype), empty)
    rest, count, chosen, basis, share = lax.while_loop(unfinished, step, start)[1:]
    return rest, count, chosen, basis[:, :m], share


def _within(basis, v, n):
    """The part of v [t, d] in the span of the first n vectors of a basis [t, m, d].

    By a few at a time: most signals want few atoms, and the rest of the basis need not be read.
    """

    def add(i, total):
        some = lax.dynamic_slice_in_dim(basis, i * CHUNK, CHUNK, axis=1)
        inside = jnp.sum(some * v[:, None, :], axis=2, keepdims=True)
        return total + jnp.sum(inside * some, axis=1)

    return lax.fori_loop(0, (n + CHUNK - 1) // CHUNK, add, jnp.zeros_like(v))
