"""Test crops against slices of images that Pillow resized; dense evaluation against windows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import special

from lecture4.vision import layers, multi_crop
from lecture4.vision.models import alexnet

RNG = np.random.default_rng(0)


def resized(image, h, w):
    planes = [
        np.asarray(Image.fromarray(image[..., c]).resize((w, h), Image.Resampling.BILINEAR))
        for c in range(image.shape[-1])
    ]
    return np.stack(planes, -1)


def extract(images, plan):
    crops = np.asarray(jax.jit(multi_crop.extract_crops, static_argnums=1)(images, plan))
    size = plan.crop_size
    assert crops.shape == (len(images), plan.n_crops, size, size, images.shape[-1])
    return crops


def test_center_and_ten_crops_are_slices():
    images = RNG.random((2, 9, 12, 3), np.float32)
    np.testing.assert_array_equal(
        extract(images, multi_crop.center_crop((9, 12), 4))[:, 0], images[:, 2:6, 4:8]
    )
    crops = extract(images, multi_crop.ten_crop((9, 12), 4))
    slices = [(0, 0), (0, 8), (5, 0), (5, 8), (2, 4)]
    for i, (y, x) in enumerate(slices):
        crop = images[:, y : y + 4, x : x + 4]
        np.testing.assert_array_equal(crops[:, i], crop)
        np.testing.assert_array_equal(crops[:, i + 5], crop[:, :, ::-1])


def test_150_crops_are_a_grid_at_three_scales():
    images = RNG.random((1, 10, 16, 1), np.float32)
    plan = multi_crop.grid_crops((10, 16), 8, (8, 10, 13))
    assert plan.n_crops == 150
    crops = extract(images, plan)[0]
    expected = []
    for h, w in ((8, 12), (10, 16), (13, 20)):
        image = resized(images[0], h, w)
        for y in np.rint(np.linspace(0, h - 8, 5)).astype(int):
            for x in np.rint(np.linspace(0, w - 8, 5)).astype(int):
                expected.append(image[y : y + 8, x : x + 8])
    np.testing.assert_allclose(crops[:75], expected, atol=1e-5)
    np.testing.assert_array_equal(crops[75:], crops[:75, :, ::-1])


@pytest.mark.parametrize('shape', [(12, 18), (18, 12)])
def test_144_crops_of_three_squares_at_four_scales(shape):
    images = RNG.random((1, *shape, 1), np.float32)
    plan = multi_crop.inception_crops(shape, 8, (9, 10, 12, 13))
    assert plan.n_crops == 144
    crops = extract(images, plan)[0]
    expected = []
    for short in (9, 10, 12, 13):
        long = short * 18 // 12
        image = resized(images[0], *((short, long) if shape[0] < shape[1] else (long, short)))
        whole = []
        for start in (0, (long - short) // 2, long - short):
            square = (
                image[:, start : start + short]
                if shape[0] < shape[1]
                else image[start : start + short]
            )
            end, middle = short - 8, (short - 8) // 2
            for y, x in ((0, 0), (0, end), (end, 0), (end, end), (middle, middle)):
                expected.append(square[y : y + 8, x : x + 8])
            whole.append(resized(np.ascontiguousarray(square), 8, 8))
        expected += whole
    np.testing.assert_allclose(crops[:72], expected, atol=1e-5)
    np.testing.assert_array_equal(crops[72:], crops[:72, :, ::-1])


def test_a_crop_larger_than_the_image_is_refused():
    with pytest.raises(
        ValueError, match='images of 6 x 8 are smaller than the crop of 7 x 7; use a larger'
    ):
        multi_crop.ten_crop((12, 16), 7, (8, 6))


@pytest.mark.parametrize(
    'kind, n, sizes',
    [
        ('center', 1, [(256, 341)]),
        ('10', 10, [(256, 341)]),
        ('144', 144, [(256, 341), (288, 383), (320, 426), (352, 468)]),
        ('150', 150, [(256, 341), (384, 511), (512, 682)]),
    ],
)
def test_plans_by_kind_have_the_scales_of_the_papers(kind, n, sizes):
    plan = multi_crop.plan_for(kind, (256, 341), 224)
    assert plan.n_crops == n
    assert list(dict.fromkeys(group.image_size for group in plan.groups)) == sizes
    assert multi_crop.plan_for('dense', (256, 341), 224) is None


def test_probabilities_are_means_over_crops():
    images = RNG.random((3, 6, 6, 1), np.float32)

    def predict(x, xp=jnp):
        return xp.stack([x.sum((1, 2, 3)), x[:, 0, 0, 0]], -1)

    plan = multi_crop.ten_crop((6, 6), 4)
    probs = jax.jit(lambda x: multi_crop.mean_probs(predict, x, plan))(images)
    each = [special.softmax(predict(x, np), -1) for x in extract(images, plan).swapaxes(0, 1)]
    np.testing.assert_allclose(probs, np.mean(each, 0), rtol=1e-5)
    larger = np.stack([resized(image, 9, 9) for image in images])
    views = [images, images[:, :, ::-1], larger, larger[:, :, ::-1]]
    each = [special.softmax(predict(x, np), -1) for x in views]
    dense = jax.jit(lambda x: multi_crop.dense_probs(predict, x, (6, 9)))
    np.testing.assert_allclose(dense(images), np.mean(each, 0), rtol=1e-5)


def test_the_last_batch_is_padded_and_its_padding_removed():
    images = RNG.random((7, 2), np.float32)
    shapes = []

    def double(x):
        shapes.append(x.shape)
        return 2 * x

    np.testing.assert_allclose(multi_crop.map_batches(double, images, 3), 2 * images)
    assert shapes == [(3, 2)]
    np.testing.assert_allclose(multi_crop.map_batches(double, images, 50), 2 * images)


def test_a_map_of_logits_is_averaged_before_the_softmax():
    images = RNG.random((2, 4, 5, 3), np.float32)
    probs = jax.jit(lambda x: multi_crop.dense_probs(lambda x: 9 * x, x, (), False))(images)
    np.testing.assert_allclose(probs, special.softmax(9 * images.mean((1, 2)), -1), rtol=1e-5)


@pytest.mark.parametrize('kind', ['head', 'alexnet v2'])
def test_dense_logits_are_those_of_every_window(kind):
    """The head applied to larger feature maps, against the head on each window of them."""
    x = jnp.asarray(RNG.standard_normal((1, 4, 5, 2)), jnp.float32)
    windows = jnp.concatenate([x[:, i : i + 3, j : j + 3] for i in range(2) for j in range(3)])
    key = jax.random.key(0)
    if kind == 'head':
        head = layers.FullyConnected(3, 3, 0.1, hidden_dim=4)
        variables = jax.jit(head.init)(key, windows)
        dense, _ = jax.jit(head.clone(dense=True).apply)(variables, x)
        each, _ = jax.jit(head.apply)(variables, windows)
    else:
        layer = alexnet.DenseOrConv(3, 3, None)
        flat = windows.reshape(6, -1)
        variables = layer.init(key, flat)
        dense, each = layer.apply(variables, x), layer.apply(variables, flat)
    assert dense.shape == (1, 2, 3, 3)
    np.testing.assert_allclose(dense.reshape(6, 3), each, atol=1e-5)


def test_alexnet_v2_takes_larger_images_with_dense_evaluation():
    network = alexnet.AlexNetV2(n_classes=7)
    x = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), x)
    larger = jax.ShapeDtypeStruct((1, 288, 256, 3), jnp.float32)
    logits, _ = jax.eval_shape(network.clone(dense=True).apply, variables, larger)
    assert logits.shape == (1, 3, 2, 7)
