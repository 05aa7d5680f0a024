"""Sets of images, corrupted and recovered with a dictionary: the PSNR of `recovery`.

Images are grayscale [h, w] with values in [0, 1], of any sizes; noise and missing pixels are
functions of the seed and the image's index in the set. Recovered images are clipped to [0, 1] before PSNR is
computed, as in papers.
"""

import functools
import logging
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Real

from lecture4.ops import cores, linalg, metrics
from lecture4.sparse import recovery
from lecture4.sparse.solvers.automatic import platform_of

LOG = logging.getLogger(__name__)
GRAY_LEVELS = 255  # noise levels are in units of 8-bit pixel values

Image = Float[Array | np.ndarray, '_ _']
Restored = dict[str, Sequence[Image]]  # method -> images

# Mean PSNR in dB over whole test sets by standard deviation of the noise. BSD68: README of
# github.com/cszn/DnCNN (Zhang et al. 2017); Set12: Liang et al. 2021 (SwinIR), table 2.
PUBLISHED_DENOISING = {
    'bsd68': {
        'BM3D': {15: 31.07, 25: 28.57, 50: 25.62},
        'DnCNN': {15: 31.73, 25: 29.23, 50: 26.23},
    },
    'set12': {
        'BM3D': {15: 32.37, 25: 29.97, 50: 26.72},
        'DnCNN': {15: 32.86, 25: 30.44, 50: 27.18},
    },
}


def published_denoising(test_set: str, noise_stds: Sequence[int]) -> list[dict[str, Any]]:
    """Published results on a whole test set as records like those of `measure_denoising`.

    Args:
      test_set: 'bsd68' or 'set12'; there are no records for others.
      noise_stds: Standard deviations of the noise for pixels in 0..255.
    """
    return [
        {
            'task': 'denoising',
            'method': f'{name} (published)',
            'sigma': noise_std,
            'psnr': row[noise_std],
        }
        for name, row in PUBLISHED_DENOISING.get(test_set, {}).items()
        for noise_std in noise_stds
        if noise_std in row
    ]


def clipped_psnr(recovered: Image, reference: Image) -> float:
    """PSNR in dB of one recovered image, clipped to [0, 1]."""
    return float(metrics.psnr(jnp.clip(recovered, 0, 1), reference))


def mean_psnr(recovered: Sequence[Image], reference: Sequence[Image]) -> float:
    """Mean PSNR in dB over images, each clipped to [0, 1]."""
    return float(np.mean([clipped_psnr(r, t) for r, t in zip(recovered, reference, strict=True)]))


def add_noise(images: Sequence[Image], noise_std: int, seed: int) -> list[Float[Array, '_ _']]:
    """The images with white Gaussian noise of standard deviation noise_std / 255, not clipped."""
    return [
        jnp.asarray(
            image
            + noise_std
            / GRAY_LEVELS
            * np.random.default_rng((seed, i, noise_std)).standard_normal(image.shape),
            jnp.float32,
        )
        for i, image in enumerate(images)
    ]


def remove_pixels(
    images: Sequence[Image], fraction: float, seed: int
) -> list[Float[np.ndarray, '_ _']]:
    """The images with a random fraction of the pixels missing, as NaN."""
    return [
        np.where(
            np.random.default_rng((seed, i, round(1000 * fraction))).uniform(size=image.shape)
            < fraction,
            np.nan,
            image,
        ).astype(np.float32)
        for i, image in enumerate(images)
    ]


def denoise(
    images: Sequence[Image],
    D: Any,
    noise_std: int,
    gain: float,
    *,
    patch_size: int,
    stride: int = 1,
) -> list[Float[Array, '_ _']]:
    """recovery.denoise of every image.

    Args:
      images: Noisy images.
      D: One dictionary [patch_size^2, k], or a list with one for each image.
      noise_std: Standard deviation of the noise for pixels in 0..255.
      gain: The argument of recovery.denoise.
      patch_size: Height and width of the patches.
      stride: Distance in pixels between patches.
    """
    dictionaries = D if isinstance(D, list) else [D] * len(images)

    def run(image, D):
        return recovery.denoise(
            image, D, noise_std / GRAY_LEVELS, gain=gain, patch_size=patch_size, stride=stride
        )

    return _map_images(run, images, dictionaries)


