"""Samplers against the paper's double sum, written as it stands, over images padded by numpy, in float64."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.ops import grids, sampling
from tests.gradients import check_grads

MARGIN = 9
NUMPY_PADDING = {
    'zeros': 'constant',
    'edge': 'edge',
    'reflect': 'reflect',
    'symmetric': 'symmetric',
}
triangle = functools.partial(np.interp, xp=[-1, 0, 1], fp=[0, 1, 0])
EPANECHNIKOV = sampling.Kernel(lambda t: jnp.maximum(1 - (t / 2) ** 2, 0), 2)


def keys_cubic(t, a):
    t = np.abs(t)
    near = (a + 2) * t**3 - (a + 3) * t**2 + 1
    far = a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
    return np.where(t <= 1, near, np.where(t < 2, far, 0))


def double_sum(image, points, kernel, padding):
    """The paper's equation 3 for one image [*size, c] and points [p, d], all pixels in turn."""
    widths = [(MARGIN, MARGIN)] * (image.ndim - 1) + [(0, 0)]
    padded = np.pad(image, widths, NUMPY_PADDING[padding])
    values = np.zeros((len(points), image.shape[-1]))
    for at in itertools.product(*map(range, padded.shape[:-1])):
        offsets = points - (np.array(at)[::-1] - MARGIN)
        values += np.prod(kernel(offsets), axis=-1, keepdims=True) * padded[at]
    return values


def case(size, n_points=23, channels=2, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.uniform(size=(*size, channels))
    spread = np.array(size[::-1]) + 6
    return image, rng.uniform(size=(n_points, len(size))) * spread - 3.3


def value_and_gradients(images, points, *options, **named):
    """Values, and the gradients of a weighted sum of them, in one program."""

    @jax.jit
    def run(images, points):
        values, vjp = jax.vjp(lambda *a: sampling.sample(*a, *options, **named), images, points)
        return values, *vjp(
            jnp.cos(jnp.arange(values.size, dtype=values.dtype)).reshape(values.shape)
        )

    return run(images, points)


@pytest.mark.cases(2)
@pytest.mark.parametrize('padding', sampling.PADDINGS)
@pytest.mark.parametrize('size', [(5, 4), (1, 3), (3, 2, 4)], ids=str)
def test_bilinear_is_the_papers_double_sum(x64, size, padding):
    image, points = case(size)
    values = jax.jit(sampling.sample, static_argnums=(2, 3))(image, points, 'bilinear', padding)
    np.testing.assert_allclose(values, double_sum(image, points, triangle, padding), atol=1e-12)


@pytest.mark.cases(1)
@pytest.mark.parametrize('padding', ['zeros', 'edge', 'reflect', 'symmetric'])
def test_general_kernels_are_the_papers_double_sum(x64, padding):
    image, points = case((5, 4))
    for kernel, weight in (
        (EPANECHNIKOV, lambda t: np.maximum(1 - (t / 2) ** 2, 0)),
        (sampling.cubic(), functools.partial(keys_cubic, a=-0.75)),
    ):
        values = jax.jit(functools.partial(sampling.sample, kernel=kernel, padding=padding))(
            image, points
        )
        np.testing.assert_allclose(values, double_sum(image, points, weight, padding), atol=1e-12)


def test_nearest_takes_the_rounded_pixel_halves_to_even(x64):
    image, points = case((5, 4))
    points = np.concatenate([points, [[0.5, 1.5], [2.5, 2.5], [3.5, 0], [-0.5, 0]]])
    padded = np.pad(image, [(MARGIN, MARGIN)] * 2 + [(0, 0)])
    column, row = np.round(points).astype(int).T + MARGIN
    values, _, by_points = value_and_gradients(image, points, 'nearest')
    np.testing.assert_array_equal(values, padded[row, column])
    np.testing.assert_array_equal(by_points, 0)


@pytest.mark.parametrize('size', [(28, 20), (5, 6, 7)], ids=str)
def test_whole_positions_give_the_pixels_exactly(size):
    image = np.random.default_rng(0).normal(size=(*size, 3)).astype(np.float32)
    mesh = np.stack(np.meshgrid(*map(np.arange, size), indexing='ij')[::-1], -1)
    for padding in sampling.PADDINGS:
        values = jax.jit(functools.partial(sampling.sample, padding=padding))(
            image, mesh.astype(np.float32)
        )
        np.testing.assert_array_equal(values, image)


def test_any_leading_axes(x64):
    image, points = case((5, 4))
    images = np.stack([image, image[::-1], 2 * image]).reshape(3, 1, 5, 4, 2)
    at = np.stack([points[:12], points[-12:], points[5:17]]).reshape(3, 1, 4, 3, 2)
    values = jax.jit(sampling.sample)(images, at)
    assert values.shape == (3, 1, 4, 3, 2)
    for i in range(3):
        alone = double_sum(images[i, 0], at[i, 0].reshape(-1, 2), triangle, 'zeros')
        np.testing.assert_allclose(values[i, 0].reshape(-1, 2), alone, atol=1e-12)


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    ('padding', 'channels', 'order'), [('zeros', 1, 1), ('zeros', 3, 2), ('reflect', 1, 1)]
)
def test_gradients_by_images_and_points(x64, padding, channels, order):
    image, points = case((5, 4), 7, channels)
    run = functools.partial(sampling.sample, padding=padding)
    check_grads(run, (image, points), order=order, modes=['rev'])


