"""Matching pursuit: codes with a given number of atoms, or with as few as approximate a signal."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int32, Real

from lecture4.ops.varying import vary_like, vary_together
from lecture4.sparse.objective import check_inputs, product
from lecture4.sparse.solvers.solution import Solution
from lecture4.sparse.solvers.tiling import check_tile

TILE = 128  # signals that a core processes together: their state stays in its cache
VECTORS_AT_A_TIME = 4  # vectors of a basis that are read together
# A unit-norm atom whose component outside the span of the others is smaller than this lies inside it, up to rounding.
IN_SPAN = 1e-4


def matching_pursuit(
    x: Float[Array | np.ndarray, 'n d'],
    D: Float[Array | np.ndarray, 'd k'],
    n_nonzero: int,
    *,
    residual_energy: Real[ArrayLike, '...'] = 0.0,
    tile: int | None = TILE,
) -> Solution:
    """Codes of at most n_nonzero atoms, chosen one at a time: orthogonal matching pursuit.

    A signal is done when |x - D a|^2 <= residual_energy, when n_nonzero atoms are in use, or when no atom is left
    outside their span. Each step adds the normalized atom that is most correlated with the residual; all codes are
    then refitted. The gap does not certify a minimum but the fit: it is the largest |d_j'(x - D a)| / (|d_j| |x|) of
    the atoms in use, of the order of rounding if the fit is exact.

    Compiled once per shapes, dtype, n_nonzero and tile.

    Args:
      x: Signals. A signal with a NaN or an infinity gets NaN codes.
      D: Dictionary, atoms in columns, at least one.
      n_nonzero: Largest number of atoms, at least 1.
      residual_energy: Squared norm of the residual at which a signal is done, nonnegative, a scalar or [n].
      tile: Number of signals solved together; None for all.

    Returns:
      Solution: iterations count atoms, objective is 0.5 |x - D a|^2.

    Raises:
      TypeError: An input is an array of integers or 16-bit floats.
      ValueError: The sizes disagree, there is no atom, or n_nonzero or tile is below 1.

    References:
      Pati, Rezaiifar & Krishnaprasad 1993; by orthogonal bases as in Rubinstein et al. 2008.
    """
    x, D, energy = _check(x, D, residual_energy, tile)
    if n_nonzero < 1:
        raise ValueError(f'n_nonzero={n_nonzero}; expected at least 1 atom')
    return _matching_pursuit(x, D, energy, m=min(n_nonzero, *D.shape), tile=tile)


@functools.partial(jax.jit, static_argnames=('m', 'tile'))
def _matching_pursuit(x, D, energy, *, m, tile):
    x, D, energy = vary_together(x, D, energy)
    k = D.shape[1]
    norm, unit = _unit_atoms(D)

    def code(x, energy):
        _, count, chosen, basis, coordinates = _pursue(x, unit, energy, m)
        # Coordinates of the atoms in the basis: upper triangular, with 1 on the diagonal where there is no atom.
        used = jnp.arange(m, dtype=jnp.int32)[None, :] < count[:, None]
        atoms = unit.T[chosen]
        R = jnp.einsum('tid,tjd->tij', basis, atoms, precision='highest')
        R = jnp.where(
            used[:, :, None] & used[:, None, :], jnp.triu(R), jnp.eye(m, dtype=x.dtype)[None]
        )
        values = lax.linalg.triangular_solve(
            R, jnp.where(used, coordinates, 0)[..., None], left_side=True, lower=False
        )[..., 0]
        at = jnp.where(used, chosen, k)
        rows = jnp.arange(x.shape[0])[:, None]
        codes = jnp.zeros((x.shape[0], k), x.dtype).at[rows, at].set(values, mode='drop')
        codes = codes / norm[None, :]
        residual = x - product(codes, D.T)
        remaining = jnp.where(used, jnp.sum(residual[:, None, :] * atoms, axis=2), 0)
        misfit = jnp.sum(residual * residual, axis=1)
        size = jnp.linalg.norm(x, axis=1)
        gap = jnp.max(jnp.abs(remaining), axis=1) / jnp.where(size > 0, size, 1)
        valid = jnp.isfinite(misfit)
        exact = gap <= jnp.sqrt(jnp.finfo(x.dtype).eps)
        return Solution(
            codes=jnp.where(valid[:, None], codes, jnp.nan),
            gap=jnp.where(valid, gap, jnp.nan),
            iterations=count,
            converged=valid & exact,
            limited_by_precision=jnp.zeros_like(valid),
            objective=jnp.where(valid, 0.5 * misfit, jnp.nan),
        )

    return _by_energy(code, x, energy, tile)


def pursue(
    x: Float[Array | np.ndarray, 'n d'],
    D: Float[Array | np.ndarray, 'd k'],
    residual_energy: Real[ArrayLike, '...'],
    *,
    max_atoms: int = 32,
    tile: int | None = TILE,
) -> tuple[Float[Array, 'n d'], Int32[Array, ' n']]:
    """Approximation of every signal by as few atoms as leave |x - D a|^2 <= residual_energy.

    This is matching_pursuit without its codes: the approximation is x minus its part orthogonal to the
    chosen atoms, which is enough for denoising.

    Args:
      x: Signals.
      D: Dictionary, atoms in columns, at least one.
      residual_energy: Squared norm of the residual at which a signal is done, nonnegative, a scalar or [n].
      max_atoms: Largest number of atoms of each approximation; static.
      tile: Number of signals solved together; None for all.

    Returns:
      The approximations, and the number of atoms of each.

    Raises:
      TypeError: As in matching_pursuit.
      ValueError: As in matching_pursuit.
    """
    x, D, energy = _check(x, D, residual_energy, tile)
    return _approximations(x, D, energy, m=min(max_atoms, *D.shape), tile=tile)


@functools.partial(jax.jit, static_argnames=('m', 'tile'))
def _approximations(x, D, energy, *, m, tile):
    x, D, energy = vary_together(x, D, energy)
    _, unit = _unit_atoms(D)

    def residuals(x, energy):
        return _pursue(x, unit, energy, m)[:2]

    residual, count = _by_energy(residuals, x, energy, tile)
    return x - residual, count


def _check(x, D, residual_energy, tile):
    x, D, _ = check_inputs(x, D, 1.0)
    check_tile(tile)
    n = x.shape[0]
    if D.shape[1] == 0:
        raise ValueError(f'D of shape {D.shape} has no atom to choose from')
    energy = jnp.asarray(residual_energy, x.dtype)
    if energy.shape not in ((), (n,)):
        raise ValueError(f'residual_energy of shape {energy.shape}; expected a scalar or [{n}]')
    return x, D, jnp.broadcast_to(energy, (n,))


def _by_energy(solve, x, energy, tile):
    """solve(x, energy) on tiles of signals of similar norm: a tile takes as long as its slowest signal."""
    n = x.shape[0]
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
    norm = jnp.linalg.norm(D, axis=0)
    norm = jnp.where(norm > 0, norm, 1)
    return norm, D / norm[None, :]


def _pursue(x, unit, energy, m):
    """Pursuit of signals [t, d] by at most m of the unit atoms [d, k].

    Returns the residuals [t, d], the number of atoms [t], their indices [t, m], the orthonormal
    basis of their span [t, m, d] and the signals' coordinates in it [t, m].
    """

    def unexplained(residual):
        # Not `<=`: a residual that is NaN ends its signal.
        return jnp.sum(residual * residual, axis=1) > energy

    def step(state):
        n, residual, count, chosen, basis, coordinates = state
        best = jnp.argmax(jnp.abs(product(residual, unit)), axis=1)
        v = unit.T[best]
        for _ in range(
            2
        ):  # orthogonalizing once leaves rounding of the size of the atoms' common part
            v = v - _within(basis, v, n)
        size = jnp.linalg.norm(v, axis=1, keepdims=True)
        use = unexplained(residual)[:, None] & (size > IN_SPAN)
        v = jnp.where(use, v / jnp.where(use, size, 1), 0)
        along = jnp.sum(v * residual, axis=1, keepdims=True)
        put = lax.dynamic_update_index_in_dim
        return (
            n + 1,
            residual - along * v,
            count + use[:, 0].astype(jnp.int32),
            put(chosen, best.astype(jnp.int32), n, axis=1),
            put(basis, v, n, axis=1),
            put(coordinates, along[:, 0], n, axis=1),
        )

    def unfinished(state):
        return (state[0] < m) & jnp.any(unexplained(state[1]))

    t, d = x.shape
    padded = -(-m // VECTORS_AT_A_TIME) * VECTORS_AT_A_TIME
    start = (
        jnp.zeros((), jnp.int32),
        x,
        jnp.zeros(t, jnp.int32),
        jnp.zeros((t, m), jnp.int32),
        jnp.zeros((t, padded, d), x.dtype),
        jnp.zeros((t, m), x.dtype),
    )
    start = vary_like(start, (x, unit, energy))
    residual, count, chosen, basis, coordinates = lax.while_loop(unfinished, step, start)[1:]
    return residual, count, chosen, basis[:, :m], coordinates


def _within(basis, v, n):
    """The projection of v [t, d] onto the span of the first n vectors of a basis [t, m, d].

    Vectors are read a few at a time: most signals have few atoms, and the rest of the basis is not read.
    """

    def add(i, total):
        some = lax.dynamic_slice_in_dim(basis, i * VECTORS_AT_A_TIME, VECTORS_AT_A_TIME, axis=1)
        inside = jnp.sum(some * v[:, None, :], axis=2, keepdims=True)
        return total + jnp.sum(inside * some, axis=1)

    return lax.fori_loop(0, -(-n // VECTORS_AT_A_TIME), add, jnp.zeros_like(v))