def adapt_dictionaries(
    images: Sequence[Image],
    D: Float[Array | np.ndarray, 'd k'],
    noise_std: int,
    *,
    patch_size: int,
    l1_penalty: float,
    n_steps: int,
    seed: int,
    batch_size: int = 1024,
) -> list[Float[Array, 'd k']]:
    """For every noisy image, the dictionary D trained further on the image's patches.

    Args:
      images: Noisy images.
      D: Initial dictionary.
      noise_std: Standard deviation of the noise for pixels in 0..255.
      patch_size: Height and width of the patches.
      l1_penalty: Weight of the l1 penalty in standard deviations of the noise.
      n_steps: Number of steps of online learning.
      seed: Seed of the batches.
      batch_size: Number of patches per step.

    References:
      Elad & Aharon 2006, section IV; with L1 codes and online steps instead of K-SVD.
    """

    @functools.partial(jax.jit, static_argnames='n_atoms')
    def learn(key, image, D, noise_std, n_atoms):
        signals = recovery.extract_signals(image, patch_size)
        signals = signals - jnp.mean(signals, axis=1, keepdims=True)
        return recovery.learn_dictionary(
            key,
            signals,
            n_atoms,
            l1_penalty=l1_penalty * noise_std,
            n_steps=n_steps,
            batch_size=batch_size,
            init=D,
        )

    def run(key, image):
        return learn(key, image, D, noise_std / GRAY_LEVELS, n_atoms=D.shape[1])

    keys = [jax.random.fold_in(jax.random.key(seed), i) for i in range(len(images))]
    return _map_images(run, keys, images)


def gain_curve(
    images: Sequence[Image],
    D: Any,
    noise_std: int,
    gains: Sequence[float],
    *,
    patch_size: int,
    seed: int,
    stride: int = 1,
) -> list[float]:
    """Mean PSNR for every gain, on clean images to which noise is added.

    Choose a gain on images other than those it is evaluated on. Arguments as in `denoise`.
    """
    noisy = add_noise(images, noise_std, seed)
    return [
        mean_psnr(denoise(noisy, D, noise_std, gain, patch_size=patch_size, stride=stride), images)
        for gain in gains
    ]


def inpaint(
    images: Sequence[Image],
    D: Float[Array | np.ndarray, 'd k'],
    l1_penalty: Real[ArrayLike, ''],
    *,
    patch_size: int,
    stride: int = 1,
) -> list[Float[Array, '_ _']]:
    """recovery.inpaint of every image; pixels that are NaN are missing."""

    def run(image):
        known = ~np.isnan(image)
        return recovery.inpaint(
            jnp.asarray(np.where(known, image, 0)),  # no NaN on a device: jax_debug_nans refuses it
            known,
            D,
            l1_penalty,
            patch_size=patch_size,
            stride=stride,
        )

    return _map_images(run, images)


def measure_compression(
    images: Sequence[Image],
    D: Float[Array | np.ndarray, 'd k'],
    signals: Float[Array | np.ndarray, 'n d'],
    counts: Sequence[int],
    *,
    patch_size: int,
) -> tuple[list[dict[str, Any]], dict[str, Float[np.ndarray, '_ _']]]:
    """PSNR of images whose patches are each stored as their mean and few coefficients.

    Methods: a learned dictionary with orthogonal matching pursuit, the largest coefficients in the principal
    components of `signals`, and those in the cosine basis.

    Args:
      images: Images to compress.
      D: The learned dictionary [patch_size^2, k].
      signals: Signals whose principal components are used.
      counts: Numbers of coefficients per patch.
      patch_size: Height and width of the patches.

    Returns:
      Records with the entries task, method, non-zeros and psnr (mean over images), and the values
      {'learned', 'PCA', 'DCT': PSNR in dB [len(counts), len(images)]}.
    """
    components = linalg.pca(jnp.asarray(signals), patch_size * patch_size - 1)[0].matrix
    cosines = recovery.cosine_dictionary(patch_size)
    methods = {
        'learned': jax.jit(
            lambda x, n: recovery.pursue(x, D, 0.0, max_atoms=n)[0], static_argnames='n'
        ),
        'PCA': lambda x, n: recovery.keep_largest(x, components, n),
        'DCT': lambda x, n: recovery.keep_largest(x, cosines, n),
    }
    values = {name: np.zeros((len(counts), len(images))) for name in methods}
    for name, approximate in methods.items():
        for i, n in enumerate(counts):
            few = functools.partial(approximate, n=n)
            for j, image in enumerate(images):
                values[name][i, j] = clipped_psnr(
                    *recovery.compress(jnp.asarray(image), few, patch_size=patch_size)
                )
    records = [
        {'task': 'compression', 'method': name, 'non-zeros': n, 'psnr': psnr.mean()}
        for name, curve in values.items()
        for n, psnr in zip(counts, curve, strict=True)
    ]
    return records, values


