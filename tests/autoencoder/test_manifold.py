"""Scores against finite differences and Gaussians; tangents and walks of maps that are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from lecture4.autoencoder import manifold

RNG = np.random.default_rng(0)
CURVES = {'circle': manifold.CIRCLE, 'spiral': manifold.SPIRAL}


def onto_circle(x):
    return x / jnp.linalg.norm(x, axis=1, keepdims=True)


def test_density_is_the_mean_of_gaussians(x64):
    x, centers = RNG.normal(size=(7, 3)), RNG.normal(size=(4, 3))
    each = [stats.multivariate_normal(c, 0.3**2 * np.eye(3)).pdf(x) for c in centers]
    found = manifold.log_density(jnp.asarray(x), jnp.asarray(centers), 0.3)
    np.testing.assert_allclose(found, np.log(np.mean(each, axis=0)), rtol=1e-12)


def test_score_is_the_density_s_gradient(x64):
    x, centers = jnp.asarray(RNG.normal(size=(9, 3))), jnp.asarray(RNG.normal(size=(20, 3)))
    log_density = jax.jit(lambda x: manifold.log_density(x, centers, 0.5))
    gradient = jax.jit(jax.grad(lambda x: log_density(x).sum()))(x)
    score = jax.jit(lambda x: manifold.score(x, centers, 0.5))(x)
    np.testing.assert_allclose(score, gradient, rtol=1e-9, atol=1e-12)
    h, up = 1e-5, np.eye(3)
    rises = [log_density(x + h * e[None]) - log_density(x - h * e[None]) for e in up]
    np.testing.assert_allclose(gradient, np.stack(rises, 1) / (2 * h), rtol=1e-6, atol=1e-8)


def test_denoiser_is_the_posterior_mean(x64):
    """By brute force in two dimensions, and no other function does better on average."""
    centers = jnp.asarray(RNG.normal(size=(5, 2)))
    x = jnp.asarray(RNG.normal(size=(11, 2)))
    far = ((np.asarray(x)[:, None] - np.asarray(centers)[None]) ** 2).sum(2)
    weights = np.exp(-far / (2 * 0.4**2))
    expected = weights @ np.asarray(centers) / weights.sum(1, keepdims=True)
    for tile in (3, 256):
        found = manifold.denoiser(x, centers, 0.4, tile)
        np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_gaussian_data_are_denoised_linearly():
    """Many draws from N(0, C): E[clean | x] is C (C + s^2)^-1 x, within the draws' spread."""
    std, scales = 0.8, np.array([1.5, 0.5])
    centers = jnp.asarray(RNG.normal(size=(40_000, 2)) * scales, jnp.float32)
    x = jnp.asarray(RNG.normal(size=(30, 2)) * scales, jnp.float32)
    slope = scales**2 / (scales**2 + std**2)
    np.testing.assert_allclose(manifold.denoiser(x, centers, std), np.asarray(x) * slope, atol=0.05)


@pytest.mark.parametrize('name', CURVES)
def test_positions_are_evenly_spaced(name):
    curve = CURVES[name]
    points = np.asarray(curve.point(manifold.evenly_spaced(curve, 800)))
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    np.testing.assert_allclose(steps, steps.mean(), rtol=5e-3)
    if curve.closed:
        np.testing.assert_allclose(np.linalg.norm(points[0] - points[-1]), steps.mean(), rtol=5e-3)


@pytest.mark.parametrize('name', CURVES)
def test_tangents_are_chords_of_a_small_step(name, x64):
    curve = CURVES[name]
    t, h = jnp.linspace(0.1, 0.9, 13), 1e-5
    chord = np.asarray(curve.point(t + h) - curve.point(t - h))
    chord = chord / np.linalg.norm(chord, axis=1, keepdims=True)
    np.testing.assert_allclose(manifold.tangent(curve, t), chord, atol=1e-8)


