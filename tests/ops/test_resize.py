"""Resizing against Pillow, which computes in whole pictures on the host."""

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
def test_whole_pictures_are_pillow_s(shape):
    images = RNG.random((2, 9, 11, 3), np.float32)
    found = resize.whole(jnp.asarray(images), shape)
    expected = [by_pillow(image, shape) for image in images]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_picture_of_that_size_stays_and_without_antialiasing_neighbours_count():
    images = jnp.asarray(RNG.random((1, 8, 8, 1), np.float32))
    assert resize.whole(images, (8, 8)) is images
    found = resize.whole(images, (2, 2), antialias=False)
    middle = np.asarray(images)[0, 1:3, 1:3].mean()  # of a block of 4 x 4
    np.testing.assert_allclose(found[0, 0, 0, 0], middle, rtol=1e-6)


def test_boxes_are_pillow_s_and_parts_of_the_resized_picture():
    images = RNG.random((3, 12, 10, 2), np.float32)
    corners = np.array([[0, 0], [2.5, 1], [4, 3]], np.float32)
    sizes = np.array([[12, 10], [6, 8.5], [4, 5]], np.float32)
    found = jax.jit(resize.boxes, static_argnums=3)(images, corners, sizes, 6)
    for image, (y, x), (h, w), box in zip(images, corners, sizes, found, strict=True):
        expected = by_pillow(image, (6, 6), (x, y, x + w, y + h))
        np.testing.assert_allclose(box, expected, atol=1e-5)
    twice = resize.whole(jnp.asarray(images), (24, 20))
    part = resize.boxes(images, np.full((3, 2), 2, np.float32), np.full((3, 2), 5, np.float32), 10)
    np.testing.assert_allclose(part, twice[:, 4:14, 4:14], atol=1e-5)


def test_the_shorter_side():
    assert resize.shorter_side((300, 400), 256) == (256, 341)
    assert resize.shorter_side((400, 300), 256) == (341, 256)
    assert resize.shorter_side((7, 7), 4) == (4, 4)
