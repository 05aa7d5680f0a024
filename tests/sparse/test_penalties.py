"""Penalties beyond L1, and supports solved for exactly, against scikit-learn in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import ElasticNet, Lasso

from lecture4.sparse import penalties, solvers
from lecture4.sparse.objective import loss


def problem(d=14, k=25, n=9, seed=0):
    rng = np.random.default_rng(seed)
    D = rng.standard_normal((d, k))
    D /= np.linalg.norm(D, axis=0)
    return rng.standard_normal((n, d)), D


def reference(x, D, model):
    return np.stack([model.fit(D, row).coef_.copy() for row in x])


OPTIONS = {'fit_intercept': False, 'tol': 1e-13, 'max_iter': 100_000}


@pytest.mark.parametrize('weight', [0.05, 0.3])
@pytest.mark.parametrize('method', ['fista', 'admm', 'coordinate_descent'])
def test_codes_that_may_not_be_negative(method, weight, x64):
    x, D = problem()
    found = getattr(solvers, method)(
        jnp.asarray(x), jnp.asarray(D), weight, penalty=penalties.NONNEGATIVE, tolerance=1e-10
    )
    best = reference(x, D, Lasso(alpha=weight / len(D), positive=True, **OPTIONS))
    assert found.converged.all() and (np.asarray(found.codes) >= 0).all()
    np.testing.assert_allclose(found.codes, best, atol=1e-5)


@pytest.mark.parametrize('method', ['fista', 'admm'])
@pytest.mark.parametrize('ridge', [0.1, 3.0])
def test_elastic_net(method, ridge, x64):
    x, D = problem()
    weight = 0.1
    penalty = penalties.elastic_net(ridge)
    found = getattr(solvers, method)(
        jnp.asarray(x), jnp.asarray(D), weight, penalty=penalty, tolerance=1e-10
    )
    total = weight * (1 + ridge)
    model = ElasticNet(alpha=total / len(D), l1_ratio=weight / total, **OPTIONS)
    assert found.converged.all()
    # The objective is weight * ridge strongly convex: so far may codes be from the minimum.
    far = np.linalg.norm(found.codes - reference(x, D, model), axis=1)
    assert (0.5 * weight * ridge * far**2 <= 1.1e-10 * np.asarray(found.objective)).all()


@pytest.mark.parametrize(
    'penalty, weight', [(penalties.NONNEGATIVE, 0.2), (penalties.elastic_net(0.5), 0.2)]
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
    assert polished.converged.all() and (polished.iterations <= plain.iterations).all()
    # In float32 the last signals, whose supports are as large as they can be, want feature_sign.
    exact = solvers.encode(x, D, 0.2, method='admm', tolerance=1e-6)
    assert exact.converged.all() and float(exact.gap.max()) <= 4e-6


def test_what_a_solver_cannot_do_is_refused():
    x, D = (jnp.asarray(v, jnp.float32) for v in problem())
    with pytest.raises(ValueError, match='ridge 0 must be positive'):
        penalties.elastic_net(0)
    with pytest.raises(ValueError, match='use fista for other penalties'):
        solvers.coordinate_descent(x, D, 0.1, penalty=penalties.LOG)
    with pytest.raises(ValueError, match='admm wants a convex penalty'):
        solvers.admm(x, D, 0.1, penalty=penalties.LOG)
