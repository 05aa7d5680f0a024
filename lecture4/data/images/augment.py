"""Random augmentations of a batch of images, on the device: pure functions of (key, batch).

Each is sampled independently for every image of the batch, and may be called inside a compiled step (as
`Data.prepare` is). Images are floats [n, h, w, c]; sizes are static, so nothing is compiled twice.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from lecture4.data.images.crops import LUMA
from lecture4.ops import resize

# Covariance of ImageNet's red, green and blue in [0, 1]: a column of EIGENVECTORS for each of EIGENVALUES, as
# published by fb.resnet.torch; Krizhevsky et al. do not print theirs.
EIGENVALUES = (0.2175, 0.0188, 0.0045)
EIGENVECTORS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)
ATTEMPTS = 10  # number of random boxes before the largest centered one is taken

Images = Float[Array | np.ndarray, 'n h w c']


def flip(key: PRNGKeyArray, images: Images) -> Float[Array, 'n h w c']:
    """Mirror every image left to right with probability 1/2.

    Args:
      key: Random key of the choice.
      images: [n, h, w, c].
    """
    mirrored = jax.random.bernoulli(key, shape=(len(images), 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)


def random_crop(
    key: PRNGKeyArray, images: Images, crop_size: int
) -> Float[Array, 'n {crop_size} {crop_size} c']:
    """A crop of every image at a uniformly random position.

    Args:
      key: Random key of the positions.
      images: [n, h, w, c].
      crop_size: Height and width, in pixels.

    Raises:
      ValueError: The images are smaller than the crop.
    """
    n, h, w, channels = images.shape
    if not 1 <= crop_size <= min(h, w):
        raise ValueError(
            f'images of {h} x {w} have no crop of {crop_size} x {crop_size}; use a crop_size from 1 '
            f'to {min(h, w)}'
        )
    corners = jax.random.randint(
        key, (n, 2), 0, jnp.array([[h - crop_size + 1, w - crop_size + 1]])
    )

    def crop(image, corner):
        return jax.lax.dynamic_slice(image, (*corner, 0), (crop_size, crop_size, channels))

    return jax.vmap(crop)(images, corners)


def pad_and_crop(key: PRNGKeyArray, images: Images, padding: int = 4) -> Float[Array, 'n h w c']:
    """Shift every image by up to `padding` pixels in each direction, with zeros at the border.

    Zeros should be the mean color, so normalize first.

    Args:
      key: Random key of the shifts.
      images: [n, s, s, c].
      padding: Padding in pixels.

    Raises:
      ValueError: The images are not square.

    References:
      He et al. 2016, section 4.2.
    """
    _, h, w, _ = images.shape
    if h != w:
        raise ValueError(f'expected square images, got {h} x {w}; crop them first')
    border = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return random_crop(key, jnp.pad(images, border), h)


def scale_jitter(
    key: PRNGKeyArray, images: Images, crop_size: int, low: int, high: int
) -> Float[Array, 'n {crop_size} {crop_size} c']:
    """Resize the shorter side of every image to a length from low to high, then take a random crop.

    All integer lengths and all positions have equal probability.

    Args:
      key: Random key of the lengths and positions.
      images: [n, h, w, c].
      crop_size: Height and width of the crop, in pixels.
      low: Smallest length, at least crop_size.
      high: Largest length, at least low.

    Raises:
      ValueError: Unless crop_size <= low <= high.

    References:
      Simonyan & Zisserman 2015, section 3.1; He et al. 2016 with 256 to 480.
    """
    return resize.crop_and_resize(
        images, *jittered_boxes(key, images.shape, crop_size, low, high), crop_size
    )


def jittered_boxes(
    key: PRNGKeyArray, shape: tuple[int, ...], crop_size: int, low: int, high: int
) -> tuple[Float[Array, 'n 2'], Float[Array, 'n 2']]:
    """The boxes of `scale_jitter` in images of shape (n, h, w, ...): upper left corners and sizes."""
    if not 1 <= crop_size <= low <= high:
        raise ValueError(
            f'expected crop_size <= low <= high, got crop_size {crop_size}, low {low}, high {high}'
        )
    n, h, w = shape[:3]
    length_key, position_key = jax.random.split(key)
    lengths = jax.random.randint(length_key, (n, 1), low, high + 1).astype(jnp.float32)
    sizes = jnp.broadcast_to(crop_size * min(h, w) / lengths, (n, 2))
    return _random_corners(position_key, sizes, h, w), sizes


def inception_crop(
    key: PRNGKeyArray,
    images: Images,
    crop_size: int,
    area: tuple[float, float] = (0.08, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
) -> Float[Array, 'n {crop_size} {crop_size} c']:
    """A box of random area and aspect ratio of every image, resized to a square.

    The area is a uniform fraction of the image; the logarithm of the aspect ratio, width / height, is uniform too, so
    that wide and tall boxes are equally likely. A box that does not fit is resampled; after ATTEMPTS the largest
    centered box with an allowed aspect ratio is taken.

    Args:
      key: Random key of the boxes.
      images: [n, h, w, c].
      crop_size: Height and width of the result, in pixels.
      area: Smallest and largest fraction of the image's area.
      aspect: Smallest and largest width / height.

    References:
      Szegedy et al. 2015, section 6; the repeated attempts are torchvision's.
    """
    return resize.crop_and_resize(
        images, *inception_boxes(key, images.shape, area, aspect), crop_size
    )


def inception_boxes(
    key: PRNGKeyArray,
    shape: tuple[int, ...],
    area: tuple[float, float] = (0.08, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
) -> tuple[Float[Array, 'n 2'], Float[Array, 'n 2']]:
    """The boxes of `inception_crop` in images of shape (n, h, w, ...): upper left corners and sizes."""
    n, h, w = shape[:3]
    area_key, aspect_key, position_key = jax.random.split(key, 3)
    draws = (n, ATTEMPTS)
    areas = h * w * jax.random.uniform(area_key, draws, minval=area[0], maxval=area[1])
    low, high = np.log(aspect)
    aspects = jnp.exp(jax.random.uniform(aspect_key, draws, minval=low, maxval=high))
    candidates = jnp.stack([jnp.sqrt(areas / aspects), jnp.sqrt(areas * aspects)], -1)
    fits = (candidates[..., 0] <= h) & (candidates[..., 1] <= w)
    first = jnp.take_along_axis(candidates, jnp.argmax(fits, 1)[:, None, None], 1)[:, 0]
    nearest_aspect = min(max(w / h, aspect[0]), aspect[1])
    largest = jnp.array([[min(h, w / nearest_aspect), min(w, h * nearest_aspect)]], jnp.float32)
    any_fits = jnp.any(fits, 1, keepdims=True)
    sizes = jnp.where(any_fits, first, largest)
    centered = (jnp.array([[h, w]], jnp.float32) - sizes) / 2
    return jnp.where(any_fits, _random_corners(position_key, sizes, h, w), centered), sizes


def _random_corners(key, sizes, h, w):
    """Uniform upper left corners [n, 2] of boxes of these sizes inside h x w."""
    free = jnp.maximum(jnp.array([[h, w]], sizes.dtype) - sizes, 0)
    return free * jax.random.uniform(key, sizes.shape, sizes.dtype)


def color_noise(
    key: PRNGKeyArray, images: Images, std: float | Float[Array, ''] = 0.1
) -> Float[Array, 'n h w c']:
    """Add one color to all pixels of an image, along the principal components of ImageNet's colors.

    The color is EIGENVECTORS @ (a * EIGENVALUES) with a ~ N(0, std^2) in three dimensions, so that
    its covariance is std^2 * EIGENVECTORS @ diag(EIGENVALUES^2) @ EIGENVECTORS'.

    Args:
      key: Random key of the colors.
      images: Red, green and blue in [0, 1]; the result is not clipped.
      std: Standard deviation of a.

    Raises:
      ValueError: The number of channels is not 3.

    References:
      Krizhevsky et al. 2012, section 4.1.
    """
    _check_rgb(images)
    scale = np.asarray(EIGENVECTORS) * np.asarray(EIGENVALUES)
    draws = jax.random.normal(key, (len(images), 3), images.dtype)
    noise = std * jnp.matmul(
        draws, jnp.asarray(scale.T, images.dtype), precision=jax.lax.Precision.HIGHEST
    )
    return jnp.asarray(images) + noise[:, None, None, :]


def color_jitter(
    key: PRNGKeyArray,
    images: Images,
    strength: float | Float[Array, ''] = 0.5,
) -> Float[Array, 'n h w c']:
    """Change contrast, brightness and saturation of every image, each by a separate factor.

    The factors are uniform in [1 - strength, 1 + strength]. An image is interpolated with its mean
    gray value, with black, and with its grayscale version, one after another, and clipped to [0, 1]
    at the end.

    Args:
      key: Random key of the factors.
      images: Red, green and blue in [0, 1].
      strength: Largest relative change, 0 to 1.

    Raises:
      ValueError: The number of channels is not 3.

    References:
      Howard 2013, section 2.2, which Szegedy et al. 2015 follow.
    """
    _check_rgb(images)
    factors = jax.random.uniform(
        key, (3, len(images), 1, 1, 1), images.dtype, 1 - strength, 1 + strength
    )
    mean = jnp.mean(_luma(images), (1, 2, 3), keepdims=True)
    images = (mean + factors[0] * (images - mean)) * factors[1]
    gray = _luma(images)
    return jnp.clip(gray + factors[2] * (images - gray), 0, 1)


def _luma(images):
    weights = jnp.array(LUMA, images.dtype)
    return jnp.sum(images * weights[None, None, None, :], -1, keepdims=True)


def _check_rgb(images):
    if images.shape[-1] != 3:
        raise ValueError(
            f'expected images with 3 channels (red, green, blue), got {images.shape[-1]}'
        )
