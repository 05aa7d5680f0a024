"""Codes against scikit-learn's Lasso, the optimality conditions and closed forms; certificates kept."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from sklearn.datasets import load_digits
from sklearn.linear_model import Lasso

from lecture4.sparse import solvers
from lecture4.sparse.objective import L1, LOG

STEPWISE = ('fista', 'ista', 'admm')  # looked at every check_every iterations
METHODS = (*STEPWISE, 'coordinate_descent')
EPS = float(np.finfo(np.float32).eps)


def problem(n=12, d=16, k=24, seed=0, dtype=np.float64):
    """Signals of norm about 1 that few atoms do not explain, and a dictionary of unit atoms."""
    rng = np.random.default_rng(seed)
    D = rng.standard_normal((d, k))
    D /= np.linalg.norm(D, axis=0)
    sparse = rng.standard_normal((n, k)) * (rng.uniform(size=(n, k)) < 0.2)
    x = 0.5 * sparse @ D.T + 0.1 * rng.standard_normal((n, d))
    return x.astype(dtype), D.astype(dtype)


@functools.cache
def compiled(method):
    solve = getattr(solvers, method)
    static = {'penalty', 'tile'} & {*inspect.signature(solve).parameters}
    return jax.jit(solve, static_argnames=tuple(sorted(static)))


def solve(method, x, D, weight, **options):
    """The solver under jit; weight in the dtype of x."""
    weight = jnp.asarray(weight, x.dtype)
    options = {'max_iterations': 20000, **options}
    if method not in STEPWISE:  # looks when no code would move far
        options.pop('check_every', None)
    solution = compiled(method)(jnp.asarray(x), jnp.asarray(D), weight, **options)
    return solvers.Solution(*map(np.asarray, solution))


def value(x, D, a, weight, penalty='L1'):
    x, D, a, weight = (np.asarray(v, np.float64) for v in (x, D, a, weight))
    phi = np.abs(a) if penalty == 'L1' else np.log1p(a * a)
    return 0.5 * ((x - a @ D.T) ** 2).sum(1) + (np.broadcast_to(weight, a.shape) * phi).sum(1)


def lasso(x, D, weight):
    """Codes by scikit-learn's coordinate descent in float64, for any weight that broadcasts to [n, k]."""
    x, D = np.asarray(x, np.float64), np.asarray(D, np.float64)
    weight = np.broadcast_to(np.asarray(weight, np.float64), (len(x), D.shape[1]))
    codes = np.zeros(weight.shape)
    for i, (signal, w) in enumerate(zip(x, weight, strict=True)):
        # sum_j w_j |a_j| over D is sum_j |b_j| over atoms divided by w_j, with b_j = w_j a_j.
        model = Lasso(alpha=1 / D.shape[0], fit_intercept=False, tol=1e-14, max_iter=100000)
        codes[i] = model.fit(D / w, signal).coef_ / w
    return codes


# Agreement with an independent solver


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('shape', [(16, 24), (24, 10), (9, 30)], ids=str)
def test_lasso_in_float64(method, shape, x64):
    # k < 2 d, k < d and k > 2 d: the three ways in which the products are arranged.
    x, D = problem(d=shape[0], k=shape[1])
    best = lasso(x, D, 0.05)
    found = solve(method, x, D, 0.05, tolerance=1e-9)
    assert found.converged.all()
    np.testing.assert_allclose(value(x, D, found.codes, 0.05), value(x, D, best, 0.05), rtol=1e-8)
    np.testing.assert_allclose(found.codes, best, atol=2e-4)
    assert ((best != 0).sum(1) > 2).all() and (best == 0).any(1).all()


@pytest.mark.parametrize('method', METHODS)
def test_lasso_in_float32_to_the_default_tolerance(method):
    x, D = problem(dtype=np.float32)
    found = solve(method, x, D, 0.05)
    best = value(x, D, lasso(x, D, 0.05), 0.05)
    excess = value(x, D, found.codes, 0.05) / best - 1
    assert found.codes.dtype == np.float32 and found.converged.all()
    assert (excess < 1e-4).all() and (excess > -1e-9).all()


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('kind', ['per atom', 'per signal', 'both'])
def test_lasso_with_a_weight_of_every_shape(method, kind, x64):
    x, D = problem(n=6)
    shape = {'per atom': (24,), 'per signal': (6, 1), 'both': (6, 24)}[kind]
    weight = np.random.default_rng(1).uniform(0.02, 0.1, shape)
    found = solve(method, x, D, weight, tolerance=1e-9)
    best = lasso(x, D, weight)
    np.testing.assert_allclose(
        value(x, D, found.codes, weight), value(x, D, best, weight), rtol=1e-8
    )


