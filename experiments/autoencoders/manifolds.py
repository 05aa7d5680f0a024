"""What regularized auto-encoders learn from the data-generating distribution (Alain & Bengio, JMLR 2014).

An autoencoder r = g(f(.)) learns to remove Gaussian noise from points of a curve in the plane, or from
digits. Its field r(x) - x is compared at noisy points with the closed form s^2 grad log p_s, where p_s is
the density of the training set smoothed by the noise. On a curve, tangents from the Jacobian of r (Rifai
et al., NeurIPS 2011) are compared with the true ones, and a walk along them stays on the curve. For
curves, p_s of the training set is that of the data; for digits it is empirical, and a network that
generalizes need not follow it; the best linear denoiser is the baseline.

Run:      python -m experiments.autoencoders.manifolds
          python -m experiments.autoencoders.manifolds --preset digits
Hardware: one core (AMD EPYC), 30 seconds each
Results:  relative error of the field at held-out points; walks of 120 steps

          | data   | autoencoder | linear | tangents off (median) | walk length | distance from curve |
          |--------|-------------|--------|-----------------------|-------------|---------------------|
          | circle | 0.032       | 0.96   | 0.76 degrees          | 5.9         | at most 0.007       |
          | spiral | 0.119       | 0.94   | 2.1 degrees           | 6.0         | at most 0.027       |
          | digits | 0.145       | 0.27   |                       |             |                     |
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.autoencoder import denoising, manifold, network
from lecture4.data.images import load_images
from lecture4.ops.losses import squared_error

CURVES = {'circle': manifold.CIRCLE, 'spiral': manifold.SPIRAL}


@dataclasses.dataclass(frozen=True)
class Config(train.Config):
    steps: train.AtLeast1 = 8000
    # Number of points per step, over all devices; each gets noise of its own.
    batch_size: train.AtLeast1 = 256
    steps_per_call: train.AtLeast1 = 100
    # Data: a curve in the plane, or images.
    source: Literal['circle', 'spiral', 'digits', 'mnist'] = 'spiral'
    # Number of training points on a curve, at equal distances.
    num_points: train.AtLeast1 = 1000
    # Standard deviation of the noise.
    noise_std: train.Positive = 0.1
    # Units of the encoder's layers, the latent one last; the decoder is the mirror image.
    hidden_dims: train.Ints = (128, 128)
    # Dimension of the manifold: the number of tangent directions.
    manifold_dim: train.AtLeast1 = 1
    # Length of a step of the walk along the tangents.
    step_size: train.Positive = 0.05
    # Number of steps of the walk.
    walk_steps: train.AtLeast1 = 120
    # Peak learning rate of Adam, followed by cosine decay to 0.
    learning_rate: train.Positive = 3e-3

    def __post_init__(self):
        super().__post_init__()
        is_valid = self.manifold_dim == 1 or self.source not in CURVES
        train.require(self, 'manifold_dim', is_valid, '1 on a curve')


METRICS = (
    train.Metric('held_out_field_error', '', 'lower', 'field error, held-out points', primary=True),
    train.Metric('loss', '', 'lower', 'squared error, noisy points'),
    train.Metric('squared_error', '', 'lower', 'squared error'),
    train.Metric('field_error', '', 'lower', 'field error'),
    train.Metric('tangent_error', 'degrees', 'lower', 'error of tangents, median'),
    train.Metric('singular_value_ratio', '', 'lower', 'second singular value over the first'),
    train.Metric('walk_length', '', '', 'length of the walk'),
    train.Metric('walk_distance', '', 'lower', 'largest distance of the walk from the curve'),
    train.Metric('tangent_energy', 'fraction', 'higher', 'squared Jacobian in tangent directions'),
    train.Metric('nearest_distance', '', '', 'distance of walks to the nearest training image'),
)
PRESETS = {
    'smoke': {'steps': 20, 'steps_per_call': 20, 'hidden_dims': (16,), 'num_points': 200}
    | {'walk_steps': 4},
    'circle': {'source': 'circle'},
    'digits': {'source': 'digits', 'noise_std': 0.5, 'hidden_dims': (256, 256)}
    | {'manifold_dim': 8, 'step_size': 0.3, 'walk_steps': 40},
    'mnist': {'source': 'mnist', 'noise_std': 0.5, 'hidden_dims': (512, 512)}
    | {'manifold_dim': 8, 'step_size': 0.6, 'walk_steps': 24},
}
SWEEPS = {'noise_std': train.grid(noise_std=(0.05, 0.1, 0.2, 0.4), seed=(0, 1))}


def data(config):
    shape = (2,)
    if config.source in CURVES:
        curve = CURVES[config.source]
        clean, held_out = (
            np.asarray(curve.point(manifold.evenly_spaced(curve, n)))
            for n in (config.num_points, config.num_points // 2 + 1)
        )
    else:
        clean, held_out = (
            np.asarray(load_images(config.source, split, **config.data_kwargs()).images)
            for split in ('train', 'test')
        )
        shape = clean.shape[1:3]
        clean, held_out = (a.reshape(len(a), -1) for a in (clean, held_out))
    return train.in_memory(
        clean,
        config.batch_size,
        seed=config.seed,
        evaluation=held_out[:1000],
        spec=train.Spec(clean.shape[1:], constants={'shape': shape}),
    )


def reconstruct(params, x):
    """r(x) = g(f(x)), smooth for the sake of its Jacobian."""
    return network.decode(params, network.encode(params, x, jnp.tanh, jnp.tanh), jnp.tanh)


def add_noise(config, key, x):
    """Points with the noise of training."""
    return x + jnp.asarray(config.noise_std, x.dtype) * jax.random.normal(key, x.shape, x.dtype)


def build(config, spec):
    def init(key, x):
        key, weight_key, center_key = jax.random.split(key, 3)
        params = network.init_autoencoder(key, (spec.shape[0], *config.hidden_dims))
        # The first units have to tell a point from its noisy copy, or the field is far too smooth:
        # the noise moves each by about 0.7, and its slope is greatest at some point of the data.
        shape = params.encoder[0].weight.shape
        scale = 0.7 / (config.noise_std * shape[0] ** 0.5)
        weight = jax.random.normal(weight_key, shape) * scale
        centers = x[jax.random.randint(center_key, shape[1:], 0, len(x))]
        first = network.Dense(weight, -jnp.sum(centers * weight.T, axis=1))
        return params._replace(encoder=(first, *params.encoder[1:]))

    def loss(params, x, key):
        return squared_error(x, reconstruct(params, add_noise(config, key, x))).mean(), {}

    def evaluate(params, x):
        return {'loss': loss(params, x, jax.random.key(0))[0]}

    schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    return train.optimize(init, loss, optax.adam(schedule), evaluate)


def apply(config, spec):
    d = spec.shape[0]

    def encode(state, x):
        return network.encode(state.params, x.reshape(-1, d), jnp.tanh, jnp.tanh)

    def denoise(state, x):
        return reconstruct(state.params, x.reshape(-1, d)).reshape(x.shape)

    def score(state, x):
        return denoising.smoothed_score(lambda x: denoise(state, x), x, config.noise_std)

    return {'encode': encode, 'denoise': denoise, 'score': score}


def report(config, state, data):
    clean, held_out = jnp.asarray(data.device_arrays), jnp.asarray(data.evaluation)
    r = jax.jit(lambda x: reconstruct(state.params, x))
    linear, records = denoising.wiener(clean, config.noise_std), []
    rows = np.linspace(0, len(clean) - 1, min(1000, len(clean))).astype(int)
    for i, (points, x) in enumerate((('training', clean[rows]), ('held out', held_out))):
        noisy = x + config.noise_std * jax.random.normal(jax.random.key(i), x.shape, x.dtype)
        best = manifold.denoiser(noisy, clean, config.noise_std)
        denoised = {'autoencoder': r(noisy), 'linear': linear(noisy), 'closed form': best}
        for denoiser, y in denoised.items():
            errors = {
                'squared_error': float(squared_error(x, y).mean()),
                'field_error': float(manifold.field_error(y - noisy, best - noisy)),
            }
            records.append({'denoiser': denoiser, 'points': points, **errors})
    caption = (
        f'Noise of standard deviation {config.noise_std} on {config.source}: squared error, summed over '
        f'coordinates (of the noise itself: {config.noise_std**2 * clean.shape[1]:.4g}), and '
        'relative error of the field r(x) - x against s^2 grad log p_s(x) of the smoothed training set.'
    )
    table = train.Table('Denoising', records, ('denoiser', 'points'), caption=caption)
    evaluate = evaluate_on_curve if config.source in CURVES else evaluate_on_images
    metrics, figures, sentence = evaluate(config, r, data)
    error = records[3]['field_error']  # the autoencoder's, at held-out points
    metrics['held_out_field_error'] = error
    summary = f'Field error {error:.3f} at held-out points. {sentence}'
    return train.Report(metrics, (table,), figures, summary)


def evaluate_on_curve(config, r, data):
    """Metrics, figures and a sentence for curves."""
    from lecture4.figures import latent

    curve, clean, std = CURVES[config.source], jnp.asarray(data.device_arrays), config.noise_std
    t = manifold.evenly_spaced(curve, 25)
    directions, values = manifold.tangents(r, curve.point(t), 1)
    angles = manifold.angle_between(directions, manifold.tangent(curve, t)[:, None])
    n, step_size = config.walk_steps, config.step_size
    path = manifold.tangent_walk(r, curve.point(t[:1]), n_steps=n, step_size=step_size)[:, 0]
    distance = float(jnp.linalg.norm(path[:, None] - clean[None], axis=2).min(1).max())
    metrics = {
        'tangent_error': float(np.median(np.degrees(angles))),
        'singular_value_ratio': float((values[:, 1] / values[:, 0]).mean()),
        'walk_length': float(jnp.linalg.norm(jnp.diff(path, axis=0), axis=1).sum()),
        'walk_distance': distance,
    }
    marks, fine = jnp.linspace(-1.35, 1.35, 25), jnp.linspace(-1.4, 1.4, 120)
    grid, dense = (jnp.stack(jnp.meshgrid(a, a), axis=-1).reshape(-1, 2) for a in (marks, fine))
    best = manifold.denoiser(grid, clean, std) - grid
    near = np.asarray(jnp.linalg.norm(best, axis=1) < 3.5 * std)
    density = fine, fine, np.exp(manifold.log_density(dense, clean, std)).reshape(120, 120)
    fields = {
        'the autoencoder: r(x) - x': np.asarray(r(grid) - grid)[near],
        'closed form: s² grad log p_s(x)': np.asarray(best)[near],
    }
    options = {'data': clean[::5], 'density': density, 'scale': 0.6}
    figures = {
        'field': train.Figure(
            latent.vector_fields(np.asarray(grid)[near], fields, **options),
            'Gray: the smoothed density p_s. Arrows, at 0.6 of their length, where p_s has points.',
        ),
        'tangents': train.Figure(
            latent.tangents(curve.point(t), directions[:, 0], data=clean[::3], path=path),
            "Lines: the Jacobian's first right singular vector. Dots: a walk along it, from light to dark.",
        ),
    }
    sentence = (
        f'The median error of tangents is {metrics["tangent_error"]:.2f} degrees. A walk of length '
        f'{metrics["walk_length"]:.2f} never leaves the curve by more than {distance:.3f}.'
    )
    return metrics, figures, sentence


def evaluate_on_images(config, r, data):
    """Metrics, figures and a sentence for images."""
    from lecture4.figures import images

    x, clean = jnp.asarray(data.evaluation), jnp.asarray(data.device_arrays)
    noisy = x + config.noise_std * jax.random.normal(jax.random.key(1), x.shape, x.dtype)
    k, n, shape = config.manifold_dim, config.walk_steps, data.spec.constants['shape']
    directions, values = manifold.tangents(r, x[:10], k)
    walk = manifold.tangent_walk(r, x[:6], n_steps=n, step_size=config.step_size, k=k)
    chain = manifold.random_walk(jax.random.key(3), r, x[:6], n_steps=9, std=config.noise_std)
    largest = jnp.abs(directions).max(2, keepdims=True)
    atlas = jnp.concatenate([x[:10, None], 0.5 + 0.5 * directions / largest], axis=1)
    squares = jnp.stack([((end[None] - clean) ** 2).sum(1).min() for end in walk[-1]])
    metrics = {
        'tangent_energy': float((values[:, :k] ** 2).sum() / (values**2).sum()),
        'nearest_distance': float(jnp.sqrt(jnp.maximum(squares, 0)).mean()),
    }

    def paths(a):
        return images.interpolations(np.asarray(a.swapaxes(0, 1)).reshape(6, 10, *shape))

    rows = jnp.concatenate([x[:12], noisy[:12], r(noisy)[:12]])
    figures = {
        'denoised': train.Figure(
            images.grid(rows.reshape(-1, *shape), 12, row_labels=('image', 'noisy', 'denoised')),
            'Held-out images.',
        ),
        'tangents': train.Figure(
            images.grid(atlas.reshape(-1, *shape), k + 1),
            f'Held-out images and the {k} directions to which r is most sensitive there; gray is 0.',
        ),
        'walk': train.Figure(
            paths(walk[np.linspace(0, n, 10).astype(int)]),
            f'Walks of {n} steps along the tangents, 10 images of each at equal distances.',
        ),
        'random_walk': train.Figure(
            paths(chain), 'A Markov chain: noise is added to each image, and the result denoised.'
        ),
    }
    sentence = f'{k} directions hold {metrics["tangent_energy"]:.0%} of the squared Jacobian.'
    return metrics, figures, sentence


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
