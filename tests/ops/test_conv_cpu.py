"""The convolution with fast gradients on a CPU equals lax's, forward and backward."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from lecture4.ops import conv_cpu, onednn

RNG = np.random.default_rng(0)
NUMBERS = ('NHWC', 'HWIO', 'NHWC')
CASES = {
    'product': ((1, 1), (1, 1), ((0, 0), (0, 0)), {}),
    'product, ragged stride': ((1, 1), (2, 3), ((0, 0), (0, 0)), {}),
    'padded 1 x 1': ((1, 1), (2, 2), ((1, 1), (0, 1)), {}),
    'one window': ((8, 7), (2, 1), ((0, 0), (0, 0)), {}),
    'windows': ((3, 2), (1, 1), ((1, 0), (2, 1)), {}),
    'windows, ragged stride': ((3, 3), (2, 3), ((1, 1), (0, 0)), {}),
    'windows, shifted by rows': ((3, 2), (1, 1), ((1, 1), (0, 1)), {'image_size': 15}),
    'windows, many images': ((3, 3), (2, 1), ((2, 0), (1, 1)), {'image_size': 30}),
    'windows of few channels': ((3, 2), (2, 3), ((1, 0), (2, 1)), {'channels': 3}),
    'windows of few channels, many images': (
        (2, 3),
        (1, 1),
        ((0, 0), (1, 1)),
        {'image_size': 30, 'channels': 1},
    ),
    'groups': ((3, 3), (1, 1), ((1, 1), (1, 1)), {'feature_group_count': 2}),
    'dilated': ((2, 2), (1, 1), ((0, 0), (0, 0)), {'rhs_dilation': (2, 2)}),
}


@pytest.mark.cases(2)
@pytest.mark.parametrize('name', CASES)
def test_values_and_gradients_are_those_of_lax(name, x64):
    window, strides, padding, options = CASES[name]
    options = {'image_size': 8, 'channels': 8, **options}
    image_size, channels = options.pop('image_size'), options.pop('channels')
    x = jnp.asarray(RNG.standard_normal((6, image_size, image_size - 1, channels)))
    inside = channels // options.get('feature_group_count', 1)
    kernel = jnp.asarray(RNG.standard_normal((*window, inside, 6)))

    @jax.jit
    def both(x, kernel):
        results = []
        for fn in (conv_cpu.conv_general_dilated, lax.conv_general_dilated):
            forward = functools.partial(
                fn, window_strides=strides, padding=padding, dimension_numbers=NUMBERS, **options
            )
            y, back = jax.vjp(forward, x, kernel)
            results.append((y, *back(jnp.sin(y))))
        return results

    ours, theirs = both(x, kernel)
    for mine, expected in zip(ours, theirs, strict=True):
        assert mine.shape == expected.shape and mine.dtype == expected.dtype
        np.testing.assert_allclose(mine, expected, rtol=1e-11, atol=1e-11)


def test_programs_for_other_devices_are_laxs_own():
    """No loop over images, and no matrix product in place of a convolution."""

    def gradient(x, kernel):
        def forward(kernel):
            return conv_cpu.conv_general_dilated(
                x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=NUMBERS
            )

        return jax.vjp(forward, kernel)[1](forward(kernel))

    x, kernel = jnp.ones((2, 5, 5, 3)), jnp.ones((3, 3, 3, 4))
    for platform, fast in (('cpu', True), ('cuda', False), ('tpu', False)):
        text = jax.jit(gradient).trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()
        assert ('while' in text or onednn.TARGET in text) == fast, platform
