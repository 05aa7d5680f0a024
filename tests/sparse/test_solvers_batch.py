"""Many signals at once: none depends on the others; tiles, initial codes, stopping, jit, vmap and pmap."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.sparse import solvers
from lecture4.sparse.objective import L1, LOG
from lecture4.sparse.solvers import tiling
from tests.sparse.solving import METHODS, ON_SUPPORT, STEPWISE, done, few, problem, solve, value

# Signals do not influence one another


def test_few_rows_are_padding():
    for n in range(1, 20_000, 37):
        n_blocks, n_tiles = tiling.blocks_of(n, tile=128)
        assert n_tiles <= tiling.TILES_PER_BLOCK
        assert 0 <= n_blocks * n_tiles * 128 - n < 128 * n_blocks


@pytest.mark.parametrize('method', METHODS)
def test_a_signal_s_result_does_not_depend_on_the_others(method):
    x, D = problem(dtype=np.float32)
    alone = solve(method, x, D, 0.05, max_iterations=300)
    other = x.copy()
    other[1:4] *= 100  # slower
    other[5] = np.nan
    other[7] = np.inf
    other[8] = 0
    other[9] = 1e30
    mixed = solve(method, other, D, 0.05, max_iterations=300)
    for field, one, two in zip(alone._fields, alone, mixed, strict=True):
        rows = [0, 4, 6, 10, 11]
        if method in ON_SUPPORT and field not in ('converged', 'limited_by_precision'):
            # The fullest support of a tile decides how its systems are blocked: equal up to rounding.
            np.testing.assert_allclose(one[rows], two[rows], rtol=1e-4, atol=1e-6, err_msg=field)
        else:
            np.testing.assert_array_equal(one[rows], two[rows], err_msg=field)
    for bad in (5, 7, 9):
        assert np.isnan(mixed.codes[bad]).all()
        assert np.isnan(mixed.gap[bad]) and np.isnan(mixed.objective[bad])
    assert mixed.converged[8] and not done(mixed)[[5, 7, 9]].any()


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    'method, tile',
    few(('coordinate_descent', 5), ('admm', 5), of=itertools.product(METHODS, [1, 5])),
)
def test_tiles_equal_the_whole(method, tile, x64):
    x, D = problem()
    x[3] = np.nan
    x *= np.geomspace(0.5, 2, 12)[:, None]
    weight = np.linspace(0.03, 0.1, 12)[:, None]
    init = jnp.asarray(np.random.default_rng(5).standard_normal((12, 24)))
    whole = solve(method, x, D, weight, init=init, tolerance=1e-6)
    tiles = solve(method, x, D, weight, init=init, tolerance=1e-6, tile=tile)
    for field, one, two in zip(whole._fields, whole, tiles, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-6, atol=1e-9, err_msg=field)
    assert np.isnan(tiles.codes[3]).all() and tiles.converged.sum() == 11


@pytest.mark.slow
@pytest.mark.parametrize('penalty', [L1, LOG], ids=['L1', 'log'])
def test_tiles_with_a_weight_per_atom(penalty, x64):
    x, D = problem(n=24)  # as many signals as atoms
    weight = np.linspace(0.03, 0.1, 24)
    whole = solve('fista', x, D, weight, penalty=penalty, tolerance=1e-6)
    tiles = solve('fista', x, D, weight, penalty=penalty, tolerance=1e-6, tile=7)
    np.testing.assert_allclose(whole.codes, tiles.codes, atol=1e-9)


# Initial codes and stopping


@pytest.mark.cases(1)
@pytest.mark.parametrize('method', few('coordinate_descent', 'admm', 'feature_sign'))
def test_warm_start(method, x64):
    x, D = problem()
    cold = solve(method, x, D, 0.05, tolerance=1e-6)
    again = solve(method, x, D, 0.05, tolerance=1e-6, init=jnp.asarray(cold.codes))
    assert (again.iterations == 0).all() and again.converged.all()
    np.testing.assert_allclose(again.codes, cold.codes, rtol=1e-12, atol=1e-15)
    # From the codes of a weight nearby: fewer iterations, the same minimum.
    near = solve(method, x, D, 0.051, tolerance=1e-6, init=jnp.asarray(cold.codes))
    start = solve(method, x, D, 0.051, tolerance=1e-6)
    assert near.iterations.sum() < start.iterations.sum()
    np.testing.assert_allclose(near.objective, start.objective, rtol=1e-6)
    # From far away: the same minimum still.
    far = 10 * np.random.default_rng(6).standard_normal((12, 24))
    solution = solve(method, x, D, 0.05, tolerance=1e-6, init=jnp.asarray(far))
    assert solution.converged.all()
    np.testing.assert_allclose(solution.objective, cold.objective, rtol=1e-6)


@pytest.mark.parametrize('method', few('coordinate_descent', 'admm', 'feature_sign'))
def test_initial_codes_of_one_signal_that_are_not_finite(method, x64):
    x, D = problem()
    init = np.zeros((12, 24))
    init[2, 5] = np.nan
    solution = solve(method, x, D, 0.05, init=jnp.asarray(init))
    assert done(solution).tolist() == [i != 2 for i in range(12)]
    assert np.isnan(solution.codes[2]).all()


@pytest.mark.parametrize('method', STEPWISE)
def test_tolerance_and_check_every(method):
    x, D = problem(dtype=np.float32)
    loose, tight = (solve(method, x, D, 0.05, tolerance=t) for t in (1e-2, 1e-4))
    assert (loose.iterations <= tight.iterations).all()
    assert loose.iterations.sum() < tight.iterations.sum()
    assert (loose.gap <= 1e-2).all() and (tight.gap <= 1.1e-4).all()
    assert (tight.iterations % 10 == 0).all()
    often = solve(method, x, D, 0.05, tolerance=1e-4, check_every=1)
    assert (often.iterations <= tight.iterations).all()
    assert (tight.iterations < often.iterations + 10 + tight.iterations * 0.2).all()


def test_float32_stops_at_a_tolerance_out_of_reach():
    x, D = problem(dtype=np.float32)
    solution = solve('fista', x, D, 0.05, tolerance=0.0, max_iterations=5000)
    assert (solution.limited_by_precision | (solution.gap == 0)).all()
    assert (solution.iterations < 2000).all()


@pytest.mark.parametrize('method', METHODS)
def test_too_few_iterations_are_not_converged(method):
    x, D = problem(dtype=np.float32)
    solution = solve(method, x, D, 0.01, max_iterations=3)
    assert (solution.iterations == 3).all() and not done(solution).any()
    assert (solution.gap > 1e-4).all() and np.isfinite(solution.codes).all()
    start = jnp.asarray(np.random.default_rng(7).standard_normal((12, 24)), jnp.float32)
    none = solve('fista', x, D, 0.01, max_iterations=0, init=start)
    np.testing.assert_array_equal(none.codes, start)
    np.testing.assert_allclose(none.objective, value(x, D, start, 0.01), rtol=1e-5)


# Composition


@pytest.mark.parametrize('method', few('admm'))
def test_vmap_over_weights_is_a_loop_over_weights(method, x64):
    x, D = map(jnp.asarray, problem())
    weights = jnp.asarray([0.02, 0.05, 0.5, 5.0])
    one = functools.partial(getattr(solvers, method), tolerance=1e-6, max_iterations=20000)
    together = jax.jit(jax.vmap(one, (None, None, 0)))(x, D, weights)
    for i, weight in enumerate(weights):
        alone = solve(method, x, D, weight, tolerance=1e-6)
        for field, a, b in zip(alone._fields, alone, together, strict=True):
            np.testing.assert_allclose(a, b[i], rtol=1e-7, atol=1e-10, err_msg=field)


@pytest.mark.parametrize('method', few('fista', of=('fista', 'admm')))
def test_results_without_jit_are_the_same(method, x64):
    x, D = map(jnp.asarray, problem(n=3))
    plain = getattr(solvers, method)(x, D, 0.05, tolerance=1e-6, max_iterations=20000)
    under_jit = solve(method, x, D, 0.05, tolerance=1e-6)
    np.testing.assert_allclose(plain.codes, under_jit.codes, atol=1e-12)


@pytest.mark.parametrize('method', METHODS)
def test_weight_tolerance_and_init_may_be_traced(method):
    x, D = map(jnp.asarray, problem(dtype=np.float32))

    def codes(x, weight, init, tolerance):
        return getattr(solvers, method)(x, D, weight, init=init, tolerance=tolerance).codes

    assert jax.eval_shape(codes, x, 0.05, jnp.zeros((12, 24)), 1e-3).shape == (12, 24)


def test_number_of_iterations_does_not_unroll():
    """The penalty is traced as often for 1000 iterations as for 1: the loop is in the program."""
    x, D = map(jnp.asarray, problem(n=2, dtype=np.float32))
    counts = []
    for n in (1, 1000):
        calls = []
        penalty = L1._replace(prox=lambda v, t, calls=calls: calls.append(1) or L1.prox(v, t))
        jax.make_jaxpr(
            lambda x, penalty=penalty, n=n: (
                solvers.fista(x, D, 0.1, penalty=penalty, max_iterations=n).codes
            )
        )(x)
        counts.append(len(calls))
    assert counts[0] == counts[1] < 20


def test_signals_are_split_over_devices(x64):
    """Under pmap every device stops by its own signals; the results are those of one device."""
    x, D = problem(n=8)
    whole = solve('fista', x, D, 0.05, tolerance=1e-6)
    split = jax.pmap(lambda x: solvers.fista(x, jnp.asarray(D), 0.05, tolerance=1e-6))(
        x.reshape(4, 2, 16)
    )
    np.testing.assert_allclose(split.codes.reshape(8, 24), whole.codes, atol=1e-5)
    np.testing.assert_array_equal(split.converged.reshape(8), whole.converged)
