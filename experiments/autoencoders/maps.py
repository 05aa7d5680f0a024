"""Codes as tools: a map of a data set in two numbers a picture, and retrieval by code.

Hinton & Salakhutdinov 2006, figures 3 and 4. Two deep autoencoders are trained side by side, one
with a code of two for the map, one with a longer code for retrieval. The yardsticks are principal
components, and t-SNE of scikit-learn, which maps the pictures it is given but no new ones.

Run     python -m experiments.autoencoders.maps
        python -m experiments.autoencoders.maps --preset mnist
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.autoencoder import deep, network
from lecture4.data import pictures
from lecture4.ops.losses import check_unit_interval


@dataclasses.dataclass(frozen=True)
class Config(train.Common):
    # Steps of training.
    steps: int = 4000
    batch_size: int = 100
    # Where labelled pictures come from: digits, mnist, dir:PATH, npz:PATH.
    source: str = 'digits'
    # Widths of the hidden layers of the encoders, before the code.
    hidden: tuple[int, ...] = (256, 128)
    # Width of the code for retrieval.
    code: int = 10
    # Peak of the learning rate, which falls to 0 along a half cosine.
    learning_rate: float = 1e-3
    # Test pictures that are drawn and asked for, at most; the others' neighbours.
    shown: int = 2000
    # Neighbours of a picture whose class is compared with its own.
    neighbours: int = 10
    # Whether to run t-SNE beside.
    tsne: bool = True

    def __post_init__(self):
        super().__post_init__()
        train.require(self, 'code', self.code >= 1, 'at least 1')
        train.require(self, 'shown', self.shown > self.neighbours >= 1, 'more than --neighbours')


PRESETS = {
    'smoke': {'steps': 20, 'hidden': (32,), 'shown': 60, 'tsne': False},
    'mnist': {
        'source': 'mnist',
        'hidden': (500, 250),
        'code': 30,
        'steps': 9000,
        'steps_per_call': 100,
        'log_every': 100,
        'evaluate_every': 3000,
        'save_every': 3000,
    },
}
SWEEPS = {'code': train.grid(code=(2, 5, 10, 20), tsne=(False,), seed=(0, 1))}


def data(config):
    found = pictures.labelled(config.source, seed=config.seed, **config.places())
    x, test = (a.reshape(len(a), -1) for a in (found.train_images, found.test_images))
    check_unit_interval(x, config.source)
    return train.in_memory(
        x,
        config.batch_size,
        seed=config.seed,
        evaluation=test[: config.shown],
        extra={
            'labels': found.test_labels[: config.shown],
            'names': found.names,
            'shape': found.train_images.shape[1:3],
        },
    )


def build(config):
    def init(key, x):
        keys = dict(zip(('map', 'code'), jax.random.split(key), strict=True))
        codes = {'map': 2, 'code': config.code}
        return {
            name: network.init_autoencoder(
                keys[name], (x.shape[1], *config.hidden, codes[name]), scale='he'
            )
            for name in codes
        }

    def loss(params, x, key):
        each = {
            name: jnp.mean(deep.loss(own, x, activation=jax.nn.relu))
            for name, own in params.items()
        }
        return each['map'] + each['code'], each

    def evaluate(params, x):
        return loss(params, x, None)[1]

    schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    return train.optimise(init, loss, optax.adam(schedule), evaluate)


def neighbours(points, n):
    """The n nearest others of every point, nearest first: [m, d] -> [m, n]."""
    points = np.asarray(points, np.float64)
    energy = (points**2).sum(1)
    distance = energy[:, None] + energy[None, :] - 2 * points @ points.T
    np.fill_diagonal(distance, np.inf)
    return np.argsort(distance, axis=1, kind='stable')[:, :n]


def precision(points, labels, n):
    """Share of the n nearest others that are of the picture's own class."""
    return float((labels[neighbours(points, n)] == labels[:, None]).mean())


def report(config, state, data):
    from lecture4.figures import images, maps

    x, labels = data.evaluation, data.extra['labels']
    codes = {
        name: np.asarray(deep.encode(own, x, jax.nn.relu)) for name, own in state.params.items()
    }
    resident = np.asarray(data.resident)
    mean = resident.mean(0)
    V = np.linalg.eigh(np.cov(resident.T))[1][:, ::-1]
    planes = {'autoencoder': codes['map'], 'PCA': (x - mean) @ V[:, :2]}
    if config.tsne:
        from sklearn.manifold import TSNE

        planes['t-SNE'] = TSNE(random_state=config.seed).fit_transform(x)
    n = config.neighbours
    spaces = {
        **{f'{name}, 2': points for name, points in planes.items()},
        f'PCA, {config.code}': (x - mean) @ V[:, : config.code],
        f'autoencoder, {config.code}': codes['code'],
        f'pixels, {x.shape[1]}': x,
    }
    found = {name: precision(points, labels, n) for name, points in spaces.items()}
    rows = tuple((name, value) for name, value in found.items())
    asked = [int(np.flatnonzero(labels == c)[0]) for c in np.unique(labels)[:6]]
    pictures_of = lambda rows: x[rows].reshape(-1, *data.extra['shape'])  # noqa: E731
    nearest = {
        'code': neighbours(codes['code'], n)[asked],
        'pixels': neighbours(x, n)[asked],
    }
    shown = {}
    for i, row in enumerate(asked):
        for name in nearest:
            shown[f'{data.extra["names"][labels[row]]}, {name}'] = pictures_of(
                [row, *nearest[name][i]]
            )
    notes = {name: f'{found[f"{name}, 2"]:.0%}' for name in planes}
    metrics = {
        'precision_' + name.replace(', ', '_').replace(' ', '_').replace('-', ''): value
        for name, value in found.items()
    }
    return train.Report(
        metrics=metrics,
        tables=(
            train.Table(
                f'Neighbours of the same class among the nearest {n}',
                ('representation, numbers a picture', 'share'),
                rows,
                f'{len(x)} test pictures, each asked for among the others, Euclidean distance.',
            ),
        ),
        pictures={
            'map': train.Picture(
                maps.maps(planes, labels, data.extra['names'], notes=notes),
                f'{len(x)} test pictures in the plane; beside each name, the share of the {n} '
                'nearest neighbours in the plane that are of the same class.',
            ),
            'retrieval': train.Picture(
                images.rows(shown),
                'The picture asked for, then its nearest ones, by code and by pixels.',
            ),
        },
        summary=f'Two numbers of the autoencoder keep {found["autoencoder, 2"]:.0%} of neighbours in '
        f'class, two principal components {found["PCA, 2"]:.0%}.',
    )


if __name__ == '__main__':
    train.main(Config, data, build, report, PRESETS, SWEEPS)
