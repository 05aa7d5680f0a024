"""Greedy coordinate descent: the fast solver on a CPU."""

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Real

from lecture4.ops import machine_code
from lecture4.ops.varying import vary_together
from lecture4.sparse.objective import (
    L1,
    NONNEGATIVE,
    check_codes,
    check_inputs,
    check_penalty_weight,
    product,
)
from lecture4.sparse.penalties import Penalty
from lecture4.sparse.solvers.certificate import Certifier, is_unfinished, warm_start
from lecture4.sparse.solvers.greedy_updates import (
    GROUP_SIZE,
    descend,
    descend_on_cpu,
    descend_on_gpu,
)
from lecture4.sparse.solvers.homotopy import follow_paths
from lecture4.sparse.solvers.polish import polish, slices_of
from lecture4.sparse.solvers.solution import Solution
from lecture4.sparse.solvers.tiling import (
    by_groups,
    check_tile,
    no_iterations,
    select,
    solve_in_tiles,
)

STEP_TOLERANCE_DECAY = (
    0.25  # factor on the step size at which a chunk ends, from one chunk to the next
)


def coordinate_descent(
    x: Float[Array | np.ndarray, 'n d'],
    D: Float[Array | np.ndarray, 'd k'],
    penalty_weight: Real[ArrayLike, '...'],
    *,
    penalty: Penalty = L1,
    init: Float[Array | np.ndarray, 'n k'] | None = None,
    tolerance: Real[ArrayLike, ''] = 1e-4,
    max_iterations: Int[ArrayLike, ''] = 20_000,
    first_step_tolerance: Real[ArrayLike, ''] | None = None,
    stop: Literal['gap', 'step'] = 'gap',
    tile: int | None = 128,
    kernel: Literal['none', 'gpu', 'cpu', 'interpret'] = 'none',
) -> Solution:
    """Coordinate descent on the code that would change most, tracking D'(x - D a) by the Gram matrix.

    An update costs one row of D'D instead of two products with D. The atom is found by one maximum
    over integers, the bits of |step| with the atom's index in place of the lowest ones. When no code
    would change by more than a fraction of its weight, the codes are solved for on their support (see
    polish) and certified; a signal that does not pass continues with a smaller fraction. The Gram matrix takes k^2
    numbers of memory. Compiled once per shapes, dtype, penalty, stop, tile and kernel.

    With stop='gap' a signal stops as in fista, or after max_iterations updates. With stop='step' it
    stops where no code would change by more than tolerance * weight. The excess over the minimum is of the order of
    its square (on patches a relative 1e-4 for 0.05). The gap is then computed from the tracked correlations, which
    saves the cost of a certificate.

    Args:
      x: Signals.
      D: Dictionary, atoms in columns; an atom of zeros has code 0.
      penalty_weight: Scalar, [k], [n, 1] or [n, k], positive.
      penalty: L1 or NONNEGATIVE.
      init: Initial codes, zeros where None.
      tolerance: Tolerance of the relative gap, or of the step.
      max_iterations: Largest number of updates of single codes for each signal.
      first_step_tolerance: The fraction of the weight at which the first chunk ends; None derives
        it from the tolerance.
      stop: 'gap' or 'step'.
      tile: As in fista.
      kernel: 'gpu' makes the updates in one kernel where the program is compiled for an NVIDIA GPU and has float32
        codes, 'interpret' in Pallas' interpreter on any platform, for tests; see greedy_updates. A
        GPU needs more signals than a tile of 128: tile=None. 'cpu' makes the updates by machine code where the program
        is compiled for one CPU and numba is installed, for float32 codes, unless signals and atoms have weights. With
        stop='gap', and without init or a weight per atom, it starts at the end of the homotopy path, whose steps count
        as updates: updates alone would certify 1e-4 in 0.7 to 1.0 times its time on whitened patches, but in 4 to 7
        times on raw digits, and leave larger errors. See greedy_updates and homotopy.

    Returns:
      Solution, whose iterations count updates of single codes.

    Raises:
      TypeError: As in fista.
      ValueError: As in fista, and for another penalty, stop or kernel.

    References:
      Li & Osher 2009 (greedy choice); Wu & Lange 2008, section 3. The packing is ours.
    """
    check_penalty_weight(penalty_weight)
    x, D, weight = check_inputs(x, D, penalty_weight)
    check_tile(tile)
    if penalty not in (L1, NONNEGATIVE):
        raise ValueError(
            'coordinate_descent supports L1 and NONNEGATIVE; use fista for other penalties'
        )
    if stop not in ('gap', 'step'):
        raise ValueError(f"stop={stop!r}; expected 'gap' or 'step'")
    if kernel not in ('none', 'gpu', 'cpu', 'interpret'):
        raise ValueError(f"kernel={kernel!r}; expected 'none', 'gpu', 'cpu' or 'interpret'")
    init = None if init is None else check_codes(init, x, D)
    able = 1 in weight.shape and min(*x.shape, *D.shape) > 0
    if kernel == 'cpu' and not (able and machine_code.supported()):
        kernel = 'none'
    return _coordinate_descent(
        x,
        D,
        weight,
        init,
        tolerance,
        max_iterations,
        first_step_tolerance,
        penalty=penalty,
        stop=stop,
        tile=tile,
        kernel=kernel if x.dtype == jnp.float32 else 'none',
    )


