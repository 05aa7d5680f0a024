"""Resizing of images: whole images, boxes of them, or their center.

Interpolation is (antialiased) bilinear. An image covers [0, h] x [0, w], pixel i the interval from i
to i + 1, as in Pillow and in torch with align_corners=False.
"""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Array, Float, Shaped


def scaled_shape(shape: Sequence[int], shorter_side: int) -> tuple[int, int]:
    """Height and width after scaling the shorter of them to `shorter_side`; the longer is rounded down.

    Args:
      shape: (height, width).
      shorter_side: New length of the shorter side.

    References:
      torchvision's Resize rounds in this way.
    """
    h, w = shape
    if h <= w:
        return shorter_side, shorter_side * w // h
    return shorter_side * h // w, shorter_side


def resize(
    images: Float[np.ndarray | Array, 'n h w c'], shape: Sequence[int], antialias: bool = True
) -> Float[np.ndarray | Array, 'n h2 w2 c']:
    """Resize images to a height and width; unchanged if they already have it.

    Args:
      images: Images.
      shape: New (height, width).
      antialias: Whether, if images shrink, a pixel is the mean over the area it covers, rather than of 4 neighbors.
    """
    n, h, w, c = images.shape
    if (h, w) == tuple(shape):
        return images
    return jax.image.resize(images, (n, *shape, c), 'linear', antialias=antialias)


def crop_and_resize(
    images: Float[np.ndarray | Array, 'n h w c'],
    corners: Float[np.ndarray | Array, 'n 2'],
    sizes: Float[np.ndarray | Array, 'n 2'],
    image_size: int,
    antialias: bool = True,
) -> Float[Array, 'n {image_size} {image_size} c']:
    """One box of every image, resized to image_size x image_size.

    Interpolation at the edge of a box reads the image beyond it, so that the result is a part of the resized image,
    whereas Pillow's crop followed by resize repeats the edge.

    Args:
      images: Images.
      corners: (upper, left) of each box in pixels, inside the image.
      sizes: (height, width) of each box in pixels.
      image_size: Height and width of the result.
      antialias: As in `resize`.
    """

    def one(image, corner, size):
        scale = image_size / size
        shape = (image_size, image_size, image.shape[-1])
        return jax.image.scale_and_translate(
            image, shape, (0, 1), scale, -corner * scale, 'linear', antialias
        )

    return jax.vmap(one)(images, corners, sizes)


def center_corner(shape: Sequence[int], crop_shape: Sequence[int]) -> tuple[int, int]:
    """(top, left) of the crop of size crop_shape in the center of an image; rounded down.

    Args:
      shape: (height, width) of the image.
      crop_shape: (height, width) of the crop.

    Raises:
      ValueError: The crop is empty or larger than the image.
    """
    (h, w), (crop_h, crop_w) = shape, crop_shape
    if not (1 <= crop_h <= h and 1 <= crop_w <= w):
        raise ValueError(
            f'images of {h} x {w} have no crop of {crop_h} x {crop_w}; use at most {h} x {w}'
        )
    return (h - crop_h) // 2, (w - crop_w) // 2


def center_crop(
    images: Shaped[np.ndarray | Array, '...'],
    crop_size: int | Sequence[int],
    height_axis: int = -3,
) -> Shaped[np.ndarray | Array, '...']:
    """The center of every image.

    Args:
      images: Images [..., h, w, c] of any dtype.
      crop_size: Height and width of the crop, or (height, width).
      height_axis: Axis of the height, the width is the next: -3 for NHWC, -2 without channels.

    Raises:
      ValueError: The crop is empty or larger than the image.
    """
    crop_shape = (crop_size, crop_size) if isinstance(crop_size, int) else tuple(crop_size)
    axis = height_axis % images.ndim
    top, left = center_corner(images.shape[axis : axis + 2], crop_shape)
    rows, columns = slice(top, top + crop_shape[0]), slice(left, left + crop_shape[1])
    return images[(slice(None),) * axis + (rows, columns)]
