"""Random changes of a batch of pictures, on the device: pure functions of (key, batch).

Each is drawn anew for every picture of the batch, and may be called inside a compiled step (as
`Data.prepare` is). Pictures are floats [n, h, w, c]; sizes are static, so nothing is compiled twice.
"""

import jax
import jax.numpy as jnp
import numpy as np

from lecture4.data.images.crops import LUMA
from lecture4.ops import resize

# Of the covariance of ImageNet's red, green and blue on [0, 1]: a column of VECTORS for each of VALUES.
# As fb.resnet.torch publishes them; Krizhevsky et al. do not print theirs.
VALUES = (0.2175, 0.0188, 0.0045)
VECTORS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)
ATTEMPTS = 10  # boxes that are tried before the largest one in the middle is taken


def flip(key, images):
    """Every picture mirrored left to right with probability 1/2.

    Shapes  images [n, h, w, c] -> the same.
    """
    mirrored = jax.random.bernoulli(key, shape=(len(images), 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)


def random_crop(key, images, side: int):
    """A part of side x side of every picture, all positions equally likely.

    Shapes  images [n, h, w, c] -> [n, side, side, c].
    Errors  ValueError where a side of the pictures is below `side`.
    """
    n, h, w, channels = images.shape
    if not 1 <= side <= min(h, w):
        raise ValueError(
            f'pictures of {h} x {w} have no crop of {side} x {side}; use 1 to {min(h, w)}'
        )
    corners = jax.random.randint(key, (n, 2), 0, jnp.array([[h - side + 1, w - side + 1]]))

    def cut(image, corner):
        return jax.lax.dynamic_slice(image, (*corner, 0), (side, side, channels))

    return jax.vmap(cut)(images, corners)


def pad_and_crop(key, images, padding: int = 4):
    """Every picture shifted by up to `padding` pixels each way; zeros move in.

    Zeros are to be the mean colour, so normalise first.
    Shapes  square images [n, s, s, c] -> the same.
    Errors  ValueError where the pictures are not square.
    Source  He et al. 2016, section 4.2.
    """
    _, h, w, _ = images.shape
    if h != w:
        raise ValueError(f'pictures of {h} x {w}; crop them square first')
    border = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return random_crop(key, jnp.pad(images, border), h)


def scale_jitter(key, images, side: int, low: int, high: int):
    """Every picture's shorter side brought to a length from low to high, then a part of side x side.

    All whole lengths and all positions are equally likely.
    Shapes  images [n, h, w, c] -> [n, side, side, c].
    Errors  ValueError unless side <= low <= high.
    Source  Simonyan & Zisserman 2015, section 3.1; He et al. 2016 with 256 to 480.
    """
    return resize.crop_and_resize(images, *jittered_boxes(key, images.shape, side, low, high), side)


def jittered_boxes(key, shape, side: int, low: int, high: int):
    """The boxes of `scale_jitter` in pictures of shape (n, h, w, ...): corners and sizes [n, 2]."""
    if not 1 <= side <= low <= high:
        raise ValueError(f'lengths from {low} to {high} for a crop of {side}; a crop has to fit')
    n, h, w = shape[:3]
    length_key, place_key = jax.random.split(key)
    lengths = jax.random.randint(length_key, (n, 1), low, high + 1).astype(jnp.float32)
    sizes = jnp.broadcast_to(side * min(h, w) / lengths, (n, 2))
    return _places(place_key, sizes, h, w), sizes


def inception_crop(key, images, side: int, area=(0.08, 1.0), aspect=(3 / 4, 4 / 3)):
    """A box of random area and shape of every picture, stretched to side x side.

    The area is uniform, a share of the picture's; the logarithm of the aspect, width / height, is
    uniform too, so that wide and high boxes are equally likely. A box that does not fit is drawn
    again; after ATTEMPTS the largest of an allowed aspect in the middle is taken.
    Shapes  images [n, h, w, c] -> [n, side, side, c].
    Source  Szegedy et al. 2015, section 6; the drawing anew is torchvision's.
    """
    return resize.crop_and_resize(images, *inception_boxes(key, images.shape, area, aspect), side)


def inception_boxes(key, shape, area=(0.08, 1.0), aspect=(3 / 4, 4 / 3)):
    """The boxes of `inception_crop` in pictures of shape (n, h, w, ...): corners and sizes [n, 2]."""
    n, h, w = shape[:3]
    area_key, aspect_key, place_key = jax.random.split(key, 3)
    draws = (n, ATTEMPTS)
    areas = h * w * jax.random.uniform(area_key, draws, minval=area[0], maxval=area[1])
    low, high = np.log(aspect)
    aspects = jnp.exp(jax.random.uniform(aspect_key, draws, minval=low, maxval=high))
    tried = jnp.stack([jnp.sqrt(areas / aspects), jnp.sqrt(areas * aspects)], -1)
    fits = (tried[..., 0] <= h) & (tried[..., 1] <= w)
    first = jnp.take_along_axis(tried, jnp.argmax(fits, 1)[:, None, None], 1)[:, 0]
    shape = min(max(w / h, aspect[0]), aspect[1])
    largest = jnp.array([[min(h, w / shape), min(w, h * shape)]], jnp.float32)
    fitted = jnp.any(fits, 1, keepdims=True)
    sizes = jnp.where(fitted, first, largest)
    middle = (jnp.array([[h, w]], jnp.float32) - sizes) / 2
    return jnp.where(fitted, _places(place_key, sizes, h, w), middle), sizes


def _places(key, sizes, h, w):
    """Uniform upper left corners [n, 2] of boxes of these sizes inside h x w."""
    free = jnp.maximum(jnp.array([[h, w]], sizes.dtype) - sizes, 0)
    return free * jax.random.uniform(key, sizes.shape, sizes.dtype)


def colour_noise(key, images, deviation: float = 0.1):
    """One colour added to all pixels of a picture, along the principal components of ImageNet's colours.

    The colour is VECTORS @ (a * VALUES) with a ~ N(0, deviation^2) thrice, so that its covariance is
    deviation^2 * VECTORS @ diag(VALUES^2) @ VECTORS'.
    Shapes  images [n, h, w, 3], red green blue on [0, 1] -> the same, not clipped.
    Errors  ValueError for other than 3 channels.
    Source  Krizhevsky et al. 2012, section 4.1.
    """
    _three(images)
    scale = np.asarray(VECTORS) * np.asarray(VALUES)
    draws = jax.random.normal(key, (len(images), 3), images.dtype)
    noise = deviation * jnp.matmul(
        draws, jnp.asarray(scale.T, images.dtype), precision=jax.lax.Precision.HIGHEST
    )
    return images + noise[:, None, None, :]


def colour_jitter(key, images, strength: float = 0.5):
    """Contrast, brightness and saturation of every picture changed, each by a factor of its own.

    The factors are uniform in [1 - strength, 1 + strength]. A picture is drawn towards its mean grey
    value, black, and its grey picture, one after another, and clipped to [0, 1] at the end.
    Shapes  images [n, h, w, 3], red green blue on [0, 1] -> the same.
    Errors  ValueError for other than 3 channels.
    Source  Howard 2013, section 2.2, which Szegedy et al. 2015 follow.
    """
    _three(images)
    factors = jax.random.uniform(
        key, (3, len(images), 1, 1, 1), images.dtype, 1 - strength, 1 + strength
    )
    mean = jnp.mean(_grey(images), (1, 2, 3), keepdims=True)
    images = (mean + factors[0] * (images - mean)) * factors[1]
    grey = _grey(images)
    return jnp.clip(grey + factors[2] * (images - grey), 0, 1)


def _grey(images):
    weights = jnp.array(LUMA, images.dtype)
    return jnp.sum(images * weights[None, None, None, :], -1, keepdims=True)


def _three(images):
    if images.shape[-1] != 3:
        raise ValueError(f'pictures of {images.shape[-1]} channels; red, green and blue are wanted')
