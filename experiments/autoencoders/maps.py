"""Maps of a data set in two latent variables, and retrieval by code (Hinton & Salakhutdinov, 2006, figures 3 and 4).

Two deep autoencoders are trained in parallel, one with two latent variables for the map, one with more for
retrieval. Baselines are principal components, and scikit-learn's t-SNE, which maps the given images only, not new ones.

Run:      python -m experiments.autoencoders.maps
          python -m experiments.autoencoders.maps --preset mnist
Hardware: one core (AMD EPYC), 1 minute; mnist 4 minutes
Results:  fraction (%) of the 10 nearest of 2000 test images that are of the same class

          | representation        | MNIST (2, 30) | digits (2, 10) |
          |-----------------------|---------------|----------------|
          | autoencoder, 2        | 68.0          | 65.7           |
          | PCA, 2                | 36.8          | 52.3           |
          | t-SNE, 2              | 80.6          | 95.6           |
          | autoencoder, 30 or 10 | 82.8          | 90.1           |
          | PCA, 30 or 10         | 81.9          | 90.9           |
          | pixels                | 78.4          | 92.6           |
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.autoencoder import deep, linear, network
from lecture4.data.images import vectors
from lecture4.features import retrieval


@dataclasses.dataclass(frozen=True)
class Config(train.SquareImages):
    steps: train.AtLeast1 = 4000
    batch_size: train.AtLeast1 = 100
    # Source of labeled images: digits, mnist, dir:PATH, npz:PATH, csv:PATH.
    source: str = 'digits'
    # Sizes of the hidden layers of the encoders, before the code.
    hidden_dims: train.Ints = (256, 128)
    # Latent dimension for retrieval.
    latent_dim: train.AtLeast1 = 10
    # Peak learning rate, with cosine decay to 0.
    learning_rate: train.Positive = 1e-3
    # Largest number of test images in the map and in retrieval.
    num_shown: train.AtLeast2 = 2000
    # Number of nearest neighbors whose class is compared with that of an image.
    num_neighbors: train.AtLeast1 = 10
    # Run t-SNE for comparison.
    tsne: bool = True

    def __post_init__(self):
        super().__post_init__()
        fits = self.num_shown > self.num_neighbors
        train.require(self, 'num_shown', fits, 'more than --num_neighbors')


METRICS = (
    train.Metric(
        'map_precision', 'fraction', 'higher', 'neighbors of the same class, map', primary=True
    ),
    train.Metric('precision', 'fraction', 'higher', 'neighbors of the same class'),
    train.Metric('loss', 'nats', 'lower', 'cross-entropy'),
)
PRESETS = {
    'smoke': {'steps': 20, 'hidden_dims': (32,), 'num_shown': 60, 'tsne': False},
    'mnist': {'source': 'mnist', 'hidden_dims': (500, 250), 'latent_dim': 30, 'steps': 9000}
    | {'steps_per_call': 100},
}
SWEEPS = {'latent_dim': train.grid(latent_dim=(2, 5, 10, 20), tsne=(False,), seed=(0, 1))}


def data(config):
    loaded = vectors.load_labeled(config.source, seed=config.seed, **config.data_kwargs())
    constants = {'image_shape': loaded.image_shape[:2]}
    return train.in_memory(
        loaded.train,
        config.batch_size,
        seed=config.seed,
        evaluation=loaded.test[: config.num_shown],
        spec=train.Spec(loaded.train.shape[1:], loaded.class_names, constants),
        report_data=loaded.test_labels[: config.num_shown],
    )


def build(config, spec):
    dims = {'map': 2, 'code': config.latent_dim}

    def init(key, x):
        layers = {name: (*spec.shape, *config.hidden_dims, dim) for name, dim in dims.items()}
        return network.init_each(key, layers, scale='he')

    def loss(params, x, key):
        del key
        each = {
            f'loss/{name}': jnp.mean(deep.loss(own, x, activation=jax.nn.relu))
            for name, own in params.items()
        }
        return each['loss/map'] + each['loss/code'], each

    def evaluate(params, x):
        return loss(params, x, None)[1]

    schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    return train.optimize(init, loss, optax.adam(schedule), evaluate)


def apply(config, spec):
    def encode(state, x):
        return deep.encode(state.params['code'], x, jax.nn.relu)

    def to_map(state, x):
        return deep.encode(state.params['map'], x, jax.nn.relu)

    return {'encode': encode, 'map': to_map}


def report(config, state, data):
    from lecture4.figures import embeddings
    from lecture4.figures import images as drawn

    x, labels, names = data.evaluation, data.report_data, data.spec.class_names
    codes = {
        name: np.asarray(deep.encode(own, x, jax.nn.relu)) for name, own in state.params.items()
    }
    principal = linear.principal_components(data.device_arrays)
    planes = {'autoencoder': codes['map'], 'PCA': principal.encode(x, 2)}
    if config.tsne:
        from sklearn.manifold import TSNE

        planes['t-SNE'] = TSNE(random_state=config.seed).fit_transform(x)
    k = config.num_neighbors
    spaces = {
        **{f'{name}, 2': points for name, points in planes.items()},
        f'PCA, {config.latent_dim}': principal.encode(x, config.latent_dim),
        f'autoencoder, {config.latent_dim}': codes['code'],
        f'pixels, {x.shape[1]}': x,
    }
    precision = {n: retrieval.precision_at_k(points, labels, k) for n, points in spaces.items()}
    queries = [int(np.flatnonzero(labels == c)[0]) for c in np.unique(labels)[:6]]
    nearest = {
        name: retrieval.nearest_neighbors(points, k)[queries]
        for name, points in (('code', codes['code']), ('pixels', x))
    }
    shape = data.spec.constants['image_shape']
    rows = {
        f'{names[labels[row]]}, {name}': x[[row, *found[i]]].reshape(-1, *shape)
        for i, row in enumerate(queries)
        for name, found in nearest.items()
    }
    notes = {name: f'{precision[f"{name}, 2"]:.0%} of neighbors in class' for name in planes}
    records = [{'representation': name, 'precision': value} for name, value in precision.items()]
    title = f'Neighbors of the same class among the nearest {k}'
    caption = f'{len(x)} test images, each of them a query for the others by Euclidean distance.'
    return train.Report(
        metrics={'map_precision': precision['autoencoder, 2']},
        tables=(train.Table(title, records, ('representation',), caption=caption),),
        figures={
            'map': train.Figure(
                embeddings.scatter(planes, labels, names, notes=notes),
                f'{len(x)} test images in the plane; after each name, the fraction of the {k} nearest '
                'neighbors in the plane that are of the same class.',
            ),
            'retrieval': train.Figure(
                drawn.rows(rows), 'A query image and its nearest neighbors, by code and by pixels.'
            ),
        },
        summary=f'With two latent variables of the autoencoder {precision["autoencoder, 2"]:.0%} of nearest '
        f'neighbors are of the same class, with two principal components {precision["PCA, 2"]:.0%}.',
    )


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
