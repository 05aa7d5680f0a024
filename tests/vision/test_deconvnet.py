"""Projections, strongest pictures, occlusion and correspondence, each against counting by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from lecture4.ops import receptive_field
from lecture4.vision import deconvnet, layer_specs
from lecture4.vision.models import resnet

RNG = np.random.default_rng(0)
NETWORK = resnet.cifar(8, None, n_classes=4)
IMAGES = jnp.asarray(RNG.standard_normal((3, 16, 16, 3)), jnp.float32)
LAYER = 'conv3_1'


@pytest.fixture(scope='module')
def variables():
    return NETWORK.init(jax.random.key(0), IMAGES)


def test_a_gradient_s_projection_is_the_unit_s_gradient_times_its_value(variables):
    seen = deconvnet.project(NETWORK, variables, IMAGES, LAYER, 5, 'gradient')
    a = deconvnet.activation(NETWORK, variables, IMAGES, LAYER)
    for i in range(3):
        flat = int(a[i, :, :, 5].argmax())
        place = divmod(flat, a.shape[2])
        assert tuple(seen.place[i].tolist()) == place and seen.value[i] == a[i, *place, 5]

        def unit(image, place=place):
            found = deconvnet.activation(NETWORK, variables, image[None], LAYER)
            return found[0, *place, 5]

        expected = jax.grad(unit)(IMAGES[i]) * seen.value[i]
        np.testing.assert_allclose(seen.pixels[i], expected, atol=1e-5)


def test_a_channel_a_picture_is_each_picture_s_own_projection(variables):
    together = deconvnet.project(NETWORK, variables, IMAGES, LAYER, np.array([5, 2, 5]))
    for i, channel in enumerate((5, 2, 5)):
        alone = deconvnet.project(NETWORK, variables, IMAGES[i : i + 1], LAYER, channel)
        for mine, wanted in zip(together, alone, strict=True):
            np.testing.assert_allclose(mine[i], wanted[0], atol=1e-5)


@pytest.mark.parametrize('rule', ['deconvnet', 'guided', 'gradient'])
def test_nothing_arrives_outside_the_receptive_field(variables, rule):
    rows = receptive_field.summarize(layer_specs.cifar_resnet(8, None)[:-2], (16, 16, 3))
    row = next(row for row in rows if row.name == f'{LAYER}/conv2')
    seen = deconvnet.project(NETWORK, variables, IMAGES, LAYER, 2, rule)
    for pixels, place in zip(np.asarray(seen.pixels), np.asarray(seen.place), strict=True):
        middle = np.array(row.start) + place * np.array(row.stride)
        far = (
            np.abs(np.arange(16)[:, None] - middle[None, :])
            > np.array(row.receptive_field)[None, :] / 2
        )
        outside = far[:, 0][:, None] | far[:, 1][None, :]
        assert outside.any() and np.abs(pixels[outside]).max() == 0
        assert np.abs(pixels).max() > 0


def test_the_rules_differ_and_names_are_told(variables):
    seen = [
        deconvnet.project(NETWORK, variables, IMAGES, LAYER, 2, rule).pixels
        for rule in ('deconvnet', 'guided', 'gradient')
    ]
    assert all(jnp.abs(seen[i] - seen[i - 1]).max() > 1e-3 for i in range(3))
    with pytest.raises(KeyError, match="'conv9' is no activation; there are conv1, conv2_1"):
        deconvnet.project(NETWORK, variables, IMAGES, 'conv9', 0)
    with pytest.raises(ValueError, match='channel 32 of 32'):
        deconvnet.project(NETWORK, variables, IMAGES, LAYER, 32)


def test_the_strongest_pictures_of_a_set(variables):
    images = jnp.asarray(RNG.standard_normal((7, 16, 16, 3)), jnp.float32)
    found = deconvnet.top(NETWORK, variables, [images[:4], images[4:]], LAYER, k=3)
    a = np.asarray(deconvnet.activation(NETWORK, variables, images, LAYER))
    for channel in (0, 11):
        peaks = a[..., channel].reshape(7, -1).max(1)
        rows = np.argsort(-peaks, kind='stable')[:3]
        np.testing.assert_array_equal(found.rows[:, channel], rows)
        np.testing.assert_allclose(found.values[:, channel], peaks[rows], rtol=1e-5)
        for row, (r, c) in zip(rows, found.places[:, channel], strict=True):
            assert a[row, r, c, channel] == pytest.approx(peaks[row], rel=1e-5)
    with pytest.raises(ValueError, match='7 pictures; 9 or more'):
        deconvnet.top(NETWORK, variables, [images], LAYER)


def test_patches_are_what_a_unit_sees():
    row = receptive_field.summarize(
        (receptive_field.Layer('conv', 'conv', 1, 3, 2, 1),), (5, 5, 1)
    )[0]
    image = np.arange(25, dtype=np.float32).reshape(1, 5, 5, 1)
    np.testing.assert_array_equal(
        deconvnet.patches(image, [[1, 2]], row)[0, :, :, 0], [[8, 9, 0], [13, 14, 0], [18, 19, 0]]
    )


class Corner(nn.Module):
    """Class 1 where the upper left quarter is bright."""

    rule: str = 'gradient'

    @nn.compact
    def __call__(self, x):
        bright = x[:, :4, :4].mean((1, 2, 3))
        return jnp.stack([jnp.zeros_like(bright), 8 * bright - 2], axis=1), {'map': x}


def test_occlusion_tells_where_the_class_comes_from():
    found = deconvnet.occlude(
        Corner(), {}, np.ones((8, 8, 1), np.float32), 1, 'map', size=4, stride=4, batch=3
    )
    assert found.predicted.tolist() == [[0, 1], [1, 1]]
    np.testing.assert_allclose(found.probability[1, 1], 1 / (1 + np.exp(-6)), rtol=1e-5)
    np.testing.assert_allclose(found.probability[0, 0], 1 / (1 + np.exp(2)), rtol=1e-5)
    np.testing.assert_allclose(found.response, 64 - 16)


def test_correspondence_of_equal_and_of_unrelated_changes():
    images = RNG.standard_normal((6, 2000))
    change = RNG.standard_normal(2000)
    same = deconvnet.correspondence(lambda x: x, images, images - change)
    other = deconvnet.correspondence(lambda x: x, images, RNG.standard_normal((6, 2000)))
    assert same == 0 and other == pytest.approx(0.5, abs=0.2)
    with pytest.raises(ValueError, match='two or more'):
        deconvnet.correspondence(lambda x: x, images[:1], images[:1])
