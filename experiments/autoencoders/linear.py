"""The linear autoencoder learns the principal subspace, and its weights are not the components.

Baldi & Hornik 1989; the error of PCA at 30 components is the yardstick of Hinton & Salakhutdinov
2006. An autoencoder of two linear layers is trained by Adam on batches; alternating least squares
then takes the same weights to convergence. Errors are squared, summed over pixels in [0, 1],
averaged over the test pictures.

Run     python -m experiments.autoencoders.linear
        python -m experiments.autoencoders.linear --preset mnist
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.autoencoder import linear
from lecture4.data import pictures


@dataclasses.dataclass(frozen=True)
class Config(train.Common):
    # Steps of training.
    steps: int = 3000
    # Where pictures come from: digits, mnist, omniglot, dir:PATH, npz:PATH.
    source: str = 'digits'
    # Width of the code; it may exceed the number of pixels.
    code: int = 10
    # Whether the decoder's weights are the encoder's, transposed.
    tied: bool = False
    # Peak of the learning rate, which falls to 0 along a half cosine: at a constant rate the
    # subspace never comes to rest.
    learning_rate: float = 3e-3
    # Rounds of alternating least squares after training (untied, code below the number of pixels).
    rounds: int = 300

    def __post_init__(self):
        super().__post_init__()
        train.require(self, 'code', self.code >= 1, 'at least 1')
        train.require(self, 'rounds', self.rounds >= 0, 'at least 0')


PRESETS = {
    'smoke': {'steps': 20, 'rounds': 2},
    'mnist': {
        'source': 'mnist',
        'code': 32,
        'batch_size': 200,
        'steps': 6000,
        'steps_per_call': 300,
        'log_every': 300,
        'evaluate_every': 300,
        'save_every': 3000,
    },
}
SWEEPS = {
    'learning_rate': train.grid(learning_rate=(3e-4, 1e-3, 3e-3, 1e-2), seed=(0, 1)),
    'tied': train.grid(tied=(False, True), code=(2, 8, 16), seed=(0, 1)),
}


def data(config):
    found = pictures.labelled(config.source, seed=config.seed, **config.places())
    x, test = (a.reshape(len(a), -1) for a in (found.train_images, found.test_images))
    mean = x.mean(0, dtype=np.float64)
    wide = x.astype(np.float64) - mean
    variances, components = np.linalg.eigh(
        wide.T @ wide / len(x)
    )  # as float32 it is off by 0.005 deg
    components = components[:, ::-1].copy()
    centred = (x - mean).astype(np.float32), (test - mean).astype(np.float32)
    k = min(config.code, x.shape[1])
    return train.in_memory(
        centred[0],
        config.batch_size,
        seed=config.seed,
        evaluation={'x': centred[1], 'components': components[:, :k].astype(np.float32)},
        extra={
            'components': components,
            'variances': variances[::-1],
            'mean': mean,
            'shape': found.train_images.shape[1:3],
        },
    )


def build(config):
    def init(key, x):
        return linear.init(key, x.shape[1], config.code, tied=config.tied)

    def loss(params, x, key):
        return jnp.mean(linear.loss(params, x)), {}

    def evaluate(params, evaluation):
        angles = linear.principal_angles(linear.directions(params), evaluation['components'])
        return {
            'error': jnp.mean(linear.loss(params, evaluation['x'])),
            'worst_angle': jnp.rad2deg(angles[-1]),
        }

    schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    return train.optimise(init, loss, optax.adam(schedule), evaluate)


def pca_error(data, k):
    """Mean squared error of PCA with k components on the test pictures, in float64."""
    V = data.extra['components'][:, :k]
    x = data.evaluation['x'].astype(np.float64)
    return float(((x - x @ V @ V.T) ** 2).sum(1).mean())


def converge(config, params, data):
    """Alternating least squares from the trained weights; the worst angle after each round."""
    mean, covariance = jax.jit(linear.moments)(data.resident)
    components = data.evaluation['components']

    def body(params, _):
        params = linear.alternate(params, mean, covariance)
        return params, linear.principal_angles(linear.directions(params), components)[-1]

    return jax.jit(lambda p: jax.lax.scan(body, p, None, config.rounds))(params)


def report(config, state, data):
    from lecture4.figures import dictionary, images, lines

    params, x = state.params, data.evaluation['x']
    shape, d = data.extra['shape'], x.shape[1]
    reached = build(config).evaluate(state, data.evaluation)
    error, angle = float(reached['error']), float(reached['worst_angle'])
    weight = np.asarray(params.encoder[0].weight, float)
    cosine = weight / np.linalg.norm(weight, axis=0)
    off = float(abs(cosine.T @ cosine - np.eye(config.code)).max())
    metrics = {
        'error': error,
        'pca_error': pca_error(data, min(config.code, d)),
        'worst_angle_degrees': angle,
        'largest_cosine_between_weights': off,
    }
    panels = {}
    if config.rounds and not config.tied and config.code < d:
        params, angles = converge(config, params, data)
        angles = np.asarray(angles, float)
        metrics['converged_angle_radians'] = float(angles[-1])
        metrics['converged_error'] = float(linear.loss(params, x).mean())
        v = data.extra['variances']
        rate = v[config.code] / v[config.code - 1]
        rounds = np.arange(1, config.rounds + 1)
        panels['Worst principal angle to PCA'] = {
            'curves': {
                'alternating least squares': (rounds, angles),
                f'rate {rate:.3f}, the ratio of eigenvalues': (rounds, angles[0] * rate**rounds),
            },
            'xlabel': 'round',
            'ylabel': 'radians',
            'yscale': 'log',
        }
    ks = sorted({2, 6, 16, 20, 30, 32, min(config.code, d)} & set(range(1, d)))
    published = {
        30: '13.87 (Hinton & Salakhutdinov 2006, recalled)' if config.source == 'mnist' else ''
    }
    rows = tuple((f'PCA, {k}', pca_error(data, k), published.get(k, '')) for k in ks)
    rows += ((f'linear autoencoder, {config.code}', error, ''),)
    if 'converged_error' in metrics:
        rows += ((f'the same, converged, {config.code}', metrics['converged_error'], ''),)
    caption = 'Squared error summed over pixels, mean over the test pictures.'
    few = np.linspace(0, len(x) - 1, 12).astype(int)
    V = data.extra['components'][:, : config.code]
    back = lambda v: (v + data.extra['mean']).reshape(-1, *shape)  # noqa: E731
    n = min(config.code, 32)
    shown = {
        'reconstructions': train.Picture(
            images.rows(
                {
                    'picture': back(x[few]),
                    'autoencoder': back(np.asarray(linear.reconstruct(params, x[few]))),
                    'PCA': back(x[few] @ V @ V.T),
                }
            ),
            'The two reconstructions are the same function.',
        ),
        'weights': train.Picture(
            dictionary.atoms(np.asarray(linear.directions(params)), shape, n=n, columns=8),
            'Decoder weights: a basis of the subspace, neither ordered nor orthogonal.',
        ),
        'components': train.Picture(
            dictionary.atoms(V, shape, n=n, columns=8), 'Principal components, in order.'
        ),
    }
    if panels:
        shown['angles'] = train.Picture(lines.panels(panels, columns=1, size=(6, 3.2)))
    if error <= 1.01 * metrics['pca_error']:
        words = 'equals that of PCA within 1 %'
    else:
        words = f'is {error / metrics["pca_error"] - 1:.1%} above that of PCA'
    return train.Report(
        metrics=metrics,
        tables=(train.Table('Test error', ('method', 'error', 'published'), rows, caption),),
        pictures=shown,
        summary=f'The error {words}; the worst principal angle is {angle:.3g} degrees after '
        f'training; the largest cosine between two encoder columns is {off:.2f}.',
    )


if __name__ == '__main__':
    train.main(Config, data, build, report, PRESETS, SWEEPS)
