"""One image file as an array."""

import io
import logging
from os import PathLike
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8

from lecture4.data.dataset import DataError

LOG = logging.getLogger(__name__)
SUFFIXES = (
    '.png', '.jpg', '.jpeg', '.jpe', '.jfif', '.bmp', '.gif', '.tif', '.tiff', '.webp', '.avif',
    '.ppm', '.pgm',
)  # fmt: skip
GRAYSCALE_MODES = ('1', 'L', 'LA')
GRAYSCALE_16_BIT_MODES = ('I;16', 'I;16B', 'I;16L', 'I;16N')
COLOR_MODES = ('P', 'PA', 'RGB', 'RGBA', 'CMYK', 'YCbCr')


def read_image(path: str | PathLike[str]) -> UInt8[np.ndarray, 'h w c']:
    """Decode an image file and rotate it according to its EXIF data.

    A palette becomes colors, transparency is dropped, and of an animation the first frame is read. The upper 8 bits
    of 16-bit channels are kept, in grayscale and in color.

    Args:
      path: A file in a format that Pillow reads.

    Returns:
      [h, w, 1] if the image is grayscale, else [h, w, 3].

    Raises:
      DataError: The file is not an image, is truncated, or has 32 bits per channel; the message names the file.
    """
    return decode_image(path, str(path))


def decode_image(
    file: str | PathLike[str] | io.BufferedIOBase, name: str
) -> UInt8[np.ndarray, 'h w c']:
    """As `read_image`, for a file or its bytes; `name` is the prefix of error messages."""
    from PIL import Image

    opened: Any = file
    try:
        with Image.open(opened) as image:
            pixels = _pixels(name, image)
            orientation = _orientation(name, image)
    except DataError:
        raise
    except Exception as error:  # a decoder raises anything on a broken file
        raise _unreadable(name, error) from error
    if orientation >= 5:  # rows of the file are columns of the image
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def image_size(file: str | PathLike[str] | io.BufferedIOBase, name: str) -> tuple[int, int]:
    """(height, width) of the result of `decode_image`, from the header alone.

    Raises:
      DataError: The file is not an image.
    """
    from PIL import Image

    opened: Any = file
    try:
        with Image.open(opened) as image:
            width, height = image.size
            return (width, height) if _orientation(name, image) >= 5 else (height, width)
    except Exception as error:  # a decoder raises anything on a broken file
        raise _unreadable(name, error) from error


def _unreadable(name, error):
    return DataError(
        f'{name} cannot be read as an image ({type(error).__name__}: {error}); remove or replace it'
    )


def _pixels(name, image):
    """uint8 [h, w, 1 or 3], as stored."""
    if image.mode in GRAYSCALE_16_BIT_MODES or (image.mode, image.format) == ('I', 'PPM'):
        return (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)[..., None]
    if image.mode not in GRAYSCALE_MODES + COLOR_MODES:
        raise DataError(
            f'{name}: expected 8 or 16 bits per channel, got pixels of mode {image.mode}; save it '
            'with 8 bits per channel'
        )
    if image.mode in GRAYSCALE_MODES:
        return np.asarray(image.convert('L'))[..., None]
    if image.mode in ('P', 'PA'):
        image = image.convert(
            'RGBA'
        )  # so that the transparency of a palette does not affect the colors
    return np.asarray(image.convert('RGB'))


def _orientation(name, image):
    """Orientation 1 to 8 as in EXIF; 1 if there is none. Other tags are not interpreted: they may be malformed."""
    from PIL import ExifTags

    try:
        orientation = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception as error:  # may raise anything, like a decoder
        LOG.warning(
            '%s: the EXIF data cannot be read (%s: %s); the image is read as stored',
            name, type(error).__name__, error,
        )  # fmt: skip
        return 1
    return orientation if 1 <= orientation <= 8 else 1


def to_rgb(image: Shaped[np.ndarray, 'h w c']) -> Shaped[np.ndarray, 'h w 3']:
    """An image [h, w, 1 or 3] with three channels: grayscale becomes three equal ones (a view)."""
    return np.broadcast_to(image, (*image.shape[:2], 3))
