"""The pixel scale that a network's weights expect: means, standard deviations, channel order."""

from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int32, Shaped

from lecture4.data.images.on_disk import ImageFiles

Kind = Literal['standard', 'mean_color', 'mean_image', 'torchvision', 'inception', 'caffe']
CHUNK_SIZE = 2**24  # number of values converted to float64 at a time
NUM_SAMPLED = (
    4096  # number of images on disk from which means and standard deviations are estimated
)
PIXEL = 1 / 255  # inputs of networks of 2012 to 2015 are pixels in 0..255 minus a mean


class Normalization(NamedTuple):
    """x -> ((x - mean) / std)[..., channel_order] of images in [0, 1]; a pytree of arrays.

    Attributes:
      mean: [1, 1, c], or a mean image [h, w, c].
      std: [1, 1, c].
      channel_order: [c]; 2 1 0 turns red green blue into blue green red.
    """

    mean: Float32[Array | np.ndarray, 'h w c']
    std: Float32[Array | np.ndarray, '1 1 c']
    channel_order: Int32[Array | np.ndarray, ' c']


def from_mean_std(
    mean: tuple[float, ...], std: tuple[float, ...], channel_order: tuple[int, ...] = (0, 1, 2)
) -> Normalization:
    """A normalization from the means and standard deviations of red, green and blue in [0, 1]."""
    return Normalization(
        np.asarray(mean, np.float32)[None, None, :],
        np.asarray(std, np.float32)[None, None, :],
        np.asarray(channel_order, np.int32),
    )


# Normalizations of published weights, by their source.
PUBLISHED = {
    'torchvision': ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # also timm and fb.resnet.torch
    'inception': (
        (0.5,) * 3,
        (0.5,) * 3,
    ),  # torchvision's GoogLeNet, and timm's networks from TensorFlow
    'caffe': ((123.68 / 255, 116.779 / 255, 103.939 / 255), (PIXEL,) * 3, (2, 1, 0)),
}


def create(
    kind: Kind | str,
    images: Shaped[np.ndarray, 'n h w _c'] | ImageFiles,
    num_channels: int,
    *,
    seed: int = 0,
) -> Normalization:
    """The normalization of published weights, or one computed from a training set.

    Args:
      kind: 'torchvision', 'inception' and 'caffe' (blue green red, 0..255 minus means) are PUBLISHED;
        'standard' gives mean 0 and std 1 of every channel over all pixels; 'mean_color' subtracts
        each channel's mean from pixels of 0..255 (VGG); 'mean_image' subtracts the mean of each pixel (AlexNet,
        ZFNet, ResNet).
      images: The training set, [n, h, w, 1 or num_channels], uint8, or float in [0, 1]; if there are more than
        NUM_SAMPLED images on disk, a random sample of this size is used.
      num_channels: Number of channels of the network's input; a grayscale image counts as that many equal channels.
      seed: Seed of the sample.

    Returns:
      The normalization; a constant channel has std 1.

    Raises:
      ValueError: The kind is unknown.
    """
    if kind in PUBLISHED:
        return from_mean_std(*PUBLISHED[kind])
    if kind not in ('standard', 'mean_color', 'mean_image'):
        raise ValueError(
            'expected normalization standard, mean_color, mean_image, '
            f'{", ".join(PUBLISHED)}, got {kind!r}'
        )
    if isinstance(images, ImageFiles) and len(images) > NUM_SAMPLED:
        images = images.take(np.random.default_rng(seed).permutation(len(images))[:NUM_SAMPLED])
    scale = PIXEL if images.dtype == np.uint8 else 1.0
    total, squares = np.zeros(images.shape[1:]), np.zeros(images.shape[1:])
    num_rows = max(
        1, CHUNK_SIZE // total.size
    )  # the whole set is never converted to floats at once
    for start in range(0, len(images), num_rows):
        chunk = images[start : start + num_rows].astype(np.float64) * scale
        total += chunk.sum(0)
        squares += (chunk**2).sum(0)
    mean, square = total / len(images), squares / len(images)
    if kind != 'mean_image':
        mean, square = (value.mean((0, 1), keepdims=True) for value in (mean, square))
    std = np.full((1, 1, images.shape[-1]), PIXEL)
    if kind == 'standard':
        std = np.sqrt(np.maximum(square - mean**2, 0))
        std = np.where(std > 1e-6, std, 1.0)
    mean, std = (
        np.broadcast_to(v, (*v.shape[:2], num_channels)).astype(np.float32) for v in (mean, std)
    )
    return Normalization(mean, std, np.arange(num_channels, dtype=np.int32))


def to_unit_interval(
    images: Shaped[Array | np.ndarray, 'n h w _c'], num_channels: int
) -> Float[Array, 'n h w {num_channels}']:
    """Images as float32 in [0, 1]: uint8 is divided by 255, one channel repeated.

    Args:
      images: [n, h, w, 1 or num_channels], uint8, or float in [0, 1].
      num_channels: Number of channels of the result.

    Raises:
      ValueError: The number of channels does not fit.
    """
    if images.shape[-1] not in (1, num_channels):
        raise ValueError(
            f'images with {images.shape[-1]} channels for a network of {num_channels}; convert them '
            f'to grayscale or to {num_channels} channels'
        )
    unit = jnp.asarray(images, jnp.float32)
    if images.dtype == jnp.uint8:
        unit = unit * jnp.float32(PIXEL)
    return jnp.broadcast_to(unit, (*unit.shape[:-1], num_channels))


def normalize(
    images: Shaped[Array | np.ndarray, 'n h w _c'], normalization: Normalization
) -> Float[Array, 'n h w c']:
    """Normalized images, the network's input.

    Args:
      images: [n, h, w, 1 or c], uint8, or float in [0, 1]; h and w are those of a mean image.
      normalization: Normalization with c channels.

    Raises:
      ValueError: As in `to_unit_interval`.
    """
    mean, std, channel_order = normalization
    unit = to_unit_interval(images, len(channel_order))
    return jnp.take((unit - mean[None]) / std[None], channel_order, axis=-1)
