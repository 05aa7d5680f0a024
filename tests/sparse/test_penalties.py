"""Penalties beyond L1, and exact solutions on supports, against scikit-learn in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import ElasticNet, Lasso

from lecture4.sparse import penalties, solvers
from lecture4.sparse.objective import loss
from tests.sparse.solving import done, few


def problem(d=14, k=25, n=9, seed=0):
    rng = np.random.default_rng(seed)
    D = rng.standard_normal((d, k))
    D /= np.linalg.norm(D, axis=0)
    return rng.standard_normal((n, d)), D


def reference(x, D, model):
    return np.stack([model.fit(D, row).coef_.copy() for row in x])


OPTIONS = {'fit_intercept': False, 'tol': 1e-13, 'max_iter': 100_000}


@pytest.mark.parametrize('weight', [0.05, 0.3])
@pytest.mark.parametrize(
    'method', few('coordinate_descent', of=('fista', 'admm', 'coordinate_descent'))
)
def test_nonnegative_codes(method, weight, x64):
    x, D = problem()
    solution = getattr(solvers, method)(
        jnp.asarray(x), jnp.asarray(D), weight, penalty=penalties.NONNEGATIVE, tolerance=1e-10
    )
    best = reference(x, D, Lasso(alpha=weight / len(D), positive=True, **OPTIONS))
    assert solution.converged.all() and (np.asarray(solution.codes) >= 0).all()
    np.testing.assert_allclose(solution.codes, best, atol=1e-5)


@pytest.mark.parametrize('method', few('admm', of=('fista', 'admm')))
@pytest.mark.parametrize('ridge', [3.0, pytest.param(0.1, marks=pytest.mark.slow)])
def test_elastic_net(method, ridge, x64):
    x, D = problem()
    weight = 0.1
    penalty = penalties.elastic_net(ridge)
    solution = getattr(solvers, method)(
        jnp.asarray(x), jnp.asarray(D), weight, penalty=penalty, tolerance=1e-10
    )
    total = weight * (1 + ridge)
    model = ElasticNet(alpha=total / len(D), l1_ratio=weight / total, **OPTIONS)
    assert solution.converged.all()
    # The objective is weight * ridge strongly convex: which bounds the distance of codes from the minimum.
    distance = np.linalg.norm(solution.codes - reference(x, D, model), axis=1)
    assert (0.5 * weight * ridge * distance**2 <= 1.1e-10 * np.asarray(solution.objective)).all()


@pytest.mark.parametrize(
    'penalty, weight',
    [
        (penalties.NONNEGATIVE, 0.2),
        pytest.param(penalties.elastic_net(0.5), 0.2, marks=pytest.mark.slow),
    ],
)
def test_gaps_bound_the_distance_to_the_minimum(penalty, weight, x64):
    x, D = (jnp.asarray(v) for v in problem(seed=1))
    best = solvers.fista(x, D, weight, penalty=penalty, tolerance=1e-12).objective
    for seed, scale in enumerate((0.01, 0.3, 3.0)):
        noise = scale * jax.random.normal(jax.random.key(seed), (len(x), D.shape[1]))
        a = jnp.abs(noise) if penalty is penalties.NONNEGATIVE else noise
        residual = x - a @ D.T
        gap = penalty.gap(residual, residual @ D, a, jnp.full((1, 1), weight))
        distance = loss(x, D, a, weight, penalty) - best
        assert (gap >= distance * (1 - 1e-9)).all() and (distance >= -1e-9).all()


@pytest.mark.slow
def test_a_polished_support_is_certified_to_rounding():
    x, D = (jnp.asarray(v, jnp.float32) for v in problem(n=40, seed=2))
    plain = solvers.admm(x, D, 0.2, tolerance=1e-3)
    polished = solvers.admm(x, D, 0.2, tolerance=1e-3, polish=True)
    assert done(polished).all() and (polished.iterations <= plain.iterations).all()
    # In float32 the last signals, whose supports are as large as they can be, need feature_sign.
    exact = solvers.encode(x, D, 0.2, method='admm', tolerance=1e-6)
    assert done(exact).all() and float(exact.gap.max()) <= 4e-6


def test_penalties_that_a_solver_does_not_support_are_refused():
    x, D = (jnp.asarray(v, jnp.float32) for v in problem())
    with pytest.raises(ValueError, match='ridge=0; expected a positive'):
        penalties.elastic_net(0)
    with pytest.raises(ValueError, match='use fista for other penalties'):
        solvers.coordinate_descent(x, D, 0.1, penalty=penalties.LOG)
    with pytest.raises(ValueError, match='admm needs a convex penalty'):
        solvers.admm(x, D, 0.1, penalty=penalties.LOG)
