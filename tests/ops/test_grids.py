"""Grids: identities, closed forms of every family, and scipy's thin plate spline."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import RBFInterpolator

from lecture4.ops import grids, sampling
from tests.gradients import check_grads

FAMILIES = {
    'affine': grids.affine(),
    'attention': grids.attention(),
    'projective': grids.projective(),
    'thin plate spline': grids.thin_plate_spline(),
}


def parameters(family, seed=0, batch=(3,), scale=0.3):
    draws = np.random.default_rng(seed).uniform(-scale, scale, (*batch, len(family.identity)))
    return jnp.asarray(family.identity + draws)


@pytest.mark.parametrize('align_corners', [True, False])
@pytest.mark.parametrize('name', FAMILIES)
def test_identity_reproduces_the_image(name, align_corners):
    family = FAMILIES[name]
    images = np.random.default_rng(0).uniform(size=(2, 28, 24, 2)).astype(np.float32)
    theta = np.tile(family.identity.astype(np.float32), (2, 1))

    @jax.jit
    def run(images, theta):
        grid = grids.grid(family, theta, (28, 24), align_corners)
        return sampling.grid_sample(images, grid, align_corners=align_corners)

    np.testing.assert_allclose(run(images, theta), images, atol=1e-6)


@pytest.mark.parametrize('align_corners', [True, False])
def test_identity_reproduces_a_volume(align_corners):
    family = grids.affine(3)
    assert len(family.identity) == 12
    volume = np.random.default_rng(0).uniform(size=(1, 5, 6, 7, 2)).astype(np.float32)
    grid = grids.grid(family, family.identity[None].astype(np.float32), (5, 6, 7), align_corners)
    values = jax.jit(functools.partial(sampling.grid_sample, align_corners=align_corners))(
        volume, grid
    )
    np.testing.assert_allclose(values, volume, atol=1e-6)


def test_points_are_x_then_y_in_the_order_of_rows():
    corners = grids.pixel_centers((2, 3))
    np.testing.assert_array_equal(corners, [[-1, -1], [0, -1], [1, -1], [-1, 1], [0, 1], [1, 1]])
    np.testing.assert_allclose(grids.pixel_centers((1, 4), False)[:, 0], [-0.75, -0.25, 0.25, 0.75])
    np.testing.assert_array_equal(grids.pixel_centers((1, 1)), [[0, 0]])


def test_outline_goes_around_the_output_once():
    np.testing.assert_array_equal(grids.outline(), [[-1, -1], [1, -1], [1, 1], [-1, 1]])
    fine = grids.outline(8)
    steps = np.linalg.norm(np.roll(fine, -1, axis=0) - fine, axis=1)
    np.testing.assert_allclose(steps, 0.25)
    np.testing.assert_array_equal(np.abs(fine).max(1), 1)


def test_affine_closed_form(x64):
    points = np.array([[0.5, -0.25]])
    theta = jnp.array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
    np.testing.assert_allclose(grids.transform(grids.affine(), theta, points), [[[3.0, 6.75]]])
    theta = jnp.arange(1.0, 13.0)[None]
    np.testing.assert_allclose(
        grids.transform(grids.affine(3), theta, np.array([[1.0, 0.0, -1.0]])), [[[2.0, 6.0, 10.0]]]
    )


def test_attention_is_the_affine_map_of_equation_2(x64):
    theta = parameters(FAMILIES['attention'])
    s, x, y = theta.T
    zero = jnp.zeros_like(s)
    affine = jnp.stack([s, zero, x, zero, s, y], axis=1)
    np.testing.assert_allclose(
        grids.grid(grids.attention(), theta, (4, 5)), grids.grid(grids.affine(), affine, (4, 5)),
        atol=1e-15,
    )  # fmt: skip


def test_projection_divides_by_the_third_coordinate(x64):
    theta = np.asarray(parameters(FAMILIES['projective'], scale=0.2))
    points = grids.pixel_centers((4, 5))
    for row, found in zip(theta, grids.transform(grids.projective(), theta, points), strict=True):
        x, y, w = np.append(row, 1).reshape(3, 3) @ np.c_[points, np.ones(len(points))].T
        np.testing.assert_allclose(found, np.c_[x / w, y / w], atol=1e-13)


def test_points_behind_the_horizon_are_outside(x64):
    theta = np.eye(3).ravel()[:8]
    theta[6] = -2.0  # the third coordinate is 1 - 2 x: behind from x = 1/2 on
    points = np.array([[0.25, 0.0], [0.5, 0.1], [1.0, 0.0]])

    @jax.jit
    def run(theta):
        found, vjp = jax.vjp(lambda t: grids.transform(grids.projective(), t, points), theta)
        values = sampling.sample(np.ones((5, 5, 1)), found)
        return found, vjp(jnp.ones_like(found))[0], values

    found, gradient, values = run(theta)
    np.testing.assert_array_equal(np.isinf(found).all(-1), [False, True, True])
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(values[1:], 0)


def test_thin_plate_spline_is_scipys(x64):
    family = grids.thin_plate_spline()
    theta = np.asarray(parameters(family, scale=0.4))
    points = np.concatenate([grids.pixel_centers((5, 6)), [[1.7, -1.4]]])
    control = family.identity.reshape(-1, 2)
    for row, found in zip(theta, grids.transform(family, theta, points), strict=True):
        exact = RBFInterpolator(control, row.reshape(-1, 2), kernel='thin_plate_spline', degree=1)
        np.testing.assert_allclose(found, exact(points), atol=1e-10)


def test_spline_interpolates_and_reproduces_affine_maps(x64):
    control = np.array([[-1, -1], [0.9, -0.8], [0.1, 0.2], [-0.7, 1], [1, 0.7]])
    family = grids.thin_plate_spline(control)
    theta = parameters(family)
    at_control = grids.transform(family, theta, control)
    np.testing.assert_allclose(at_control.reshape(3, -1), theta, atol=1e-12)
    affine = np.array([[0.8, -0.3, 0.1, 0.4, 1.1, -0.2]])
    points = grids.pixel_centers((4, 5))
    through = grids.transform(grids.affine(), affine, control).reshape(1, -1)
    np.testing.assert_allclose(
        grids.transform(family, through, points), grids.transform(grids.affine(), affine, points),
        atol=1e-12,
    )  # fmt: skip


@pytest.mark.parametrize('name', FAMILIES)
def test_gradients_by_theta(x64, name):
    family = FAMILIES[name]
    points = grids.pixel_centers((3, 4))
    run = functools.partial(grids.transform, family, points=points)
    check_grads(run, (parameters(family, scale=0.2),), order=1, modes=['rev'])


def test_composition_is_one_grid_after_the_other(x64):
    first, second = (parameters(grids.affine(), seed) for seed in (0, 1))
    points = grids.pixel_centers((3, 4))
    composed = grids.transform(grids.affine(), grids.compose_affine(first, second), points)
    inner = np.asarray(grids.transform(grids.affine(), second, points))
    for i in range(3):
        np.testing.assert_allclose(
            composed[i], grids.transform(grids.affine(), first[i], inner[i]), atol=1e-13
        )


def test_inverse_composes_to_the_identity(x64):
    theta = parameters(grids.affine())
    for pair in ((theta, grids.invert_affine(theta)), (grids.invert_affine(theta), theta)):
        product = grids.compose_affine(*pair)
        np.testing.assert_allclose(product, np.tile(grids.affine().identity, (3, 1)), atol=1e-12)


def test_rotation_angle_of_scaled_and_sheared_rotations(x64):
    angles = np.linspace(-3, 3, 7)
    c, s, zero = 0.7 * np.cos(angles), 0.7 * np.sin(angles), 0 * angles
    theta = np.stack([c, -s, zero + 0.3, s, c, zero], axis=1)
    np.testing.assert_allclose(grids.rotation_angle(theta), angles, atol=1e-12)
    sheared = theta + np.array([0.1, 0.05, 0, 0.05, -0.1, 0])  # a symmetric part of no trace
    np.testing.assert_allclose(grids.rotation_angle(sheared), angles, atol=1e-12)


def test_a_map_of_zero_area_is_defined_and_has_no_inverse(x64):
    theta = np.array([[0.0, 0, 0.5, 0, 0, -0.5], [1, 0, 0, 0, 1, 0], [1, 2, 0, 2, 4, 0]])
    inverse = grids.invert_affine(theta)
    np.testing.assert_array_equal(np.isnan(inverse).all(1), [True, False, True])
    image = np.random.default_rng(0).uniform(size=(5, 5, 1))

    def run(theta):
        grid = grids.grid(grids.affine(), theta, (3, 3))
        return sampling.grid_sample(image[None], grid[None])[0]

    @jax.jit
    def values_and_gradient(theta):
        values, vjp = jax.vjp(run, theta)
        return values, vjp(jnp.ones_like(values))[0]

    values, gradient = values_and_gradient(theta[0])
    np.testing.assert_allclose(values, np.full((3, 3, 1), image[1, 3, 0]), atol=1e-12)
    assert np.isfinite(gradient).all()


def test_nan_parameters_mark_their_own_example():
    theta = np.tile(grids.affine().identity.astype(np.float32), (3, 1))
    theta[1, 2] = np.nan
    images = np.random.default_rng(0).uniform(size=(3, 6, 6, 1)).astype(np.float32)
    grid = grids.grid(grids.affine(), theta, (6, 6))
    values, vjp = jax.vjp(lambda images: jax.jit(sampling.grid_sample)(images, grid), images)
    assert np.isnan(values[1]).all()
    np.testing.assert_allclose(values[::2], images[::2], atol=1e-6)
    assert np.isfinite(vjp(jnp.ones_like(values))[0][::2]).all()


@pytest.mark.parametrize(
    ('run', 'error', 'message'),
    [
        (lambda: grids.grid(grids.affine(), np.ones((2, 5)), (4, 4)), ValueError, 'expected 6'),
        (
            lambda: grids.grid(grids.affine(), np.ones((4, 2, 3)), (4, 4)),
            ValueError,
            r'reshape\(\(4, 6',
        ),
        (lambda: grids.grid(grids.projective(), np.ones((2, 9)), (4, 4)), ValueError, 'expected 8'),
        (lambda: grids.grid(grids.affine(), np.ones(6, int), (4, 4)), TypeError, 'theta has dtype'),
        (lambda: grids.grid(grids.affine(), np.ones(6), (0, 4)), ValueError, 'output size'),
        (lambda: grids.grid(grids.affine(), np.ones(6), (4,)), ValueError, 'output size'),
        (lambda: grids.grid(grids.affine(), np.ones(6), (4, 4, 4)), ValueError, r'\[p, 2\]'),
        (lambda: grids.compose_affine(np.ones(5), np.ones(6)), ValueError, r'\[\*batch, 6\]'),
        (lambda: grids.thin_plate_spline(1), ValueError, 'line'),
        (lambda: grids.thin_plate_spline(np.ones((4, 3))), ValueError, 'control points'),
        (lambda: grids.thin_plate_spline(np.ones((4, 2))), ValueError, 'all different'),
        (
            lambda: grids.thin_plate_spline(np.arange(8.0).reshape(4, 2)),
            ValueError,
            'the 4 control points of the thin plate spline lie on a line',
        ),
    ],
)
def test_bad_input_has_one_clear_error(run, error, message):
    with pytest.raises(error, match=message):
        run()
