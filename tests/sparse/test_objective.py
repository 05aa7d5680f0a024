"""Objective and certificates against the formulas in float64 and scikit-learn's minimum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.linear_model import Lasso

from lecture4.sparse import objective
from lecture4.sparse.objective import L1, LOG

RNG = np.random.default_rng(0)
N, D_, K = 7, 10, 16
DICTIONARY = RNG.standard_normal((D_, K))
DICTIONARY /= np.linalg.norm(DICTIONARY, axis=0)
X = RNG.standard_normal((N, D_))
CODES = RNG.standard_normal((N, K)) * (RNG.uniform(size=(N, K)) < 0.5)
WEIGHTS = {
    'scalar': np.asarray(0.3),
    'per atom': RNG.uniform(0.1, 0.5, K),
    'per signal': RNG.uniform(0.1, 0.5, (N, 1)),
    'both': RNG.uniform(0.1, 0.5, (N, K)),
}


def primal(x, D, a, weight):
    x, D, a, weight = (np.asarray(v, np.float64) for v in (x, D, a, weight))
    return 0.5 * ((x - a @ D.T) ** 2).sum(1) + (np.broadcast_to(weight, a.shape) * abs(a)).sum(1)


def dual_maximum(x, D, a, weight):
    """max over feasible s of the dual 0.5 |x|^2 - 0.5 |x - s r|^2 along the residual, by search."""
    residual = x - a @ D.T
    best = []
    for signal, r, w in zip(x, residual, np.broadcast_to(weight, a.shape), strict=True):
        limit = (w / abs(r @ D)).min()

        def dual(s, signal=signal, r=r):
            return 0.5 * (signal @ signal - ((signal - s * r) ** 2).sum())

        search = minimize_scalar(
            lambda s, dual=dual: -dual(s),
            bounds=(-limit, limit),
            method='bounded',
            options={'xatol': 1e-12},
        )
        best.append(max(-search.fun, dual(limit), dual(-limit)))
    return np.array(best)


def minimum(x, D, weight):
    weight = np.broadcast_to(weight, (len(x), D.shape[1]))
    codes = np.zeros(weight.shape)
    for i, (signal, w) in enumerate(zip(x, weight, strict=True)):
        model = Lasso(alpha=1 / D.shape[0], fit_intercept=False, tol=1e-14, max_iter=100000)
        codes[i] = model.fit(D / w, signal).coef_ / w
    return codes


@pytest.mark.parametrize('kind', WEIGHTS)
def test_loss_is_its_formula(kind, x64):
    weight = WEIGHTS[kind]
    result = objective.loss(X, DICTIONARY, CODES, weight)
    np.testing.assert_allclose(result, primal(X, DICTIONARY, CODES, weight), rtol=1e-13)
    log = 0.5 * ((X - CODES @ DICTIONARY.T) ** 2).sum(1)
    log += (np.broadcast_to(weight, (N, K)) * np.log(1 + CODES**2)).sum(1)
    result = objective.loss(X, DICTIONARY, CODES, weight, LOG)
    np.testing.assert_allclose(result, log, rtol=1e-13)


@pytest.mark.parametrize('kind', WEIGHTS)
def test_gap_is_primal_minus_the_best_dual_along_the_residual(kind, x64):
    weight = WEIGHTS[kind]
    for factor in (1e-3, 0.1, 1, 30):  # also where the best scale is not feasible
        for codes in (CODES, 0 * CODES, -3 * CODES):
            result = objective.duality_gap(X, DICTIONARY, codes, factor * weight)
            above = primal(X, DICTIONARY, codes, factor * weight)
            below = dual_maximum(X, DICTIONARY, codes, factor * weight)
            np.testing.assert_allclose(result, above - below, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize('kind', WEIGHTS)
def test_gap_bounds_the_distance_to_the_minimum_and_vanishes_there(kind, x64):
    weight = WEIGHTS[kind]
    best = minimum(X, DICTIONARY, weight)
    lowest = primal(X, DICTIONARY, best, weight)
    assert (best != 0).any(1).all() and (best == 0).any(1).all()
    for t in (1, 0.1, 1e-2, 1e-4):
        codes = best + t * (CODES - best)
        gap = np.asarray(objective.duality_gap(X, DICTIONARY, codes, weight))
        excess = primal(X, DICTIONARY, codes, weight) - lowest
        assert (gap >= excess - 1e-13).all() and (excess > 0).all()
        assert (gap < 30 * t * lowest).all()
    assert (objective.duality_gap(X, DICTIONARY, best, weight) < 1e-6 * lowest).all()
    assert (objective.stationarity(X, DICTIONARY, best, weight) < 1e-6).all()


def test_gap_in_float32_reaches_rounding_and_stays_a_bound():
    """At a minimum the difference of two objectives is noise of either sign; a sum of terms is not."""
    x, D = X.astype(np.float32), DICTIONARY.astype(np.float32)
    best = minimum(x.astype(np.float64), D.astype(np.float64), 0.05)
    codes = best.astype(np.float32)
    gap = np.asarray(objective.duality_gap(x, D, codes, 0.05))
    excess = primal(x, D, codes, 0.05) - primal(x, D, best, 0.05)
    assert gap.dtype == np.float32
    assert (gap >= 0).all() and (gap >= excess).all()
    assert (gap < 1e-5 * (x * x).sum(1)).all()


@pytest.mark.parametrize('scale', [1e-12, 1.0, 1e12])
def test_gap_of_zero_codes_vanishes_from_the_maximal_weight_on(scale):
    x, D = (scale * X).astype(np.float32), DICTIONARY.astype(np.float32)
    zero = np.zeros((N, K), np.float32)
    largest = objective.max_l1_penalty(x, D)
    np.testing.assert_allclose(largest, abs(x.astype(np.float64) @ D).max(1), rtol=1e-6)
    for factor in (1, 1.5, 1e3):
        gap = objective.duality_gap(x, D, zero, factor * largest[:, None])
        assert (gap <= 1e-13 * np.float64(scale) ** 2 * (X * X).sum(1)).all()
        if factor > 1:
            assert (gap == 0).all()
    below = objective.duality_gap(x, D, zero, 0.99 * largest[:, None])
    assert (below > 1e-5 * scale**2).all()


def test_max_l1_penalty_is_where_codes_become_zero(x64):
    largest = np.asarray(objective.max_l1_penalty(X, DICTIONARY))[:, None]
    assert (minimum(X, DICTIONARY, (1 + 1e-9) * largest) == 0).all()
    assert (minimum(X, DICTIONARY, (1 - 1e-3) * largest) != 0).any(1).all()


def test_signals_and_atoms_of_zero():
    x, D = X.astype(np.float32), DICTIONARY.astype(np.float32)
    x[2], D[:, 3] = 0, 0
    zero = np.zeros((N, K), np.float32)
    gap = np.asarray(objective.duality_gap(x, D, zero, 0.1))
    assert gap[2] == 0 and np.isfinite(gap).all()
    assert objective.max_l1_penalty(x, D)[2] == 0
    assert (objective.duality_gap(x, 0 * D, zero, 0.1) == 0).all()
    # A perfect fit has no residual to make a dual point of; then the gap is the penalty.
    codes = np.eye(N, K, dtype=np.float32)
    exact = objective.duality_gap(codes @ D.T, D, codes, 0.1)
    np.testing.assert_allclose(exact, 0.1 * codes.sum(1), rtol=1e-6)


def test_no_signals_and_no_atoms():
    D = DICTIONARY.astype(np.float32)
    none = jnp.zeros((0, D_)), D, jnp.zeros((0, K)), 0.1
    for function in (objective.loss, objective.duality_gap, objective.stationarity):
        assert function(*none).shape == (0,)
    x = X.astype(np.float32)
    bare = x, jnp.zeros((D_, 0)), jnp.zeros((N, 0)), 0.1
    np.testing.assert_allclose(objective.loss(*bare), 0.5 * (x * x).sum(1), rtol=1e-6)
    assert (objective.duality_gap(*bare) == 0).all()
    assert (objective.max_l1_penalty(*bare[:2]) == 0).all()


def test_scaling_of_the_lecture(x64):
    """Without the half: the same minimizer at lambda = 2 weight, twice the value."""
    weight = 0.15
    best = minimum(X, DICTIONARY, weight)

    def lecture(a):
        return ((X - a @ DICTIONARY.T) ** 2).sum(1) + 2 * weight * abs(a).sum(1)

    np.testing.assert_allclose(
        lecture(CODES), 2 * objective.loss(X, DICTIONARY, CODES, weight), rtol=1e-13
    )
    rng = np.random.default_rng(1)
    for size in (1e-3, 1e-1, 1):
        for _ in range(20):
            assert (lecture(best + size * rng.standard_normal(best.shape)) > lecture(best)).all()


def test_stationarity_is_the_gradient_where_the_penalty_is_smooth(x64):
    """As the step shrinks (a - prox(a - step g)) / step becomes the derivative of the objective."""
    weight = jnp.asarray(WEIGHTS['both'])
    slope = jax.grad(lambda a: objective.loss(X, DICTIONARY, a, weight, LOG).sum())(
        jnp.asarray(CODES)
    )
    result = objective.stationarity(X, DICTIONARY, CODES, weight, LOG, step_size=1e-7)
    np.testing.assert_allclose(result, np.linalg.norm(slope, axis=1), rtol=1e-6)
    closed_form = (CODES @ DICTIONARY.T - X) @ DICTIONARY + weight * 2 * CODES / (1 + CODES**2)
    np.testing.assert_allclose(slope, closed_form, rtol=1e-10, atol=1e-13)


def test_stationarity_of_l1_in_closed_form(x64):
    gradient = (CODES @ DICTIONARY.T - X) @ DICTIONARY
    v = CODES - 0.2 * gradient
    moved = np.sign(v) * np.maximum(abs(v) - 0.2 * 0.3, 0)
    result = objective.stationarity(X, DICTIONARY, CODES, 0.3, L1, step_size=0.2)
    np.testing.assert_allclose(result, np.linalg.norm(CODES - moved, axis=1) / 0.2, rtol=1e-12)


def test_vmap_over_weights_and_jit():
    x, D, a = (jnp.asarray(v, jnp.float32) for v in (X, DICTIONARY, CODES))
    weights = jnp.asarray([0.1, 0.3, 1.0])
    gaps = jax.jit(jax.vmap(objective.duality_gap, (None, None, None, 0)))(x, D, a, weights)
    for weight, gap in zip(weights, gaps, strict=True):
        np.testing.assert_allclose(gap, objective.duality_gap(x, D, a, weight), rtol=1e-5)


def test_errors_name_what_was_passed_and_what_is_expected():
    x, D, a = (jnp.asarray(v, jnp.float32) for v in (X, DICTIONARY, CODES))
    for function in (objective.loss, objective.duality_gap, objective.stationarity):
        with pytest.raises(TypeError, match='x has dtype int32'):
            function(x.astype(int), D, a, 0.1)
        with pytest.raises(TypeError, match=r'codes has dtype int32.*astype\("float32"\)'):
            function(x, D, a.astype(int), 0.1)
        with pytest.raises(TypeError, match='bfloat16, too coarse to certify'):
            function(x.astype(jnp.bfloat16), D.astype(jnp.bfloat16), a, 0.1)
        with pytest.raises(ValueError, match=r'codes of shape \(16, 7\).*expected \[7, 16\]'):
            function(x, D, a.T, 0.1)
        with pytest.raises(ValueError, match=r'transposed, pass D\.T'):
            function(x, D.T, a, 0.1)
        with pytest.raises(ValueError, match=r'single signal as x\[None\]'):
            function(x[0], D, a, 0.1)
        with pytest.raises(ValueError, match=r'\(7,\) does not broadcast .*a weight per signal'):
            function(x, D, a, jnp.ones(7))
        with pytest.raises(ValueError, match=r'weight of shape \(1, 7, 16\)'):
            function(x, D, a, jnp.ones((1, 7, 16)))
    with pytest.raises(TypeError, match='D has dtype int32'):
        objective.max_l1_penalty(x, D.astype(int))