@functools.partial(jax.jit, static_argnames=('penalty', 'stop', 'tile', 'kernel'))
def _coordinate_descent(
    x,
    D,
    weight,
    init,
    tolerance,
    max_iterations,
    first_step_tolerance,
    *,
    penalty,
    stop,
    tile,
    kernel,
):
    x, D, weight, init = vary_together(x, D, weight, init)
    if stop == 'step':
        first_step_tolerance = tolerance
    elif first_step_tolerance is None:
        root = jnp.sqrt(jnp.asarray(tolerance, x.dtype))
        first_step_tolerance = jnp.clip(root, 1e-3, 0.1)
    units = _make_units(D, weight)
    gram = product(D.T, D)

    def start(x, weight, init):
        if init is not None:
            init = warm_start(jnp.where(units.is_nonzero, init, 0), x, D, weight, penalty)
        certifier = Certifier(x, D, weight, penalty, 1.0, tolerance)
        status, correlation = certifier.certify(init, no_iterations(x))
        a = jnp.zeros_like(correlation) if init is None else init
        if kernel == 'cpu' and init is None and stop == 'gap' and weight.shape[1] == 1:
            paths = (correlation, gram, weight, max_iterations, D.shape[0])
            a, steps = follow_paths(*paths, is_nonnegative=penalty == NONNEGATIVE)
            status, correlation = certifier.certify(a, steps)
        return (a, correlation, jnp.full(x.shape[:1], first_step_tolerance, x.dtype)), status

    def advance(data, state, status):
        x, weight, _ = data
        a, correlation, step_tolerance = state
        active = is_unfinished(status, max_iterations)
        signal_weight, atom_weight = units.split(weight)
        y, c = units.enter(a, correlation, signal_weight)
        budget = jnp.where(active, max_iterations - status.iterations, 0)

        def solve(y, c, step_tolerance, budget, penalty_weight=1):
            return descend(y, c, step_tolerance, budget, penalty_weight, units.rows, penalty)

        def solve_on_gpu(y, c, step_tolerance, budget, penalty_weight: Any = 1):
            signals = (y, c, step_tolerance, budget, penalty_weight)
            return descend_on_gpu(*signals, units.rows, penalty, interpret=kernel == 'interpret')

        signals = (y, c, step_tolerance, budget) + (() if atom_weight is None else (atom_weight,))
        if kernel == 'interpret':
            y, c, updates, done = solve_on_gpu(*signals)
        elif kernel == 'cpu':
            y, c, updates, done = descend_on_cpu(y, c, step_tolerance, budget, units.rows, penalty)
        else:
            cuda = solve_on_gpu if kernel == 'gpu' else None
            y, c, updates, done = by_groups(solve, GROUP_SIZE, *signals, cuda=cuda)
        new, new_correlation = units.leave(y, c, signal_weight)
        iterations = status.iterations + updates
        certifier = Certifier(x, D, weight, penalty, 1.0, tolerance)
        if stop == 'step':
            # |r|^2 without a product: r + D new = r before + D a.
            energy = 2 * (status.objective - jnp.sum(weight * jnp.abs(a), axis=1))
            energy = energy - jnp.sum((new - a) * (correlation + new_correlation), axis=1)
            norm = jnp.sqrt(jnp.maximum(energy, 0))[:, None]
            status = certifier.status(norm, new_correlation, new, iterations)
            status = status._replace(
                converged=status.valid & done, limited_by_precision=jnp.zeros_like(done)
            )
            return (new, new_correlation, step_tolerance), status
        a = polish(new, new_correlation, weight, gram)
        status, correlation = certifier.certify(a, iterations)
        return (a, correlation, step_tolerance * STEP_TOLERANCE_DECAY), status

    def start_and_advance(*data):
        carry = start(*data)
        return select(is_unfinished(carry[1], max_iterations), advance(data, *carry), carry)

    data = (x, weight, init)
    # One chunk of updates is enough for stop='step', and machine code need not sort signals by their number of
    # updates: chunks in the loop over tiles would move all codes through memory twice more.
    begin = start_and_advance if kernel == 'cpu' and stop == 'step' else start
    return solve_in_tiles(begin, advance, lambda state: state[0], data, tile, max_iterations)


