"""Codes started by machine code at the end of their homotopy path equal those of the plain form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from sklearn.datasets import load_digits

from lecture4.ops import machine_code
from lecture4.sparse import implicit, solvers
from lecture4.sparse.objective import L1, NONNEGATIVE
from lecture4.sparse.solvers import homotopy
from tests.sparse.solving import done, lasso, problem, value

needs_numba = pytest.mark.skipif(
    not machine_code.supported(), reason='needs pip install "lecture4[numba]"'
)
WEIGHT = 0.05


@functools.partial(jax.jit, static_argnames=('penalty', 'kernel'))
def solve(x, D, weight, tolerance=1e-4, max_iterations=20_000, penalty=L1, kernel='cpu'):
    """Solution of coordinate_descent: one program for a shape, penalty and kernel."""
    options = {'tolerance': tolerance, 'max_iterations': max_iterations}
    return solvers.coordinate_descent(x, D, weight, penalty=penalty, kernel=kernel, **options)


@pytest.fixture(scope='module')
def digits():
    """Similar atoms: codes leave the support on the way."""
    x = load_digits().data.astype(np.float32) / 16
    atoms = x[np.random.default_rng(0).permutation(len(x))[:96]].T
    return jnp.asarray(x[:200]), jnp.asarray(atoms / np.linalg.norm(atoms, axis=0))


def calls(fn, *args):
    return jax.jit(fn).lower(*args).as_text().count(homotopy.TARGET)


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
def test_transformations_equal_the_plain_form():
    x, D = map(jnp.asarray, problem(n=8, dtype=np.float32))
    mesh = Mesh(np.array(jax.devices()[:2]), ('data',))
    data, whole = PartitionSpec('data'), PartitionSpec()

    def codes(x, D, kernel='cpu'):
        return solve(x, D, WEIGHT, 1e-6, kernel=kernel).codes

    expected = codes(x, D, 'none')
    assert calls(codes, x, D) > 0
    local = jax.shard_map(codes, mesh=mesh, in_specs=(data, whole), out_specs=data)
    assert calls(local, x, D) > 0
    np.testing.assert_allclose(jax.jit(local)(x, D), expected, atol=2e-5)
    split = NamedSharding(mesh, data)
    run = jax.jit(codes, in_shardings=(split, NamedSharding(mesh, whole)), out_shardings=split)
    assert homotopy.TARGET not in run.lower(x, D).as_text()
    np.testing.assert_allclose(run(x, D), expected, atol=2e-5)
    batched = jax.vmap(codes, (0, None))
    assert calls(batched, x[:, None], D) == 0
    np.testing.assert_allclose(batched(x[:, None], D)[:, 0], expected, atol=2e-5)
    assert homotopy.TARGET not in jax.export.export(jax.jit(codes))(x, D).mlir_module()


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


def test_other_calls_and_missing_numba_are_the_plain_form(monkeypatch):
    x, D = map(jnp.asarray, problem(n=8, dtype=np.float32))

    def program(**options):
        run = functools.partial(solvers.coordinate_descent, **options)
        return str(jax.make_jaxpr(run)(x, D, jnp.asarray(WEIGHT)))

    start = {'init': jnp.zeros((8, 24))}
    for options in (start, {'stop': 'step'}):
        assert program(kernel='cpu', **options) == program(kernel='none', **options)
    monkeypatch.setattr(machine_code, 'supported', lambda: False)
    assert program(kernel='cpu') == program(kernel='none')
    encode = str(jax.make_jaxpr(functools.partial(solvers.encode, platform='cpu'))(x, D, WEIGHT))
    assert 'homotopy' not in encode