def test_gradients_of_general_kernels_and_volumes(x64):
    image, points = case((5, 4), 7)
    cubic = functools.partial(sampling.sample, kernel=sampling.cubic(), padding='edge')
    check_grads(jax.jit(cubic), (image, points), order=1, modes=['rev'])
    volume, points = case((3, 2, 4), 7)
    check_grads(jax.jit(sampling.sample), (volume, points), order=1, modes=['rev'])


def test_gradient_at_whole_positions_is_the_right_difference(x64):
    image, _ = case((4, 6), channels=1)
    points = np.array([[2.0, 1.5], [0.0, 1.5], [5.0, 1.5], [3.0, 2.0]])
    rows = (image[1] + image[2])[:, 0] / 2
    _, _, zeros = value_and_gradients(image, points)
    cosines = np.cos(np.arange(4))
    expected = np.array(
        [rows[3] - rows[2], rows[1] - rows[0], -rows[5], image[2, 4, 0] - image[2, 3, 0]]
    )
    np.testing.assert_allclose(zeros[:, 0] / cosines, expected, atol=1e-12)
    _, _, edge = value_and_gradients(image, points, 'bilinear', 'edge')
    expected[[1, 2]] = 0  # the first and the last pixel: as torch has it
    np.testing.assert_allclose(edge[:, 0] / cosines, expected, atol=1e-12)


def test_gradients_reach_only_pixels_under_the_kernel(x64):
    image, points = case((5, 4), 3)
    points = np.array([[1.2, 2.7]])
    _, by_image, _ = value_and_gradients(image, points)
    assert set(map(tuple, np.argwhere(by_image[..., 0]))) == {(2, 1), (2, 2), (3, 1), (3, 2)}


