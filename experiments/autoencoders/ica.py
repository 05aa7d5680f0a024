"""Reconstruction ICA of natural image patches (Le, Karpenko, Ngiam & Ng, NIPS 2011).

A tied linear autoencoder of whitened patches with sparse codes: its reconstruction error replaces the constraint W W'
= I of independent component analysis, and still applies where there are more units than dimensions. Trained by L-BFGS
on the whole set; compared with random directions, principal components and scikit-learn's FastICA, which keeps the
constraint and cannot be overcomplete.

Run:      python -m experiments.autoencoders.ica
          python -m experiments.autoencoders.ica --preset olshausen --manual_dir PATH
          python -m experiments.autoencoders.ica --preset overcomplete
Hardware: one core (AMD EPYC), 25 seconds
Results:  63 units, 200 iterations (not converged): median kurtosis, and spectral energy of a filter in a
          wedge of 45 degrees

          | method             | olshausen  | photos     |
          |--------------------|------------|------------|
          | reconstruction ICA | 8.58, 0.62 | 37.8, 0.74 |
          | random directions  | 6.06, 0.36 | 15.0, 0.35 |
          | PCA                | 6.69, 0.52 | 20.0, 0.54 |
          | FastICA            | 9.84, 0.71 | 45.8, 0.79 |

          olshausen: reconstruction error 0.0637, and from the weights alone, ||W W' - I||^2 + d - k, 0.0636.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from lecture4 import train
from lecture4.autoencoder import linear, rica
from lecture4.data.images import crops, load_images, whiten
from lecture4.features import orientation, selectivity


@dataclasses.dataclass(frozen=True)
class Config(train.ImageOptions):
    # Number of L-BFGS iterations.
    steps: train.AtLeast1 = 200
    steps_per_call: train.AtLeast1 = 20
    # Source of images: photos (whitened here), olshausen (whitened by their authors), dir:PATH, ...
    source: str = 'photos'
    # Whiten whole images first, as Olshausen & Field did.
    whiten: bool = True
    # Size of the patches.
    patch_size: train.AtLeast2 = 8
    # Number of patches; every step uses all of them.
    batch_size: train.AtLeast1 = 10_000
    # Number of units; patches minus their mean have patch_size^2 - 1 dimensions.
    latent_dim: train.AtLeast1 = 63
    # Weight of the sparsity penalty, sum sqrt(epsilon + h^2), relative to the squared error.
    l1_penalty: train.NonNegative = 0.2
    # Smoothing of |h| at zero.
    epsilon: train.Positive = 1e-2
    # Number of past steps stored by L-BFGS.
    memory_size: train.AtLeast1 = 20


METRICS = (
    train.Metric('rica_kurtosis', '', 'higher', 'kurtosis of the units', primary=True),
    train.Metric('kurtosis', '', 'higher', 'kurtosis'),
    train.Metric('oriented', 'fraction', 'higher', 'spectral energy in one wedge'),
    train.Metric('loss', '', 'lower', 'cost', depends_on=('l1_penalty',)),
    train.Metric('reconstruction', '', 'lower', 'reconstruction error'),
    train.Metric('orthonormality', '', 'lower', "||W W' - 1||^2 + d - k"),
    train.Metric('whiteness', '', 'lower', 'largest deviation of the covariance from identity'),
)
PRESETS = {
    'smoke': {'steps': 20, 'batch_size': 600},
    'olshausen': {'source': 'olshausen', 'whiten': False},
    'overcomplete': {'latent_dim': 126},
}
SWEEPS = {
    'latent_dim': train.grid(latent_dim=(32, 63, 126), seed=(0, 1, 2)),
    'seeds': train.grid(seed=(0, 1, 2)),
}


def data(config):
    images = load_images(config.source, **config.data_kwargs()).images
    if config.whiten:
        images = whiten.whiten(images)
    x = crops.sample_patches(images, config.batch_size, config.patch_size, config.seed)
    x = np.asarray(x, np.float64)
    x = x - x.mean(1, keepdims=True)
    principal = linear.principal_components(x)
    rank = int((principal.variances > 1e-6 * principal.variances[0]).sum())
    axes = principal.components[:, :rank]
    # Coordinates along the components, each of variance 1; then rotated back into patches.
    white = principal.encode(x, rank) / np.sqrt(principal.variances[:rank])
    shape = (config.patch_size, config.patch_size, 1)
    spec = train.Spec(shape, constants={'axes': axes, 'scale': np.sqrt(principal.variances[:rank])})
    patches = (white @ axes.T).reshape(-1, *shape).astype(np.float32)
    return train.full_batch(patches, spec=spec, report_data=white)


def cost(config, weights, x):
    """Cost of every patch, and its terms; one receptive field (the whole patch), pools of one unit."""
    stage = rica.Stage(config.patch_size, config.latent_dim, pool_size=1)
    layer = rica.Layer(weights, None)
    return rica.loss(layer, x, stage, sparsity_penalty=config.l1_penalty, epsilon=config.epsilon)


def build(config, spec):
    def init(key, x):
        W = jax.random.normal(key, (1, 1, config.patch_size**2, config.latent_dim))
        return W / jnp.linalg.norm(W, axis=2, keepdims=True)

    def loss(weights, x):
        return jnp.mean(cost(config, weights, x)[0])

    return train.lbfgs(init, loss, memory_size=config.memory_size)


def apply(config, spec):
    axes, scale = (np.asarray(spec.constants[name], np.float32) for name in ('axes', 'scale'))

    def encode(state, patches):
        x = patches.reshape(len(patches), -1)
        white = (x - x.mean(1, keepdims=True)) @ axes / scale @ axes.T
        return white @ state.params[0, 0]

    return {'encode': encode}


def report(config, state, data):
    from lecture4.figures import dictionary, lines

    white, axes = data.report_data, data.spec.constants['axes']
    shape, rank = (config.patch_size, config.patch_size), axes.shape[1]
    W = np.asarray(state.params[0, 0], float).T
    rows = W @ axes  # filters in whitened coordinates
    costs, parts = cost(config, state.params, jnp.asarray(data.device_arrays))
    name = f'reconstruction ICA, {config.latent_dim} units'
    directions = linear.baseline_directions(white, seed=config.seed) | {name: rows}
    per_unit = {method: selectivity.kurtosis(white @ v.T) for method, v in directions.items()}
    records = [
        {'method': method, 'kurtosis': float(np.median(per_unit[method]))}
        | {'oriented': orientation.median_oriented((v @ axes.T).T, shape)}
        for method, v in directions.items()
    ]
    metrics = {
        'rica_kurtosis': records[-1]['kurtosis'],
        'loss': float(jnp.mean(costs)),
        'reconstruction': float(parts['reconstruction']),
        'orthonormality': ((rows @ rows.T - np.eye(len(rows))) ** 2).sum() + rank - len(rows),
        'whiteness': abs(np.cov(white.T, bias=True) - np.eye(rank)).max(),
    }
    curves = {m: (np.arange(1, len(v) + 1), np.sort(v)[::-1]) for m, v in per_unit.items()}
    options: dict = {'xlabel': 'unit', 'ylabel': 'kurtosis', 'yscale': 'log'}
    figures = {
        'filters': train.Figure(
            dictionary.atoms(W.T, shape, columns=9), 'Filters, applied to whitened patches.'
        ),
        'kurtosis': train.Figure(
            lines.single('Kurtosis of outputs', curves, **options),
            'Kurtosis of every unit, largest first.',
        ),
    }
    caption = (
        f'{len(white)} patches, {rank} dimensions of variance 1. Kurtosis of the outputs (3: Gaussian), '
        f'median over units. {orientation.CAPTION}'
    )
    table = train.Table('Directions of whitened patches', records, ('method',), caption=caption)
    summary = ', '.join(f'{record["method"]} {record["kurtosis"]:.2f}' for record in records)
    return train.Report(metrics, (table,), figures, f'Kurtosis {summary}.')


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