def test_tangents_of_a_projection_are_the_manifold_s(x64):
    x = 1.3 * manifold.CIRCLE.point(jnp.linspace(0, 1, 9)) + 0.1
    found, values = manifold.tangents(onto_circle, x, 1)
    truth = np.stack([-x[:, 1], x[:, 0]], 1) / np.linalg.norm(x, axis=1, keepdims=True)
    assert float(manifold.angle_between(found, jnp.asarray(truth)[:, None]).max()) < 1e-12
    np.testing.assert_allclose(values[:, 1], 0, atol=1e-12)  # nothing leads away
    np.testing.assert_allclose(values[:, 0], 1 / np.linalg.norm(x, axis=1), rtol=1e-12)


@pytest.mark.parametrize('m', [2, 7])
def test_tangents_of_a_linear_map_are_its_singular_vectors(m, x64):
    A = RNG.normal(size=(4, m))
    found, values = manifold.tangents(lambda x: jnp.tanh(x @ A), jnp.zeros((3, 4)), 2)
    u, s, _ = np.linalg.svd(A, full_matrices=False)
    np.testing.assert_allclose(values[1], s, rtol=1e-10)
    truth = jnp.broadcast_to(jnp.asarray(u[:, :2].T), (3, 2, 4))
    assert float(manifold.angle_between(found, truth).max()) < 1e-7
    with pytest.raises(ValueError, match=f'1 to {min(m, 4)} tangent directions'):
        manifold.tangents(lambda x: x @ A, jnp.zeros((3, 4)), min(m, 4) + 1)


def test_angles_are_angles():
    plane = jnp.asarray([[[1.0, 0, 0], [0, 1, 0]]])
    for angle in (0.0, 0.001, 0.7, np.pi / 2):
        line = jnp.asarray([[[np.cos(angle), 0, np.sin(angle)]]], jnp.float32)
        np.testing.assert_allclose(manifold.angle_between(plane, line), angle, atol=1e-6, rtol=1e-3)


def test_a_walk_goes_around_the_circle_and_stays_on_it(x64):
    start = jnp.asarray([[1.2, 0.0], [0.0, -0.7]])
    path = manifold.tangent_walk(onto_circle, start, n_steps=63, step_size=0.1)
    np.testing.assert_allclose(jnp.linalg.norm(path, axis=2), 1, rtol=1e-12)
    angle = np.unwrap(np.arctan2(path[..., 1], path[..., 0]), axis=0)
    steps = np.diff(angle, axis=0)
    assert (np.sign(steps) == np.sign(steps[:1])).all()  # never turns round
    np.testing.assert_allclose(np.abs(steps), np.arctan(0.1), rtol=1e-10)


def test_a_random_walk_forgets_its_start():
    start = jnp.tile(jnp.asarray([[1.0, 0.0]]), (400, 1))
    path = manifold.random_walk(jax.random.key(0), onto_circle, start, n_steps=40, std=0.5)
    assert path.shape == (41, 400, 2)
    np.testing.assert_allclose(jnp.linalg.norm(path, axis=2), 1, rtol=1e-5)
    assert np.linalg.norm(path[1].mean(0)) > 0.8
    assert np.linalg.norm(path[-1].mean(0)) < 4.5 * np.sqrt(1 / 400)


def test_field_error_has_its_landmarks():
    truth = jnp.asarray(RNG.normal(size=(50, 2)), jnp.float32)
    assert manifold.field_error(truth, truth) == 0
    np.testing.assert_allclose(manifold.field_error(jnp.zeros_like(truth), truth), 1, rtol=1e-6)
    np.testing.assert_allclose(manifold.field_error(1.1 * truth, truth), 0.1, rtol=1e-4)


def test_first_units_tell_a_point_from_its_noisy_copy():
    x = jax.random.normal(jax.random.key(0), (300, 4))
    params = manifold.init_autoencoder(jax.random.key(1), x, (200, 5), 0.1)
    first = params.encoder[0]
    moved = 0.1 * jnp.linalg.norm(first.weight, axis=0) / 2  # a standard deviation in 4 dimensions
    assert float(moved.mean()) == pytest.approx(0.7 / 2, rel=0.1)
    inputs = x @ first.weight + first.bias[None]
    assert (abs(inputs).min(0) < 1e-4).all()  # each unit is steepest at some point
    assert manifold.reconstruct(params, x).shape == x.shape
    assert manifold.encode(params, x).shape == (300, 5)
