"""The third state of a certificate: a gap that only more precision could lower."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.sparse import masked, solvers
from lecture4.sparse.objective import LOG
from tests.sparse.solving import METHODS, few, problem, solve

TINY = 1e-6  # of the signals' scale: the objective is a few roundings of |x|^2


@pytest.mark.parametrize(
    'method', few('encode', of=('fista', 'coordinate_descent', 'feature_sign', 'encode'))
)
def test_tiny_weights_are_limited_by_precision(method):
    """With k >= d the residual vanishes, and a gap of rounding is large relative to the objective."""
    x, D = problem(dtype=np.float32)
    run = solvers.encode if method == 'encode' else getattr(solvers, method)
    solution = run(jnp.asarray(x), jnp.asarray(D), TINY, tolerance=1e-4)
    limited = np.asarray(solution.limited_by_precision)
    gap = np.asarray(solution.gap)
    assert limited.any() and gap[limited].min() > 1e-4
    rounding = 2.01 * np.finfo(np.float32).eps * (x * x).sum(1)
    assert (gap * solution.objective <= 1e-4 * solution.objective + rounding)[limited].all()
    assert not (limited & np.asarray(solution.converged)).any()


@pytest.mark.parametrize('method', METHODS)
def test_converged_means_within_the_tolerance(method):
    x, D = problem(dtype=np.float32)
    for weight, tolerance in ((TINY, 1e-4), (0.05, 1e-8), (0.05, 1e-4)):
        solution = solve(method, x, D, np.float32(weight), tolerance=tolerance, max_iterations=500)
        assert (solution.gap[solution.converged] <= tolerance * (1 + 1e-6)).all()
        others = solution.limited_by_precision
        assert (solution.gap[others] > tolerance * (1 - 1e-6)).all()


def test_float64_converges_where_float32_is_limited(x64):
    x, D = problem()
    solution = solvers.encode(jnp.asarray(x), jnp.asarray(D), TINY, tolerance=1e-4)
    assert solution.converged.all() and not solution.limited_by_precision.any()


def test_stationarity_has_the_third_state_too():
    x, D = (jnp.asarray(v) for v in problem(dtype=np.float32))
    solution = solvers.fista(x, D, 0.05, penalty=LOG, tolerance=1e-12, max_iterations=3000)
    assert not solution.converged.any() and solution.limited_by_precision.any()


def test_masked_codes_have_the_third_state_too():
    x, D = (jnp.asarray(v) for v in problem(dtype=np.float32))
    mask = jnp.ones_like(x).at[:, :8].set(0)
    codes = masked.masked_codes(x, mask, D, 1e-5, max_iterations=20_000)
    assert codes.limited_by_precision.any()
    assert (codes.gap[codes.converged] <= 1e-4).all()
    assert (codes.gap[codes.limited_by_precision] > 1e-4).all()


def solution(converged, limited, gap):
    n = len(gap)
    return solvers.Solution(
        codes=np.zeros((n, 1)),
        gap=np.asarray(gap, np.float32),
        iterations=np.zeros(n, np.int32),
        converged=np.asarray(converged),
        limited_by_precision=np.asarray(limited),
        objective=np.ones(n),
    )


def test_the_warning_names_the_worst_gap_of_each_state():
    mixed = solution(
        [True, False, False, False, False],
        [False, True, True, False, False],
        [1e-5, 0.88, 0.2, 0.03, np.nan],
    )
    with pytest.warns(UserWarning, match='1 did not converge .*0.03'):
        text = solvers.warn_if_unconverged(mixed)
    assert 'of 5 signals' in text and '1 are not finite' in text
    assert '2 are limited by the precision of float32 (worst relative gap 0.88)' in text
    summary = solvers.summarize(mixed)
    assert summary.n_unconverged == 1 and summary.n_invalid == 1
    assert summary.n_limited_by_precision == 2
    assert summary.worst_limited_gap == pytest.approx(0.88)


def test_no_warning_where_all_are_converged():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert solvers.warn_if_unconverged(solution([True], [False], [1e-5])) == ''
