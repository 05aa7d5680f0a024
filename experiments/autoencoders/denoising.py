"""A denoising autoencoder denoises images it was not trained on (Vincent et al., ICML 2008).

Patches of photographs are corrupted at random in every batch; the target is the clean patch. Held-out photographs are
denoised patch by patch, and overlapping patches are averaged. Baselines: the best linear denoiser, C (C + s^2 I)^-1,
to which a linear denoising autoencoder converges, and non-local means of scikit-image (Gaussian noise) or a 3 x 3
median (other noise).

Run:      python -m experiments.autoencoders.denoising
          python -m experiments.autoencoders.denoising --corruption salt_and_pepper --level 0.2
Hardware: one core (AMD EPYC), 1 minute
Results:  Gaussian noise of standard deviation 0.1 on two held-out photographs

          | method          | PSNR, dB |
          |-----------------|----------|
          | noisy           | 20.00    |
          | linear          | 25.83    |
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
from lecture4.autoencoder import denoising, image_denoising, network
from lecture4.data import images
from lecture4.data.images import crops
from lecture4.ops.losses import squared_error
from lecture4.ops.resize import center_crop

NUM_FILTERS = 100  # drawn


@dataclasses.dataclass(frozen=True)
class Config(train.ImageOptions):
    steps: train.AtLeast1 = 6000
    batch_size: train.AtLeast1 = 256
    # Source of images: photos, textures, dir:PATH, npz:PATH, csv:PATH.
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
    # Dimensions of the encoder's layers, the latent dimension last; the decoder mirrors them.
    hidden_dims: train.Ints = (256, 256)
    # Peak learning rate, with cosine decay to 0.
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
    'smoke': {'steps': 20, 'num_patches': 1000, 'hidden_dims': (32,), 'crop_size': 32}
    | {'num_eval': 1},
}
SWEEPS = {
    'level': train.grid(level=(0.05, 0.1, 0.2)),
    'hidden_dims': train.grid(hidden_dims=((64,), (256,), (256, 256)), seed=(0, 1)),
}


def data(config):
    loaded, n = images.load_images(config.source, **config.data_kwargs()).images, config.num_eval
    if n >= len(loaded):
        raise ValueError(
            f'--num_eval {n} of {len(loaded)} images of {config.source} leaves no training images; use at '
            f'most {len(loaded) - 1}'
        )
    training, held_out = loaded[:-n], loaded[-n:]
    x = crops.sample_patches(training, config.num_patches, config.patch_size, config.seed)
    size = min(config.crop_size, *(min(image.shape[:2]) for image in held_out))
    if config.patch_size > size:
        raise ValueError(
            f'--patch_size {config.patch_size} does not fit images to denoise of {size} pixels'
        )
    clean = np.stack([center_crop(image, size) for image in held_out])
    corrupt = denoising.corruption(config.corruption, config.level)
    noisy = np.asarray(corrupt(jax.random.key(config.seed), jnp.asarray(clean)))
    return train.in_memory(
        x,
        config.batch_size,
        seed=config.seed,
        evaluation=crops.sample_patches(held_out, 2000, config.patch_size, config.seed),
        spec=train.Spec(x.shape[1:]),
        report_data=(clean, noisy),
    )


def encode(params, noisy):
    """Codes of patches with their means subtracted."""
    centered = noisy - jnp.mean(noisy, axis=-1, keepdims=True)
    return network.encode(params, centered, jax.nn.relu, jax.nn.relu)


def reconstruct(params, noisy):
    """Reconstructed clean patches; the mean of each is that of the noisy patch."""
    mean = jnp.mean(noisy, axis=-1, keepdims=True)
    return mean + network.decode(params, encode(params, noisy), jax.nn.relu)


def build(config, spec):
    corrupt = denoising.corruption(config.corruption, config.level)
    emphasis = None if config.emphasis == (1.0, 1.0) else config.emphasis

    def init(key, x):
        return network.init_autoencoder(key, (*spec.shape, *config.hidden_dims), scale='he')

    def loss(params, x, key):
        denoise = functools.partial(reconstruct, params)
        losses = denoising.loss(denoise, squared_error, corrupt, x, key, emphasis=emphasis)
        return jnp.mean(losses), {}

    def evaluate(params, x):
        noisy = corrupt(jax.random.key(1), x)  # the same noise at all evaluations
        return {'error': jnp.mean(squared_error(x, reconstruct(params, noisy)))}

    schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    return train.optimize(init, loss, optax.adam(schedule), evaluate)


def apply(config, spec):
    def denoise(params, noisy):
        denoiser = functools.partial(reconstruct, params)
        return image_denoising.denoise_images(noisy, config.patch_size, denoiser)

    return train.on_params({'encode': encode, 'reconstruct': reconstruct, 'denoise': denoise})


def report(config, state, data):
    from lecture4.figures import dictionary
    from lecture4.figures import images as drawn

    (clean, noisy), x = data.report_data, np.asarray(data.device_arrays)
    corrupt = denoising.corruption(config.corruption, config.level)
    corrupted = np.asarray(corrupt(jax.random.key(2), jnp.asarray(x)))
    denoisers = {
        'linear': image_denoising.best_linear(x, corrupted),
        'autoencoder': functools.partial(reconstruct, state.params),
    }
    settings = {name: getattr(config, name) for name in ('patch_size', 'corruption', 'level')}
    records, results = image_denoising.compare(clean, noisy, denoisers, **settings)
    means = {r['method']: r['mean_psnr'] for r in records if 'mean_psnr' in r}
    ours = means['autoencoder']
    start = clean.shape[1] // 3
    part = slice(start, start + 72)
    columns = {'clean': clean, **results}
    shown = [v[i, part, part] for i in range(len(clean)) for v in columns.values()]
    rows = [f'image {i + 1}' for i in range(len(clean))]
    options = {'row_labels': rows, 'column_labels': list(columns), 'width': 9.0}
    figures = {
        'denoised': train.Figure(
            drawn.grid(np.stack(shown), len(columns), **options),
            'Parts of the held-out images: clean, noisy and denoised.',
        ),
        'filters': train.Figure(
            dictionary.atoms(
                state.params.encoder[0].weight[:, :NUM_FILTERS], (config.patch_size,) * 2
            ),
            f'The first {NUM_FILTERS} filters of the encoder, each with its own scale.',
        ),
    }
    title = 'PSNR of held-out images'
    caption = f'Corruption {config.corruption} of level {config.level}, pixels in [0, 1].'
    table = train.Table(title, records, ('method',), caption=caption, pivot='image')
    summary = (
        f'PSNR of the autoencoder relative to the noisy images {ours - means["noisy"]:+.2f} dB, '
        f'relative to the best linear denoiser {ours - means["linear"]:+.2f} dB.'
    )
    return train.Report({'mean_psnr': ours}, (table,), figures, summary)


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
