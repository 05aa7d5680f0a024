"""Sets of pictures spoiled and recovered through a dictionary: what `recovery` reaches, in PSNR.

Pictures are grey [h, w] with values in [0, 1], of any sizes; noise and holes are functions of the
seed and the picture's place in the set. Recovered pictures are cut off at 0 and 1 before they are
measured, as papers do.
"""

import concurrent.futures
import functools

import jax
import jax.numpy as jnp
import numpy as np

from lecture4.ops import linalg, metrics
from lecture4.sparse import parallel_encode, recovery

LEVELS = 255  # noise is given in steps of 8 bits


def clipped_psnr(recovered, reference):
    """PSNR in dB of one recovered image, clipped to [0, 1]. A float."""
    return float(metrics.psnr(jnp.clip(recovered, 0, 1), reference))


def mean_psnr(found, truth):
    """Mean PSNR in dB over pictures. A float."""
    return float(np.mean([clipped_psnr(f, t) for f, t in zip(found, truth, strict=True)]))


def noisy(images, sigma, seed):
    """The pictures with white Gaussian noise of standard deviation sigma / 255, not cut off."""
    return [
        jnp.asarray(
            image
            + sigma / LEVELS * np.random.default_rng((seed, i, sigma)).standard_normal(image.shape),
            jnp.float32,
        )
        for i, image in enumerate(images)
    ]


def holed(images, share, seed):
    """The pictures with that share of pixels, chosen by chance, missing: NaN there."""
    return [
        np.where(
            np.random.default_rng((seed, i, round(1000 * share))).uniform(size=image.shape) < share,
            np.nan,
            image,
        ).astype(np.float32)
        for i, image in enumerate(images)
    ]


def denoise(images, D, sigma, gain, *, size, stride=1):
    """recovery.denoise of every picture; D is one dictionary, or one for each picture."""
    run = jax.jit(functools.partial(recovery.denoise, size=size, stride=stride))
    own = D if isinstance(D, list) else [D] * len(images)
    return _each(lambda image, D: run(image, D, sigma / LEVELS, gain=gain), images, own)


def adapt(images, D, sigma, *, size, weight, n_steps, seed, batch_size=1024):
    """For every noisy picture the dictionary D learned further on its own patches: a list of D's.

    weight  of the L1 penalty, in standard deviations of the noise.
    Source  Elad & Aharon 2006, section IV; with L1 codes and online steps instead of K-SVD.
    """

    @jax.jit
    def learn(key, image, sigma):
        signals = recovery.cut(image, size)
        signals = signals - jnp.mean(signals, axis=1, keepdims=True)
        return recovery.learn(
            key, signals, D.shape[1], weight=weight * sigma, n_steps=n_steps,
            batch_size=batch_size, init=D,
        )  # fmt: skip

    keys = [jax.random.fold_in(jax.random.key(seed), i) for i in range(len(images))]
    return _each(lambda key, image: learn(key, image, sigma / LEVELS), keys, images)


def gain_curve(images, D, sigma, gains, *, size, seed, stride=1):
    """Mean PSNR for every gain, of clean pictures that are spoiled for it: a list of floats.

    Pictures to choose a gain by must be others than those it is judged on.
    """
    spoiled = noisy(images, sigma, seed)
    return [
        mean_psnr(denoise(spoiled, D, sigma, gain, size=size, stride=stride), images)
        for gain in gains
    ]


def inpaint(images, D, weight, *, size, stride=1):
    """recovery.inpaint of every picture; what is NaN is missing."""
    run = jax.jit(functools.partial(recovery.inpaint, size=size, stride=stride))
    return _each(lambda image: run(jnp.asarray(image), ~np.isnan(image), D, weight), images)


def _each(run, *lists):
    """Results for every picture, on a CPU as many at a time as it has cores; see encode.over_devices."""
    n_threads = parallel_encode.n_cores() if jax.default_backend() == 'cpu' else 1
    with concurrent.futures.ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(lambda *given: jax.block_until_ready(run(*given)), *lists))


def compress(images, D, signals, counts, *, size):
    """PSNR of pictures of which every patch is stored by its mean and few numbers.

    By a learned dictionary D with orthogonal matching pursuit, by the largest coefficients in the
    principal components of `signals` [n, size^2], and by those in the cosine basis.
    Returns {name: PSNR [len(counts), len(images)]}.
    """
    components = linalg.pca(jnp.asarray(signals), size * size - 1)[0].matrix
    cosines = recovery.cosines(size)
    kinds = {
        'learned': jax.jit(
            lambda x, n: recovery.pursue(x, D, 0.0, max_atoms=n)[0], static_argnames='n'
        ),
        'PCA': lambda x, n: recovery.largest(x, components, n),
        'DCT': lambda x, n: recovery.largest(x, cosines, n),
    }
    found = {name: np.zeros((len(counts), len(images))) for name in kinds}
    for name, approximate in kinds.items():
        for i, n in enumerate(counts):
            few = functools.partial(approximate, n=n)
            for j, image in enumerate(images):
                found[name][i, j] = clipped_psnr(
                    *recovery.store(jnp.asarray(image), few, size=size)
                )
    return found
