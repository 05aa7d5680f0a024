"""One call for codes: the solver named, or chosen; and a fixed number of iterations for learners."""

from jax import lax

from lecture4.sparse.objective import L1, check
from lecture4.sparse.solvers.admm import admm, admm_steps, factorise
from lecture4.sparse.solvers.coordinate_descent import coordinate_descent
from lecture4.sparse.solvers.proximal import fista, ista, proximal_steps, slope

SOLVERS = {'fista': fista, 'ista': ista, 'admm': admm, 'coordinate_descent': coordinate_descent}


def encode(x, D, weight, *, method='fista', tile=None, **options):
    """Codes by the named solver, over tiles of signals; options are the solver's own.

    Shapes  x [n, d], D [d, k], weight scalar, [k] or [n, 1]. Returns Solution.
    Errors  ValueError for an unknown method; otherwise as the solver.
    """
    if method not in SOLVERS:
        raise ValueError(f'method {method!r} is not one of {", ".join(map(repr, SOLVERS))}')
    return SOLVERS[method](x, D, weight, tile=tile, **options)


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
