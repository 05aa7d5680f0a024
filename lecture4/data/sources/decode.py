"""One image file as an array."""

import logging
from os import PathLike

import numpy as np
from jaxtyping import Shaped, UInt8

from lecture4.data.dataset import DataError

LOG = logging.getLogger(__name__)
SUFFIXES = (
    '.png', '.jpg', '.jpeg', '.jpe', '.jfif', '.bmp', '.gif', '.tif', '.tiff', '.webp', '.avif',
    '.ppm', '.pgm',
)  # fmt: skip
GRAYSCALE_MODES = ('1', 'L', 'LA')
COLOR_MODES = ('P', 'PA', 'RGB', 'RGBA', 'CMYK', 'YCbCr')


def read_image(path: str | PathLike[str]) -> UInt8[np.ndarray, 'h w c']:
    """Decode an image file and rotate it as its EXIF data says.

    A palette becomes colors, transparency is dropped, of an animation the first frame is read.

    Args:
      path: A file in a format that Pillow reads.

    Returns:
      [h, w, 1] if the image is grayscale, else [h, w, 3].

    Raises:
      DataError: Not an image, truncated, or more than 8 bits per channel; names the file.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            if image.mode not in GRAYSCALE_MODES + COLOR_MODES:
                raise DataError(
                    f'{path} has pixels of mode {image.mode}; save it with 8 bits per channel'
                )
            target = 'L' if image.mode in GRAYSCALE_MODES else 'RGB'
            image = ImageOps.exif_transpose(image)
            if image.mode in ('P', 'PA'):
                image = image.convert(
                    'RGBA'
                )  # keeps the transparency of a palette out of the colors
            pixels = np.asarray(image.convert(target))
    except DataError:
        raise
    except Exception as error:  # a decoder raises anything on a broken file
        raise DataError(
            f'{path} cannot be read as an image ({type(error).__name__}: {error}); '
            'remove or replace it'
        ) from error
    return pixels[..., None] if pixels.ndim == 2 else pixels


def to_rgb(image: Shaped[np.ndarray, 'h w c']) -> Shaped[np.ndarray, 'h w 3']:
    """An image [h, w, 1 or 3] with three channels: grayscale becomes three equal ones (a view)."""
    return np.broadcast_to(image, (*image.shape[:2], 3))
