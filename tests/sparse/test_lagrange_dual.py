"""The best atoms for given codes, against scipy and coordinate descent; alternations on patches."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import minimize
from skimage import data

from lecture4.ops.reduce import Reduce
from lecture4.sparse import solvers
from lecture4.sparse.dictionary import lagrange_dual, projected_gradient
from lecture4.sparse.dictionary import online as dictionary

WEIGHT = 0.15
solve = jax.jit(lagrange_dual.solve)
step = jax.jit(lagrange_dual.step, static_argnames=('penalty', 'n_iterations', 'reduce'))
encode = jax.jit(functools.partial(solvers.fista, tolerance=1e-5))


def statistics(seed, d=5, k=8, n=60, density=0.4):
    """Second moments of sparse codes and of signals that they explain in part."""
    rng = np.random.default_rng(seed)
    codes = 2 * rng.standard_normal((n, k)) * (rng.uniform(size=(n, k)) < density)
    x = codes @ rng.standard_normal((k, d)) + 0.5 * rng.standard_normal((n, d))
    return codes.T @ codes / n, x.T @ codes / n


def value(D, A, B):
    return 0.5 * np.trace(D.T @ D @ A) - np.trace(D.T @ B)


@functools.cache
def patches():
    """Patches [1200, 36] of an image, without means, of mean squared norm 1."""
    rng = np.random.default_rng(0)
    image = data.camera()
    i, j = rng.integers(0, 500, (2, 1200))
    x = np.asarray([image[a : a + 6, b : b + 6].ravel() for a, b in zip(i, j, strict=True)])
    x = x.astype(np.float32)
    x -= x.mean(1, keepdims=True)
    return x / np.sqrt((x * x).sum(1).mean())


# The best atoms


@pytest.mark.parametrize('norm_bound', [0.2, 1.0, 30.0])
def test_best_atoms_are_those_of_a_general_minimizer(norm_bound, x64):
    A, B = statistics(0)
    d, k = B.shape
    best = solve(A, B, norm_bound)
    inside = {'type': 'ineq', 'fun': lambda v: norm_bound - (v.reshape(d, k) ** 2).sum(0)}
    peer = minimize(
        lambda v: value(v.reshape(d, k), A, B),
        np.zeros(d * k),
        jac=lambda v: (v.reshape(d, k) @ A - B).ravel(),
        method='SLSQP',
        constraints=inside,
        options={'ftol': 1e-13, 'maxiter': 500},
    )
    D = np.asarray(best.atoms)
    assert value(D, A, B) == pytest.approx(peer.fun, rel=1e-7)
    np.testing.assert_allclose(D, peer.x.reshape(d, k), atol=2e-4 * norm_bound**0.5)
    energy = (D * D).sum(0)
    assert (energy <= norm_bound * (1 + 1e-12)).all() and abs(best.gap) < 1e-10
    # A bound is active where its multiplier is positive, and the slope balances the multiplier.
    multipliers = np.asarray(best.multipliers)
    assert (multipliers >= 0).all() and (multipliers * (norm_bound - energy) < 1e-6).all()
    np.testing.assert_allclose(D @ A - B, -multipliers * D, atol=1e-6)
    assert best.iterations <= 15


def test_an_inactive_bound_gives_least_squares_and_warm_starts_stop(x64):
    A, B = statistics(1)
    free = solve(A, B, 1e6)
    np.testing.assert_allclose(free.atoms, np.linalg.solve(A, B.T).T, rtol=1e-8)
    np.testing.assert_array_equal(free.multipliers, 0)
    bound = solve(A, B, 0.5)
    again = solve(A, B, 0.5, init_multipliers=bound.multipliers)
    assert bound.iterations > 1 and again.iterations <= 1
    np.testing.assert_allclose(again.atoms, bound.atoms, atol=1e-6)


@pytest.mark.parametrize(
    'density', [0.3, *(pytest.param(v, marks=pytest.mark.slow) for v in (0.05, 1.0))]
)
def test_large_problems_in_float32_are_certified(density):
    """k > d, few signals (a singular A), dense and sparse codes: never beyond coordinate descent."""
    A, B = (v.astype(np.float32) for v in statistics(2, d=20, k=60, n=50, density=density))
    best = solve(A, B)
    assert abs(best.gap) < 1e-4
    D = jnp.asarray(np.random.default_rng(0).standard_normal((20, 60)) / 5, jnp.float32)
    D = jax.jit(
        lambda D: jax.lax.fori_loop(0, 400, lambda _, D: dictionary.update_atoms(D, A, B), D)
    )(D)
    peer, ours = (value(np.asarray(D, float), A, B) for D in (D, best.atoms))
    assert ours <= peer + 2e-4 * abs(peer)


def test_unused_atoms_stay(x64):
    A, B = statistics(3)
    A[2], A[:, 2], B[:, 2] = 0, 0, 0
    old = np.random.default_rng(1).standard_normal(B.shape)
    best = solve(A, B, atoms=old)
    np.testing.assert_array_equal(best.atoms[:, 2], old[:, 2])
    others = [0, 1, 3, 4, 5, 6, 7]
    alone = solve(A[np.ix_(others, others)], B[:, others])
    np.testing.assert_allclose(best.atoms[:, others], alone.atoms, atol=1e-6)
    nothing = solve(0 * A, 0 * B, atoms=old)
    np.testing.assert_array_equal(nothing.atoms, old)


# Alternations


def objective(D, x):
    return float(encode(x, D, WEIGHT).objective.mean())


@pytest.mark.slow
def test_alternations_reach_a_lower_objective_than_one_online_pass():
    x = patches()
    state = lagrange_dual.init(jax.random.key(0), x, 40)
    first, values = state.atoms, []
    for t in range(12):
        state, metrics = step(state, x, jax.random.key(t), penalty_weight=WEIGHT)
        assert abs(metrics['dual_gap']) < 1e-4 and metrics['density'] > 0
        values.append(float(metrics['objective']))
    # The codes are inexact and atoms may be replaced: almost, but not quite, monotone.
    assert all(b < 1.002 * a for a, b in itertools.pairwise(values))
    online = dictionary.init(jax.random.key(0), x, 40)
    np.testing.assert_array_equal(online.atoms, first)
    one_pass = jax.jit(functools.partial(dictionary.step, penalty_weight=WEIGHT))
    for t in range(12):
        online, _ = one_pass(online, x[100 * t : 100 * t + 100], jax.random.key(t))
    reached = objective(state.atoms, x)
    assert reached < objective(online.atoms, x) < 0.95 * objective(first, x)
    assert ((np.asarray(state.atoms) ** 2).sum(0) <= 1 + 1e-5).all()


@pytest.mark.parametrize('first', [0.0, 50.0])
def test_first_multipliers_that_are_wrong_are_corrected(first, x64):
    """All at 0, where most bounds are active, or far above, where some are not."""
    A, B = statistics(0)
    best = solve(A, B, 1.0)
    assert 0 < (best.multipliers == 0).sum() < len(A)
    other = solve(A, B, 1.0, init_multipliers=np.full(len(A), first))
    assert abs(other.gap) < 1e-10
    np.testing.assert_allclose(other.atoms, best.atoms, atol=1e-6)


def test_norm_bound_is_a_change_of_scale_and_unused_atoms_change():
    x = patches()[:400]
    atoms = np.array(lagrange_dual.init(jax.random.key(0), x, 24).atoms)
    atoms[:, 5] = 1 / 6  # patches have no mean: never used
    results = []
    for bound in (1.0, 4.0):
        state = lagrange_dual.init(jax.random.key(0), x, 24, norm_bound=bound)
        state = state._replace(atoms=jnp.asarray(atoms * bound**0.5))
        state, metrics = step(
            state, x, jax.random.key(1), penalty_weight=WEIGHT * bound**0.5, norm_bound=bound
        )
        assert metrics['dead'] == metrics['replaced'] == 1
        assert state.multipliers[5] == -1 and (state.multipliers >= 0).sum() == 23
        results.append(np.asarray(state.atoms) / bound**0.5)
    np.testing.assert_allclose(results[0], results[1], atol=2e-3)
    assert np.linalg.norm(results[0][:, 5]) == pytest.approx(1, rel=1e-4)
    assert abs(results[0][:, 5].mean()) < 0.02


@pytest.mark.parametrize('learner', ['lagrange', pytest.param('gradient', marks=pytest.mark.slow)])
def test_four_devices_learn_the_same_as_one(learner):
    x = patches()[:400]
    if learner == 'lagrange':
        start = lagrange_dual.init(jax.random.key(0), x, 24)
        update = functools.partial(step, penalty_weight=WEIGHT, norm_bound=1.0)
    else:
        optimizer = optax.adam(0.02)
        start = projected_gradient.init(jax.random.key(0), x, 24, optimizer=optimizer)
        update = functools.partial(
            projected_gradient.step, penalty_weight=WEIGHT, optimizer=optimizer
        )
    start = start._replace(atoms=start.atoms.at[:, 3].set(1 / 6))  # one is replaced
    one, metrics = update(start, x, jax.random.key(1))
    on_four = jax.pmap(
        functools.partial(update, reduce=Reduce('i')), axis_name='i', in_axes=(None, 0, 0)
    )
    several, measured = on_four(
        start, x.reshape(4, 100, 36), jnp.broadcast_to(jax.random.key(1), (4,))
    )
    assert metrics['replaced'] == 1
    for name, metric in metrics.items():
        if name != 'dual_gap':  # rounding
            np.testing.assert_allclose(measured[name], metric, rtol=1e-4, err_msg=name)
    for device in range(4):
        np.testing.assert_allclose(several.atoms[device], one.atoms, atol=2e-4)
        np.testing.assert_array_equal(several.atoms[device], several.atoms[0])


# Gradient steps


def test_a_plain_gradient_step_is_the_gradient_of_the_objective():
    """At fixed codes; inside the ball nothing is projected."""
    x = jnp.asarray(patches()[:200])
    optimizer = optax.sgd(0.01)
    state = projected_gradient.init(jax.random.key(0), x, 24, optimizer=optimizer)
    D = 0.9 * state.atoms
    a = solvers.approximate(x, D, WEIGHT, n_iterations=8)
    slope = jax.grad(lambda D: 0.5 * jnp.mean(jnp.sum((x - a @ D.T) ** 2, axis=1)))(D)
    best, _ = projected_gradient.step(
        state._replace(atoms=D), x, jax.random.key(0), penalty_weight=WEIGHT, optimizer=optimizer
    )
    np.testing.assert_allclose(best.atoms, D - 0.01 * slope, atol=1e-6)


def test_gradient_steps_learn_within_the_bound():
    x = patches()[:600]
    optimizer = optax.adam(0.02)
    state = projected_gradient.init(jax.random.key(0), x, 24, optimizer=optimizer, norm_bound=2.0)
    before = objective(state.atoms, x)
    update = jax.jit(
        functools.partial(
            projected_gradient.step, penalty_weight=WEIGHT, optimizer=optimizer, norm_bound=2.0
        )
    )
    metrics = {}
    for t in range(60):
        rows = slice(100 * (t % 6), 100 * (t % 6) + 100)
        state, metrics = update(state, x[rows], jax.random.key(t))
    energy = (np.asarray(state.atoms) ** 2).sum(0)
    assert (energy <= 2 * (1 + 1e-5)).all() and (energy > 1.99).any()
    assert objective(state.atoms, x) < 0.9 * before and state.step == 60
    assert np.isfinite(float(metrics['objective']))
