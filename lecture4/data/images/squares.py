"""Images brought to squares of one size."""

import numpy as np
from jaxtyping import Shaped

from lecture4.data.dataset import DataError, Images
from lecture4.ops import resize


def resize_to_square(
    name: str, images: Images, image_size: int
) -> Shaped[np.ndarray, 'n {image_size} {image_size} c']:
    """The center square of each image, resized by antialiased bilinear interpolation.

    The shorter side is resized and the longer one cropped (Krizhevsky et al. 2012, section 2).

    Args:
      name: Prefix of error messages.
      images: [n, h, w, c], or a sequence of [h, w, c], uint8 or float.
      image_size: Height and width of the result.

    Returns:
      In the images' dtype.

    Raises:
      DataError: image_size below 1.
    """
    if image_size < 1:
        raise DataError(f'{name}: expected an image_size of at least 1, got {image_size}')
    if isinstance(images, np.ndarray) and images.shape[1:3] == (image_size, image_size):
        return images
    return np.stack([square(image, image_size) for image in images])


def square(image: Shaped[np.ndarray, '_ _ c'], image_size: int) -> Shaped[np.ndarray, '_ _ c']:
    """The center square of one image, as `resize_to_square`."""
    from PIL import Image

    h, w = resize.scaled_shape(image.shape[:2], image_size)
    top, left = (h - image_size) // 2, (w - image_size) // 2
    if image.dtype == np.uint8 and image.shape[-1] == 3:
        whole = Image.fromarray(np.ascontiguousarray(image))
        resized = np.asarray(whole.resize((w, h), Image.Resampling.BILINEAR))
    else:
        planes = [Image.fromarray(np.ascontiguousarray(x)) for x in np.moveaxis(image, -1, 0)]
        planes = [np.asarray(x.resize((w, h), Image.Resampling.BILINEAR)) for x in planes]
        resized = np.stack(planes, -1)
    return resized[top : top + image_size, left : left + image_size]
