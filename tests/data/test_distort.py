"""Distortions: closed forms, ranges of what is random, pure in the key, scaled with the digits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.data.images import distort
from lecture4.ops import grids


@pytest.fixture(scope='module')
def digits():
    rng = np.random.default_rng(0)
    images = np.zeros((16, 28, 28, 1), np.float32)
    images[:, 6:22, 8:20] = rng.uniform(0.3, 1, (16, 16, 12, 1))
    return jnp.asarray(images)


@functools.cache
def compiled(name):
    return jax.jit(functools.partial(distort.distort, distortion=name))


@pytest.mark.cases(1)
@pytest.mark.parametrize('name', distort.DISTORTIONS)
def test_distortions_are_pure_and_stay_in_range(digits, name):
    run = compiled(name)
    first, again = run(jax.random.key(0), digits), run(jax.random.key(0), digits)
    other = run(jax.random.key(1), digits)
    np.testing.assert_array_equal(first, again)
    size = {'RTS': 42, 'TC': 60}.get(name, 28)
    assert first.shape == (16, size, size, 1) and first.dtype == jnp.float32
    assert first.min() >= 0 and first.max() <= 1
    assert (np.abs(first - other).max() > 0.1) == (name != 'none')
    assert (first.sum((1, 2, 3)) > 10).all()  # the digit is still there


@pytest.mark.parametrize(('name', 'size'), [('RTS', 12), ('TC', 17), ('P', 8)])
def test_canvases_scale_with_the_digits(name, size):
    small = jnp.ones((3, 8, 8, 1))
    assert distort.canvas_size(name, 8) == size
    shape = jax.eval_shape(
        functools.partial(distort.distort, distortion=name), jax.random.key(0), small
    )
    assert shape.shape == (3, size, size, 1)


def test_quarter_turns_are_numpys(digits):
    turn = jax.jit(distort.place, static_argnums=2)
    turned = turn(digits, distort.Pose(np.pi / 2), 28)
    np.testing.assert_allclose(turned, np.rot90(digits, axes=(1, 2)), atol=1e-5)
    back = turn(digits, distort.Pose(-np.pi / 2), 28)
    np.testing.assert_allclose(back, np.rot90(digits, -1, axes=(1, 2)), atol=1e-5)


def test_whole_offsets_move_pixels(digits):
    placed = jax.jit(distort.place, static_argnums=2)(digits, distort.Pose(x=3.0, y=-2.0), 42)
    expected = np.zeros((16, 42, 42, 1))
    expected[:, 5:33, 10:38] = digits
    np.testing.assert_allclose(placed, expected, atol=1e-5)


def test_scale_multiplies_the_area_of_a_digit(digits):
    place = jax.jit(distort.place, static_argnums=2)
    mass = place(digits, distort.Pose(), 42).sum()
    for scale in (0.7, 1.2):
        scaled = place(digits, distort.Pose(scale=scale), 42).sum()
        np.testing.assert_allclose(scaled / mass, scale**2, rtol=0.02)


def test_random_poses_cover_the_paper_ranges():
    pose = distort.random_pose(jax.random.key(0), 4000, 28, 42)
    angle, scale = np.degrees(pose.angle), np.asarray(pose.scale)
    assert -45 <= angle.min() < -44 and 44 < angle.max() <= 45
    assert 0.7 <= scale.min() < 0.71 and 1.19 < scale.max() <= 1.2
    for offset in (pose.x, pose.y):
        reach = np.abs(offset) + 14 * scale
        assert 20.8 < reach.max() <= 21 + 1e-4  # never over the edge, and up to it


def test_homography_takes_corners_to_corners(x64):
    rng = np.random.default_rng(0)
    square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])[None]
    sources = square * 0.9 + rng.normal(size=(5, 4, 2)) * 0.1
    targets = square + rng.normal(size=(5, 4, 2)) * 0.1
    theta = distort.homography(jnp.asarray(sources), jnp.asarray(targets))
    for row, points, ends in zip(theta, sources, targets, strict=True):
        np.testing.assert_allclose(
            grids.transform(grids.projective(), row, points), ends, atol=1e-10
        )


def test_clutter_keeps_the_digit_and_adds_patches(digits):
    made = np.asarray(compiled('TC')(jax.random.key(0), digits))
    for image, digit in zip(made[..., 0], np.asarray(digits)[..., 0], strict=True):
        windows = np.lib.stride_tricks.sliding_window_view(image, (28, 28))
        covered = (windows >= digit - 1e-6).all((2, 3))  # clutter only ever adds light
        assert covered.any()
        assert image.sum() > digit.sum() * 1.1
    assert len(np.unique(np.argmax(made[..., 0].sum(1), axis=1))) > 5  # not all in one place


def test_sums_are_of_the_digits_in_both_channels(digits):
    labels = np.array([0, 1, 2, 3], np.int32)
    images = jnp.asarray(digits[:4])
    run = jax.jit(distort.digit_sums, static_argnums=3)
    x, sums = run(jax.random.key(0), images, labels, 'none')
    assert x.shape == (4, *images.shape[1:3], 2) and sums.dtype == jnp.int32
    for pair, total in zip(np.moveaxis(np.asarray(x), 3, 1), np.asarray(sums), strict=True):
        classes = [
            int(np.argmin(np.abs(np.asarray(images)[..., 0] - part).sum((1, 2)))) for part in pair
        ]
        assert sum(classes) == total


def test_pose_series_change_one_thing_at_a_time(digits):
    series = distort.pose_series(digits[:2], 42)
    assert set(series) == {'rotation', 'scale', 'offset'}
    upright = np.pad(np.asarray(digits[:2]), ((0, 0), (7, 7), (7, 7), (0, 0)))
    for what, neutral in (('rotation', 0.0), ('scale', 1.0), ('offset', 0.0)):
        values, images = series[what]
        at = int(np.argmin(np.abs(values - neutral)))
        assert len(values) == len(images) and values[at] == neutral
        np.testing.assert_allclose(images[at], upright, atol=1e-5)
    columns = [np.argmax(np.asarray(x).sum((0, 1, 3)) > 0.5) for x in series['offset'][1]]
    assert columns == sorted(columns) and columns[-1] - columns[0] >= 10


@pytest.mark.parametrize(
    ('images', 'name', 'error', 'message'),
    [
        (np.zeros((2, 8, 8, 1), np.uint8), 'R', TypeError, 'dtype uint8'),
        (np.zeros((2, 8, 9, 1), np.float32), 'R', ValueError, 'square'),
        (np.zeros((8, 8, 1), np.float32), 'R', ValueError, 'square'),
        (np.zeros((2, 8, 8, 1), np.float32), 'RST', ValueError, 'expected one of none, R, RTS'),
    ],
)
def test_bad_input_has_one_clear_error(images, name, error, message):
    with pytest.raises(error, match=message):
        distort.distort(jax.random.key(0), images, name)
