import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.ops import prox
from tests.gradients import check_grads


def test_soft_threshold_against_dense_grid():
    v = np.linspace(-4, 4, 41)
    grid = np.linspace(-5, 5, 200001)
    for t in (0.0, 0.3, 2.0):
        values = 0.5 * (grid[None, :] - v[:, None]) ** 2 + t * np.abs(grid)[None, :]
        got = prox.soft_threshold(jnp.asarray(v, jnp.float32), t)
        np.testing.assert_allclose(got, grid[values.argmin(1)], atol=1e-4)


def test_soft_threshold_is_exactly_zero_inside_and_half_steep_at_the_kink():
    slope = jax.vmap(jax.grad(prox.soft_threshold), (0, None))
    v = jnp.asarray([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0])
    np.testing.assert_array_equal(prox.soft_threshold(v, 1.0)[1:6], np.zeros(5))
    np.testing.assert_array_equal(slope(v, 1.0), [1, 0.5, 0, 0, 0, 0.5, 1])
    np.testing.assert_array_equal(slope(v, 0.0), np.ones(7))


def test_moreau_identity():
    # v = prox of t|.| + projection onto its dual ball, the interval [-t, t].
    v = jax.random.normal(jax.random.key(0), (100,)) * 3
    np.testing.assert_allclose(prox.soft_threshold(v, 0.7) + jnp.clip(v, -0.7, 0.7), v, atol=1e-6)


@pytest.mark.parametrize('t', [0.0, 1e-3, 0.5, 3.9, 4.0, 4.1, 6.0, 20.0, 1000.0])
def test_log_threshold_is_the_global_minimiser(t):
    # Both sides of the jump, the triple root (t = 4, v = 3 sqrt 3) and far beyond.
    v = np.concatenate([np.linspace(0, 12, 97), [3 * 3**0.5], np.geomspace(1e-3, 500, 60)])
    got = np.asarray(prox.log_threshold(jnp.asarray(v, jnp.float32), jnp.float32(t)), np.float64)
    v = v.astype(np.float32).astype(np.float64)

    def objective(x):
        return 0.5 * (x - v) ** 2 + t * np.log1p(x * x)

    share = np.unique(np.concatenate([np.linspace(0, 1, 20001), np.geomspace(1e-9, 1, 2000)]))
    grid = v[:, None] * share[None, :]
    values = 0.5 * (grid - v[:, None]) ** 2 + t * np.log1p(grid * grid)
    best = values.min(1)
    assert np.all(got >= 0)
    assert np.all(got <= v)
    assert np.all(objective(got) <= best + 1e-6 * (1 + best))


def test_log_threshold_solves_the_cubic_in_float64(x64):
    v = jnp.linspace(-30.0, 30.0, 301)
    for t in (0.2, 3.0, 5.0, 50.0):
        x = prox.log_threshold(v, t)
        residual = (x - v) * (1 + x * x) + 2 * t * x
        assert float(jnp.max(jnp.abs(residual) / (1 + jnp.abs(v)) ** 3)) < 1e-12


def test_log_threshold_jumps_where_the_two_minima_are_equal(x64):
    # t = 20: the jump lies where both wells are equally deep; found here by bisection on values.
    t = 20.0
    below, above = 6.0, 40.0
    for _ in range(60):
        v = 0.5 * (below + above)
        x = np.linspace(0, v, 400001)
        f = 0.5 * (x - v) ** 2 + t * np.log1p(x * x)
        if x[f.argmin()] < 3**0.5:
            below = v
        else:
            above = v
    left, right = prox.log_threshold(jnp.asarray([v - 1e-4, v + 1e-4]), t)
    assert left < 3**0.5 < right
    assert right - left > 5


def test_log_threshold_is_odd_and_safe_in_float32():
    v = jnp.asarray([0.0, 1e-30, 1e-8, 1.0, 1e4, 1e12, 1e17], jnp.float32)
    for t in (0.0, 1.0, 1e6):
        x = prox.log_threshold(v, t)
        np.testing.assert_array_equal(prox.log_threshold(-v, t), -x)
        assert np.all(np.isfinite(x))
    np.testing.assert_allclose(prox.log_threshold(v, 1.0)[4:], v[4:], rtol=1e-6)
    np.testing.assert_allclose(prox.log_threshold(v, 1.0)[1], v[1] / 3, rtol=1e-6)


def test_gradients(x64):
    v = jnp.asarray([-9.0, -3.0, -0.4, 0.0, 0.2, 2.5, 8.0])
    for t in (0.5, 3.0, 8.0):
        check_grads(prox.log_threshold, (v, jnp.full_like(v, t)), order=2, eps=1e-4)
    check_grads(lambda v: prox.soft_threshold(v, 0.3), (v[v != 0],), order=1)
    D = jnp.asarray(np.random.default_rng(1).standard_normal((3, 4)) * [0.1, 0.3, 1.0, 5.0])
    check_grads(lambda D: prox.project_ball(D, 2.0), (D,), order=1)


def test_gradients_are_finite_at_the_hard_places():
    v = jnp.asarray([0.0, 3 * 3**0.5, 1e15], jnp.float32)
    slope = jax.jit(jax.vmap(jax.grad(prox.log_threshold, (0, 1)), (0, None)))
    assert all(np.all(np.isfinite(g)) for g in slope(v, 4.0))
    slope = jax.jit(jax.grad(lambda D: prox.project_ball(D).sum()))
    assert np.all(np.isfinite(slope(jnp.zeros((3, 2)))))


def test_project_ball_keeps_the_inside_and_the_bound():
    D = np.random.default_rng(0).standard_normal((6, 50)) * np.geomspace(1e-3, 1e3, 50)
    D = D.astype(np.float32)
    project = jax.jit(prox.project_ball)
    for bound in (0.25, 1.0, 9.0):
        P = np.asarray(project(D, bound))
        norms, old = np.sum(P * P, 0), np.sum(D * D, 0)
        assert np.all(norms <= bound * (1 + 1e-6))
        np.testing.assert_array_equal(P[:, old <= bound], D[:, old <= bound])
        np.testing.assert_allclose(norms[old > bound], bound, rtol=1e-5)
    np.testing.assert_array_equal(
        prox.project_ball(D.T, 0.25, axis=1), prox.project_ball(D, 0.25).T
    )


def test_thresholds_per_column_and_their_errors():
    v = jnp.ones((3, 2))
    expected = [[0.5, 0.0]] * 3
    np.testing.assert_allclose(prox.soft_threshold(v, jnp.asarray([0.5, 1.5])), expected)
    with pytest.raises(TypeError, match='floating'):
        prox.soft_threshold(jnp.arange(3), 1.0)
    with pytest.raises(TypeError, match='floating'):
        prox.project_ball(jnp.ones((2, 2), int))
    with pytest.raises(ValueError, match=r'\(3,\).*\(3, 2\)'):
        prox.log_threshold(v, jnp.ones(3))
    assert prox.log_threshold(jnp.ones(3, jnp.bfloat16), 1.0).dtype == jnp.bfloat16