def test_ill_conditioned_dictionary():
    """Raw digits as atoms and signals: eigenvalues of DD' from 0 to over 50; ADMM is the faster one."""
    digits = load_digits().data.astype(np.float32) / 16
    D = digits[100:200].T / np.linalg.norm(digits[100:200], axis=1)
    x = digits[:20]
    best = value(x, D, lasso(x, D, 0.1), 0.1)
    for tolerance in (1e-3, 1e-4):
        found = solve('fista', x, D, 0.1, tolerance=tolerance)
        assert found.converged.all()
        assert (value(x, D, found.codes, 0.1) <= best * (1 + tolerance)).all()
    # In float32 ADMM's gap comes to rest near 1e-4 on the hardest of these signals.
    quick = solve('admm', x, D, 0.1, tolerance=1e-3)
    slow = solve('fista', x, D, 0.1, tolerance=1e-3)
    assert quick.converged.all()
    assert (value(x, D, quick.codes, 0.1) <= best * (1 + 1e-3)).all()
    assert np.median(quick.iterations) < 0.5 * np.median(slow.iterations)


# What holds at a minimum, and on the way to it


@pytest.mark.parametrize('method', METHODS)
def test_optimality_conditions(method, x64):
    x, D = problem()
    found = solve(method, x, D, 0.05, tolerance=1e-13)
    correlation = (x - found.codes @ D.T) @ D
    used = found.codes != 0
    assert used.any() and not used.all()
    assert np.abs(correlation).max() < 0.05 * (1 + 1e-5)
    np.testing.assert_allclose(correlation[used], 0.05 * np.sign(found.codes[used]), atol=1e-6)


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('max_iterations', [0, 1, 4, 25])
def test_certificate_bounds_the_distance_to_the_minimum(method, max_iterations):
    """Also of codes that are far from converged, and in float32."""
    x, D = problem(dtype=np.float32)
    weight = np.float32(0.03)
    best = value(x, D, lasso(x, D, weight), weight)
    found = solve(
        method, x, D, weight, tolerance=1e-3, max_iterations=max_iterations, check_every=7
    )
    reached = value(x, D, found.codes, weight)
    np.testing.assert_allclose(found.objective, reached, rtol=1e-5)
    assert (found.gap * reached >= (reached - best) * (1 - 1e-4) - 4 * EPS * (x * x).sum(1)).all()
    assert (found.gap[found.converged] <= 1.01e-3).all()
    assert (found.gap[~found.converged] > 1e-3).all()
    assert (found.iterations <= max_iterations).all() and found.iterations.dtype == np.int32
    if max_iterations < 4:
        assert not found.converged.any()


@pytest.mark.parametrize('penalty', [L1, LOG], ids=['L1', 'log'])
def test_ista_falls_at_every_step_by_at_least_the_step_squared(penalty, x64):
    """F(a) - F(a+) >= L/2 |a - a+|^2 for any L >= the largest eigenvalue (the prox is exact)."""
    x, D = problem(n=5)
    name = 'L1' if penalty is L1 else 'log'
    # For a penalty that is not convex the majoriser only promises that much for the excess of L.
    L = np.linalg.eigvalsh(D.T @ D)[-1] if penalty is L1 else 0
    a = np.random.default_rng(2).standard_normal((5, 24))
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


def test_the_speed_that_theory_promises(x64):
    """F(a_m) - F* within L |a*|^2 / 2m (ista) and 2 L |a*|^2 / (m + 1)^2 (fista)."""
    x, D = problem(n=8, d=20, k=20, seed=3)
    D = D * np.geomspace(1, 0.03, 20)  # badly conditioned
    best = lasso(x, D, 1e-3)
    L, energy = np.linalg.eigvalsh(D.T @ D)[-1], (best**2).sum(1)
    for m in (3, 30, 100):
        for method, bound in (('ista', 0.5 / m), ('fista', 2 / (m + 1) ** 2)):
            found = solve(method, x, D, 1e-3, tolerance=0.0, max_iterations=m, check_every=100)
            excess = value(x, D, found.codes, 1e-3) - value(x, D, best, 1e-3)
            assert (excess <= 1.02 * bound * L * energy).all(), (method, m)
    slow, fast = (solve(m, x, D, 1e-3, tolerance=1e-3).iterations for m in ('ista', 'fista'))
    assert np.median(fast) < 0.5 * np.median(slow)


