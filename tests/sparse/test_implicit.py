"""Gradients of codes against finite differences of solved problems, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.sparse import implicit, solvers
from lecture4.sparse.objective import L1, LOG, NONNEGATIVE, elastic_net

EXACT = {'solver': solvers.fista, 'tolerance': 1e-15, 'max_iterations': 20_000}
WEIGHTS = {
    'scalar': lambda rng: 0.3,
    'per atom': lambda rng: rng.uniform(0.2, 0.4, 12),
    'per signal': lambda rng: rng.uniform(0.2, 0.4, (5, 1)),
    'per code': lambda rng: rng.uniform(0.2, 0.4, (5, 12)),
}


def problem(seed, n=5, d=8, k=12):
    rng = np.random.default_rng(seed)
    D = rng.standard_normal((d, k))
    return rng.standard_normal((n, d)), D / np.linalg.norm(D, axis=0), rng


@pytest.mark.parametrize(
    'penalty, kind',
    [
        (L1, 'scalar'),
        *(
            pytest.param(penalty, kind, marks=pytest.mark.slow)
            for penalty, kind in (
                (L1, 'per atom'),
                (L1, 'per signal'),
                (LOG, 'per code'),
                (NONNEGATIVE, 'per code'),
                (elastic_net(0.7), 'per code'),
            )
        ),
    ],
)
def test_gradients_are_those_of_finite_differences(penalty, kind, x64):
    x, D, rng = problem(1)
    weight = np.asarray(WEIGHTS[kind](rng))
    readout = jnp.asarray(rng.standard_normal((5, 12)))

    @jax.jit
    def value(x, D, weight):
        a = implicit.codes(x, D, weight, penalty=penalty, **EXACT)
        return jnp.sum(jnp.sin(a) * readout)

    arguments = tuple(jnp.asarray(v) for v in (x, D, weight))
    slopes = jax.jit(jax.grad(value, argnums=(0, 1, 2)))(*arguments)
    gradients = implicit.codes(*arguments, penalty=penalty, **EXACT)
    if penalty != LOG:
        assert 0.1 < np.mean(gradients != 0) < 0.7  # a support that is neither empty nor full
    for i, slope in enumerate(slopes):
        assert slope.shape == arguments[i].shape
        for _ in range(3):
            direction = rng.standard_normal(slope.shape)
            step = 1e-6
            up, down = (
                value(*arguments[:i], arguments[i] + sign * step * direction, *arguments[i + 1 :])
                for sign in (1, -1)
            )
            expected = float(up - down) / (2 * step)
            assert float(jnp.sum(slope * direction)) == pytest.approx(
                expected, rel=1e-5, abs=1e-7
            ), i


def test_another_solver_has_the_gradient_of_the_minimum(x64):
    x, D, rng = problem(2)
    readout = rng.standard_normal((5, 12))

    def slope(solver, **options):
        def value(D):
            return jnp.sum(implicit.codes(x, D, 0.2, solver=solver, **options) * readout)

        return jax.jit(jax.grad(value))(jnp.asarray(D))

    expected = slope(**EXACT)
    options = {'solver': solvers.coordinate_descent, 'tolerance': 1e-14}
    np.testing.assert_allclose(slope(**options), expected, rtol=1e-6, atol=1e-9)


def test_zero_and_invalid_signals_do_not_change_other_gradients():
    x, D, rng = problem(3)
    x, D = x.astype(np.float32), D.astype(np.float32)
    x[1] = 0
    readout = jnp.asarray(rng.standard_normal((5, 12)), jnp.float32)

    good = np.array([0, 1, 3, 4])

    def value(x, D, weight):
        a = implicit.codes(x, D, weight, solver=solvers.fista, tolerance=1e-6)
        return jnp.sum((a * readout)[good])

    slopes = jax.jit(jax.grad(value, argnums=(0, 1, 2)))
    expected = slopes(x, D, np.float32(0.3))
    np.testing.assert_array_equal(expected[0][1], 0)  # codes of zero do not move
    x[2] = np.nan
    gradients = slopes(x, D, np.float32(0.3))
    np.testing.assert_allclose(gradients[0][good], expected[0][good], atol=1e-5)
    for i in (1, 2):
        np.testing.assert_allclose(gradients[i], expected[i], atol=1e-5)
    assert np.isnan(gradients[0][2]).all()


def test_equal_atoms_in_a_support_divide_the_gradient(x64):
    """Two equal atoms: the codes are not determined, their sum is, and so is its effect."""
    x, D, rng = problem(4, d=6, k=4)
    doubled = np.concatenate([D, D[:, :1]], axis=1)
    readout = rng.standard_normal(4)

    def value(D, weights):
        a = implicit.codes(jnp.asarray(x), D, 0.1, **EXACT)
        return jnp.sum(jnp.matmul(a, weights))

    gradient = jax.jit(jax.grad(value))
    alone = gradient(jnp.asarray(D), jnp.asarray(readout))
    divided = gradient(jnp.asarray(doubled), jnp.asarray([*readout, readout[0]]))
    assert np.isfinite(divided).all()
    np.testing.assert_allclose(divided[:, 1:4], alone[:, 1:], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(divided[:, 0] + divided[:, 4], alone[:, 0], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_dictionary_learned_for_a_task_beats_its_start():
    """Atoms trained so that a linear readout of the codes fits targets."""
    x, D, _ = problem(5, n=40)
    x, D = jnp.asarray(x, jnp.float32), jnp.asarray(D, jnp.float32)
    targets = jnp.sign(x[:, 0] * x[:, 1])

    def risk(D, readout):
        a = implicit.codes(x, D, 0.2, tolerance=1e-6)
        return jnp.mean((jnp.matmul(a, readout) - targets) ** 2)

    move = jax.jit(jax.value_and_grad(risk, argnums=(0, 1)))
    values, readout = [], jnp.zeros(12)
    for _ in range(60):
        value, (by_D, by_readout) = move(D, readout)
        values.append(float(value))
        D, readout = D - 0.05 * by_D, readout - 0.1 * by_readout
    fixed = solvers.fista(x, jnp.asarray(problem(5)[1], jnp.float32), 0.2, tolerance=1e-6).codes
    best = np.linalg.lstsq(np.asarray(fixed), np.asarray(targets), rcond=None)
    baseline = np.mean((np.asarray(fixed) @ best[0] - np.asarray(targets)) ** 2)
    assert values[-1] < baseline < values[0]


@pytest.mark.slow
def test_vmap_over_weights_is_a_loop(x64):
    x, D, _ = problem(6)

    def value(weight):
        return jnp.sum(implicit.codes(jnp.asarray(x), jnp.asarray(D), weight, **EXACT) ** 2)

    weights = jnp.asarray([0.1, 0.3])
    together = jax.vmap(jax.grad(value))(weights)
    np.testing.assert_allclose(together, [jax.grad(value)(w) for w in weights], rtol=1e-8)


def test_errors_are_those_of_the_solver():
    with pytest.raises(ValueError, match='do not match'):
        implicit.codes(jnp.ones((3, 4)), jnp.ones((5, 6)), 0.1)
    with pytest.raises(TypeError, match='max_iteration'):
        functools.partial(implicit.codes, max_iteration=3)(jnp.ones((3, 4)), jnp.ones((4, 6)), 0.1)


def test_the_gradient_of_a_solver_points_to_implicit_codes(x64):
    x, D, _ = problem(7)

    def loss(D):
        return jnp.sum(solvers.encode(x, D, 0.3).codes ** 2)

    with pytest.raises(TypeError, match=r'implicit\.codes'):
        jax.grad(loss)(D)
    with pytest.raises(TypeError, match=r'implicit\.codes'):
        jax.grad(lambda D: jax.vmap(loss)(D[None]).sum())(D)


def test_a_solver_has_forward_derivatives(x64):
    x, D, _ = problem(8)

    def codes(x):
        return solvers.fista(x, D, 0.3, tolerance=1e-15, max_iterations=20_000).codes

    step = 1e-6 * np.ones_like(x)
    _, tangent = jax.jvp(codes, (x,), (np.ones_like(x),))
    np.testing.assert_allclose(tangent, (codes(x + step) - codes(x - step)) / 2e-6, atol=1e-5)
