"""From stored pictures to what a network is trained on: colours changed, normalised, cropped, mirrored."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from lecture4.data.images import augment
from lecture4.data.images.normalize import Normalisation, normalise, to_unit
from lecture4.ops import resize

Kind = Literal['none', 'crop', 'pad', 'jitter', 'inception']


class Recipe(NamedTuple):
    """How a training batch is made; all static.

    crop     side of what the network sees.
    kind     'none' the middle; 'crop' a random crop; 'pad' a random crop of the picture with a border of
             `padding`; 'jitter' a crop of the picture at a scale from `jitter`; 'inception' boxes.
    others   as the functions of data.augmentation; 0 or False leaves a change out.
    """

    crop: int
    kind: Kind = 'none'
    padding: int = 4
    jitter: tuple[int, int] = (256, 480)
    flips: bool = False
    colour_noise: float = 0.0
    colour_jitter: float = 0.0


def prepare(key, images, recipe: Recipe, scale: Normalisation):
    """A batch as the network sees it, float32. Colours come first, so that a border is the mean colour.

    Shapes  images [n, h, w, 1 or c], uint8 or float on [0, 1] -> [n, crop, crop, c], c that of `scale`.
    Errors  ValueError where the crop does not fit, as the functions of data.augmentation.
    """
    jitter_key, noise_key, place_key, mirror_key = jax.random.split(key, 4)
    images = to_unit(images, len(scale.order))
    if recipe.colour_jitter:
        images = augment.colour_jitter(jitter_key, images, recipe.colour_jitter)
    if recipe.colour_noise:
        images = augment.colour_noise(noise_key, images, recipe.colour_noise)
    images = _placed(place_key, normalise(images, scale), recipe)
    return augment.flip(mirror_key, images) if recipe.flips else images


def _placed(key, images, recipe):
    side = recipe.crop
    if recipe.kind == 'none':
        return resize.center_crop(images, side)
    if recipe.kind == 'pad':
        border = (recipe.padding, recipe.padding)
        return augment.random_crop(key, jnp.pad(images, ((0, 0), border, border, (0, 0))), side)
    if recipe.kind == 'jitter':
        return augment.scale_jitter(key, images, side, *recipe.jitter)
    if recipe.kind == 'inception':
        return augment.inception_crop(key, images, side)
    return augment.random_crop(key, images, side)
