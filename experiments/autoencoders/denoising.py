"""A denoising autoencoder denoises images it was not trained on (Vincent et al., ICML 2008).

Patches of photographs are corrupted again at every visit; the target is the clean patch. Held-out
photographs are denoised patch by patch, the overlaps averaged. Baselines: the best linear denoiser,
C (C + s^2 I)^-1, to which a linear denoising autoencoder converges, and non-local means of scikit-image
(Gaussian noise) or a 3 x 3 median (other noise).

Run:      python -m experiments.autoencoders.denoising
          python -m experiments.autoencoders.denoising --corruption salt_and_pepper --level 0.2
Hardware: one core (AMD EPYC), 1 minute
Results:  Gaussian noise of standard deviation 0.1 on two held-out photographs

          | method          | PSNR, dB |
          |-----------------|----------|
          | noisy           | 20.00    |
          | linear          | 25.84    |
          | non-local means | 27.86    |
          | autoencoder     | 27.98    |
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.autoencoder import denoising, network
from lecture4.data import images
from lecture4.data.images import crops
from lecture4.ops import patches
from lecture4.ops.losses import squared_error
from lecture4.ops.metrics import psnr
from lecture4.ops.resize import center_crop


@dataclasses.dataclass(frozen=True)
class Config(train.Config):
    steps: train.AtLeast1 = 6000
    batch_size: train.AtLeast1 = 256
    # Source of images: photos, textures, dir:PATH, npz:PATH.
    source: str = 'photos'
    # Number of images to denoise, the last ones of the source, excluded from training.
    num_eval: train.AtLeast1 = 2
    # Size of the center crop of each image to denoise.
    crop_size: train.AtLeast1 = 256
    # Size of the patches.
    patch_size: train.AtLeast1 = 8
    # Number of patches to train on.
    num_patches: train.AtLeast1 = 100_000
    # Corruption of the input: additive noise, pixels set to 0, or pixels set to 0 or 1.
    corruption: Literal['gaussian', 'masking', 'salt_and_pepper'] = 'gaussian'
    # Standard deviation of Gaussian noise for pixels in [0, 1], or fraction of pixels corrupted.
    level: train.NonNegative = 0.1
    # Dimensions of the encoder's layers, the latent one last; the decoder mirrors them.
    hidden_dims: train.Ints = (256, 256)
    # Peak learning rate; it falls to 0 along a half cosine.
    learning_rate: train.Positive = 1e-3
    # Weights of the errors of corrupted and of unchanged pixels.
    emphasis: tuple[train.NonNegative, train.NonNegative] = (1.0, 1.0)

    def __post_init__(self):
        super().__post_init__()
        is_level = self.corruption == 'gaussian' or self.level <= 1
        train.require(self, 'level', is_level, f'at most 1 for --corruption {self.corruption}')


METRICS = (
    train.Metric('mean_psnr', 'dB', 'higher', 'mean PSNR', primary=True),
    train.Metric('psnr', 'dB', 'higher', 'PSNR'),
    train.Metric('loss', '', 'lower', 'training error'),
    train.Metric('error', '', 'lower', 'error of held-out patches'),
)
PRESETS = {
    'smoke': {
        'steps': 20,
        'num_patches': 1000,
        'hidden_dims': (32,),
        'crop_size': 32,
        'num_eval': 1,
    },
}
SWEEPS = {
    'level': train.grid(level=(0.05, 0.1, 0.2)),
    'hidden_dims': train.grid(hidden_dims=((64,), (256,), (256, 256)), seed=(0, 1)),
}


def corrupt(config, key, x):
    function = {
        'gaussian': denoising.gaussian,
        'masking': denoising.masking,
        'salt_and_pepper': denoising.salt_and_pepper,
    }[config.corruption]
    return function(key, x, config.level)


def data(config):
    loaded = images.load_images(config.source, **config.data_kwargs()).images
    if config.num_eval >= len(loaded):
        raise ValueError(
            f'--num_eval {config.num_eval} of {len(loaded)} images of {config.source} leaves none '
            f'to train on; use at most {len(loaded) - 1}'
        )
    training, held_out = loaded[: -config.num_eval], loaded[-config.num_eval :]
    x = crops.sample_patches(training, config.num_patches, config.patch_size, config.seed)
    size = min(config.crop_size, *(min(image.shape[:2]) for image in held_out))
    if config.patch_size > size:
        raise ValueError(
            f'--patch_size {config.patch_size} does not fit images to denoise of {size} pixels'
        )
    clean = np.stack([center_crop(image, size) for image in held_out])
    noisy = corrupt(config, jax.random.key(config.seed), jnp.asarray(clean))
    return train.in_memory(
        x,
        config.batch_size,
        seed=config.seed,
        evaluation=crops.sample_patches(held_out, 2000, config.patch_size, config.seed),
        spec=train.Spec(x.shape[1:]),
        report_data={'clean': clean, 'noisy': np.asarray(noisy)},
    )


def encode(params, noisy):
    """Codes of patches less their means."""
    centered = noisy - jnp.mean(noisy, axis=-1, keepdims=True)
    return network.encode(params, centered, jax.nn.relu, jax.nn.relu)


def reconstruct(params, noisy):
    """Clean patches; the mean of each is that of the noisy one."""
    mean = jnp.mean(noisy, axis=-1, keepdims=True)
    return mean + network.decode(params, encode(params, noisy), jax.nn.relu)


def build(config, spec):
    def init(key, x):
        return network.init_autoencoder(key, (*spec.shape, *config.hidden_dims), scale='he')

    def loss(params, x, key):
        losses = denoising.loss(
            functools.partial(reconstruct, params),
            squared_error,
            functools.partial(corrupt, config),
            x,
            key,
            emphasis=None if config.emphasis == (1.0, 1.0) else config.emphasis,
        )
        return jnp.mean(losses), {}

    def evaluate(params, x):
        noisy = corrupt(config, jax.random.key(1), x)  # the same noise at all evaluations
        return {'error': jnp.mean(squared_error(x, reconstruct(params, noisy)))}

    schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    return train.optimize(init, loss, optax.adam(schedule), evaluate)


def apply(config, spec):
    def denoise(state, noisy):
        denoiser = functools.partial(reconstruct, state.params)
        return denoise_images(noisy, config.patch_size, denoiser)

    return {
        'encode': lambda state, x: encode(state.params, x),
        'reconstruct': lambda state, x: reconstruct(state.params, x),
        'denoise': denoise,
    }


def linear_denoiser(config, x):
    """The best linear denoiser of patches less their noisy means, which are kept."""
    noisy = np.asarray(corrupt(config, jax.random.key(2), jnp.asarray(x)), float)
    mean = noisy.mean(1, keepdims=True)
    fit = denoising.best_linear(x - mean, noisy - mean)

    def denoise(noisy):
        mean = jnp.mean(noisy, axis=-1, keepdims=True)
        return mean + fit(noisy - mean)

    return denoise


def denoise_images(noisy, patch_size, denoise):
    """Images [n, h, w, c] of which every patch is denoised and the overlaps are averaged."""
    dense = patches.extract(noisy, patch_size)
    flat = denoise(dense.reshape(-1, dense.shape[-1]))
    return patches.average(flat.reshape(dense.shape), noisy.shape[1:], patch_size)


def classical(config):
    """(name, function) of the usual method without learning for that corruption."""
    if config.corruption != 'gaussian':
        from scipy.ndimage import median_filter

        return 'median', lambda image: median_filter(image, (3, 3, 1))
    from skimage.restoration import denoise_nl_means

    options = {'patch_size': 5, 'patch_distance': 6, 'h': 0.8 * config.level, 'sigma': config.level}
    return 'non-local means', lambda x: denoise_nl_means(x, channel_axis=-1, **options)


def report(config, state, data):
    from lecture4.figures import images as drawn

    clean, noisy = data.report_data['clean'], data.report_data['noisy']
    linear = linear_denoiser(config, np.asarray(data.device_arrays))
    run = jax.jit(denoise_images, static_argnums=(1, 2))
    baseline, baseline_function = classical(config)
    results = {
        'noisy': noisy,
        baseline: np.stack([baseline_function(image).reshape(image.shape) for image in noisy]),
        'linear': np.asarray(run(noisy, config.patch_size, linear)),
        'autoencoder': np.asarray(apply(config, data.spec)['denoise'](state, noisy)),
    }
    records, means = [], {}
    for method, restored in results.items():
        values = np.asarray(psnr(restored.astype(np.float32), clean, axis=(1, 2, 3)))
        means[method] = float(values.mean())
        records += [
            {'method': method, 'image': i + 1, 'psnr': float(v)} for i, v in enumerate(values)
        ]
        records.append({'method': method, 'mean_psnr': means[method]})
    start = clean.shape[1] // 3
    part = slice(start, start + 110)
    shown = np.stack([v[0, part, part] for v in (clean, *results.values())])
    ours = means['autoencoder']
    caption = f'Corruption {config.corruption} of level {config.level}, pixels in [0, 1].'
    return train.Report(
        metrics={'mean_psnr': ours},
        tables=(
            train.Table(
                'PSNR of held-out images', records, ('method',), caption=caption, pivot='image'
            ),
        ),
        figures={
            'denoised': train.Figure(
                drawn.grid(shown, len(shown), width=10, column_labels=['clean', *results]),
                'A part of a held-out image, clean, noisy and denoised.',
            ),
        },
        summary=f'PSNR of the autoencoder less that of the noisy images {ours - means["noisy"]:+.2f} dB, '
        f'less that of the best linear denoiser {ours - means["linear"]:+.2f} dB.',
    )


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
