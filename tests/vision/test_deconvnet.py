"""Projections, strongest images, occlusion and correspondence, each against direct computation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from lecture4.ops import receptive_field
from lecture4.vision import deconvnet, layer_specs, layers
from lecture4.vision.models import resnet

RNG = np.random.default_rng(0)
NETWORK = resnet.cifar(8, None, n_classes=4)
IMAGES = jnp.asarray(RNG.standard_normal((3, 16, 16, 3)), jnp.float32)
LAYER = 'conv3_1'


@pytest.fixture(scope='module')
def variables():
    return jax.jit(NETWORK.init)(jax.random.key(0), IMAGES)


def project(variables, images, channel, rule='deconvnet'):
    @jax.jit
    def run(variables, images):
        return deconvnet.project(NETWORK, variables, images, LAYER, channel, rule)

    return run(variables, images)


@jax.jit
def activation(variables, images):
    return deconvnet.activation(NETWORK, variables, images, LAYER)


def test_the_gradient_projection_is_gradient_times_value(variables):
    @jax.jit
    def run(variables, images):
        projection = deconvnet.project(NETWORK, variables, images, LAYER, 5, 'gradient')
        return projection, activation(variables, images)

    projection, a = jax.device_get(run(variables, IMAGES))
    positions = np.array([divmod(a[i, :, :, 5].argmax(), a.shape[2]) for i in range(3)])
    np.testing.assert_array_equal(projection.position, positions)
    units = (np.arange(3), *positions.T, 5)
    np.testing.assert_array_equal(projection.value, a[units])
    gradient = jax.jit(jax.grad(lambda images: activation(variables, images)[units].sum()))(IMAGES)
    expected = gradient * projection.value[:, None, None, None]
    np.testing.assert_allclose(projection.pixels, expected, atol=1e-5)


def test_one_channel_per_image_projects_each_image_alone(variables):
    batched = project(variables, IMAGES, np.array([5, 2, 5]))
    for i, channel in enumerate((5, 2)):
        alone = project(variables, IMAGES[i : i + 1], channel)
        for actual, expected in zip(batched, alone, strict=True):
            np.testing.assert_allclose(actual[i], expected[0], atol=1e-5)


@pytest.mark.parametrize('rule', layers.BACKWARD_RULES)
def test_projections_are_zero_outside_the_receptive_field(variables, rule):
    rows = receptive_field.summarize(layer_specs.cifar_resnet(8, None)[:-2], (16, 16, 3))
    row = next(row for row in rows if row.name == f'{LAYER}/conv2')
    projection = project(variables, IMAGES, 2, rule)
    for pixels, position in zip(
        np.asarray(projection.pixels), np.asarray(projection.position), strict=True
    ):
        middle = np.array(row.start) + position * np.array(row.stride)
        far = (
            np.abs(np.arange(16)[:, None] - middle[None, :])
            > np.array(row.receptive_field)[None, :] / 2
        )
        outside = far[:, 0][:, None] | far[:, 1][None, :]
        assert outside.any() and np.abs(pixels[outside]).max() == 0
        assert np.abs(pixels).max() > 0


def test_rules_differ_and_unknown_layers_are_refused(variables):
    pixels = [
        project(variables, IMAGES, 2, rule).pixels for rule in ('deconvnet', 'guided', 'gradient')
    ]
    assert all(jnp.abs(pixels[i] - pixels[i - 1]).max() > 1e-3 for i in range(3))
    with pytest.raises(
        KeyError, match="'conv9' is not an activation; expected one of conv1, conv2_1"
    ):
        deconvnet.project(NETWORK, variables, IMAGES, 'conv9', 0)
    with pytest.raises(ValueError, match='channel 32 is out of range; expected 0 to 31'):
        deconvnet.project(NETWORK, variables, IMAGES, LAYER, 32)


def test_top_images_are_those_of_the_largest_activations(variables):
    images = jnp.asarray(RNG.standard_normal((7, 16, 16, 3)), jnp.float32)
    top = deconvnet.top_images(NETWORK, variables, [images[:4], images[4:]], LAYER, k=3)
    a = np.asarray(activation(variables, images))
    for channel in (0, 11):
        peaks = a[..., channel].reshape(7, -1).max(1)
        rows = np.argsort(-peaks, kind='stable')[:3]
        np.testing.assert_array_equal(top.indices[:, channel], rows)
        np.testing.assert_allclose(top.values[:, channel], peaks[rows], rtol=1e-5)
        for row, (r, c) in zip(rows, top.positions[:, channel], strict=True):
            assert a[row, r, c, channel] == pytest.approx(peaks[row], rel=1e-5)
    with pytest.raises(ValueError, match='expected at least 9 images for the strongest 9, got 7'):
        deconvnet.top_images(NETWORK, variables, [images], LAYER)


def test_patches_are_the_receptive_fields():
    row = receptive_field.summarize(
        (receptive_field.Layer('conv', 'conv', 1, 3, 2, 1),), (5, 5, 1)
    )[0]
    image = np.arange(25, dtype=np.float32).reshape(1, 5, 5, 1)
    np.testing.assert_array_equal(
        deconvnet.receptive_field_patches(image, np.array([[1, 2]]), row)[0, :, :, 0],
        [[8, 9, 0], [13, 14, 0], [18, 19, 0]],
    )


class Corner(nn.Module):
    """Class 1 where the upper left quarter is bright."""

    backward_rule: str = 'gradient'

    @nn.compact
    def __call__(self, x):
        bright = x[:, :4, :4].mean((1, 2, 3))
        return jnp.stack([jnp.zeros_like(bright), 8 * bright - 2], axis=1), {'maps': x}


def test_occlusion_locates_the_evidence_for_the_class():
    occlusion = deconvnet.occlude(
        Corner(),
        {},
        np.ones((8, 8, 1), np.float32),
        1,
        'maps',
        occluder_size=4,
        stride=4,
        batch_size=3,
    )
    assert occlusion.predicted.tolist() == [[0, 1], [1, 1]]
    np.testing.assert_allclose(occlusion.probability[1, 1], 1 / (1 + np.exp(-6)), rtol=1e-5)
    np.testing.assert_allclose(occlusion.probability[0, 0], 1 / (1 + np.exp(2)), rtol=1e-5)
    np.testing.assert_allclose(occlusion.response, 64 - 16)


def test_correspondence_of_equal_and_of_unrelated_changes():
    images = RNG.standard_normal((6, 2000))
    change = RNG.standard_normal(2000)
    same = deconvnet.correspondence(lambda x: x, images, images - change)
    other = deconvnet.correspondence(lambda x: x, images, RNG.standard_normal((6, 2000)))
    assert same == 0 and other == pytest.approx(0.5, abs=0.2)
    with pytest.raises(ValueError, match='at least two images'):
        deconvnet.correspondence(lambda x: x, images[:1], images[:1])


def test_wide_images_have_their_rows_and_columns():
    a = np.zeros((2, 3, 5, 2), np.float32)
    a[0, 2, 4, 1] = a[1, 0, 3, 1] = 1
    position, value = deconvnet.strongest_unit(jnp.asarray(a), 1)
    assert position.tolist() == [[2, 4], [0, 3]] and value.tolist() == [1, 1]
    row = receptive_field.summarize(
        (receptive_field.Layer('conv', 'conv', 1, 3, 1, 1),), (3, 5, 1)
    )[0]
    image = np.arange(15, dtype=np.float32).reshape(1, 3, 5, 1)
    patches = deconvnet.receptive_field_patches(image, np.array([[2, 4]]), row)
    np.testing.assert_array_equal(patches[0, :, :, 0], [[8, 9, 0], [13, 14, 0], [0, 0, 0]])
    occlusion = deconvnet.occlude(
        Corner(), {}, np.ones((4, 12, 1), np.float32), 1, 'maps', occluder_size=4, stride=4
    )
    assert occlusion.predicted.tolist() == [[0, 1, 1]]


def test_correspondence_is_the_mean_distance_over_pairs():
    """The signs +--, ++0 and ++- differ in 2, 1 and 1 of 3 features."""
    changes = np.array([[1.0, -2, -1], [3, 1, 0], [0.5, 2, -4]])
    value = deconvnet.correspondence(lambda x: x, changes, np.zeros((3, 3)))
    assert value == pytest.approx((2 + 1 + 1) / 3 / 3)
