"""The solver chosen, what it leaves finished, and a fixed number of iterations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.sparse import solvers
from lecture4.sparse.objective import L1, LOG, elastic_net
from tests.gradients import check_grads
from tests.sparse.solving import EPS, METHODS, lasso, problem, solve, value

# approximate and encode


def test_approximate_is_the_solver_after_so_many_iterations():
    x, D = problem(dtype=np.float32)
    for n in (1, 8):
        for penalty, method, option in ((L1, 'admm', {}), (LOG, 'fista', {'penalty': LOG})):
            codes = solvers.approximate(
                jnp.asarray(x), jnp.asarray(D), 0.05, penalty=penalty, n_iterations=n
            )
            stopped = solve(
                method, x, D, 0.05, tolerance=0.0, max_iterations=n, check_every=n, **option
            )
            np.testing.assert_allclose(codes, stopped.codes, atol=1e-6)
    few, many = (
        value(x, D, solvers.approximate(jnp.asarray(x), jnp.asarray(D), 0.05, n_iterations=n), 0.05)
        for n in (8, 300)
    )
    best = value(x, D, lasso(x, D, 0.05), 0.05)
    assert few.mean() < 1.05 * best.mean()
    assert (many < best * (1 + 1e-5)).all()


@pytest.mark.parametrize('penalty', [L1, LOG], ids=['L1', 'log'])
def test_approximate_is_differentiable(penalty, x64):
    x, D = map(jnp.asarray, problem(n=3, d=6, k=4))
    mix = jnp.asarray(np.random.default_rng(12).standard_normal((3, 4)))

    def total(x, D, weight):
        return jnp.sum(mix * solvers.approximate(x, D, weight, penalty=penalty, n_iterations=5))

    check_grads(total, (x, D, jnp.asarray(0.05)), order=1, modes=['rev'], eps=1e-6, rtol=1e-5)


def test_encode_by_name(x64):
    x, D = problem()
    for method in ('fista', 'coordinate_descent'):
        options = {'method': method, 'tolerance': 1e-5, 'tile': None, 'finish': False}
        got = solvers.encode(jnp.asarray(x), jnp.asarray(D), 0.05, **options)
        np.testing.assert_allclose(
            got.codes, solve(method, x, D, 0.05, tolerance=1e-5, max_iterations=1000).codes,
            atol=1e-12,
        )  # fmt: skip
    log = solvers.encode(jnp.asarray(x), jnp.asarray(D), 0.05, penalty=LOG, tile=5)
    assert log.converged.all() and isinstance(log, solvers.Solution)
    with pytest.raises(ValueError, match=r"'lars' is not one of .*'fista'"):
        solvers.encode(jnp.asarray(x), jnp.asarray(D), 0.05, method='lars')


def test_admm_with_other_rho_and_relaxation(x64):
    x, D = problem(n=6)
    best = value(x, D, lasso(x, D, 0.05), 0.05)
    for option in (
        {'rho': 0.1},
        {'rho': 3.0},
        {'rho': jnp.geomspace(0.1, 3, 6)[:, None], 'tile': 4},
        {'relaxation': 1.0},
    ):
        found = solve('admm', x, D, 0.05, tolerance=1e-9, **option)
        assert found.converged.all()
        np.testing.assert_allclose(found.objective, best, rtol=1e-8)
    with pytest.raises(ValueError, match=r'rho of shape .*5.* is neither a scalar nor \[6, 1\]'):
        solve('admm', x, D, 0.05, rho=jnp.ones(5))


@pytest.mark.parametrize('method', [*METHODS, 'approximate'])
def test_errors_name_what_came_and_what_was_wanted(method):
    run = getattr(solvers, method)
    x, D = map(jnp.asarray, problem(dtype=np.float32))
    with pytest.raises(TypeError, match='x has dtype int32, a floating dtype is wanted'):
        run(x.astype(int), D, 0.1)
    with pytest.raises(TypeError, match='D has dtype int32'):
        run(x, D.astype(int), 0.1)
    with pytest.raises(TypeError, match=r'float16.*float32'):
        run(x.astype(jnp.float16), D.astype(jnp.float16), 0.1)
    with pytest.raises(TypeError, match='x is float16 and D is float32'):
        run(x.astype(jnp.float16), D, 0.1)
    with pytest.raises(ValueError, match=r'\(12, 16\) and dictionary D \(24, 16\).*give D.T'):
        run(x, D.T, 0.1)
    with pytest.raises(ValueError, match=r'single signal as x\[None\]'):
        run(x[0], D, 0.1)
    with pytest.raises(ValueError, match=r'weight of shape \(12,\).*per signal is \[n, 1\]'):
        run(x, D, jnp.full(12, 0.1))
    if method != 'approximate':
        with pytest.raises(ValueError, match=r'codes have shape \(12, 16\).*want \[12, 24\]'):
            run(x, D, 0.1, init=x)
        with pytest.raises(ValueError, match='tile 0 must be at least 1'):
            run(x, D, 0.1, tile=0)


def test_what_a_solver_leaves_is_finished_exactly(x64):
    x, D = problem()
    x[5] = np.nan
    options = {'method': 'ista', 'max_iterations': 3, 'tolerance': 1e-9}
    left = solvers.encode(jnp.asarray(x), jnp.asarray(D), 0.05, finish=False, **options)
    assert not left.converged.any()
    found = solvers.encode(jnp.asarray(x), jnp.asarray(D), 0.05, **options)
    rest = np.arange(12) != 5
    assert found.converged[rest].all() and np.isnan(found.codes[5]).all()
    np.testing.assert_allclose(found.codes[rest], lasso(x[rest], D, 0.05), atol=1e-7)
    assert (found.iterations[rest] > left.iterations[rest]).all()


def test_the_choice_by_backend_penalty_and_size():
    assert solvers.choose(L1, 512, 'cpu') == ('coordinate_descent', 128)
    assert solvers.choose(L1, 100_000, 'cpu') == ('admm', 128)  # no Gram matrix of that size
    assert solvers.choose(L1, 512, 'gpu') == ('admm', None)
    assert solvers.choose(elastic_net(0.1), 512, 'cpu') == ('admm', 128)
    assert solvers.choose(LOG, 512, 'tpu') == ('fista', None)


def test_early_iterations_in_bfloat16_cost_no_accuracy():
    """The certificate is of the finish: what bfloat16 reaches alone is coarser by far."""
    x, D = problem(dtype=np.float32)
    for method in ('fista', 'admm'):
        plain = solve(method, x, D, 0.05, tolerance=1e-5)
        mixed = solve(method, x, D, 0.05, tolerance=1e-5, early=10)
        rounding = 4 * EPS * (x * x).sum(1) / mixed.objective
        assert mixed.converged.all() and (mixed.gap <= 1e-5 + rounding).all()
        np.testing.assert_allclose(mixed.objective, plain.objective, rtol=2e-5)
        rough = solve(method, x, D, 0.05, tolerance=1e-5, early=200, max_iterations=200)
        assert (rough.gap > 1e-5).any() and (rough.iterations == 200).all()


@pytest.mark.parametrize('method', ['fista', 'admm'])
def test_polish_makes_the_certificate_tight(method):
    x, D = problem(dtype=np.float32)
    run = jax.jit(getattr(solvers, method), static_argnames=('polish',))
    plain = run(jnp.asarray(x), jnp.asarray(D), 0.05, tolerance=1e-4)
    tight = run(jnp.asarray(x), jnp.asarray(D), 0.05, tolerance=1e-4, polish=True)
    assert tight.converged.all() and (tight.iterations <= plain.iterations).all()
    assert jnp.median(tight.gap) < 0.2 * jnp.median(plain.gap)


def test_moves_stop_near_the_minimum(x64):
    """The excess falls with the square of the largest move that is left."""
    x, D = problem(n=30)
    best = value(x, D, lasso(x, D, 0.05), 0.05)
    for tolerance in (0.1, 0.01, 0.001):
        found = solve('coordinate_descent', x, D, 0.05, tolerance=tolerance, stop='moves')
        excess = value(x, D, found.codes, 0.05) / best - 1
        assert found.converged.all() and excess.mean() < 5 * tolerance**2
        correlation = (x - found.codes @ D.T) @ D
        used = np.abs(found.codes) > 0.05 * tolerance  # not those that a move would end at 0
        assert np.abs(correlation).max() <= 0.05 * (1 + tolerance) * (1 + 1e-9)
        far = np.abs(correlation[used] - 0.05 * np.sign(found.codes[used]))
        assert far.max() <= 0.05 * tolerance * (1 + 1e-9)
        # Reported from what the updates kept, without a product.
        np.testing.assert_allclose(found.objective, value(x, D, found.codes, 0.05), rtol=1e-10)
    with pytest.raises(ValueError, match="stop 'never' is neither"):
        solvers.coordinate_descent(jnp.asarray(x), jnp.asarray(D), 0.05, stop='never')
