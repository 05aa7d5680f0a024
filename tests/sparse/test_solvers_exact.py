"""Feature-sign search, matching pursuit and regularization paths, against scikit-learn in float64."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import lars_path, orthogonal_mp

from lecture4.sparse import solvers
from lecture4.sparse.objective import LOG, max_l1_penalty
from tests.sparse.solving import EPS, done, lasso, problem, solve, value

# Feature-sign search


def test_feature_sign_is_exact_to_rounding(x64):
    x, D = problem()
    best = lasso(x, D, 0.02)
    solution = solve('feature_sign', x, D, 0.02, tolerance=1e-13)
    assert solution.converged.all() and (solution.gap < 1e-12).all()
    np.testing.assert_allclose(solution.codes, best, atol=1e-9)
    assert ((best != 0) == (solution.codes != 0)).all() and (best != 0).sum(1).max() > 6
    # No guess occurs twice: hardly more steps than codes in use.
    assert (solution.iterations <= 3 * (best != 0).sum(1) + 3).all()


def test_feature_sign_in_float32_reaches_float32_rounding():
    x, D = problem(dtype=np.float32)
    solution = solve('feature_sign', x, D, 0.02)
    best = value(x, D, lasso(x, D, 0.02), 0.02)
    assert done(solution).all() and (solution.gap <= 1e-6 + 4 * EPS * (x * x).sum(1) / best).all()
    np.testing.assert_allclose(value(x, D, solution.codes, 0.02), best, rtol=1e-6)


def test_feature_sign_removes_codes_of_the_wrong_sign(x64):
    x, D = problem()
    wrong = -solve('feature_sign', x, D, 0.05, tolerance=1e-13).codes
    solution = solve('feature_sign', x, D, 0.05, init=jnp.asarray(wrong), tolerance=1e-13)
    assert solution.converged.all()
    np.testing.assert_allclose(solution.codes, -wrong, atol=1e-8)


# Matching pursuit


@pytest.mark.parametrize(
    'n_nonzero', [4, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 9))]
)
def test_matching_pursuit_against_scikit_learn(n_nonzero, x64):
    x, D = problem(n=15, d=16, k=40)
    D = D * np.linspace(0.5, 2, 40)  # the norms of atoms do not influence the choice
    unit = D / np.linalg.norm(D, axis=0)
    best = orthogonal_mp(unit, x.T, n_nonzero_coefs=n_nonzero).T / np.linalg.norm(D, axis=0)
    solution = solvers.matching_pursuit(jnp.asarray(x), jnp.asarray(D), n_nonzero, tile=4)
    np.testing.assert_allclose(solution.codes, best, atol=1e-10)
    assert solution.converged.all() and (np.asarray(solution.iterations) == n_nonzero).all()
    np.testing.assert_allclose(solution.objective, 0.5 * ((x - best @ D.T) ** 2).sum(1), atol=1e-12)


def test_matching_pursuit_stops_at_the_energy(x64):
    x, D = problem(n=15, d=16, k=40)
    energy = 0.1 * (x * x).sum(1)
    solution = solvers.matching_pursuit(
        jnp.asarray(x), jnp.asarray(D), 16, residual_energy=jnp.asarray(energy)
    )
    left = ((x - solution.codes @ D.T) ** 2).sum(1)
    assert (left <= energy).all()
    fewer = orthogonal_mp(D, x.T, n_nonzero_coefs=1).T
    assert ((x - fewer @ D.T) ** 2).sum(1).max() > energy.max()
    for i, count in enumerate(np.asarray(solution.iterations)):
        if count > 1:  # one atom less is not enough
            less = orthogonal_mp(D, x[i], n_nonzero_coefs=count - 1)
            assert ((x[i] - D @ less) ** 2).sum() > energy[i]


def test_one_atom_of_matching_pursuit_is_the_best_of_all(x64):
    x, D = problem(n=6, k=7)
    solution = solvers.matching_pursuit(jnp.asarray(x), jnp.asarray(D), 1)
    for i, j in itertools.product(range(6), range(7)):
        alone = (D[:, j] @ x[i]) * D[:, j]
        assert 2 * solution.objective[i] <= ((x[i] - alone) ** 2).sum() + 1e-12


def test_matching_pursuit_with_bad_input():
    x, D = problem(n=6, dtype=np.float32)
    x[1], x[2], D[:, 3] = np.nan, 0, 0
    D[:, 5] = D[:, 6]
    solution = solvers.matching_pursuit(jnp.asarray(x), jnp.asarray(D), 20)
    assert np.isnan(solution.codes[1]).all() and not solution.converged[1]
    assert (solution.codes[2] == 0).all() and solution.iterations[2] == 0
    others = np.delete(np.asarray(solution.codes), 1, axis=0)
    assert np.isfinite(others).all() and (others[:, 3] == 0).all()
    alone = solvers.matching_pursuit(jnp.asarray(x[4:5]), jnp.asarray(D), 20)
    np.testing.assert_allclose(alone.codes[0], solution.codes[4], atol=1e-5)
    none = solvers.matching_pursuit(jnp.asarray(x[:0]), jnp.asarray(D), 3)
    assert none.codes.shape == (0, 24)
    with pytest.raises(ValueError, match='n_nonzero=0; expected at least 1 atom'):
        solvers.matching_pursuit(jnp.asarray(x), jnp.asarray(D), 0)
    with pytest.raises(ValueError, match='tile=0; expected at least 1'):
        solvers.matching_pursuit(jnp.asarray(x), jnp.asarray(D), 3, tile=0)
    with pytest.raises(
        ValueError, match=r'residual_energy of shape \(3,\); expected a scalar or \[6\]'
    ):
        solvers.matching_pursuit(jnp.asarray(x), jnp.asarray(D), 3, residual_energy=jnp.ones(3))
    with pytest.raises(ValueError, match=r'\(16, 0\) has no atom'):
        solvers.matching_pursuit(jnp.asarray(x), jnp.asarray(D[:, :0]), 3)
    with pytest.raises(TypeError, match='x has dtype int32'):
        solvers.matching_pursuit(jnp.zeros((2, 16), int), jnp.asarray(D), 3)


# Paths over weights


def test_path_is_that_of_lars(x64):
    x, D = map(jnp.asarray, problem(n=3))
    weights = solvers.weights_from_max(x, D, 6, min_fraction=0.05)
    assert weights[0] == max_l1_penalty(x, D).max() and (jnp.diff(weights) < 0).all()
    solution = solvers.path(x, D, weights, tolerance=1e-10)
    assert solution.codes.shape == (6, 3, 24) and solution.converged.all()
    assert (solution.codes[0] == 0).all()
    for i in range(3):
        alphas, _, coefs = lars_path(np.asarray(D), np.asarray(x[i]), method='lasso', alpha_min=0)
        for weight, codes in zip(weights, solution.codes[:, i], strict=True):
            # Between its knots the path is linear; alpha is the weight over d.
            at = [np.interp(weight / len(D), alphas[::-1], row[::-1]) for row in coefs]
            np.testing.assert_allclose(codes, at, atol=1e-5)


def test_path_keeps_invalid_signals_and_refuses_a_single_weight(x64):
    x, D = problem(n=3)
    x[1] = np.inf
    weights = jnp.geomspace(0.2, 0.1, 6)
    solution = solvers.path(jnp.asarray(x), jnp.asarray(D), weights, tolerance=1e-4)
    assert done(solution).tolist() == [[True, False, True]] * 6
    with pytest.raises(ValueError, match=r'penalty weights of shape \(\); expected \[p\]'):
        solvers.path(jnp.asarray(x), jnp.asarray(D), jnp.asarray(0.1))


# Initial codes of the log penalty


@pytest.mark.slow
def test_log_codes_from_the_codes_of_l1(x64):
    """Above weight 4 the penalty has minima to choose from, and this start reaches the lower ones."""
    x, D = problem()
    x = 40 * x
    options = {'penalty': LOG, 'init': 'l1', 'tolerance': 1e-9, 'max_iterations': 20000}
    solution = jax.jit(functools.partial(solvers.fista, **options))(x, D, 6.0)
    assert solution.converged.all()
    gradient = (solution.codes @ D.T - x) @ D + 6.0 * 2 * solution.codes / (1 + solution.codes**2)
    assert (np.linalg.norm(gradient, axis=1) < 1e-8 * np.linalg.norm(x @ D, axis=1)).all()
    plain = solve('fista', x, D, 6.0, penalty=LOG, tolerance=1e-9)
    assert solution.objective.mean() < 0.99 * plain.objective.mean()
