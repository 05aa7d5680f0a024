"""Linear autoencoders learn the principal subspace, but not the components (Baldi & Hornik, 1989).

An autoencoder of two linear layers is trained by Adam on batches; alternating least squares then takes
the same weights to convergence. Errors are squared, summed over pixels in [0, 1], averaged over the
test images. The error of PCA with 30 components is the baseline of Hinton & Salakhutdinov 2006.

Run:      python -m experiments.autoencoders.linear
          python -m experiments.autoencoders.linear --preset mnist
Hardware: one core (AMD EPYC), 10 seconds; mnist 25 seconds
Results:  MNIST, 32 components, 20 epochs of Adam

          | method                 | error   | worst principal angle                      |
          |------------------------|---------|--------------------------------------------|
          | PCA                    | 13.1933 |                                            |
          | autoencoder, Adam      | 13.1936 | 0.29 degrees                               |
          | then 100 iterations of alternating least squares | | 3e-6 radians               |

          PCA with 30 components: 13.866 (published 13.87, cited from memory, unverified). Largest cosine
          between two encoder columns 0.16: the subspace is PCA's, the weights are not. Digits, 10
          components: 1.293 both, 0.10 degrees, cosine 0.35.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.autoencoder import linear
from lecture4.data.images import vectors

PUBLISHED = '13.87 (Hinton & Salakhutdinov 2006, from memory, unverified)'


@dataclasses.dataclass(frozen=True)
class Config(train.SquareImages):
    steps: train.AtLeast1 = 3000
    # Source of images: digits, mnist, omniglot, dir:PATH, npz:PATH, csv:PATH.
    source: str = 'digits'
    # Latent dimension; it may exceed the number of pixels.
    latent_dim: train.AtLeast1 = 10
    # Use the transposed encoder weights as the decoder's.
    tied: bool = False
    # Peak learning rate, with cosine decay to 0: at a constant learning rate the subspace
    # keeps moving.
    learning_rate: train.Positive = 3e-3
    # Number of iterations of alternating least squares after training (untied, fewer components than pixels).
    als_iterations: train.AtLeast0 = 300


METRICS = (
    train.Metric('error', '', 'lower', 'test error', primary=True),
    train.Metric('loss', '', 'lower', 'training error'),
    train.Metric('reconstruction_error', '', 'lower', 'test error'),
    train.Metric('worst_angle', 'degrees', 'lower', 'worst principal angle'),
    train.Metric('converged_angle', 'radians', 'lower', 'worst principal angle, converged'),
    train.Metric('max_cosine', '', '', 'largest cosine between encoder columns'),
)
PRESETS = {
    'smoke': {'steps': 20, 'als_iterations': 2},
    'mnist': {'source': 'mnist', 'latent_dim': 32, 'batch_size': 200, 'steps': 6000}
    | {'steps_per_call': 300},
}
SWEEPS = {
    'learning_rate': train.grid(learning_rate=(3e-4, 1e-3, 3e-3, 1e-2), seed=(0, 1)),
    'tied': train.grid(tied=(False, True), latent_dim=(2, 8, 16), seed=(0, 1)),
}


def data(config):
    options = {'in_unit_interval': False, 'seed': config.seed, **config.data_kwargs()}
    loaded = vectors.load_labeled(config.source, **options)
    principal, shape = linear.principal_components(loaded.train), loaded.image_shape[:2]
    centered, test = ((x - principal.mean).astype(np.float32) for x in (loaded.train, loaded.test))
    components = principal.components[:, : config.latent_dim].astype(np.float32)
    return train.in_memory(
        centered,
        config.batch_size,
        seed=config.seed,
        evaluation={'x': test, 'components': components},
        spec=train.Spec(test.shape[1:], (), {'mean': principal.mean, 'image_shape': shape}),
        report_data=(principal, loaded.test),
    )


def build(config, spec):
    def init(key, x):
        return linear.init(key, spec.shape[0], config.latent_dim, tied=config.tied)

    def loss(params, x, key):
        return jnp.mean(linear.loss(params, x)), {}

    def evaluate(params, evaluation):
        angles = linear.principal_angles(linear.decoder_matrix(params), evaluation['components'])
        return {
            'error': jnp.mean(linear.loss(params, evaluation['x'])),
            'worst_angle': jnp.rad2deg(angles[-1]),
        }

    schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    return train.optimize(init, loss, optax.adam(schedule), evaluate)


def apply(config, spec):
    mean = np.asarray(spec.constants['mean'], np.float32)

    def encode(params, x):
        encoder = params.encoder[0]
        return (x - mean) @ encoder.weight + encoder.bias

    def reconstruct(params, x):
        return linear.reconstruct(params, x - mean) + mean

    return train.on_params({'encode': encode, 'reconstruct': reconstruct})


def report(config, state, data):
    from lecture4.figures import dictionary, images, lines

    (principal, test), x, params = data.report_data, data.evaluation['x'], state.params
    d, k, shape = x.shape[1], config.latent_dim, data.spec.constants['image_shape']
    metrics = train.evaluate(build(config, data.spec), state, data.evaluation)
    metrics['max_cosine'] = linear.max_cosine(params.encoder[0].weight)
    counts = sorted({2, 6, 16, 20, 30, 32, min(k, d)} & set(range(1, d)))
    errors = {f'PCA, {n}': principal.reconstruction_error(test, n) for n in counts}
    errors[f'autoencoder, {k}'], figures = metrics['error'], {}
    if config.als_iterations and not config.tied and k < d:
        components, n = data.evaluation['components'], config.als_iterations
        params, angles = linear.converge(params, data.device_arrays, components, n)
        angles, n = np.asarray(angles, float), np.arange(1, n + 1)
        metrics['converged_angle'] = float(angles[-1])
        errors[f'autoencoder, converged, {k}'] = float(linear.loss(params, x).mean())
        rate = principal.variances[k] / principal.variances[k - 1]
        expected = np.maximum(angles[0] * rate ** (n - 1), angles.min())
        curves = {'alternating least squares': (n, angles), f'rate {rate:.3f}': (n, expected)}
        options: dict = {'xlabel': 'iteration', 'ylabel': 'radians', 'yscale': 'log'}
        figures['angles'] = train.Figure(
            lines.single('Worst principal angle to PCA', curves, **options),
            'The angle falls by the ratio of eigenvalues per iteration, to the precision of float32.',
        )
    few, n = images.spaced(test), min(k, 32)
    restored = linear.reconstruct(params, jnp.asarray(few - principal.mean, x.dtype))
    rows = {'image': few, 'autoencoder': np.asarray(restored) + principal.mean}
    rows['PCA'] = principal.reconstruct(few, k)
    figures |= {
        'reconstructions': train.Figure(
            images.vector_rows(rows, shape), 'The two reconstructions are the same function.'
        ),
        'weights': train.Figure(
            dictionary.atoms(np.asarray(linear.decoder_matrix(params)), shape, n=n, columns=8),
            'Decoder weights: a basis of the subspace, neither ordered nor orthogonal.',
        ),
        'components': train.Figure(
            dictionary.atoms(principal.components, shape, n=n, columns=8), 'Principal components.'
        ),
    }
    records = [{'method': name, 'reconstruction_error': error} for name, error in errors.items()]
    if config.source == 'mnist':
        next(r for r in records if r['method'] == 'PCA, 30')['published'] = PUBLISHED
    caption = 'Squared error summed over pixels, mean over the test images.'
    table = train.Table('Test error', records, ('method',), caption=caption)
    summary = (
        f'Error {metrics["error"]:.4g}; the worst principal angle to PCA is '
        f'{metrics["worst_angle"]:.3g} degrees.'
    )
    return train.Report(metrics, (table,), figures, summary)


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
