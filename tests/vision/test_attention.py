"""Views of each transformer: its own channels of the input and of the output, and its outline."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.vision import attention
from lecture4.vision.models import distorted_digits

NAMES = [str(i) for i in range(19)]


def test_each_transformer_is_shown_on_its_own_channels():
    x = np.random.default_rng(0).uniform(size=(3, 12, 12, 2)).astype(np.float32)
    network = distorted_digits.create('2xST-FCN-affine', (12, 12, 2), 12, 19, 20_000)
    variables = jax.jit(network.init)(jax.random.key(0), x)
    made = jax.jit(functools.partial(attention.attend, network))(variables, x)
    assert made.logits.shape == (3, 19) and made.theta.shape == (3, 2, 6)
    labels = np.array(np.argmax(made.logits, axis=1))
    labels[1] = (labels[1] + 1) % 19
    views = attention.views('affine', x, made, NAMES, labels, objects=2)
    np.testing.assert_array_equal(views.images, np.concatenate([x[..., :1], x[..., 1:]]))
    np.testing.assert_allclose(views.warped, views.images, atol=1e-5)  # the identity at first
    assert np.abs(views.outlines).max() < 1 + 1e-5 and views.outlines.shape == (6, 32, 2)
    with pytest.raises(ValueError, match='3 transformers cannot be shown on 2 groups'):
        three = made._replace(theta=jnp.zeros((3, 3, 6)))
        attention.views('affine', x, three, NAMES, labels, objects=2)
    assert views.is_correct.tolist() == [True, False, True] * 2
    assert views.predictions[0] == NAMES[labels[0]]


def test_one_transformer_of_color_images():
    x = np.zeros((2, 8, 8, 3), np.float32)
    made = attention.Attention(np.zeros((2, 4)), np.zeros((2, 1, 3)), np.ones((2, 5, 5, 3)))
    views = attention.views('attention', x, made, 'abcd', np.zeros(2, int))
    assert views.images.shape == x.shape and views.warped.shape == (2, 5, 5, 3)
    assert not views.outlines.any()  # of zero area, in the middle