class _Units(NamedTuple):
    """Codes in units in which every weight is 1 and every atom of norm 1.

    y_j = a_j |d_j|^2 / weight_j, c_j = d_j'r / weight_j: the best y_j is the soft threshold at 1 of y_j + c_j for all
    atoms and weights, and a step s in y_j subtracts s times row j from c.
    """

    rows: jax.Array  # [k', k'], k' = k padded to whole slices
    curvature: jax.Array  # [1, k] |d_j|^2
    penalty_weight: jax.Array  # [1, k] the atoms' factor of the weights
    is_nonzero: jax.Array  # [1, k] bool, mask of atoms

    def split(self, weight):
        """The signals' factor of the weights [n or 1, 1], and the remaining factor."""
        if weight.shape[1] == 1:
            return weight, None
        ones = jnp.ones((1, 1), weight.dtype)
        padding = ((0, 0), (0, self.rows.shape[0] - weight.shape[1]))
        if weight.shape[0] == 1:
            return ones, None
        return ones, jnp.pad(weight, padding, constant_values=1)

    def enter(self, a, c, signal_weight):
        padding = ((0, 0), (0, self.rows.shape[0] - a.shape[1]))
        weight = self.penalty_weight * signal_weight
        c = jnp.where(self.is_nonzero, c, 0) / weight
        return jnp.pad(a * (self.curvature / weight), padding), jnp.pad(c, padding)

    def leave(self, y, c, signal_weight):
        k = self.curvature.shape[1]
        weight = self.penalty_weight * signal_weight
        return y[:, :k] * (weight / jnp.where(self.is_nonzero, self.curvature, 1)), c[
            :, :k
        ] * weight


def _make_units(D, weight):
    k = D.shape[1]
    curvature = jnp.sum(D * D, axis=0)[None, :]
    is_nonzero = curvature > 0
    per_atom = weight.shape[0] == 1 and weight.shape[1] == k
    atom_weight = weight if per_atom else jnp.ones((1, 1), D.dtype)
    atoms = D / atom_weight
    safe = jnp.where(is_nonzero, curvature / (atom_weight * atom_weight), 1)
    rows = jnp.where(is_nonzero.T, product(atoms.T, atoms), 0) / safe.T
    padding = -k % slices_of(k)
    rows = jnp.pad(rows, ((0, padding), (0, padding)))
    return _Units(rows, curvature, atom_weight, is_nonzero)
