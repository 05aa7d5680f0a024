"""The scale of colours that a network's weights expect: means, deviations, and the order of channels."""

from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np

Kind = Literal['standard', 'mean_colour', 'mean_picture', 'torchvision', 'inception', 'caffe']
AT_ONCE = 2**24  # numbers in float64
PIXEL = 1 / 255  # networks of 2012 to 2015 saw pixels of 0..255, less a mean


class Normalisation(NamedTuple):
    """x -> ((x - mean) / deviation)[..., order] of pictures on [0, 1]; a pytree of arrays.

    mean       float32 [1, 1, c], or [h, w, c]: a picture.
    deviation  float32 [1, 1, c].
    order      int32 [c]: 2 1 0 turns red green blue into blue green red.
    """

    mean: np.ndarray
    deviation: np.ndarray
    order: np.ndarray


def of_colours(mean, deviation, order=(0, 1, 2)) -> Normalisation:
    """From three means and three deviations of red, green and blue on [0, 1]."""
    mean, deviation = np.asarray(mean, np.float32), np.asarray(deviation, np.float32)
    return Normalisation(mean[None, None, :], deviation[None, None, :], np.asarray(order, np.int32))


# What published weights were trained on, by the place they come from.
PUBLISHED = {
    'torchvision': ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # and timm, and fb.resnet.torch
    'inception': ((0.5,) * 3, (0.5,) * 3),  # GoogLeNet there, and timm's of TensorFlow
    'caffe': ((123.68 / 255, 116.779 / 255, 103.939 / 255), (PIXEL,) * 3, (2, 1, 0)),
}


def named(kind: Kind, images, channels: int) -> Normalisation:
    """That of published weights, or one computed from a training set.

    kind      'torchvision', 'inception', 'caffe' (blue green red, 0..255 less means)  see PUBLISHED
              'standard'     mean 0 and deviation 1 of every channel over all pixels
              'mean_colour'  each channel's mean subtracted from pixels of 0..255 (VGG)
              'mean_picture' each pixel's own mean subtracted likewise (AlexNet, ZFNet, ResNet)
    channels  of what the network sees: grey pictures count as three equal channels.
    Shapes    images [n, h, w, 1 or c], uint8, or float on [0, 1].
    Errors    ValueError for another kind. A channel that never changes is left at deviation 1.
    """
    if kind in PUBLISHED:
        return of_colours(*PUBLISHED[kind])
    if kind not in ('standard', 'mean_colour', 'mean_picture'):
        raise ValueError(
            f'normalisation {kind!r}; standard, mean_colour, mean_picture, {", ".join(PUBLISHED)} are wanted'
        )
    scale = PIXEL if images.dtype == np.uint8 else 1.0
    total, squares = np.zeros(images.shape[1:]), np.zeros(images.shape[1:])
    at_once = max(1, AT_ONCE // total.size)  # never the whole set as floats
    for start in range(0, len(images), at_once):
        part = images[start : start + at_once].astype(np.float64) * scale
        total += part.sum(0)
        squares += (part**2).sum(0)
    mean, square = total / len(images), squares / len(images)
    if kind != 'mean_picture':
        mean, square = (value.mean((0, 1), keepdims=True) for value in (mean, square))
    deviation = np.full((1, 1, images.shape[-1]), PIXEL)
    if kind == 'standard':
        spread = np.sqrt(np.maximum(square - mean**2, 0))
        deviation = np.where(spread > 1e-6, spread, 1.0)
    mean, deviation = (
        np.broadcast_to(v, (*v.shape[:2], channels)).astype(np.float32) for v in (mean, deviation)
    )
    return Normalisation(mean, deviation, np.arange(channels, dtype=np.int32))


def to_unit(images, channels: int):
    """Pictures as float32 on [0, 1] with that many channels: uint8 is divided by 255, grey repeated.

    Shapes  images [n, h, w, 1 or channels] uint8 or float -> [n, h, w, channels].
    Errors  ValueError for another number of channels.
    """
    if images.shape[-1] not in (1, channels):
        raise ValueError(
            f'pictures of {images.shape[-1]} channels for a network of {channels}; make them grey, '
            f'or of {channels}'
        )
    unit = jnp.asarray(images, jnp.float32)
    if images.dtype == jnp.uint8:
        unit = unit * jnp.float32(PIXEL)
    return jnp.broadcast_to(unit, (*unit.shape[:-1], channels))


def normalise(images, found: Normalisation):
    """Pictures as the network sees them: uint8, or float on [0, 1].

    Shapes  images [n, h, w, 1 or c] -> [n, h, w, c]; h and w are those of a mean picture.
    Errors  as `to_unit`.
    """
    unit = to_unit(images, len(found.order))
    return jnp.take((unit - found.mean[None]) / found.deviation[None], found.order, axis=-1)
