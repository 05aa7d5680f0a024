"""One call for codes: the solver named, or chosen; and a fixed number of iterations for learners."""

import jax
import jax.numpy as jnp
from jax import lax

from lecture4.sparse.objective import L1, NONNEGATIVE, check, check_positive
from lecture4.sparse.solvers.admm import admm, admm_steps, factorise
from lecture4.sparse.solvers.coordinate_descent import coordinate_descent
from lecture4.sparse.solvers.feature_sign import feature_sign
from lecture4.sparse.solvers.polish import MOST_ATOMS
from lecture4.sparse.solvers.proximal import fista, ista, proximal_steps, slope

SOLVERS = {
    'fista': fista,
    'ista': ista,
    'admm': admm,
    'coordinate_descent': coordinate_descent,
    'feature_sign': feature_sign,
}
# A CPU's tile is what a core's cache holds; an accelerator takes all signals at once.
TILE_ON_CPU = 128


def choose(penalty, n_atoms, backend=None):
    """The method and tile for a penalty, a number of atoms and a backend, as measured.

    On a CPU coordinate descent leads for L1 and non-negative codes at the densities that codes are
    wanted at and whatever the conditioning (1 to 9 % non-zero, whitened patches and raw digits;
    tests/benchmarks/sparse_codes.py), as long as the Gram matrix may be held. At 20 % admm certifies
    1e-4 in three quarters of its time: name it for codes so dense. To choose by the signals would
    compile both, and under vmap run both. An accelerator wants few large products: admm, which is
    also the faster for other convex penalties. For penalties that are not convex there is fista.
    """
    backend = backend or jax.default_backend()
    tile = TILE_ON_CPU if backend == 'cpu' else None
    if penalty.gap is None:
        return 'fista', tile
    greedy = backend == 'cpu' and penalty in (L1, NONNEGATIVE) and n_atoms <= MOST_ATOMS
    return 'coordinate_descent' if greedy else 'admm', tile


def encode(
    x,
    D,
    weight,
    *,
    method='auto',
    tile: int | str | None = 'auto',
    penalty=L1,
    finish=True,
    **options,
):
    """Codes of signals by the solver named, or by the one that is fastest here (see choose).

    Signals that it leaves short of the tolerance, by its number of iterations or because its
    rounding is too coarse for them, are finished by feature_sign from where they are (L1 and
    non-negative codes; finish=False leaves them). Other options are the solver's own.

    Shapes  x [n, d], D [d, k], weight scalar, [k], [n, 1] or [n, k]. tile 'auto', None or int.
            Returns Solution; iterations of different solvers are summed.
    Errors  ValueError for an unknown method or a dictionary without atoms; otherwise as the solver.
    """
    check_positive(weight)
    x, D, weight = check(x, D, weight)
    if D.shape[1] == 0:
        raise ValueError(f'D has shape {D.shape}: no atom to code with')
    chosen, chosen_tile = choose(penalty, D.shape[1])
    method = chosen if method == 'auto' else method
    size = chosen_tile if isinstance(tile, str) else tile
    if method not in SOLVERS:
        raise ValueError(
            f"method {method!r} is not one of 'auto', {', '.join(map(repr, SOLVERS))}; "
            f'for a number of atoms instead of a weight there is matching_pursuit'
        )
    if method in ('fista', 'admm') and penalty in (L1, NONNEGATIVE):
        options = {'polish': finish, **options}
    found = SOLVERS[method](x, D, weight, tile=size, penalty=penalty, **options)
    able = penalty in (L1, NONNEGATIVE) and D.shape[1] <= MOST_ATOMS
    if not (finish and able) or method == 'feature_sign' or options.get('stop') == 'moves':
        return found
    left = ~found.converged & jnp.isfinite(found.gap)

    def exact(found):
        again = feature_sign(
            x,
            D,
            weight,
            penalty=penalty,
            init=found.codes,
            tolerance=options.get('tolerance', 1e-4),
            tile=size,
        )
        better = left & (again.gap < found.gap)
        again = again._replace(iterations=found.iterations + again.iterations)
        return jax.tree.map(
            lambda new, old: jnp.where(better.reshape((-1,) + (1,) * (new.ndim - 1)), new, old),
            again,
            found,
        )

    return lax.cond(jnp.any(left), exact, lambda found: found, found)


def approximate(x, D, weight, *, penalty=L1, n_iterations=8):
    """Codes [n, k] after a fixed number of iterations from zero, without a certificate.

    What a learner wants in its inner loop: admm for convex penalties, fista for others. The cost is
    known beforehand, vmap costs nothing, and it may be differentiated through.

    Shapes  x [n, d], D [d, k], weight scalar, [k] or [n, 1]. Returns [n, k].
    Errors  as fista.
    """
    x, D, weight = check(x, D, weight)
    if penalty.gap is None:
        step, codes, start = proximal_steps(x, D, weight, None, penalty, slope(D), True)
    else:
        step, codes, start = admm_steps(x, D, weight, None, None, factorise(D), 1.7, penalty)
    return codes(lax.fori_loop(0, n_iterations, lambda _, state: step(state), start))
