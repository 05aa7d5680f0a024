"""Codes against scikit-learn's Lasso, the optimality conditions and closed forms; certificates hold."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from lecture4.sparse.objective import L1, LOG
from tests.sparse.solving import EPS, METHODS, done, few, lasso, problem, solve, value

# Agreement with an independent solver


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    'method, shape',
    few(
        *((method, (16, 24)) for method in METHODS),
        ('fista', (24, 10)),
        ('fista', (9, 30)),
        of=itertools.product(METHODS, [(16, 24), (24, 10), (9, 30)]),
    ),
    ids=str,
)
def test_lasso_in_float64(method, shape, x64):
    # k < 2 d, k < d and k > 2 d: the three ways in which the products are arranged.
    x, D = problem(d=shape[0], k=shape[1])
    best = lasso(x, D, 0.05)
    solution = solve(method, x, D, 0.05, tolerance=1e-9)
    assert solution.converged.all()
    np.testing.assert_allclose(
        value(x, D, solution.codes, 0.05), value(x, D, best, 0.05), rtol=1e-8
    )
    np.testing.assert_allclose(solution.codes, best, atol=2e-4)
    assert ((best != 0).sum(1) > 2).all() and (best == 0).any(1).all()


@pytest.mark.parametrize('method', METHODS)
def test_lasso_in_float32_to_the_default_tolerance(method):
    x, D = problem(dtype=np.float32)
    solution = solve(method, x, D, 0.05)
    best = value(x, D, lasso(x, D, 0.05), 0.05)
    excess = value(x, D, solution.codes, 0.05) / best - 1
    assert solution.codes.dtype == np.float32 and done(solution).all()
    assert (excess < 1e-4).all() and (excess > -1e-9).all()


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    'method, kind',
    few(
        ('coordinate_descent', 'per atom'),
        ('admm', 'per signal'),
        ('fista', 'both'),
        of=itertools.product(METHODS, ['per atom', 'per signal', 'both']),
    ),
)
def test_lasso_with_a_weight_of_every_shape(method, kind, x64):
    x, D = problem()
    shape = {'per atom': (24,), 'per signal': (12, 1), 'both': (12, 24)}[kind]
    weight = np.random.default_rng(1).uniform(0.02, 0.1, shape)
    solution = solve(method, x, D, weight, tolerance=1e-9)
    best = lasso(x, D, weight)
    np.testing.assert_allclose(
        value(x, D, solution.codes, weight), value(x, D, best, weight), rtol=1e-8
    )


@pytest.mark.slow
def test_ill_conditioned_dictionary():
    """Raw digits as atoms and signals: eigenvalues of DD' from 0 to over 50; ADMM is the faster one."""
    digits = load_digits().data.astype(np.float32) / 16
    D = digits[100:200].T / np.linalg.norm(digits[100:200], axis=1)
    x = digits[:20]
    best = value(x, D, lasso(x, D, 0.1), 0.1)
    for tolerance in (1e-3, 1e-4):
        solution = solve('fista', x, D, 0.1, tolerance=tolerance)
        assert solution.converged.all()
        assert (value(x, D, solution.codes, 0.1) <= best * (1 + tolerance)).all()
    # In float32 ADMM's gap stops falling near 1e-4 on the hardest of these signals.
    quick = solve('admm', x, D, 0.1, tolerance=1e-3)
    slow = solve('fista', x, D, 0.1, tolerance=1e-3)
    assert quick.converged.all()
    assert (value(x, D, quick.codes, 0.1) <= best * (1 + 1e-3)).all()
    assert np.median(quick.iterations) < 0.5 * np.median(slow.iterations)


# What holds at a minimum, and on the way to it


@pytest.mark.parametrize('method', METHODS)
def test_optimality_conditions(method, x64):
    x, D = problem()
    solution = solve(method, x, D, 0.05, tolerance=1e-13)
    correlation = (x - solution.codes @ D.T) @ D
    used = solution.codes != 0
    assert used.any() and not used.all()
    assert np.abs(correlation).max() < 0.05 * (1 + 1e-5)
    np.testing.assert_allclose(correlation[used], 0.05 * np.sign(solution.codes[used]), atol=1e-6)


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('max_iterations', [0, 1, 4, 25])
def test_certificate_bounds_the_distance_to_the_minimum(method, max_iterations):
    """Also of codes that are far from converged, and in float32."""
    x, D = problem(dtype=np.float32)
    weight = np.float32(0.03)
    best = value(x, D, lasso(x, D, weight), weight)
    solution = solve(
        method, x, D, weight, tolerance=1e-3, max_iterations=max_iterations, check_every=7
    )
    reached = value(x, D, solution.codes, weight)
    np.testing.assert_allclose(solution.objective, reached, rtol=1e-5)
    assert (
        solution.gap * reached >= (reached - best) * (1 - 1e-4) - 4 * EPS * (x * x).sum(1)
    ).all()
    assert (solution.gap[solution.converged] <= 1e-3 * (1 + 4 * EPS)).all()
    assert (solution.gap[~solution.converged] > 1e-3).all()
    assert (solution.iterations <= max_iterations).all() and solution.iterations.dtype == np.int32
    if max_iterations < 4:
        assert not done(solution).any()


