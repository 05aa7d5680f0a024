"""Edges and bad input: zeros, one atom, equal atoms, weights from 0 up, values that are not finite, wrong types."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.sparse import implicit, lista, masked, solvers
from lecture4.sparse.dictionary import online
from tests.sparse.solving import METHODS, done, few, lasso, problem, solve, value

# Edges


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    'method, start',
    few(
        ('coordinate_descent', 'cold'),
        ('admm', 'cold'),
        ('fista', 'warm'),
        of=itertools.product(METHODS, ['cold', 'warm']),
    ),
)
def test_weight_from_the_maximum_on_gives_exact_zeros(method, start):
    x, D = problem(dtype=np.float32)
    largest = np.asarray(jnp.abs(jnp.matmul(x, D, precision='highest')).max(1))[:, None]
    noise = np.random.default_rng(8).standard_normal((12, 24)).astype(np.float32)
    init = {} if start == 'cold' else {'init': jnp.asarray(noise)}
    for factor in (1, 1.001, 50):
        solution = solve(method, x, D, np.float32(factor) * largest, **init)
        assert (solution.codes == 0).all() and done(solution).all()
        assert (solution.gap <= 2e-6).all()
        np.testing.assert_allclose(solution.objective, 0.5 * (x * x).sum(1), rtol=1e-6)
    below = solve(method, x, D, np.float32(0.9) * largest, **init)
    assert (below.codes != 0).any(1).all()


@pytest.mark.parametrize('method', few('admm'))
@pytest.mark.parametrize('d', [7, pytest.param(1, marks=pytest.mark.slow)])
def test_one_atom_in_closed_form(method, d, x64):
    rng = np.random.default_rng(9)
    D, x = 1 + rng.uniform(size=(d, 1)), rng.standard_normal((9, d))
    x *= np.linspace(0.05, 3, 9)[:, None]
    v, energy = x @ D, (D * D).sum()
    expected = np.sign(v) * np.maximum(abs(v) - 0.4, 0) / energy
    solution = solve(method, x, D, 0.4, tolerance=1e-13)
    assert solution.converged.all() and (expected == 0).any() and (expected != 0).any()
    np.testing.assert_allclose(solution.codes, expected, atol=1e-6)


@pytest.mark.parametrize('method', few('fista'))
def test_orthonormal_atoms_in_closed_form(method, x64):
    rng = np.random.default_rng(10)
    D, x = np.linalg.qr(rng.standard_normal((8, 8)))[0], rng.standard_normal((9, 8))
    expected = np.sign(x @ D) * np.maximum(abs(x @ D) - 0.5, 0)
    np.testing.assert_allclose(solve(method, x, D, 0.5, tolerance=1e-13).codes, expected, atol=1e-6)


@pytest.mark.parametrize('method', few('admm'))
@pytest.mark.parametrize('tile', [4, pytest.param(None, marks=pytest.mark.slow)])
def test_no_signals_and_one_signal(method, tile):
    x, D = problem(dtype=np.float32)
    none = solve(method, x[:0], D, 0.05, tile=tile)
    assert none.codes.shape == (0, 24) and none.gap.shape == none.converged.shape == (0,)
    one = solve(method, x[:1], D, 0.05, tile=tile)
    all_ = solve(method, x, D, 0.05)
    np.testing.assert_allclose(one.codes, all_.codes[:1], atol=1e-5)


@pytest.mark.parametrize('method', METHODS)
def test_signals_and_atoms_of_zero(method, x64):
    x, D = problem()
    x[4] = 0
    D[:, 7] = 0
    solution = solve(method, x, D, 0.05, tolerance=1e-9)
    assert (
        (solution.codes[4] == 0).all()
        and (solution.codes[:, 7] == 0).all()
        and solution.converged.all()
    )
    assert solution.objective[4] == solution.gap[4] == 0
    rest = np.delete(D, 7, axis=1)
    best = value(x, rest, lasso(x, rest, 0.05), 0.05)
    np.testing.assert_allclose(solution.objective, best, rtol=1e-8)
    nothing = solve(method, x, 0 * D, 0.05)
    assert (nothing.codes == 0).all() and nothing.converged.all()


@pytest.mark.parametrize('method', METHODS)
def test_equal_atoms(method, x64):
    """The minimizer is not unique then; the minimum is, and that of the dictionary without copies."""
    x, D = problem(k=8)
    solution = solve(method, x, np.concatenate([D, D[:, ::-1], -D], 1), 0.05, tolerance=1e-9)
    assert solution.converged.all()
    best = value(x, D, lasso(x, D, 0.05), 0.05)
    np.testing.assert_allclose(solution.objective, best, rtol=1e-8)


@pytest.mark.parametrize('method', METHODS)
def test_codes_scale_with_signals_and_weight(method):
    """Powers of two: not a bit may change, nor an iteration."""
    x, D = problem(dtype=np.float32)
    one = solve(method, x, D, 0.05)
    for scale in (2.0**-20, 2.0**20):
        other = solve(method, x * np.float32(scale), D, 0.05 * scale)
        np.testing.assert_array_equal(other.codes, one.codes * np.float32(scale))
        np.testing.assert_array_equal(other.iterations, one.iterations)
        np.testing.assert_allclose(other.gap, one.gap, rtol=1e-6)


@pytest.mark.parametrize('method', METHODS)
def test_order_and_sign_of_atoms(method, x64):
    x, D = problem()
    rng = np.random.default_rng(11)
    order, sign = rng.permutation(24), rng.choice([-1.0, 1.0], 24)
    one = solve(method, x, D, 0.05, tolerance=1e-8)
    other = solve(method, x, sign * D[:, order], 0.05, tolerance=1e-8)
    np.testing.assert_allclose(other.codes, sign * one.codes[:, order], atol=1e-9)


# Bad input


@pytest.mark.parametrize('method', few('coordinate_descent', 'admm'))
def test_a_weight_of_zero_or_less_is_refused_or_invalid(method):
    """As a number it is refused; as a traced weight of one signal, that signal alone is invalid."""
    x, D = problem(dtype=np.float32)
    for weight in (0.0, -0.1, float('nan')):
        with pytest.raises(ValueError, match=r'penalty weight.*expected a positive.*lstsq'):
            getattr(solvers, method)(jnp.asarray(x), jnp.asarray(D), weight)
    weight = np.full((12, 1), 0.05, np.float32)
    bad = [1, 3]
    weight[bad, 0] = 0.0, -1.0
    solution = solve(method, x, D, weight)
    whole = solve(method, x, D, 0.05)
    assert np.flatnonzero(~done(solution)).tolist() == bad
    assert np.isnan(solution.codes[bad]).all() and np.isnan(solution.gap[bad]).all()
    rest = [np.delete(codes, bad, 0) for codes in (solution.codes, whole.codes)]
    np.testing.assert_allclose(*rest, rtol=1e-4, atol=1e-6)


def test_a_weight_of_zero_is_refused_by_every_solver():
    x, D = map(jnp.asarray, problem(n=4, dtype=np.float32))
    state = online.init(jax.random.key(0), x, 3)
    for run in (
        lambda w: solvers.path(x, D, np.asarray([0.1, w])),
        lambda w: implicit.codes(x, D, w),
        lambda w: lista.init(D, w, 2),
        lambda w: masked.masked_codes(x, jnp.ones_like(x), D, w),
        lambda w: online.step(state, x, jax.random.key(0), penalty_weight=w),
    ):
        for weight in (0.0, -0.1):
            with pytest.raises(ValueError, match=f'penalty weight {weight}; expected a positive'):
                run(weight)
        with pytest.raises(ValueError, match='penalty weight inf; expected a finite'):
            run(np.inf)
    with pytest.raises(ValueError, match=r'D of shape \(16, 0\) has no atom'):
        solvers.encode(x, D[:, :0], 0.1)


@pytest.mark.parametrize('method', METHODS)
def test_atoms_of_any_norm(method, x64):
    """Norm bound C: the codes of atoms c times as long are those of c times the weight, c times less."""
    x, D = problem()
    one = solve(method, x, D, 0.05, tolerance=1e-10)
    long = solve(method, x, 3 * D, 3 * 0.05, tolerance=1e-10)
    np.testing.assert_allclose(long.codes, one.codes / 3, atol=1e-7)
    # And with different norms.
    norms = np.geomspace(0.2, 5, 24)
    mixed = solve(method, x, D * norms, 0.05, tolerance=1e-10, max_iterations=200_000)
    best = value(x, D * norms, lasso(x, D * norms, 0.05), 0.05)
    np.testing.assert_allclose(mixed.objective, best, rtol=1e-8)


@pytest.mark.parametrize('method', METHODS)
def test_a_dictionary_that_is_not_finite_invalidates_all(method):
    x, D = problem(dtype=np.float32)
    D[2, 5] = np.nan
    solution = solve(method, x, D, 0.05)
    assert np.isnan(solution.codes).all() and not done(solution).any()


def test_float16_and_bfloat16_are_refused_with_the_fix():
    x, D = problem(n=3, dtype=np.float32)
    for dtype in (jnp.float16, jnp.bfloat16):
        with pytest.raises(
            TypeError, match=r'too coarse to certify codes; convert them to float32'
        ):
            solvers.encode(jnp.asarray(x, dtype), jnp.asarray(D, dtype), 0.1)
