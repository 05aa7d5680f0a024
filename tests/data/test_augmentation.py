"""Augmentation: every result is one of those that numpy lists, and all of them come up."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.data import augmentation

KEY = jax.random.key(0)


def numbered(n, h, w, c=2):
    """n equal pictures whose pixels are all different."""
    one = np.arange(1, 1 + h * w * c, dtype=np.float32).reshape(h, w, c)
    return one, jnp.asarray(np.stack([one] * n))


def counts(found, listed):
    """How often each of the listed pictures was found; every one found has to be listed."""
    equal = (np.asarray(found)[:, None] == np.stack(listed)[None]).all((2, 3, 4))
    assert (equal.sum(1) == 1).all()
    return equal.sum(0)


def test_flip_mirrors_half_of_the_pictures():
    one, images = numbered(400, 2, 3)
    found = counts(jax.jit(augmentation.flip)(KEY, images), [one, one[:, ::-1]])
    assert abs(found[1] - 200) < 40  # four standard deviations


def test_random_crop_takes_every_position_equally_often():
    one, images = numbered(1200, 4, 5)
    crop = jax.jit(augmentation.random_crop, static_argnums=2)
    listed = [one[i : i + 3, j : j + 3] for i in range(2) for j in range(3)]
    found = counts(crop(KEY, images, 3), listed)
    assert abs(found - 200).max() < 4 * np.sqrt(200 * 5 / 6)
    with pytest.raises(ValueError, match='4 x 5 have no crop of 5 x 5; use 1 to 4'):
        augmentation.random_crop(KEY, images, 5)


def test_pad_and_crop_shifts_by_at_most_the_padding_and_moves_zeros_in():
    one, images = numbered(1250, 3, 3)
    padded = np.pad(one, ((2, 2), (2, 2), (0, 0)))
    listed = [padded[i : i + 3, j : j + 3] for i in range(5) for j in range(5)]
    found = counts(jax.jit(augmentation.pad_and_crop, static_argnums=2)(KEY, images, 2), listed)
    assert abs(found - 50).max() < 4 * np.sqrt(50)
    with pytest.raises(ValueError, match='pictures of 3 x 4; crop them square first'):
        augmentation.pad_and_crop(KEY, jnp.zeros((1, 3, 4, 1)))