@pytest.mark.cases(1)
@pytest.mark.parametrize('channels', [1, 3])
def test_matrix_and_gather_forms_agree(x64, channels):
    image, points = case((6, 5), 50, channels)
    for padding in ('zeros', 'symmetric'):
        gather = value_and_gradients(image, points, 'bilinear', padding, method='gather')
        matrix = value_and_gradients(image, points, 'bilinear', padding, method='matrix')
        for a, b in zip(gather, matrix, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-12)
    volume, points = case((3, 2, 4), 20, channels)
    gather = value_and_gradients(volume, points, method='gather')
    matrix = value_and_gradients(volume, points, method='matrix')
    for a, b in zip(gather, matrix, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_vmap_and_float64_arguments_agree_with_the_batch(x64):
    rng = np.random.default_rng(0)
    images, points = rng.uniform(size=(3, 5, 4, 2)), rng.uniform(size=(3, 6, 2)) * 6 - 1

    def objective(images, points):
        return jnp.sum(sampling.sample(images, points) ** 2)

    def separately(images, points):
        return jnp.sum(jax.vmap(objective)(images, points))

    batch = jax.jit(jax.grad(objective, (0, 1)))(images, points)
    mapped = jax.jit(jax.grad(separately, (0, 1)))(images, points)
    for a, b in zip(batch, mapped, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_sharded_batch_is_the_whole_batch():
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(8, 9, 8, 1)).astype(np.float32)
    points = (rng.uniform(size=(8, 5, 2)) * 10 - 1).astype(np.float32)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ('data',))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))
    whole = value_and_gradients(images, points)
    sharded = value_and_gradients(*jax.device_put((images, points), spread))
    for a, b in zip(whole, sharded, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_bfloat16_images_keep_float32_positions():
    image = np.arange(300, dtype=np.float32)[:, None, None] * np.ones((1, 4, 1), np.float32)
    points = np.array([[1.0, 257.5], [2.0, 298.5]], np.float32)
    values = jax.jit(sampling.sample)(jnp.asarray(image, jnp.bfloat16), points)
    assert values.dtype == jnp.bfloat16
    exact = double_sum(
        np.asarray(jnp.asarray(image, jnp.bfloat16), float), points, triangle, 'zeros'
    )
    np.testing.assert_array_equal(np.asarray(values, float), np.asarray(exact, jnp.bfloat16))


@pytest.mark.parametrize(
    'kernel', ['bilinear', 'nearest', EPANECHNIKOV], ids=('bilinear', 'nearest', 'general')
)
@pytest.mark.parametrize('padding', ['zeros', 'edge'])
def test_nan_marks_its_point_and_no_other(kernel, padding):
    image, points = (a.astype(np.float32) for a in case((5, 4)))
    marked = points.copy()
    marked[3, 0], marked[7, 1] = np.nan, np.nan
    run = jax.jit(functools.partial(sampling.sample, kernel=kernel, padding=padding))
    values, clean = run(image, marked), run(image, points)
    is_nan = np.isnan(values).all(-1)
    assert list(np.flatnonzero(is_nan)) == [3, 7]
    np.testing.assert_array_equal(values[~is_nan], clean[~is_nan])


def test_infinite_points_are_outside():
    image, _ = case((5, 4))
    points = np.array([[np.inf, 1], [-np.inf, 1], [1e30, 1], [2, -np.inf]], np.float32)
    image = image.astype(np.float32)
    values, by_image, by_points = value_and_gradients(image, points)
    for array in (values, by_image, by_points):
        np.testing.assert_array_equal(array, 0)
    edge = jax.jit(functools.partial(sampling.sample, padding='edge'))(image, points)
    np.testing.assert_allclose(edge, image[[1, 1, 1, 0], [3, 0, 3, 2]], atol=1e-6)


def test_antialiasing_is_jax_image_resize(x64):
    image = np.random.default_rng(0).uniform(size=(24, 30, 2))
    grid = grids.grid(grids.affine(), jnp.asarray(grids.affine().identity), (8, 6), False)
    run = functools.partial(sampling.grid_sample, padding='symmetric', align_corners=False)
    values = jax.jit(functools.partial(run, antialias=5))(image, grid)
    resized = jax.jit(lambda x: jax.image.resize(x, (8, 6, 2), 'linear', antialias=True))(image)
    # resize cuts its kernel off at the border, where the sampler continues the image
    np.testing.assert_allclose(values[1:-1, 1:-1], resized[1:-1, 1:-1], atol=1e-6)
    plain = jax.jit(run)(image, grid)
    assert np.abs(plain - resized)[1:-1, 1:-1].max() > 0.1
    np.testing.assert_allclose(values.mean(), image.mean(), atol=0.01)


def test_shrinking_skips_pixels_unless_antialiased():
    x = np.zeros((1, 13, 13, 1), np.float32)
    x[:, ::2] = 1  # rows of the highest frequency: 0.5 on average
    shrink = jax.jit(sampling.shrink, static_argnums=1, static_argnames='antialias')
    sampled, averaged = (np.asarray(shrink(x, 4, antialias=a)) for a in (1, 4))
    np.testing.assert_array_equal(sampled, np.ones((1, 3, 3, 1)))
    assert np.abs(averaged[0, 1] - 0.5).max() < 0.06
    np.testing.assert_array_equal(sampling.shrink(x, 1), x)
    with pytest.raises(ValueError, match='factor from 1 to 13, got 14'):
        sampling.shrink(x, 14)


def test_antialiasing_leaves_enlargements_and_rotations(x64):
    image, _ = case((12, 12))
    theta = np.array([[0.6, -0.7, 0.1, 0.7, 0.6, 0.0]])  # rows of length 0.92: no shrinking
    grid = grids.grid(grids.affine(), jnp.asarray(theta), (12, 12))
    plain = jax.jit(sampling.grid_sample)(image[None], grid)
    wide = jax.jit(functools.partial(sampling.grid_sample, antialias=3))(image[None], grid)
    np.testing.assert_allclose(plain, wide, atol=1e-12)
    run = jax.jit(functools.partial(sampling.grid_sample, antialias=2))
    check_grads(run, (image[None, :5, :5], 2.2 * grid[:, ::5, ::5]), order=1, modes=['rev'])


@pytest.mark.parametrize('align_corners', [True, False])
def test_pixel_coordinates_of_the_normalized_range(align_corners):
    ends = np.array([[-1, -1], [1, 1], [0, 0]], np.float32)
    positions = sampling.to_pixels(ends, (5, 9), align_corners)
    expected = [[0, 0], [8, 4], [4, 2]] if align_corners else [[-0.5, -0.5], [8.5, 4.5], [4, 2]]
    np.testing.assert_array_equal(positions, expected)


IMAGES, GRID = np.zeros((2, 8, 9, 3), np.float32), np.zeros((2, 4, 5, 2), np.float32)


@pytest.mark.parametrize(
    ('images', 'points', 'options', 'error', 'message'),
    [
        (IMAGES.astype(np.uint8), GRID, {}, TypeError, 'images has dtype uint8'),
        (IMAGES, GRID.astype(int), {}, TypeError, 'dtype int'),
        (IMAGES.transpose(3, 0, 1, 2), GRID, {}, ValueError, 'channels come last'),
        (IMAGES[:1], GRID, {}, ValueError, 'leading axes'),
        (IMAGES, GRID[..., :1], {}, ValueError, 'last axis of 2'),
        (IMAGES[0, 0], GRID, {}, ValueError, 'do not fit'),
        (IMAGES, GRID[:, 0, 0], {}, ValueError, 'do not fit'),
        (IMAGES, GRID[:, :0], {}, ValueError, 'at least one pixel and one point'),
        (IMAGES[:, :0], GRID, {}, ValueError, 'at least one pixel and one point'),
        (IMAGES, GRID, {'padding': 'border'}, ValueError, "torch's 'border' is 'edge'"),
        (IMAGES, GRID, {'padding': 'wrap'}, ValueError, 'expected padding'),
        (IMAGES, GRID, {'kernel': 'bicubic'}, ValueError, 'expected kernel'),
        (IMAGES, GRID, {'antialias': 0}, ValueError, 'integer of at least 1'),
        (IMAGES, GRID, {'antialias': 2, 'kernel': 'nearest'}, ValueError, 'bilinear'),
        (IMAGES, GRID, {'method': 'scatter'}, ValueError, 'expected method'),
    ],
)  # fmt: skip
def test_bad_input_has_one_clear_error(images, points, options, error, message):
    with pytest.raises(error, match=message):
        sampling.grid_sample(images, points, **options)
