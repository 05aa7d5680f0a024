"""Training batches: every change is applied, in an order in which a border is the mean color."""

import jax
import numpy as np
import pytest

from lecture4.data.images import normalize, transforms
from lecture4.data.images.transforms import Augmentation

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 6, 6, 1), np.uint8)
NORMALIZATION = normalize.create('standard', IMAGES, 3)
KEY = jax.random.key(0)
PREPARE = jax.jit(transforms.prepare, static_argnums=2)


def test_no_augmentation_gives_the_normalized_center():
    batch = PREPARE(KEY, IMAGES, Augmentation(4), NORMALIZATION)
    unit = IMAGES[:, 1:5, 1:5] / 255
    expected = np.repeat((unit - (IMAGES / 255).mean()) / (IMAGES / 255).std(), 3, -1)
    np.testing.assert_allclose(batch, expected, atol=1e-5)


def test_a_border_is_the_mean_color_also_with_color_noise():
    batch = np.asarray(
        PREPARE(KEY, IMAGES, Augmentation(6, 'pad', 5, color_noise=0.1, flips=True), NORMALIZATION)
    )
    assert batch.shape == (40, 6, 6, 3)
    border = (batch == 0).all(-1).mean((1, 2))
    assert border.max() > 0.5 and border.min() < 0.2
    # Grayscale images with color noise: one color for all pixels of an image.
    inside = (batch != 0).all(-1)
    color = (batch * NORMALIZATION.std)[..., 0] - (batch * NORMALIZATION.std)[..., 2]
    for image, mask in zip(color, inside, strict=True):
        assert np.ptp(image[mask]) < 1e-4
    assert np.std([image[mask][0] for image, mask in zip(color, inside, strict=True)]) > 0.001


@pytest.mark.parametrize(
    'augmentation',
    [
        Augmentation(4, 'crop'),
        Augmentation(4, 'jitter', jitter=(4, 9)),
        Augmentation(4, 'inception', color_jitter=0.5),
    ],
)
def test_images_depend_on_the_key_alone(augmentation):
    batch = PREPARE(KEY, IMAGES, augmentation, NORMALIZATION)
    assert batch.shape == (40, 4, 4, 3) and np.isfinite(batch).all()
    np.testing.assert_array_equal(batch, PREPARE(KEY, IMAGES, augmentation, NORMALIZATION))
    assert abs(batch - PREPARE(jax.random.key(1), IMAGES, augmentation, NORMALIZATION)).max() > 0.1


def test_a_crop_that_does_not_fit_is_refused():
    with pytest.raises(
        ValueError, match='images of 6 x 6 have no crop of 7 x 7; use at most 6 x 6'
    ):
        transforms.prepare(KEY, IMAGES, Augmentation(7), NORMALIZATION)
