"""From stored images to training batches: color changes, normalization, crops, flips."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from lecture4.data.images import augment
from lecture4.data.images.normalize import Normalization, normalize, to_unit_interval
from lecture4.ops import resize

Kind = Literal['none', 'crop', 'pad', 'jitter', 'inception']


class Augmentation(NamedTuple):
    """Options of training batches; all static.

    Attributes:
      crop_size: Height and width of the network's input in pixels.
      kind: 'none' takes the center; 'crop' a random crop; 'pad' a random crop of the image with a border
        of `padding`; 'jitter' a crop of the image at a scale from `jitter`; 'inception' boxes of random area and
        aspect ratio.
        padding: Padding in pixels.
      jitter: Smallest and largest length of the shorter side, in pixels.
      flips: Whether images are mirrored at random.
      color_noise: The std of `augment.color_noise`; 0 for none.
      color_jitter: The strength of `augment.color_jitter`; 0 for none.
    """

    crop_size: int
    kind: Kind = 'none'
    padding: int = 4
    jitter: tuple[int, int] = (256, 480)
    flips: bool = False
    color_noise: float = 0.0
    color_jitter: float = 0.0


def prepare(
    key: PRNGKeyArray,
    images: Shaped[Array | np.ndarray, 'n h w _c'],
    augmentation: Augmentation,
    normalization: Normalization,
) -> Float[Array, 'n crop_size crop_size c']:
    """A batch as input of the network, float32.

    Colors are changed first, so that a border is the mean color.

    Args:
      key: Random key of all random choices.
      images: [n, h, w, 1 or c], uint8, or float in [0, 1].
      augmentation: The random changes.
      normalization: Normalization with c channels.

    Raises:
      ValueError: The crop does not fit; see the functions of `augment`.
    """
    jitter_key, noise_key, crop_key, flip_key = jax.random.split(key, 4)
    unit = to_unit_interval(images, len(normalization.channel_order))
    if augmentation.color_jitter:
        unit = augment.color_jitter(jitter_key, unit, augmentation.color_jitter)
    if augmentation.color_noise:
        unit = augment.color_noise(noise_key, unit, augmentation.color_noise)
    crops = _crop(crop_key, normalize(unit, normalization), augmentation)
    return augment.flip(flip_key, crops) if augmentation.flips else jnp.asarray(crops)


def _crop(key, images, augmentation):
    crop_size = augmentation.crop_size
    if augmentation.kind == 'none':
        return resize.center_crop(images, crop_size)
    if augmentation.kind == 'pad':
        border = (augmentation.padding, augmentation.padding)
        images = jnp.pad(images, ((0, 0), border, border, (0, 0)))
        return augment.random_crop(key, images, crop_size)
    if augmentation.kind == 'jitter':
        return augment.scale_jitter(key, images, crop_size, *augmentation.jitter)
    if augmentation.kind == 'inception':
        return augment.inception_crop(key, images, crop_size)
    return augment.random_crop(key, images, crop_size)
