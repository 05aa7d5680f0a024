"""Training batches: each change takes place, in an order in which a border is the mean colour."""

import jax
import numpy as np
import pytest

from lecture4.data.images import normalize, transforms
from lecture4.data.images.transforms import Recipe

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 6, 6, 1), np.uint8)
SCALE = normalize.named('standard', IMAGES, 3)
KEY = jax.random.key(0)
PREPARE = jax.jit(transforms.prepare, static_argnums=2)


def test_no_change_gives_the_normalised_middle():
    found = PREPARE(KEY, IMAGES, Recipe(4), SCALE)
    unit = IMAGES[:, 1:5, 1:5] / 255
    expected = np.repeat((unit - (IMAGES / 255).mean()) / (IMAGES / 255).std(), 3, -1)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_border_is_the_mean_colour_also_under_colour_noise():
    found = np.asarray(
        PREPARE(KEY, IMAGES, Recipe(6, 'pad', 5, colour_noise=0.1, flips=True), SCALE)
    )
    assert found.shape == (40, 6, 6, 3)
    border = (found == 0).all(-1).mean((1, 2))
    assert border.max() > 0.5 and border.min() < 0.2
    # Grey pictures under colour noise: a colour that is one for all pixels of a picture.
    inside = (found != 0).all(-1)
    colour = (found * SCALE.deviation)[..., 0] - (found * SCALE.deviation)[..., 2]
    for picture, mask in zip(colour, inside, strict=True):
        assert np.ptp(picture[mask]) < 1e-4
    assert np.std([picture[mask][0] for picture, mask in zip(colour, inside, strict=True)]) > 0.001


@pytest.mark.parametrize(
    'recipe',
    [
        Recipe(4, 'crop'),
        Recipe(4, 'jitter', jitter=(4, 9)),
        Recipe(4, 'inception', colour_jitter=0.5),
    ],
)
def test_pictures_differ_by_key_and_not_otherwise(recipe):
    found = PREPARE(KEY, IMAGES, recipe, SCALE)
    assert found.shape == (40, 4, 4, 3) and np.isfinite(found).all()
    np.testing.assert_array_equal(found, PREPARE(KEY, IMAGES, recipe, SCALE))
    assert abs(found - PREPARE(jax.random.key(1), IMAGES, recipe, SCALE)).max() > 0.1


def test_a_crop_that_does_not_fit():
    with pytest.raises(ValueError, match='images of 6 x 6 have no crop of 7 x 7; use at most 6 x 6'):
        transforms.prepare(KEY, IMAGES, Recipe(7), SCALE)