# The log penalty


@pytest.mark.parametrize('method', ['fista', 'ista'])
@pytest.mark.parametrize('weight', [0.05, 2.0])
def test_log_codes_are_stationary(method, weight, x64):
    """The penalty is smooth, so its gradient must vanish; at weight 2 the objective is not convex."""
    x, D = problem()
    x = 5 * x
    found = solve(method, x, D, weight, penalty=LOG, tolerance=1e-9)
    assert found.converged.all() and (found.gap <= 1e-9).all()
    gradient = (found.codes @ D.T - x) @ D + weight * 2 * found.codes / (1 + found.codes**2)
    assert (np.linalg.norm(gradient, axis=1) < 1e-8 * np.linalg.norm(x @ D, axis=1)).all()
    np.testing.assert_allclose(found.objective, value(x, D, found.codes, weight, 'log'), rtol=1e-12)
    assert (found.objective < 0.5 * (x * x).sum(1)).all()


@pytest.mark.parametrize('method', ['fista', 'ista'])
@pytest.mark.parametrize('k', [1, 4])
@pytest.mark.parametrize('weight', [0.7, 6.0, 15.0])
def test_log_codes_on_orthogonal_atoms_against_a_dense_grid(method, k, weight, x64):
    """There every coefficient is a problem of its own; above weight 4 it has two minima."""
    rng = np.random.default_rng(4)
    D = np.linalg.qr(rng.standard_normal((6, 6)))[0][:, :k]
    x = 8 * rng.standard_normal((10, 6))
    found = solve(method, x, D, weight, penalty=LOG, tolerance=1e-10)
    grid = np.linspace(0, 1, 20001)
    best = 0.5 * (x * x).sum(1)
    for v in (x @ D).T:
        a = v[:, None] * grid
        best += np.min(0.5 * a**2 - v[:, None] * a + weight * np.log1p(a * a), axis=1)
    np.testing.assert_allclose(value(x, D, found.codes, weight, 'log'), best, rtol=1e-6)


@pytest.mark.parametrize('weight', [0.05, 2.0])
def test_log_objective_of_fista_never_rises(weight, x64):
    x, D = problem(n=6)
    x, D = 5 * x, D * np.geomspace(1, 0.05, 24)
    values = [value(x, D, np.zeros((6, 24)), weight, 'log')]
    for m in (1, 2, 3, 5, 8, 13, 21, 34, 55):
        found = solve(
            'fista', x, D, weight, penalty=LOG, tolerance=0.0, max_iterations=m, check_every=100
        )
        values.append(value(x, D, found.codes, weight, 'log'))
    assert (np.diff(values, axis=0) <= 1e-12).all()


# Signals do not meddle with one another


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
        if method == 'coordinate_descent' and field != 'converged':
            # The fullest support of a tile decides how its systems are blocked: equal up to rounding.
            np.testing.assert_allclose(one[rows], two[rows], rtol=1e-4, atol=1e-6, err_msg=field)
        else:
            np.testing.assert_array_equal(one[rows], two[rows], err_msg=field)
    for bad in (5, 7, 9):
        assert np.isnan(mixed.codes[bad]).all()
        assert np.isnan(mixed.gap[bad]) and np.isnan(mixed.objective[bad])
    assert mixed.converged[8] and not mixed.converged[[5, 7, 9]].any()


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('tile', [1, 5, 12, 13])
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


def test_tiles_with_a_weight_per_atom_and_log_penalty(x64):
    x, D = problem(n=24)  # as many signals as atoms
    weight = np.linspace(0.03, 0.1, 24)
    for penalty in (L1, LOG):
        whole = solve('fista', x, D, weight, penalty=penalty, tolerance=1e-6)
        tiles = solve('fista', x, D, weight, penalty=penalty, tolerance=1e-6, tile=7)
        np.testing.assert_allclose(whole.codes, tiles.codes, atol=1e-9)