def measure_denoising(
    images: Sequence[Image],
    valid: Sequence[Image],
    D: Float[Array, 'd k'],
    noise_stds: Sequence[int],
    *,
    patch_size: int,
    seed: int,
    gains: Sequence[float],
    stride: int = 1,
    cosines: bool = True,
    adapt_steps: int = 0,
    adapt_l1_penalty: float = 1.5,
) -> tuple[list[dict[str, Any]], dict[int, Restored]]:
    """PSNR of noisy images, denoised with several dictionaries and the same gain.

    Args:
      images: Clean images, to which noise is added.
      valid: Other clean images, on which the gain is chosen for each noise level.
      D: Learned dictionary.
      noise_stds: Standard deviations of the noise for pixels in 0..255.
      patch_size: Height and width of the patches.
      seed: Seed of the noise of `images`; the noise of `valid` has seed + 1.
      gains: Candidate gains.
      stride: Distance in pixels between patches.
      cosines: Whether to denoise with a redundant cosine dictionary too.
      adapt_steps: Number of steps of further learning on each noisy image, starting from D; 0 omits this method.
      adapt_l1_penalty: As l1_penalty of `adapt_dictionaries`.

    Returns:
      Records with the entries task, method, sigma and psnr (method 'gain': gain), and the images
      {sigma: {'noisy', 'cosines', 'learned', 'adapted': images}}.
    """
    options = {'patch_size': patch_size, 'stride': stride}
    records, restored = [], {}
    for noise_std in noise_stds:
        curve = gain_curve(valid, D, noise_std, gains, seed=seed + 1, **options)
        gain = gains[int(np.argmax(curve))]
        results: Restored = {'noisy': add_noise(images, noise_std, seed)}
        dictionaries: dict[str, Any] = {}
        if cosines:
            dictionaries['cosines'] = recovery.cosine_dictionary(patch_size, 2 * patch_size)
        dictionaries['learned'] = D
        if adapt_steps:
            dictionaries['adapted'] = adapt_dictionaries(
                results['noisy'],
                D,
                noise_std,
                patch_size=patch_size,
                l1_penalty=adapt_l1_penalty,
                n_steps=adapt_steps,
                seed=seed,
            )
        for name, atoms in dictionaries.items():
            results[name] = denoise(results['noisy'], atoms, noise_std, gain, **options)
        entries = {'task': 'denoising', 'sigma': noise_std}
        for name, recovered in results.items():
            value = mean_psnr(recovered, images)
            LOG.info('noise of %s: %s %.2f dB', noise_std, name, value)
            records.append({**entries, 'method': name, 'psnr': value})
        records.append({**entries, 'method': 'gain', 'gain': gain})
        restored[noise_std] = results
    return records, restored


def measure_inpainting(
    images: Sequence[Image],
    D: Float[Array, 'd k'],
    fractions: Sequence[float],
    l1_penalty: Real[ArrayLike, ''],
    *,
    patch_size: int,
    seed: int,
    stride: int = 1,
) -> tuple[list[dict[str, Any]], dict[float, Restored]]:
    """PSNR of images whose missing pixels are filled in.

    Args:
      images: Complete images, from which pixels are removed.
      D: Learned dictionary.
      fractions: Fractions of pixels that are missing.
      l1_penalty: As in `inpaint`.
      patch_size: Height and width of the patches.
      seed: Seed of the choice of the pixels.
      stride: Distance in pixels between patches.

    Returns:
      Records with the entries method, missing (a percentage as text) and psnr, and the images
      {fraction: {'known', 'inpainted': images}}.
    """
    records, restored = [], {}
    for fraction in fractions:
        known = remove_pixels(images, fraction, seed)
        filled = inpaint(known, D, l1_penalty, patch_size=patch_size, stride=stride)
        value = mean_psnr(filled, images)
        records.append({'method': 'inpainted', 'missing': f'{fraction:.0%}', 'psnr': value})
        restored[fraction] = {'known': known, 'inpainted': filled}
    return records, restored


def _map_images(run, *lists):
    """Results for every image; a CPU processes as many images at a time as it has cores."""
    if platform_of(*lists) != 'cpu':
        return [run(*args) for args in zip(*lists, strict=True)]
    return cores.map_parts(lambda args: run(*args), zip(*lists, strict=True))
