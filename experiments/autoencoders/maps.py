"""Codes as tools: a map of a data set in two numbers a picture, and retrieval by code.

Hinton & Salakhutdinov 2006, figures 3 and 4. Two deep autoencoders are trained side by side, one
with a code of two for the map, one with a longer code for retrieval. The yardsticks are principal
components, and t-SNE of scikit-learn, which maps the pictures it is given but no new ones.

Run     python -m experiments.autoencoders.maps
        python -m experiments.autoencoders.maps --preset mnist
Cost    1 and 4 minutes of one core (AMD EPYC).
Ours    Share of the 10 nearest of 2000 test pictures of MNIST that are of the same class: by two
        numbers of the autoencoder 68.0 %, of PCA 36.8 %, of t-SNE 80.6 %; by 30 numbers of the
        autoencoder 82.8 %, of PCA 81.9 %; by all 784 pixels 78.4 %. On scikit-learn's digits (the
        default): 65.7, 52.3 and 95.6 % by two, 90.1 and 90.9 % by ten, 92.6 % by all 64.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.autoencoder import deep, linear, network
from lecture4.data import images as image_data
from lecture4.features import retrieval
from lecture4.ops.losses import check_unit_interval


@dataclasses.dataclass(frozen=True)
class Config(train.Config):
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
    found = image_data.load(config.source, seed=config.seed, **config.data_kwargs())
    x, test = (
        np.asarray(check_unit_interval(a.reshape(len(a), -1), config.source))
        for a in (found.train_images, found.test_images)
    )
    return train.in_memory(
        x,
        config.batch_size,
        seed=config.seed,
        evaluation=test[: config.shown],
        extra={
            'labels': found.test_labels[: config.shown],
            'names': found.class_names,
            'shape': found.train_images.shape[1:3],
        },
    )


def build(config):
    def init(key, x):
        codes = {'map': 2, 'code': config.code}
        keys = dict(zip(codes, jax.random.split(key), strict=True))
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


def report(config, state, data):
    from lecture4.figures import embeddings, images

    x, labels = data.evaluation, data.extra['labels']
    codes = {
        name: np.asarray(deep.encode(own, x, jax.nn.relu)) for name, own in state.params.items()
    }
    principal = linear.principal_components(data.resident)
    planes = {'autoencoder': codes['map'], 'PCA': principal.encode(x, 2)}
    if config.tsne:
        from sklearn.manifold import TSNE

        planes['t-SNE'] = TSNE(random_state=config.seed).fit_transform(x)
    n = config.neighbours
    spaces = {
        **{f'{name}, 2': points for name, points in planes.items()},
        f'PCA, {config.code}': principal.encode(x, config.code),
        f'autoencoder, {config.code}': codes['code'],
        f'pixels, {x.shape[1]}': x,
    }
    found = {name: retrieval.precision_at_k(points, labels, n) for name, points in spaces.items()}
    rows = tuple((name, value) for name, value in found.items())
    asked = [int(np.flatnonzero(labels == c)[0]) for c in np.unique(labels)[:6]]
    nearest = {
        'code': retrieval.nearest_neighbors(codes['code'], n)[asked],
        'pixels': retrieval.nearest_neighbors(x, n)[asked],
    }
    shown = {}
    for i, row in enumerate(asked):
        for space, found_rows in nearest.items():
            name = f'{data.extra["names"][labels[row]]}, {space}'
            shown[name] = x[[row, *found_rows[i]]].reshape(-1, *data.extra['shape'])
    notes = {name: f'{found[f"{name}, 2"]:.0%}' for name in planes}
    metrics = {
        'precision_' + name.replace(', ', '_').replace(' ', '_').replace('-', ''): value
        for name, value in found.items()
    }
    columns = ('representation, numbers a picture', 'share')
    caption = f'{len(x)} test pictures, each asked for among the others, Euclidean distance.'
    title = f'Neighbours of the same class among the nearest {n}'
    return train.Report(
        metrics=metrics,
        tables=(train.Table(title, columns, rows, caption),),
        pictures={
            'map': train.Picture(
                embeddings.scatter(planes, labels, data.extra['names'], notes=notes),
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
