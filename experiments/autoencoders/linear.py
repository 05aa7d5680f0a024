"""The linear autoencoder learns the principal subspace, and its weights are not the components.

Baldi & Hornik 1989; the error of PCA at 30 components is the yardstick of Hinton & Salakhutdinov
2006. An autoencoder of two linear layers is trained by Adam on batches; alternating least squares
then takes the same weights to convergence. Errors are squared, summed over pixels in [0, 1],
averaged over the test pictures.

Run     python -m experiments.autoencoders.linear
        python -m experiments.autoencoders.linear --preset mnist
Cost    10 and 25 seconds of one core (AMD EPYC).
Published  13.87 by 30 principal components of MNIST (Hinton & Salakhutdinov 2006, recalled).
Ours    MNIST: 13.866 by 30 components. 32 numbers: PCA 13.1933, the autoencoder 13.1936 after 20
        epochs of Adam, its worst principal angle 0.29 degrees; 3e-6 radians after 100 rounds of
        alternating least squares. Largest cosine between two encoder columns 0.16: the subspace is
        PCA's, the weights are not. Digits, 10 numbers: 1.293 both, 0.10 degrees, cosine 0.35.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.autoencoder import linear
from lecture4.data import images as image_data


@dataclasses.dataclass(frozen=True)
class Config(train.Config):
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
    found = image_data.load(config.source, seed=config.seed, **config.data_kwargs())
    x, test = (a.reshape(len(a), -1) for a in (found.train_images, found.test_images))
    principal = linear.principal(x)
    k = min(config.code, x.shape[1])
    return train.in_memory(
        (x - principal.mean).astype(np.float32),
        config.batch_size,
        seed=config.seed,
        evaluation={
            'x': (test - principal.mean).astype(np.float32),
            'components': principal.components[:, :k].astype(np.float32),
        },
        extra={'principal': principal, 'test': test, 'shape': found.train_images.shape[1:3]},
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

    params, x, test = state.params, data.evaluation['x'], data.extra['test']
    shape, d, k, principal = data.extra['shape'], x.shape[1], config.code, data.extra['principal']
    reached = train.evaluated(build(config), state, data.evaluation)
    weight = np.asarray(params.encoder[0].weight, float)
    cosine = weight / np.linalg.norm(weight, axis=0)
    metrics = {
        'error': reached['error'],
        'pca_error': principal.error(test, k),
        'worst_angle_degrees': reached['worst_angle'],
        'largest_cosine_between_weights': float(abs(cosine.T @ cosine - np.eye(k)).max()),
    }
    shown = {}
    if config.rounds and not config.tied and k < d:
        params, angles = converge(config, params, data)
        angles, rounds = np.asarray(angles, float), np.arange(1, config.rounds + 1)
        metrics['converged_angle_radians'] = float(angles[-1])
        metrics['converged_error'] = float(linear.loss(params, x).mean())
        rate = principal.variances[k] / principal.variances[k - 1]
        expected = np.maximum(angles[0] * rate ** (rounds - 1), angles.min())
        panel = {
            'curves': {
                'alternating least squares': (rounds, angles),
                f'rate {rate:.3f}, the ratio of eigenvalues': (rounds, expected),
            },
            'xlabel': 'round', 'ylabel': 'radians', 'yscale': 'log',
        }  # fmt: skip
        shown['angles'] = train.Picture(
            lines.panels({'Worst principal angle to PCA': panel}, columns=1, size=(6, 3.2)),
            'It ends where float32 does.',
        )
    few = test[np.linspace(0, len(x) - 1, 12).astype(int)]
    restored = np.asarray(linear.reconstruct(params, jnp.asarray(few - principal.mean, x.dtype)))
    rows_of_pictures = {
        'picture': few,
        'autoencoder': restored + principal.mean,
        'PCA': principal.reconstruct(few, k),
    }
    n = min(k, 32)
    shown |= {
        'reconstructions': train.Picture(
            images.rows({name: v.reshape(-1, *shape) for name, v in rows_of_pictures.items()}),
            'The two reconstructions are the same function.',
        ),
        'weights': train.Picture(
            dictionary.atoms(np.asarray(linear.directions(params)), shape, n=n, columns=8),
            'Decoder weights: a basis of the subspace, neither ordered nor orthogonal.',
        ),
        'components': train.Picture(
            dictionary.atoms(principal.components, shape, n=n, columns=8),
            'Principal components, in order.',
        ),
    }
    ks = sorted({2, 6, 16, 20, 30, 32, min(k, d)} & set(range(1, d)))
    recalled = '13.87 (Hinton & Salakhutdinov 2006, recalled)'
    published = {30: recalled} if config.source == 'mnist' else {}
    rows = [(f'PCA, {k}', principal.error(test, k), published.get(k, '')) for k in ks]
    rows.append((f'linear autoencoder, {k}', metrics['error'], ''))
    if 'converged_error' in metrics:
        rows.append((f'the same, converged, {k}', metrics['converged_error'], ''))
    caption = 'Squared error summed over pixels, mean over the test pictures.'
    excess = metrics['error'] / max(metrics['pca_error'], 1e-9) - 1
    words = 'equals that of PCA within 1 %' if excess <= 0.01 else f'is {excess:.1%} above PCA'
    return train.Report(
        metrics=metrics,
        tables=(train.Table('Test error', ('method', 'error', 'published'), tuple(rows), caption),),
        pictures=shown,
        summary=f'The error {words}; the worst principal angle is '
        f'{metrics["worst_angle_degrees"]:.3g} degrees after training; the largest cosine between '
        f'two encoder columns is {metrics["largest_cosine_between_weights"]:.2f}.',
    )


if __name__ == '__main__':
    train.main(Config, data, build, report, PRESETS, SWEEPS)