# Starts and stops


@pytest.mark.parametrize('method', METHODS)
def test_warm_start(method, x64):
    x, D = problem()
    cold = solve(method, x, D, 0.05, tolerance=1e-6)
    again = solve(method, x, D, 0.05, tolerance=1e-6, init=jnp.asarray(cold.codes))
    assert (again.iterations == 0).all() and again.converged.all()
    np.testing.assert_allclose(again.codes, cold.codes, rtol=1e-12, atol=1e-15)
    # From the codes of a weight nearby: sooner there, at the same minimum.
    near = solve(method, x, D, 0.051, tolerance=1e-6, init=jnp.asarray(cold.codes))
    start = solve(method, x, D, 0.051, tolerance=1e-6)
    assert near.iterations.sum() < start.iterations.sum()
    np.testing.assert_allclose(near.objective, start.objective, rtol=1e-6)
    # From far away: the same minimum still.
    far = 10 * np.random.default_rng(6).standard_normal((12, 24))
    found = solve(method, x, D, 0.05, tolerance=1e-6, init=jnp.asarray(far))
    assert found.converged.all()
    np.testing.assert_allclose(found.objective, cold.objective, rtol=1e-6)


@pytest.mark.parametrize('method', METHODS)
def test_not_finite_start_of_one_signal(method):
    x, D = problem(dtype=np.float32)
    init = np.zeros((12, 24), np.float32)
    init[2, 5] = np.nan
    found = solve(method, x, D, 0.05, init=jnp.asarray(init))
    assert found.converged.tolist() == [i != 2 for i in range(12)]
    assert np.isnan(found.codes[2]).all()


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


def test_float32_does_not_spin_for_a_tolerance_out_of_reach():
    x, D = problem(dtype=np.float32)
    found = solve('fista', x, D, 0.05, tolerance=0.0, max_iterations=5000)
    assert found.converged.all() and (found.iterations < 2000).all()


@pytest.mark.parametrize('method', METHODS)
def test_too_few_iterations_are_told(method):
    x, D = problem(dtype=np.float32)
    found = solve(method, x, D, 0.01, max_iterations=3)
    assert (found.iterations == 3).all() and not found.converged.any()
    assert (found.gap > 1e-4).all() and np.isfinite(found.codes).all()
    start = jnp.asarray(np.random.default_rng(7).standard_normal((12, 24)), jnp.float32)
    none = solve('fista', x, D, 0.01, max_iterations=0, init=start)
    np.testing.assert_array_equal(none.codes, start)
    np.testing.assert_allclose(none.objective, value(x, D, start, 0.01), rtol=1e-5)


# Edges


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('start', ['cold', 'warm'])
def test_weight_from_the_maximum_on_gives_exact_zeros(method, start):
    x, D = problem(dtype=np.float32)
    largest = np.asarray(jnp.abs(jnp.matmul(x, D, precision='highest')).max(1))[:, None]
    noise = np.random.default_rng(8).standard_normal((12, 24)).astype(np.float32)
    init = {} if start == 'cold' else {'init': jnp.asarray(noise)}
    for factor in (1, 1.001, 50):
        found = solve(method, x, D, np.float32(factor) * largest, **init)
        assert (found.codes == 0).all() and found.converged.all()
        assert (found.gap <= 2e-6).all()
        np.testing.assert_allclose(found.objective, 0.5 * (x * x).sum(1), rtol=1e-6)
    below = solve(method, x, D, np.float32(0.9) * largest, **init)
    assert (below.codes != 0).any(1).all()


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('d', [1, 7])
def test_one_atom_in_closed_form(method, d, x64):
    rng = np.random.default_rng(9)
    D, x = 1 + rng.uniform(size=(d, 1)), rng.standard_normal((9, d))
    x *= np.linspace(0.05, 3, 9)[:, None]
    v, energy = x @ D, (D * D).sum()
    expected = np.sign(v) * np.maximum(abs(v) - 0.4, 0) / energy
    found = solve(method, x, D, 0.4, tolerance=1e-13)
    assert found.converged.all() and (expected == 0).any() and (expected != 0).any()
    np.testing.assert_allclose(found.codes, expected, atol=1e-6)


