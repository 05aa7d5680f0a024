"""Denoising of whole images by an autoencoder of patches, and methods to compare it with."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from lecture4.autoencoder import denoising
from lecture4.ops import patches
from lecture4.ops.metrics import psnr

Denoiser = Callable[[Any], Any]  # noisy patches [n, d] -> clean ones


def denoise_images(
    noisy: Float[Array | np.ndarray, 'n h w c'], patch_size: int, denoise: Denoiser
) -> Float[Array, 'n h w c']:
    """Denoise every patch of images, and average overlapping patches.

    Args:
      noisy: Images.
      patch_size: Height and width of the patches.
      denoise: Patches [m, d] -> patches [m, d].

    Raises:
      ValueError: A patch does not fit.
    """
    noisy = jnp.asarray(noisy)
    dense = patches.extract(noisy, patch_size)
    flat = denoise(dense.reshape(-1, dense.shape[-1]))
    return patches.average(flat.reshape(dense.shape), noisy.shape[1:], patch_size)


def best_linear(clean: Shaped[np.ndarray, 'n d'], noisy: Shaped[np.ndarray, 'n d']) -> Denoiser:
    """The best linear denoiser of patches after subtraction of their noisy means, which are added back.

    Args:
      clean: Clean patches to fit the denoiser to.
      noisy: The same patches, corrupted.
    """
    noisy = np.asarray(noisy, float)
    mean = noisy.mean(1, keepdims=True)
    fit = denoising.best_linear(clean - mean, noisy - mean)

    def denoise(noisy):
        mean = jnp.mean(noisy, axis=-1, keepdims=True)
        return mean + fit(noisy - mean)

    return denoise


def classical(
    noisy: Float[np.ndarray, 'n h w c'], corruption: str, level: float
) -> tuple[str, Float[np.ndarray, 'n h w c']]:
    """(name, images) of the standard method without learning for a corruption.

    Non-local means of scikit-image for Gaussian noise, otherwise a 3 x 3 median.

    Args:
      noisy: Images in [0, 1].
      corruption: Name of the corruption, as `denoising.corruption`.
      level: Standard deviation of Gaussian noise.

    References:
      Buades, Coll & Morel 2005 (non-local means).
    """
    if corruption != 'gaussian':
        from scipy.ndimage import median_filter

        return 'median', np.stack([median_filter(image, (3, 3, 1)) for image in noisy])
    from skimage.restoration import denoise_nl_means

    options = {'patch_size': 5, 'patch_distance': 6, 'h': 0.8 * level, 'sigma': level}
    restored = [denoise_nl_means(image, channel_axis=-1, **options) for image in noisy]
    return 'non-local means', np.stack(restored).reshape(noisy.shape)


def compare(
    clean: Float[np.ndarray, 'n h w c'],
    noisy: Float[np.ndarray, 'n h w c'],
    denoisers: Mapping[str, Denoiser],
    *,
    patch_size: int,
    corruption: str,
    level: float,
) -> tuple[list[dict[str, Any]], dict[str, Float[np.ndarray, 'n h w c']]]:
    """PSNR of images denoised by several methods and by the classical one, and of the noisy images.

    Args:
      clean: Images in [0, 1].
      noisy: The same images, corrupted.
      denoisers: Name -> denoiser of patches.
      patch_size: As in `denoise_images`.
      corruption: As in `classical`.
      level: As in `classical`.

    Returns:
      (records, {method: images}): a record per method and image with `method`, `image` (from 1) and
      `psnr` in dB, and one per method with `method` and `mean_psnr`.
    """
    name, restored = classical(noisy, corruption, level)
    results = {'noisy': noisy, name: restored}
    run = jax.jit(denoise_images, static_argnums=(1, 2))
    for name, denoise in denoisers.items():
        results[name] = np.asarray(run(noisy, patch_size, denoise))
    records = []
    for method, images in results.items():
        values = np.asarray(psnr(images.astype(np.float32), clean, axis=(1, 2, 3)))
        records += [
            {'method': method, 'image': i + 1, 'psnr': float(v)} for i, v in enumerate(values)
        ]
        records.append({'method': method, 'mean_psnr': float(values.mean())})
    return records, results
