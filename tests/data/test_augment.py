"""Augmentation: every result is one of those that numpy lists, and all of them occur."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from lecture4.data.images import augment

KEY = jax.random.key(0)
INCEPTION_BOXES = jax.jit(augment.inception_boxes, static_argnums=(1, 2))


def numbered(n, h, w, c=2):
    """n equal images whose pixels are all different."""
    one = np.arange(1, 1 + h * w * c, dtype=np.float32).reshape(h, w, c)
    return one, jnp.asarray(np.stack([one] * n))


def counts(images, listed):
    """How often each of the listed images occurs among the images; all of them must be listed."""
    equal = (np.asarray(images)[:, None] == np.stack(listed)[None]).all((2, 3, 4))
    assert (equal.sum(1) == 1).all()
    return equal.sum(0)


def test_flip_mirrors_half_of_the_images():
    one, images = numbered(400, 2, 3)
    number = counts(jax.jit(augment.flip)(KEY, images), [one, one[:, ::-1]])
    assert abs(number[1] - 200) < 40  # four standard deviations


def test_random_crop_takes_every_position_equally_often():
    one, images = numbered(1200, 4, 5)
    crop = jax.jit(augment.random_crop, static_argnums=2)
    listed = [one[i : i + 3, j : j + 3] for i in range(2) for j in range(3)]
    number = counts(crop(KEY, images, 3), listed)
    assert abs(number - 200).max() < 4 * np.sqrt(200 * 5 / 6)
    with pytest.raises(
        ValueError, match='4 x 5 have no crop of 5 x 5; use a crop_size from 1 to 4'
    ):
        augment.random_crop(KEY, images, 5)


def test_pad_and_crop_shifts_by_at_most_the_padding():
    one, images = numbered(1250, 3, 3)
    padded = np.pad(one, ((2, 2), (2, 2), (0, 0)))
    listed = [padded[i : i + 3, j : j + 3] for i in range(5) for j in range(5)]
    number = counts(jax.jit(augment.pad_and_crop, static_argnums=2)(KEY, images, 2), listed)
    assert abs(number - 50).max() < 4 * np.sqrt(50)
    with pytest.raises(ValueError, match='expected square images, got 3 x 4; crop them first'):
        augment.pad_and_crop(KEY, jnp.zeros((1, 3, 4, 1)))


def test_scale_jitter_takes_every_length_and_stays_inside():
    size, low, high = 6, 8, 11
    draw = jax.jit(augment.jittered_boxes, static_argnums=(1, 2, 3, 4))
    corners, sizes = map(np.asarray, draw(KEY, (1000, 12, 16), size, low, high))
    lengths = 12 * size / sizes  # of the shorter side, when the box has 6 pixels
    np.testing.assert_allclose(lengths, np.round(lengths), rtol=1e-6)
    assert abs(np.bincount(np.round(lengths[:, 0]).astype(int))[low:] - 250).max() < 60
    free = np.array([12, 16]) - sizes
    assert (corners >= 0).all() and (corners <= free).all()
    np.testing.assert_allclose((corners / free).mean(0), 0.5, atol=4 / np.sqrt(12 * 1000))
    with pytest.raises(ValueError, match='got crop_size 6, low 4, high 9'):
        augment.jittered_boxes(KEY, (1, 12, 16), 6, 4, 9)


def test_inception_crops_have_the_given_areas_and_aspects():
    corners, sizes = map(np.asarray, INCEPTION_BOXES(KEY, (4000, 40, 40), (0.08, 1.0)))
    assert (corners >= 0).all() and (corners + sizes <= 40.0001).all()
    areas, aspects = sizes.prod(1) / 1600, sizes[:, 1] / sizes[:, 0]
    assert aspects.min() >= 0.7499 and aspects.max() <= 1.3334
    # A box of area a fits a square unless its aspect is too far from 1: |log aspect| <= -log a.
    rng = np.random.default_rng(0)
    a, log = rng.uniform(0.08, 1, 10**5), rng.uniform(-np.log(4 / 3), np.log(4 / 3), 10**5)
    fits = abs(log) <= -np.log(a)
    quantiles = np.linspace(0, 1, 9)[1:-1]
    for values, expected in ((areas, a), (np.log(aspects), log)):
        expected = np.quantile(expected[fits], quantiles)
        np.testing.assert_allclose(np.quantile(values, quantiles), expected, atol=0.04)


def test_an_inception_box_that_never_fits_is_the_largest_centered():
    corners, sizes = INCEPTION_BOXES(KEY, (3, 16, 64), (0.9, 1.0))
    np.testing.assert_allclose(sizes, [[16, 16 * 4 / 3]] * 3, rtol=1e-6)
    np.testing.assert_allclose(corners, [[0, (64 - 16 * 4 / 3) / 2]] * 3, rtol=1e-6)


def test_crops_are_the_boxes_of_the_images():
    images = np.random.default_rng(0).random((2, 12, 16, 1), np.float32)
    crops = jax.jit(augment.inception_crop, static_argnums=2)(KEY, images, 4)
    for image, corner, size, crop in zip(
        images, *INCEPTION_BOXES(KEY, images.shape), crops, strict=True
    ):
        (y, x), (h, w) = corner, size
        image = Image.fromarray(image[..., 0])
        expected = image.resize((4, 4), Image.Resampling.BILINEAR, (x, y, x + w, y + h))
        np.testing.assert_allclose(crop[..., 0], expected, atol=1e-5)


def test_color_noise_has_the_published_covariance():
    images = jnp.full((20_000, 1, 2, 3), 0.5)
    noise = np.asarray(jax.jit(augment.color_noise)(KEY, images, 0.1)) - 0.5
    np.testing.assert_array_equal(noise[:, :, 0], noise[:, :, 1])  # one color per image
    vectors = np.array(augment.EIGENVECTORS)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=2e-3)
    # Along each published direction: mean 0, std 0.1 times the published value, uncorrelated.
    along = noise[:, 0, 0] @ vectors
    expected = 0.1 * np.array([0.2175, 0.0188, 0.0045])
    np.testing.assert_allclose(along.std(0), expected, rtol=0.03)
    assert abs(along.mean(0) / expected).max() < 0.03
    assert abs(np.corrcoef(along.T) - np.eye(3)).max() < 0.03
    with pytest.raises(ValueError, match=r'3 channels \(red, green, blue\), got 1'):
        augment.color_noise(KEY, images[..., :1])


def test_color_jitter_interpolates_with_gray_as_pillow_does(monkeypatch):
    image = np.random.default_rng(0).integers(60, 180, (6, 7, 3), np.uint8)
    contrast, brightness, saturation = factors = (0.8, 1.2, 0.6)
    monkeypatch.setattr(
        jax.random,
        'uniform',
        lambda *_: jnp.asarray(factors, jnp.float32)[:, None, None, None, None],
    )
    jitter = jax.jit(augment.color_jitter)
    jittered = jitter(KEY, np.float32(image)[None] / 255)
    expected = ImageEnhance.Contrast(Image.fromarray(image)).enhance(contrast)
    expected = ImageEnhance.Brightness(expected).enhance(brightness)
    expected = ImageEnhance.Color(expected).enhance(saturation)
    np.testing.assert_allclose(
        255 * jittered[0], np.asarray(expected), atol=2.5
    )  # Pillow rounds three times


def test_color_jitter_of_strength_0_is_the_identity_and_factors_differ():
    images = np.random.default_rng(0).random((2, 3, 3, 3), np.float32)
    jitter = jax.jit(augment.color_jitter)
    np.testing.assert_allclose(jitter(KEY, images, 0.0), images, atol=1e-6)
    same = np.asarray(jitter(KEY, np.stack([images[0]] * 2), 0.5))
    assert abs(same[0] - same[1]).max() > 0.01
