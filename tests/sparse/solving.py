"""What the tests of solvers share: small problems, compiled solvers, an independent optimum."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import Lasso

from lecture4.sparse import solvers

STEPWISE = ('fista', 'ista', 'admm')  # checked every check_every iterations
METHODS = (*STEPWISE, 'coordinate_descent', 'feature_sign')
# Those that solve small systems on the support: equal up to rounding, not to the bit.
ON_SUPPORT = ('coordinate_descent', 'feature_sign')
EPS = float(np.finfo(np.float32).eps)


def few(*default, of=METHODS):
    """Cases of a test that compiles programs of its own: these by default, all with the slow tests."""

    def slow(case):
        return pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)

    return [case if case in default else slow(case) for case in of]


def problem(n=12, d=16, k=24, seed=0, dtype: type = np.float64):
    """Signals of norm about 1 that few atoms do not explain, and a dictionary of unit atoms."""
    rng = np.random.default_rng(seed)
    D = rng.standard_normal((d, k))
    D /= np.linalg.norm(D, axis=0)
    sparse = rng.standard_normal((n, k)) * (rng.uniform(size=(n, k)) < 0.2)
    x = 0.5 * sparse @ D.T + 0.1 * rng.standard_normal((n, d))
    return x.astype(dtype), D.astype(dtype)


@functools.cache
def compiled(method):
    solve = getattr(solvers, method)
    static = {'penalty', 'tile', 'stop', 'bfloat16_iterations', 'polish', 'relaxation'} & {
        *inspect.signature(solve).parameters
    }
    return jax.jit(solve, static_argnames=tuple(sorted(static)))


def solve(method, x, D, weight, **options):
    """The solver under jit; weight in the dtype of x."""
    weight = jnp.asarray(weight, x.dtype)
    parameters = inspect.signature(getattr(solvers, method)).parameters
    # All numbers are passed, so that calls with and without them share a program.
    numbers = {
        name: parameters[name].default
        for name in ('tolerance', 'check_every')
        if name in parameters
    }
    options = {'max_iterations': 20000, **numbers, **options}
    if method not in STEPWISE:  # checks when no code would change by much
        options.pop('check_every', None)
    solution = compiled(method)(jnp.asarray(x), jnp.asarray(D), weight, **options)
    return solvers.Solution(*map(np.asarray, solution))


def done(solution):
    """Signals within the tolerance, or as close as their precision allows."""
    return np.asarray(solution.converged | solution.limited_by_precision)


def value(x, D, a, weight, penalty='L1'):
    x, D, a, weight = (np.asarray(v, np.float64) for v in (x, D, a, weight))
    phi = np.abs(a) if penalty == 'L1' else np.log1p(a * a)
    return 0.5 * ((x - a @ D.T) ** 2).sum(1) + (np.broadcast_to(weight, a.shape) * phi).sum(1)


def lasso(x, D, weight):
    """Codes by scikit-learn's coordinate descent in float64, for any weight that broadcasts to [n, k]."""
    x, D = np.asarray(x, np.float64), np.asarray(D, np.float64)
    weight = np.broadcast_to(np.asarray(weight, np.float64), (len(x), D.shape[1]))
    codes = np.zeros(weight.shape)
    for i, (signal, w) in enumerate(zip(x, weight, strict=True)):
        # sum_j w_j |a_j| over D is sum_j |b_j| over atoms divided by w_j, with b_j = w_j a_j.
        model = Lasso(alpha=1 / D.shape[0], fit_intercept=False, tol=1e-14, max_iter=100000)
        codes[i] = model.fit(D / w, signal).coef_ / w
    return codes
