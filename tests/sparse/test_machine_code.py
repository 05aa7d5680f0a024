"""Codes by machine code equal those of the plain form: at the end of their homotopy path, and by greedy updates."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from sklearn.datasets import load_digits

from lecture4.ops import machine_code
from lecture4.sparse import implicit, solvers
from lecture4.sparse.objective import L1, NONNEGATIVE
from lecture4.sparse.solvers import greedy_updates, homotopy
from lecture4.sparse.solvers.greedy_updates import descend, descend_on_cpu
from tests.sparse.solving import done, lasso, problem, value

needs_numba = pytest.mark.skipif(
    not machine_code.supported(), reason='needs pip install "lecture4[numba]"'
)
WEIGHT = 0.05
TARGETS = {'gap': homotopy.TARGET, 'step': greedy_updates.TARGET}  # of programs by their `stop`


@functools.partial(jax.jit, static_argnames=('penalty', 'kernel', 'stop'))
def solve(
    x,
    D,
    weight,
    tolerance=1e-4,
    max_iterations=20_000,
    init=None,
    penalty=L1,
    kernel='cpu',
    stop='gap',
):
    """Solution of coordinate_descent: one program for a shape, penalty, kernel and stop."""
    options = {'tolerance': tolerance, 'max_iterations': max_iterations, 'init': init}
    options |= {'penalty': penalty, 'kernel': kernel, 'stop': stop}
    return solvers.coordinate_descent(x, D, weight, **options)


@pytest.fixture(scope='module')
def digits():
    """Similar atoms: codes leave the support on the way."""
    x = load_digits().data.astype(np.float32) / 16
    atoms = x[np.random.default_rng(0).permutation(len(x))[:96]].T
    return jnp.asarray(x[:200]), jnp.asarray(atoms / np.linalg.norm(atoms, axis=0))


def calls(fn, *args, target=homotopy.TARGET):
    return jax.jit(fn).lower(*args).as_text().count(target)


@needs_numba
@pytest.mark.parametrize('weight', [0.1, jnp.geomspace(0.01, 3, 200)[:, None]])
def test_codes_are_exact_after_few_steps(digits, weight):
    x, D = digits
    solution = solve(x, D, weight)
    best = value(x, D, lasso(x, D, weight), weight)
    np.testing.assert_allclose(value(x, D, solution.codes, weight), best, rtol=1e-6)
    assert done(solution).all()
    n_nonzero = (np.asarray(solution.codes) != 0).sum(1)
    assert (solution.iterations >= n_nonzero).all() and solution.iterations.mean() < 40
    assert (solution.iterations > n_nonzero).any()  # some left


@needs_numba
def test_threads_share_the_signals_with_equal_results(digits):
    x, D = digits
    c, gram, weight = x @ D, D.T @ D, jnp.full((1, 1), 0.1)
    steps, budget = jnp.full(len(x), 1e-4), jnp.full(len(x), 500)

    @jax.jit
    def follow(c):
        return homotopy.follow_paths(c, gram, weight, 1000, 96, is_nonnegative=False)

    @jax.jit
    def update(c, steps, budget):
        return descend_on_cpu(jnp.zeros_like(c), c / 0.1, steps, budget, gram, L1)

    for run, arrays in ((follow, (c,)), (update, (c, steps, budget))):
        together = run(*arrays)
        assert len(np.unique(together[-1 if run is follow else 2])) > 10  # numbers of steps
        for i in range(0, len(x), 7):  # one signal, which one thread takes
            for alone, all_ in zip(run(*(v[i : i + 1] for v in arrays)), together, strict=True):
                np.testing.assert_array_equal(alone[0], all_[i])


@needs_numba
def test_nonnegative_codes_equal_the_plain_form(digits):
    ours, plain = (
        solve(*digits, 0.1, tolerance=1e-5, penalty=NONNEGATIVE, kernel=kernel)
        for kernel in ('cpu', 'none')
    )
    assert done(ours).all() and (ours.codes >= 0).all()
    np.testing.assert_allclose(ours.objective, plain.objective, rtol=2e-5)
    assert ours.iterations.mean() < 0.5 * plain.iterations.mean()


@needs_numba
def test_degenerate_signals_and_atoms_are_certified(digits):
    x, D = digits
    x = x.at[0].set(0).at[1].set(jnp.nan).at[2].set(D[:, 5]).at[3].set(1e-3 * x[3])
    D = D.at[:, 10:20].set(D[:, :10]).at[:, 20].set(0).at[:, 21].set(-D[:, 5])
    solution = solve(x, D, 0.1)
    rest = np.arange(len(x)) != 1
    assert done(solution)[rest].all() and np.isnan(solution.codes[1]).all()
    assert not solution.codes[0].any() and not solution.codes[3].any()
    assert not solution.codes[:, 20][rest].any() and solution.iterations[rest].mean() < 40
    best = value(x[rest], D, lasso(x[rest], D, 0.1), 0.1)
    np.testing.assert_allclose(solution.objective[rest], best, rtol=2e-4, atol=1e-7)


@needs_numba
def test_at_most_max_iterations_steps(digits):
    solution = solve(*digits, 0.1, max_iterations=3)
    assert solution.iterations.max() <= 3 and not solution.converged.all()
    assert (np.asarray(solution.codes) != 0).sum(1).max() <= 3


@needs_numba
@pytest.mark.parametrize('stop', ['gap', 'step'])
def test_transformations_equal_the_plain_form(stop):
    x, D = map(jnp.asarray, problem(n=8, dtype=np.float32))
    mesh = Mesh(np.array(jax.devices()[:2]), ('data',))
    data, whole = PartitionSpec('data'), PartitionSpec()

    def codes(x, D, kernel='cpu'):
        return solve(x, D, WEIGHT, 1e-6, kernel=kernel, stop=stop).codes

    target = TARGETS[stop]
    expected = codes(x, D, 'none')
    assert calls(codes, x, D, target=target) > 0
    local = jax.shard_map(codes, mesh=mesh, in_specs=(data, whole), out_specs=data)
    assert calls(local, x, D, target=target) > 0
    np.testing.assert_allclose(jax.jit(local)(x, D), expected, atol=2e-5)
    split = NamedSharding(mesh, data)
    run = jax.jit(codes, in_shardings=(split, NamedSharding(mesh, whole)), out_shardings=split)
    assert target not in run.lower(x, D).as_text()
    np.testing.assert_allclose(run(x, D), expected, atol=2e-5)
    batched = jax.vmap(codes, (0, None))
    assert calls(batched, x[:, None], D, target=target) == 0
    np.testing.assert_allclose(batched(x[:, None], D)[:, 0], expected, atol=2e-5)
    assert target not in jax.export.export(jax.jit(codes))(x, D).mlir_module()


@needs_numba
def test_derivatives_equal_those_of_the_plain_form():
    x, D = map(jnp.asarray, problem(n=8, dtype=np.float32))

    def tangent(kernel):
        return jax.jvp(lambda x: solve(x, D, WEIGHT, 1e-6, kernel=kernel).codes, (x,), (x,))[1]

    def gradient(kernel):
        def risk(D):
            return jnp.sum(implicit.codes(x, D, WEIGHT, tolerance=1e-6, kernel=kernel) ** 2)

        return jax.grad(risk)(D)

    np.testing.assert_allclose(tangent('cpu'), tangent('none'), atol=1e-5)
    np.testing.assert_allclose(gradient('cpu'), gradient('none'), atol=1e-3)


@needs_numba
@pytest.mark.parametrize('penalty, k', [(L1, 24), (NONNEGATIVE, 40), (L1, 640)])
def test_greedy_updates_are_those_of_the_plain_form(penalty, k):
    x, D = map(jnp.asarray, problem(n=6, d=max(16, k // 4), k=k, dtype=np.float32))
    budget = jnp.asarray([1000, 5, 0, 1000, 1, 1000])
    rows, tolerance = D.T @ D, jnp.full(6, 1e-3, jnp.float32)
    y, c = jnp.zeros((6, k)), x @ D / WEIGHT
    expected = descend(y, c, tolerance, budget, 1, rows, penalty)
    got = descend_on_cpu(y, c, tolerance, budget, rows, penalty)
    for one, two in zip(got[:2], expected[:2], strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(got[2], expected[2], atol=1)
    np.testing.assert_array_equal(got[3], expected[3] & (budget > 0))
    assert list(got[2][jnp.asarray([1, 2, 4])]) == [5, 0, 1] and not got[0][2].any()
    np.testing.assert_array_equal(got[0] == 0, expected[0] == 0)  # also codes that became 0


@needs_numba
@pytest.mark.parametrize('weight', [0.1, jnp.geomspace(0.05, 1, 200)[:, None]])
@pytest.mark.parametrize('penalty', [L1, NONNEGATIVE])
def test_codes_by_greedy_updates_equal_the_plain_form(digits, weight, penalty):
    x, D = digits
    x = x.at[0].set(0).at[1].set(jnp.nan).at[2].set(D[:, 5])
    D = D.at[:, 20].set(0) * jnp.geomspace(0.5, 2, 96)[None]
    options = {'stop': 'step', 'penalty': penalty}
    start = jnp.clip(x @ D, 0, 0.1)
    for more in ({}, {'init': start}, {'max_iterations': 9}):
        ours, plain = (
            solve(x, D, weight, 1e-3, kernel=kernel, **options, **more)
            for kernel in ('cpu', 'none')
        )
        np.testing.assert_array_equal(ours.converged, plain.converged)
        np.testing.assert_allclose(ours.objective, plain.objective, rtol=1e-4)
        np.testing.assert_allclose(ours.gap, plain.gap, atol=2e-3)
        np.testing.assert_allclose(ours.iterations.mean(), plain.iterations.mean(), rtol=0.02)
        assert np.isnan(ours.codes[1]).all() and not ours.codes[0].any()
    per_atom = jnp.linspace(0.05, 0.2, 96)
    ours, plain = (solve(x, D, per_atom, 1e-4, kernel=kernel) for kernel in ('cpu', 'none'))
    assert calls(functools.partial(solve, x, D), per_atom, target=greedy_updates.TARGET) > 0
    np.testing.assert_array_equal(done(ours), done(plain))
    np.testing.assert_allclose(ours.objective, plain.objective, rtol=2e-4)


def test_other_calls_and_missing_numba_are_the_plain_form(monkeypatch):
    x, D = map(jnp.asarray, problem(n=8, dtype=np.float32))

    def program(penalty_weight: Any = WEIGHT, **options: Any):
        run = functools.partial(solvers.coordinate_descent, **options)
        return str(jax.make_jaxpr(run)(x, D, jnp.asarray(penalty_weight)))

    start = {'init': jnp.zeros((8, 24))}
    per_code = {'penalty_weight': jnp.full((8, 24), WEIGHT)}
    assert program(kernel='cpu', **per_code) == program(kernel='none', **per_code)
    monkeypatch.setattr(machine_code, 'supported', lambda: False)
    for options in ({}, start, {'stop': 'step'}):
        assert program(kernel='cpu', **options) == program(kernel='none', **options)
    encode = str(jax.make_jaxpr(functools.partial(solvers.encode, platform='cpu'))(x, D, WEIGHT))
    assert 'homotopy' not in encode and 'greedy_updates' not in encode