@pytest.mark.parametrize('method', METHODS)
def test_orthonormal_atoms_in_closed_form(method, x64):
    rng = np.random.default_rng(10)
    D, x = np.linalg.qr(rng.standard_normal((8, 8)))[0], rng.standard_normal((9, 8))
    expected = np.sign(x @ D) * np.maximum(abs(x @ D) - 0.5, 0)
    np.testing.assert_allclose(solve(method, x, D, 0.5, tolerance=1e-13).codes, expected, atol=1e-6)


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('tile', [None, 4])
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
    found = solve(method, x, D, 0.05, tolerance=1e-9)
    assert (found.codes[4] == 0).all() and (found.codes[:, 7] == 0).all() and found.converged.all()
    assert found.objective[4] == found.gap[4] == 0
    rest = np.delete(D, 7, axis=1)
    best = value(x, rest, lasso(x, rest, 0.05), 0.05)
    np.testing.assert_allclose(found.objective, best, rtol=1e-8)
    nothing = solve(method, x, 0 * D, 0.05)
    assert (nothing.codes == 0).all() and nothing.converged.all()


@pytest.mark.parametrize('method', METHODS)
def test_equal_atoms(method, x64):
    """The minimiser is not unique then; the minimum is, and that of the dictionary without copies."""
    x, D = problem(k=12)
    found = solve(method, x, np.concatenate([D, D[:, ::-1], -D], 1), 0.05, tolerance=1e-9)
    assert found.converged.all()
    best = value(x, D, lasso(x, D, 0.05), 0.05)
    np.testing.assert_allclose(found.objective, best, rtol=1e-8)


@pytest.mark.parametrize('method', METHODS)
def test_scale_of_signals_and_weight_is_only_that(method):
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


# Composition


@pytest.mark.parametrize('method', METHODS)
def test_vmap_over_weights_is_a_loop_over_weights(method, x64):
    x, D = map(jnp.asarray, problem())
    weights = jnp.asarray([0.02, 0.05, 0.5, 5.0])
    one = functools.partial(getattr(solvers, method), tolerance=1e-6, max_iterations=20000)
    together = jax.jit(jax.vmap(one, (None, None, 0)))(x, D, weights)
    for i, weight in enumerate(weights):
        alone = solve(method, x, D, weight, tolerance=1e-6)
        for field, a, b in zip(alone._fields, alone, together, strict=True):
            np.testing.assert_allclose(a, b[i], rtol=1e-7, atol=1e-10, err_msg=field)


@pytest.mark.parametrize('method', METHODS)
def test_without_jit_it_is_the_same(method, x64):
    x, D = map(jnp.asarray, problem(n=3))
    plain = getattr(solvers, method)(x, D, 0.05, tolerance=1e-6, max_iterations=20000)
    under_jit = solve(method, x, D, 0.05, tolerance=1e-6)
    np.testing.assert_allclose(plain.codes, under_jit.codes, atol=1e-12)


@pytest.mark.parametrize('method', METHODS)
def test_one_trace_serves_every_weight_tolerance_and_start(method):
    x, D = map(jnp.asarray, problem(dtype=np.float32))
    traces = []

    @jax.jit
    def codes(x, weight, init, tolerance):
        traces.append(1)
        return getattr(solvers, method)(x, D, weight, init=init, tolerance=tolerance).codes

    zero = jnp.zeros((12, 24))
    first = codes(x, 0.05, zero, 1e-3)
    second = codes(2 * x, 0.5, first, 1e-4)
    assert len(traces) == 1
    assert (first != 0).sum() > (second != 0).sum() > 0


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


def test_devices_share_the_signals():
    """Under pmap every device stops by its own signals; the results are those of one device."""
    x, D = problem(n=8, dtype=np.float32)
    whole = solve('fista', x, D, 0.05)
    split = jax.pmap(lambda x: solvers.fista(x, jnp.asarray(D), 0.05))(x.reshape(4, 2, 16))
    np.testing.assert_allclose(split.codes.reshape(8, 24), whole.codes, atol=1e-6)
    np.testing.assert_array_equal(split.converged.reshape(8), whole.converged)


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
    for method in METHODS:
        got = solvers.encode(jnp.asarray(x), jnp.asarray(D), 0.05, method=method, tolerance=1e-5)
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