@pytest.mark.parametrize(
    'penalty', [L1, pytest.param(LOG, marks=pytest.mark.slow)], ids=['L1', 'log']
)
def test_ista_falls_at_every_step_by_at_least_the_step_squared(penalty, x64):
    """F(a) - F(a+) >= L/2 |a - a+|^2 for any L >= the largest eigenvalue (the prox is exact)."""
    x, D = problem()
    name = 'L1' if penalty is L1 else 'log'
    # For a penalty that is not convex the majorizer only promises that much for the excess of L.
    L = np.linalg.eigvalsh(D.T @ D)[-1] if penalty is L1 else 0
    a = np.random.default_rng(2).standard_normal((12, 24))
    for _ in range(40):
        moved = solve(
            'ista',
            x,
            D,
            0.05,
            penalty=penalty,
            init=jnp.asarray(a),
            tolerance=0.0,
            max_iterations=1,
        ).codes
        fall = value(x, D, a, 0.05, name) - value(x, D, moved, 0.05, name)
        assert (fall >= 0.5 * L * ((a - moved) ** 2).sum(1) - 1e-14).all()
        a = moved
    assert (fall > 0).any()


def test_convergence_is_as_fast_as_theory_promises(x64):
    """F(a_m) - F* within L |a*|^2 / 2m (ista) and 2 L |a*|^2 / (m + 1)^2 (fista)."""
    x, D = problem(seed=3)
    D = D * np.geomspace(1, 0.03, 24)  # badly conditioned
    best = lasso(x, D, 1e-3)
    L, energy = np.linalg.eigvalsh(D.T @ D)[-1], (best**2).sum(1)
    for m in (3, 30, 100):
        for method, bound in (('ista', 0.5 / m), ('fista', 2 / (m + 1) ** 2)):
            solution = solve(method, x, D, 1e-3, tolerance=0.0, max_iterations=m, check_every=100)
            excess = value(x, D, solution.codes, 1e-3) - value(x, D, best, 1e-3)
            assert (excess <= 1.02 * bound * L * energy).all(), (method, m)
    slow, fast = (solve(m, x, D, 1e-3, tolerance=1e-3).iterations for m in ('ista', 'fista'))
    assert np.median(fast) < 0.5 * np.median(slow)


# The log penalty


@pytest.mark.parametrize('method', few('fista', of=('fista', 'ista')))
@pytest.mark.parametrize('weight', [0.05, 2.0])
def test_log_codes_are_stationary(method, weight, x64):
    """The penalty is smooth, so its gradient must vanish; at weight 2 the objective is not convex."""
    x, D = problem()
    x = 5 * x
    solution = solve(method, x, D, weight, penalty=LOG, tolerance=1e-9)
    assert solution.converged.all() and (solution.gap <= 1e-9).all()
    gradient = (solution.codes @ D.T - x) @ D + weight * 2 * solution.codes / (
        1 + solution.codes**2
    )
    assert (np.linalg.norm(gradient, axis=1) < 1e-8 * np.linalg.norm(x @ D, axis=1)).all()
    np.testing.assert_allclose(
        solution.objective, value(x, D, solution.codes, weight, 'log'), rtol=1e-12
    )
    assert (solution.objective < 0.5 * (x * x).sum(1)).all()


@pytest.mark.parametrize('method', few('fista', of=('fista', 'ista')))
@pytest.mark.parametrize('k', [4, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize('weight', [0.7, 6.0, 15.0])
def test_log_codes_on_orthogonal_atoms_against_a_dense_grid(method, k, weight, x64):
    """There every coefficient is a separate problem; above weight 4 it has two minima."""
    rng = np.random.default_rng(4)
    D = np.linalg.qr(rng.standard_normal((6, 6)))[0][:, :k]
    x = 8 * rng.standard_normal((10, 6))
    solution = solve(method, x, D, weight, penalty=LOG, tolerance=1e-10)
    grid = np.linspace(0, 1, 20001)
    best = 0.5 * (x * x).sum(1)
    for v in (x @ D).T:
        a = v[:, None] * grid
        best += np.min(0.5 * a**2 - v[:, None] * a + weight * np.log1p(a * a), axis=1)
    np.testing.assert_allclose(value(x, D, solution.codes, weight, 'log'), best, rtol=1e-6)


@pytest.mark.parametrize('weight', [0.05, 2.0])
def test_log_objective_of_fista_never_rises(weight, x64):
    x, D = problem()
    x, D = 5 * x, D * np.geomspace(1, 0.05, 24)
    values = [value(x, D, np.zeros((12, 24)), weight, 'log')]
    for m in (1, 2, 3, 5, 8, 13, 21, 34, 55):
        solution = solve(
            'fista', x, D, weight, penalty=LOG, tolerance=0.0, max_iterations=m, check_every=100
        )
        values.append(value(x, D, solution.codes, weight, 'log'))
    assert (np.diff(values, axis=0) <= 1e-12).all()
