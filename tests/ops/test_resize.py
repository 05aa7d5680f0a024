"""Resizing against Pillow, which resizes whole images on the host."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from lecture4.ops import resize

RNG = np.random.default_rng(0)


def by_pillow(image, shape, box=None):
    """Each channel [h, w] resized by Pillow's bilinear filter, antialiased."""
    parts = [
        np.asarray(
            Image.fromarray(image[..., c]).resize(shape[::-1], Image.Resampling.BILINEAR, box)
        )
        for c in range(image.shape[-1])
    ]
    return np.stack(parts, -1)


@pytest.mark.parametrize('shape', [(5, 4), (14, 23), (9, 3)])
def test_resizing_is_pillows(shape):
    images = RNG.random((2, 9, 11, 3), np.float32)
    found = resize.resize(jnp.asarray(images), shape)
    expected = [by_pillow(image, shape) for image in images]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_no_change_of_size_and_no_antialiasing():
    images = jnp.asarray(RNG.random((1, 8, 8, 1), np.float32))
    assert resize.resize(images, (8, 8)) is images
    found = resize.resize(images, (2, 2), antialias=False)
    middle = np.asarray(images)[0, 1:3, 1:3].mean()  # of a block of 4 x 4
    np.testing.assert_allclose(found[0, 0, 0, 0], middle, rtol=1e-6)


def test_boxes_are_pillows_and_parts_of_the_resized_image():
    images = RNG.random((3, 12, 10, 2), np.float32)
    corners = np.array([[0, 0], [2.5, 1], [4, 3]], np.float32)
    sizes = np.array([[12, 10], [6, 8.5], [4, 5]], np.float32)
    found = jax.jit(resize.crop_and_resize, static_argnums=3)(images, corners, sizes, 6)
    for image, (y, x), (h, w), box in zip(images, corners, sizes, found, strict=True):
        expected = by_pillow(image, (6, 6), (x, y, x + w, y + h))
        np.testing.assert_allclose(box, expected, atol=1e-5)
    twice = jax.jit(resize.resize, static_argnums=1)(images, (24, 20))
    corners, sizes = np.full((3, 2), 2, np.float32), np.full((3, 2), 5, np.float32)
    part = jax.jit(resize.crop_and_resize, static_argnums=3)(images, corners, sizes, 10)
    np.testing.assert_allclose(part, twice[:, 4:14, 4:14], atol=1e-5)


def test_the_shorter_side_is_scaled():
    assert resize.scaled_shape((300, 400), 256) == (256, 341)
    assert resize.scaled_shape((400, 300), 256) == (341, 256)
    assert resize.scaled_shape((7, 7), 4) == (4, 4)


@pytest.mark.parametrize('shape, crop_size', [((7, 6), 4), ((6, 7), (6, 3)), ((5, 5), 5)])
def test_center_crop_is_rounded_to_the_upper_left(shape, crop_size):
    images = RNG.random((2, *shape, 3), np.float32)
    h, w = np.broadcast_to(crop_size, 2)
    top, left = (shape[0] - h) // 2, (shape[1] - w) // 2
    expected = images[:, top : top + h, left : left + w]
    np.testing.assert_array_equal(resize.center_crop(images, crop_size), expected)
    np.testing.assert_array_equal(
        resize.center_crop(jnp.asarray(images[0]), crop_size), expected[0]
    )
    np.testing.assert_array_equal(
        resize.center_crop(images[..., 0], crop_size, -2), expected[..., 0]
    )


@pytest.mark.parametrize('crop_size', [0, 6, (3, 6)])
def test_a_crop_that_does_not_fit_is_refused(crop_size):
    with pytest.raises(ValueError, match=r'images of 5 x 5 have no crop of .*; use at most 5 x 5'):
        resize.center_crop(np.zeros((1, 5, 5, 1)), crop_size)
