"""Whitening of whole images in the Fourier domain, before patches are sampled, and of patches."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from lecture4.data.dataset import Dataset, Images
from lecture4.data.images.crops import sample_patches, trim
from lecture4.data.images.loading import load_images
from lecture4.ops import linalg, patches


def load_whitened(
    source: str,
    *,
    is_white: bool = False,
    cutoff: float = 0.39,
    margin: int = 0,
    **data_kwargs: Any,
) -> Dataset:
    """The training images of a source, whitened and without their borders.

    Args:
      source: As in `load_images`.
      is_white: Whether they are already whitened, and only standardized here.
      cutoff: As in `whiten`.
      margin: Number of pixels to leave out along the borders, where whitening is unreliable.
      **data_kwargs: Options of `load_images`.

    Returns:
      Images with mean 0 and variance 1 before their borders are removed, as a tuple; labels and class names if the
      source has them.

    Raises:
      DataError: As in `load_images` and `crops.trim`.
    """
    dataset = load_images(source, **data_kwargs)
    white = standardize(dataset.images) if is_white else whiten(dataset.images, cutoff)
    return dataset._replace(images=trim(white, margin))


def whiten(images: Images, cutoff: float = 0.39) -> list[Float32[np.ndarray, '_h _w 1']]:
    """Filter each image by |f| exp(-(|f| / cutoff)^4), and scale it to variance 1.

    Natural images have amplitudes that decrease about as 1 / |f|: the first factor makes them constant, the second
    removes the corners of the spectrum, which contain the pixel grid and noise. The mean is removed, and with it the
    zero frequency. An image is treated as periodic: a band of about 1 / cutoff pixels along its border is unreliable.

    Args:
      images: Float [n, h, w, 1], or a sequence of [h, w, 1].
      cutoff: > 0, in cycles per pixel (Nyquist's is 0.5).

    Returns:
      Images [h, w, 1]; a constant image becomes zero.

    Raises:
      ValueError: The cutoff is not positive, or the images have another shape.

    References:
      Olshausen & Field 1997, section 4, with cutoff 200 cycles per image of 512 pixels.
    """
    if not cutoff > 0:
        raise ValueError(f'expected a positive cutoff in cycles per pixel, got {cutoff}')
    whitened = []
    for i, image in enumerate(images):
        if image.ndim != 3 or image.shape[2] != 1:
            raise ValueError(
                f'image {i}: expected shape [height, width, 1], got {image.shape}; use to_grayscale'
            )
        h, w = image.shape[:2]
        frequency = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None, :])
        response = frequency * np.exp(-((frequency / cutoff) ** 4))
        filtered = np.fft.irfft2(np.fft.rfft2(image[:, :, 0]) * response, (h, w))
        std = filtered.std()
        # Rounding errors of a constant image are not amplified.
        constant = std <= 1e-6 * max(float(np.abs(image).max()), 1e-30)
        filtered = np.zeros_like(filtered) if constant else filtered / std
        whitened.append(filtered.astype(np.float32)[:, :, None])
    return whitened


def standardize(images: Images) -> list[Float[np.ndarray, '_h _w _c']]:
    """Each image minus its mean, divided by its standard deviation, for sets that are already whitened.

    Args:
      images: Float [n, h, w, c], or a sequence of [h, w, c]; a constant image becomes zero.
    """
    centered = [image - image.mean() for image in images]
    return [image / (image.std() or 1) for image in centered]


def whitened_patches(
    images: Images,
    num_patches: int,
    patch_size: int,
    seed: int,
    *,
    contrast_epsilon: float,
    zca_epsilon: float,
) -> tuple[Float[Array, '{num_patches} d'], linalg.Affine]:
    """Random patches, contrast-normalized and whitened by their covariance.

    Args:
      images: As in crops.sample_patches.
      num_patches: As in crops.sample_patches.
      patch_size: As in crops.sample_patches.
      seed: As in crops.sample_patches.
      contrast_epsilon: As in ops.patches.normalize_contrast.
      zca_epsilon: As in ops.linalg.zca.

    Returns:
      The patches, and the affine map that whitens contrast-normalized patches.

    Raises:
      DataError: As in crops.sample_patches.
    """
    raw = jnp.asarray(sample_patches(images, num_patches, patch_size, seed))
    normalized = patches.normalize_contrast(raw, contrast_epsilon)
    whitening = linalg.zca(normalized, zca_epsilon)
    return linalg.apply(whitening, normalized), whitening
