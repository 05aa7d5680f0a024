"""The solver chosen, what it leaves finished, and a fixed number of iterations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.sparse import solvers
from lecture4.sparse.objective import L1, LOG, elastic_net
from lecture4.sparse.solvers import automatic, tiling
from tests.gradients import check_grads
from tests.sparse.solving import EPS, METHODS, done, few, lasso, problem, solve, value

# approximate and encode


def test_approximate_is_the_solver_after_as_many_iterations():
    x, D = problem(dtype=np.float32)
    for penalty, method, option in ((L1, 'admm', {}), (LOG, 'fista', {'penalty': LOG})):
        codes = solvers.approximate(
            jnp.asarray(x), jnp.asarray(D), 0.05, penalty=penalty, n_iterations=8
        )
        stopped = solve(
            method, x, D, 0.05, tolerance=0.0, max_iterations=8, check_every=8, **option
        )
        np.testing.assert_allclose(codes, stopped.codes, atol=1e-6)
    few, many = (
        value(x, D, solvers.approximate(jnp.asarray(x), jnp.asarray(D), 0.05, n_iterations=n), 0.05)
        for n in (8, 300)
    )
    best = value(x, D, lasso(x, D, 0.05), 0.05)
    assert few.mean() < 1.05 * best.mean()
    assert (many < best * (1 + 1e-5)).all()


@pytest.mark.parametrize(
    'penalty', [L1, pytest.param(LOG, marks=pytest.mark.slow)], ids=['L1', 'log']
)
def test_approximate_is_differentiable(penalty, x64):
    x, D = map(jnp.asarray, problem(n=3, d=6, k=4))
    mix = jnp.asarray(np.random.default_rng(12).standard_normal((3, 4)))

    def total(x, D, weight):
        return jnp.sum(mix * solvers.approximate(x, D, weight, penalty=penalty, n_iterations=5))

    check_grads(total, (x, D, jnp.asarray(0.05)), order=1, modes=['rev'], eps=1e-6, rtol=1e-5)


def test_encode_by_name(x64):
    x, D = problem()
    options = {'method': 'fista', 'tolerance': 1e-5, 'tile': None, 'finish': False}
    solution = solvers.encode(jnp.asarray(x), jnp.asarray(D), 0.05, **options)
    peer = solve('fista', x, D, 0.05, tolerance=1e-5, max_iterations=1000)
    np.testing.assert_allclose(solution.codes, peer.codes, atol=1e-12)
    with pytest.raises(ValueError, match=r"method='lars'; expected .*'fista'"):
        solvers.encode(jnp.asarray(x), jnp.asarray(D), 0.05, method='lars')
    with pytest.raises(TypeError, match=r'fista has no option max_iter; expected .*max_iterations'):
        solvers.encode(jnp.asarray(x), jnp.asarray(D), 0.05, method='fista', max_iter=3)


@pytest.mark.slow
def test_encode_with_the_log_penalty(x64):
    x, D = problem()
    log = solvers.encode(jnp.asarray(x), jnp.asarray(D), 0.05, penalty=LOG, tile=5)
    assert log.converged.all() and isinstance(log, solvers.Solution)


def test_admm_with_other_rho_and_relaxation(x64):
    x, D = problem(n=6)
    best = value(x, D, lasso(x, D, 0.05), 0.05)
    for option in (
        {'rho': 3.0},
        {'rho': jnp.geomspace(0.1, 3, 6)[:, None], 'tile': 4, 'relaxation': 1.0},
    ):
        solution = solve('admm', x, D, 0.05, tolerance=1e-9, **option)
        assert solution.converged.all()
        np.testing.assert_allclose(solution.objective, best, rtol=1e-8)
    with pytest.raises(ValueError, match=r'rho of shape .*5.* expected a scalar or \[6, 1\]'):
        solve('admm', x, D, 0.05, rho=jnp.ones(5))


@pytest.mark.parametrize('method', [*METHODS, 'approximate'])
def test_errors_name_what_was_passed_and_what_is_expected(method):
    run = getattr(solvers, method)
    x, D = map(jnp.asarray, problem(dtype=np.float32))
    with pytest.raises(TypeError, match='x has dtype int32'):
        run(x.astype(int), D, 0.1)
    with pytest.raises(TypeError, match='D has dtype int32'):
        run(x, D.astype(int), 0.1)
    with pytest.raises(TypeError, match=r'float16.*float32'):
        run(x.astype(jnp.float16), D.astype(jnp.float16), 0.1)
    with pytest.raises(TypeError, match='x is float16 and D is float32'):
        run(x.astype(jnp.float16), D, 0.1)
    with pytest.raises(ValueError, match=r'\(12, 16\) and dictionary D \(24, 16\).*pass D.T'):
        run(x, D.T, 0.1)
    with pytest.raises(ValueError, match=r'single signal as x\[None\]'):
        run(x[0], D, 0.1)
    with pytest.raises(ValueError, match=r'weight of shape \(12,\).*per signal is \[n, 1\]'):
        run(x, D, jnp.full(12, 0.1))
    if method != 'approximate':
        with pytest.raises(ValueError, match=r'codes of shape \(12, 16\).*expected \[12, 24\]'):
            run(x, D, 0.1, init=x)
        with pytest.raises(ValueError, match='tile=0; expected at least 1'):
            run(x, D, 0.1, tile=0)


def test_unconverged_signals_are_finished_exactly(x64):
    x, D = problem()
    x[5] = np.nan
    options = {'method': 'ista', 'max_iterations': 3, 'tolerance': 1e-9}
    unfinished = solvers.encode(jnp.asarray(x), jnp.asarray(D), 0.05, finish=False, **options)
    assert not unfinished.converged.any()
    solution = solvers.encode(jnp.asarray(x), jnp.asarray(D), 0.05, **options)
    rest = np.arange(12) != 5
    assert solution.converged[rest].all() and np.isnan(solution.codes[5]).all()
    np.testing.assert_allclose(solution.codes[rest], lasso(x[rest], D, 0.05), atol=1e-7)
    assert (solution.iterations[rest] > unfinished.iterations[rest]).all()


def test_the_choice_by_platform_penalty_and_size():
    assert solvers.choose(L1, 512, 'cpu') == ('coordinate_descent', 128)
    assert solvers.choose(L1, 100_000, 'cpu') == ('admm', 128)  # no Gram matrix of that size
    assert solvers.choose(L1, 512, 'gpu') == ('admm', None)
    assert solvers.choose(elastic_net(0.1), 512, 'cpu') == ('admm', 128)
    assert solvers.choose(LOG, 512, 'tpu') == ('fista', None)


@pytest.mark.parametrize('method', few('admm', of=('fista', 'admm')))
def test_first_iterations_in_bfloat16_cost_no_accuracy(method):
    """The certificate is of the last iterations: bfloat16 alone reaches far less."""
    x, D = problem(dtype=np.float32)
    plain = solve(method, x, D, 0.05, tolerance=1e-5)
    mixed = solve(method, x, D, 0.05, tolerance=1e-5, bfloat16_iterations=10)
    rounding = 4 * EPS * (x * x).sum(1) / mixed.objective
    assert done(mixed).all() and (mixed.gap <= 1e-5 + rounding).all()
    np.testing.assert_allclose(mixed.objective, plain.objective, rtol=2e-5)
    coarse = solve(method, x, D, 0.05, tolerance=1e-5, bfloat16_iterations=200, max_iterations=200)
    assert (coarse.gap > 1e-5).any() and (coarse.iterations == 200).all()


@pytest.mark.parametrize('method', few('fista', of=('fista', 'admm')))
def test_polish_makes_the_certificate_tight(method):
    x, D = problem(dtype=np.float32)
    run = jax.jit(getattr(solvers, method), static_argnames=('polish',))
    plain = run(jnp.asarray(x), jnp.asarray(D), 0.05, tolerance=1e-4)
    tight = run(jnp.asarray(x), jnp.asarray(D), 0.05, tolerance=1e-4, polish=True)
    assert tight.converged.all() and (tight.iterations <= plain.iterations).all()
    assert jnp.median(tight.gap) < 0.2 * jnp.median(plain.gap)


def test_small_steps_stop_near_the_minimum(x64):
    """The excess falls with the square of the largest remaining step."""
    x, D = problem(n=30)
    best = value(x, D, lasso(x, D, 0.05), 0.05)
    for tolerance in (0.1, 0.01, 0.001):
        solution = solve('coordinate_descent', x, D, 0.05, tolerance=tolerance, stop='step')
        excess = value(x, D, solution.codes, 0.05) / best - 1
        assert solution.converged.all() and excess.mean() < 5 * tolerance**2
        correlation = (x - solution.codes @ D.T) @ D
        used = np.abs(solution.codes) > 0.05 * tolerance  # not those that a step would end at 0
        assert np.abs(correlation).max() <= 0.05 * (1 + tolerance) * (1 + 1e-9)
        far = np.abs(correlation[used] - 0.05 * np.sign(solution.codes[used]))
        assert far.max() <= 0.05 * tolerance * (1 + 1e-9)
        # Computed from the tracked correlations, without a product.
        np.testing.assert_allclose(
            solution.objective, value(x, D, solution.codes, 0.05), rtol=1e-10
        )
    with pytest.raises(ValueError, match="stop='never'; expected"):
        solvers.coordinate_descent(jnp.asarray(x), jnp.asarray(D), 0.05, stop='never')


def test_the_platform_is_that_of_the_arrays_or_the_default():
    array = jnp.ones(2)
    assert automatic.platform_of(array) == automatic.platform_of(np.ones(2)) == 'cpu'
    platforms = []
    jax.jit(lambda v: platforms.append(automatic.platform_of(v)) or v)(array)
    assert platforms == ['cpu']


def test_a_program_for_another_platform_has_its_solver():
    """Lowered for a GPU on a machine without one: admm on all signals, no coordinate descent."""
    x, D = (jnp.asarray(v) for v in problem(n=40, dtype=np.float32))
    programs = {}
    for platform in ('cpu', 'cuda'):
        name = 'cpu' if platform == 'cpu' else 'gpu'
        run = jax.jit(lambda x, name=name: solvers.encode(x, D, 0.05, platform=name).codes)
        exported = jax.export.export(run, platforms=[platform])(x)
        programs[platform] = exported.mlir_module()
    assert '_coordinate_descent' in programs['cpu'] and '_admm' not in programs['cpu']
    assert '_admm' in programs['cuda'] and '_coordinate_descent' not in programs['cuda']


def test_groups_are_of_the_platform_that_is_compiled_for():
    """A CPU's program maps over groups of signals; an accelerator's takes all at once."""
    rows = jnp.ones((40, 3))

    @jax.jit
    def run(rows):
        return tiling.by_groups(lambda v: 2 * v, 16, rows)

    for platform, grouped in (('cpu', True), ('cuda', False)):
        exported = jax.export.export(run, platforms=[platform])(rows)
        assert ('stablehlo.while' in exported.mlir_module()) == grouped
    np.testing.assert_array_equal(run(rows), 2 * rows)
