"""Sparse autoencoder with a KL penalty on mean activations (Ng, CS294A lecture notes, 2011).

64-25-64 logistic units on 10,000 patches of whitened images, clipped at 3 standard deviations and
mapped to [.1, .9], trained by L-BFGS on the whole set, because the penalty is on the mean over the data.

Run:      python -m experiments.autoencoders.sparse_kl
          python -m experiments.autoencoders.sparse_kl --preset ufldl --manual_dir PATH
Hardware: one core (AMD EPYC), 10 seconds
Results:  after 400 iterations; oriented: the largest fraction of a filter's spectral energy in a wedge of
          45 degrees (0.25 without orientation), median over filters

          | images               | cost   | mean activations (target 0.01) | oriented |
          |----------------------|--------|--------------------------------|----------|
          | UFLDL (olshausen)    | 0.4464 | 0.0109 to 0.0113               | 0.65     |
          | SciPy's L-BFGS-B     | 0.4520 to 0.4538 | 0.0110 to 0.0116     | 0.52 to 0.58 |
          | photos               | 0.3431 | 0.0100 to 0.0111               | 0.70     |
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from lecture4 import train
from lecture4.autoencoder import network, sparse
from lecture4.data.images import crops, load_images, whiten
from lecture4.features import orientation


@dataclasses.dataclass(frozen=True)
class Config(train.ImageOptions):
    # Number of L-BFGS iterations.
    steps: train.AtLeast1 = 400
    steps_per_call: train.AtLeast1 = 20
    # Source of images: photos (whitened here), olshausen (whitened by their authors), dir:PATH, ...
    source: str = 'photos'
    # Whiten whole images first, as Olshausen & Field did.
    whiten: bool = True
    # Size of the patches.
    patch_size: train.AtLeast1 = 8
    # Number of patches; every step uses all of them.
    batch_size: train.AtLeast1 = 10_000
    # Number of latent units.
    latent_dim: train.AtLeast1 = 25
    # Target mean activation of every unit.
    target: train.InsideUnit = 0.01
    # Weight of the KL divergence from the target.
    kl_penalty: train.NonNegative = 3.0
    # Weight decay.
    weight_decay: train.NonNegative = 1e-4
    # Number of past steps stored by L-BFGS.
    memory_size: train.AtLeast1 = 20


METRICS = (
    train.Metric(
        'cost',
        '',
        'lower',
        'cost',
        primary=True,
        depends_on=(
            'target',
            'kl_penalty',
            'weight_decay',
        ),
    ),
    train.Metric(
        'loss',
        '',
        'lower',
        'cost during training',
        depends_on=(
            'target',
            'kl_penalty',
            'weight_decay',
        ),
    ),
    train.Metric('reconstruction', '', 'lower', 'squared error / 2'),
    train.Metric('half_variance', '', '', 'variance / 2 of the data'),
    train.Metric('mean_activation', '', '', 'mean activation'),
    train.Metric('oriented', 'fraction', 'higher', 'spectral energy in one wedge'),
)
PRESETS = {
    'smoke': {'steps': 20, 'batch_size': 400},
    'ufldl': {'source': 'olshausen', 'whiten': False},
}
SWEEPS = {
    'target': train.grid(target=(0.01, 0.05, 0.2), seed=(0, 1, 2)),
    'seeds': train.grid(seed=(0, 1, 2)),
}


def data(config):
    images = load_images(config.source, **config.data_kwargs()).images
    if config.whiten:
        images = whiten.whiten(images)
    x = crops.sample_patches(images, config.batch_size, config.patch_size, config.seed)
    x = x - x.mean(1, keepdims=True)
    bound = 3 * x.std()
    x = (np.clip(x, -bound, bound) / bound + 1) * 0.4 + 0.1
    return train.full_batch(x, spec=train.Spec(x.shape[1:], constants={'bound': float(bound)}))


def kl_loss(config, params, x):
    return sparse.kl_loss(
        params,
        x,
        target=config.target,
        kl_weight=config.kl_penalty,
        weight_decay=config.weight_decay,
    )


def build(config, spec):
    def init(key, x):
        (d,), k = spec.shape, config.latent_dim
        params = network.init_autoencoder(key, (d, k))
        # The exercise's half-width, sqrt(6 / (d + k + 1)), is Glorot's except for the 1.
        return jax.tree.map(lambda w: w * ((d + k) / (d + k + 1)) ** 0.5, params)

    def loss(params, x):
        return kl_loss(config, params, x)[0]

    return train.lbfgs(init, loss, memory_size=config.memory_size)


def apply(config, spec):
    def encode(state, patches):
        return sparse.kl_encode(state.params, patches)

    return {'encode': encode}


def report(config, state, data):
    from lecture4.figures import dictionary, lines

    x, shape = jnp.asarray(data.device_arrays), (config.patch_size, config.patch_size)
    cost, parts = kl_loss(config, state.params, x)
    mean = np.asarray(sparse.kl_encode(state.params, x).mean(0))
    weight = np.asarray(state.params.encoder[0].weight)
    half_variance = 0.5 * ((x - x.mean(0, keepdims=True)) ** 2).sum(1).mean()
    record = {
        'images': config.source,
        'cost': cost,
        'reconstruction': parts['reconstruction'],
        'half_variance': half_variance,
        'oriented': orientation.median_oriented(weight, shape),
    }
    activations = [
        {'units': 'least active', 'mean_activation': mean.min()},
        {'units': 'most active', 'mean_activation': mean.max()},
    ]
    return train.Report(
        metrics={'cost': cost},
        tables=(
            train.Table('After training', (record,), ('images',), caption=orientation.CAPTION),
            train.Table('Mean activations', activations, ('units',)),
        ),
        figures={
            'filters': train.Figure(
                dictionary.atoms(weight, shape, columns=5, width=3.5),
                'Input of norm 1 that activates each unit most: its normalized weights.',
            ),
            'activations': train.Figure(
                lines.single(
                    'Mean activations',
                    {'units': (np.arange(1, len(mean) + 1), np.sort(mean)[::-1])},
                    xlabel='unit, by rank',
                    ylabel='mean activation',
                    lines={f'target {config.target:g}': config.target},
                ),
                f'Mean activations of all units; the target is {config.target:g}.',
            ),
        },
        summary=f'Cost {cost:.4f} after {config.steps} iterations, '
        f'{1 - parts["reconstruction"] / half_variance:.0%} of the variance explained; mean activations '
        f'{mean.min():.4f} to {mean.max():.4f} for a target of {config.target}.',
    )


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
