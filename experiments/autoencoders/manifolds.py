"""What regularized auto-encoders learn from the data-generating distribution (Alain & Bengio, JMLR 2014).

An autoencoder r = g(f(.)) learns to remove Gaussian noise from points of a curve in the plane, or from
digits. Its field r(x) - x is compared with the closed form s^2 grad log p_s of the smoothed training set,
which a network that generalizes need not follow on digits; the best linear denoiser is the baseline. On a
curve, tangents from the Jacobian of r (Rifai et al., NeurIPS 2011) are compared with the true ones.

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
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.autoencoder import denoising, manifold, manifold_evaluation
from lecture4.data.images import vectors
from lecture4.ops.losses import squared_error

CURVES = {'circle': manifold.CIRCLE, 'spiral': manifold.SPIRAL}


@dataclasses.dataclass(frozen=True)
class Config(train.SquareImages):
    steps: train.AtLeast1 = 8000
    # Number of points per step, over all devices; each gets independent noise.
    batch_size: train.AtLeast1 = 256
    steps_per_call: train.AtLeast1 = 100
    # Data: a curve in the plane (circle, spiral), or images: digits, mnist, dir:PATH, npz:PATH, csv:PATH.
    source: str = 'spiral'
    # Number of training points on a curve, at equal distances.
    num_points: train.AtLeast1 = 1000
    # Standard deviation of the noise.
    noise_std: train.Positive = 0.1
    # Dimensions of the encoder's layers, the latent dimension last; the decoder mirrors them.
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
    if curve := CURVES.get(config.source):
        counts, shape = (config.num_points, config.num_points // 2 + 1), (2,)
        clean, held_out = (np.asarray(manifold.spaced_points(curve, n)) for n in counts)
    else:
        loaded = vectors.load_splits(config.source, **config.data_kwargs())
        clean, held_out, shape = loaded.train, loaded.test, loaded.image_shape[:2]
    return train.in_memory(
        clean,
        config.batch_size,
        seed=config.seed,
        evaluation=held_out[:1000],
        spec=train.Spec(clean.shape[1:], constants={'shape': shape}),
    )


def build(config, spec):
    def init(key, x):
        return manifold.init_autoencoder(key, x, config.hidden_dims, config.noise_std)

    def loss(params, x, key):
        noisy = denoising.gaussian(key, x, config.noise_std)
        return squared_error(x, manifold.reconstruct(params, noisy)).mean(), {}

    def evaluate(params, x):
        return {'loss': loss(params, x, jax.random.key(0))[0]}

    schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    return train.optimize(init, loss, optax.adam(schedule), evaluate)


def apply(config, spec):
    def encode(state, x):
        return manifold.encode(state.params, x.reshape(-1, *spec.shape))

    def denoise(state, x):
        return manifold.reconstruct(state.params, x.reshape(-1, *spec.shape)).reshape(x.shape)

    def score(state, x):
        return denoising.smoothed_score(lambda x: denoise(state, x), x, config.noise_std)

    return {'encode': encode, 'denoise': denoise, 'score': score}


def report(config, state, data):
    clean, std = jnp.asarray(data.device_arrays), config.noise_std
    r = jax.jit(functools.partial(manifold.reconstruct, state.params))
    rows = np.linspace(0, len(clean) - 1, min(1000, len(clean))).astype(int)
    points = {'training': clean[rows], 'held out': jnp.asarray(data.evaluation)}
    denoisers = {'autoencoder': r, 'linear': denoising.wiener(clean, std)}
    records = manifold_evaluation.denoising_records(denoisers, points, clean, std)
    caption = (
        f'Squared error, summed over coordinates (of the noise itself: {std**2 * clean.shape[1]:.4g}), and '
        'relative error of r(x) - x against s^2 grad log p_s(x) of the smoothed training set.'
    )
    table = train.Table('Denoising', records, ('denoiser', 'points'), caption=caption)
    evaluate = evaluate_on_curve if config.source in CURVES else evaluate_on_images
    metrics, figures = evaluate(config, r, data)
    metrics['held_out_field_error'] = error = records[3]['field_error']  # of the autoencoder
    return train.Report(metrics, (table,), figures, f'Field error {error:.3f} at held-out points.')


def evaluate_on_curve(config, r, data):
    """Metrics and figures for curves."""
    from lecture4.figures import latent

    curve, clean = CURVES[config.source], jnp.asarray(data.device_arrays)
    options = {'n_steps': config.walk_steps, 'step_size': config.step_size}
    points, directions, path, metrics = manifold_evaluation.on_curve(r, curve, clean, **options)
    grid, ours, best, density = manifold_evaluation.fields_on_grid(r, clean, config.noise_std)
    fields = {'the autoencoder: r(x) - x': ours, 'closed form: s² grad log p_s(x)': best}
    return metrics, {
        'field': train.Figure(
            latent.vector_fields(grid, fields, data=clean[::5], density=density, scale=0.6),
            'Gray: the smoothed density p_s. Arrows: the fields at 0.6 of their length, where p_s is not negligible.',
        ),
        'tangents': train.Figure(
            latent.tangents(points, directions, data=clean[::3], path=path),
            "Lines: the Jacobian's first right singular vector. Dots: a walk along it, from light to dark.",
        ),
    }


def evaluate_on_images(config, r, data):
    """Metrics and figures for images."""
    from lecture4.figures import images

    x, clean = jnp.asarray(data.evaluation), jnp.asarray(data.device_arrays)
    k, n, shape = config.manifold_dim, config.walk_steps, data.spec.constants['shape']
    options = {'k': k, 'n_steps': n, 'step_size': config.step_size, 'std': config.noise_std}
    directions, walks, chains, metrics = manifold_evaluation.on_images(r, x, clean, **options)
    noisy = denoising.gaussian(jax.random.key(1), x, config.noise_std)[:12]
    atlas = images.around_gray(directions.reshape(-1, *shape)).reshape(*directions.shape)
    atlas = np.concatenate([x[:10, None], atlas], axis=1)
    rows = jnp.concatenate([x[:12], noisy, r(noisy)]).reshape(-1, *shape)
    walks, chains = (images.interpolations(a.reshape(6, 10, *shape)) for a in (walks, chains))
    return metrics, {
        'denoised': train.Figure(
            images.grid(rows, 12, row_labels=('image', 'noisy', 'denoised')), 'Held-out images.'
        ),
        'tangents': train.Figure(
            images.grid(atlas.reshape(-1, *shape), k + 1),
            f'Held-out images and the {k} directions to which r is most sensitive there (gray: zero).',
        ),
        'walk': train.Figure(walks, f'Walks of {n} steps along the tangents, 10 images of each.'),
        'random_walk': train.Figure(chains, 'Markov chains that alternate noise and denoising.'),
    }


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
