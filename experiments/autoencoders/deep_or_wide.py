"""Deep or wide autoencoders of equal numbers of parameters and equal codes (Hinton & Salakhutdinov, Science 2006).

"Many hidden layers are better even though one is theoretically sufficient; depth saves computation and training data."
Encoders of 1, 2 and 4 hidden layers before the code, mirrored by their decoders, have the same latent dimension and, by
their width, the same number of parameters. They are trained on sets of several sizes from several random starts; the
test error is compared with that of PCA on the same images, the optimum without hidden layers.

Run:      python -m experiments.autoencoders.deep_or_wide
          python -m experiments.autoencoders.deep_or_wide --num_train 1200 --sweep num_parameters
          python -m experiments.autoencoders.deep_or_wide --preset mnist --manual_dir PATH
Hardware: one core (AMD EPYC), 90 s
Results:  digits, 6 latent variables, squared error on test images (training images), means of 3 training sets

          | images, parameters | PCA         | 1 hidden layer | 2           | 4           |
          |--------------------|-------------|----------------|-------------|-------------|
          | 100, 40,000        | 2.16 (1.74) | 2.96 (0.04)    | 3.22 (0.09) | 3.41 (0.14) |
          | 400, 40,000        | 2.02 (1.85) | 1.46 (0.62)    | 1.58 (0.63) | 1.77 (0.67) |
          | 1200, 40,000       | 1.99 (1.89) | 1.25 (0.84)    | 1.30 (0.90) | 1.40 (0.97) |
          | 1200, 5,000        | 1.99        | 1.90           | 1.98        | 2.62        |
          | 1200, 10,000       | 1.99        | 1.63           | 1.62        | 1.80        |
          | 1200, 160,000      | 1.99        | 1.18           | 1.23        | 1.30        |

          Standard errors are at most 0.14 at 100 images, 0.03 at the others. On these 8 x 8 images a hidden layer gains
          over none, but more than one save neither images nor parameters: the wide network has the lowest error, and
          the order is the same at a learning rate of .003 (1.19, 1.24, 1.32). The savings that theory proves are of
          functions that are compositions, see convnets.depth. With 100 images all but PCA overfit. MNIST, 30 latent
          variables, 200,000 parameters, 60,000 images, 3000 steps: PCA 13.87, then 8.35, 10.03 and 13.79 (one start);
          1,000,000 parameters, 10,000 images, 1500 steps: PCA 13.93, then 6.63, 7.02 and 9.64. Deeper networks are
          narrower and train more slowly: also their training errors are higher. More steps may change the order.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.autoencoder import deep, linear, network
from lecture4.data.images import vectors
from lecture4.ops.losses import bernoulli_nll, squared_error


@dataclasses.dataclass(frozen=True)
class Config(train.SquareImages):
    steps: train.AtLeast1 = 2000
    batch_size: train.AtLeast1 = 64
    steps_per_call: train.AtLeast1 = 100
    # Source of images: digits, mnist, omniglot, dir:PATH, npz:PATH, csv:PATH.
    source: str = 'digits'
    # Numbers of hidden layers of the encoders; the decoders mirror them.
    depths: train.Ints = (1, 2, 4)
    # Number of latent variables.
    latent_dim: train.AtLeast1 = 6
    # Largest number of parameters of each autoencoder, encoder and decoder.
    num_parameters: train.AtLeast1 = 40_000
    # Numbers of training images.
    num_train: train.Ints = (100, 400, 1200)
    # Number of training sets and random starts of each size.
    num_trials: train.AtLeast1 = 3
    # Peak learning rate of Adam, with cosine decay to 0.
    learning_rate: train.Positive = 1e-3


METRICS = (
    train.Metric('best_error', '', 'lower', 'error of the best depth, most images', primary=True),
    train.Metric('error', '', 'lower', 'squared error of test images'),
    train.Metric('train_error', '', 'lower', 'squared error of training images'),
    train.Metric('loss', 'nats', 'lower', 'training loss'),
    train.Metric('parameters', 'count', 'lower', 'parameters'),
    train.Metric('width', 'count', '', 'units of a hidden layer'),
)
PRESETS = {
    'smoke': {'steps': 4, 'steps_per_call': 4, 'depths': (1, 2), 'num_parameters': 1000}
    | {'num_train': (20, 30), 'num_trials': 1, 'batch_size': 8, 'latent_dim': 2},
    'mnist': {'source': 'mnist', 'latent_dim': 30, 'num_parameters': 200_000, 'num_trials': 1}
    | {'num_train': (1000, 10_000, 60_000), 'steps': 3000, 'batch_size': 100},
}
SWEEPS = {
    'latent_dim': train.grid(latent_dim=(2, 6, 16)),
    'num_parameters': train.grid(num_parameters=(5_000, 10_000, 40_000, 160_000)),
    'learning_rate': train.grid(learning_rate=(3e-4, 1e-3, 3e-3)),
}


def layer_dims(config, spec):
    """Depth -> dimensions of the encoder."""
    (d,) = spec.shape
    return {
        f'{n}': deep.equal_width_dims(d, n, config.latent_dim, config.num_parameters)
        for n in config.depths
    }


def data(config):
    loaded = vectors.load_labeled(config.source, seed=config.seed, **config.data_kwargs())
    cases, subsets = train.random_subsets(
        len(loaded.train), config.num_train, config.num_trials, config.seed
    )
    constants = {'cases': cases, 'subsets': subsets, 'image_shape': loaded.image_shape[:2]}
    return train.subsets_in_memory(
        loaded.train,
        subsets,
        config.batch_size,
        seed=config.seed,
        spec=train.Spec(loaded.train.shape[1:], constants=constants),
        report_data=loaded.test,
    )


def build(config, spec):
    names = [f'{n}_{trial}' for n, trial in spec.constants['cases']]
    optimizer = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps))

    def loss(params, x, key):
        return jnp.mean(deep.loss(params, x, activation=jax.nn.relu, nll=bernoulli_nll)), {}

    def task_of(dims):
        def init(key, x):
            return network.init_autoencoder(key, dims, scale='he')

        task = train.optimize(init, loss, optimizer)
        return train.stacked(task, names, split_keys=True, split_batch=True)

    return train.parallel({name: task_of(dims) for name, dims in layer_dims(config, spec).items()})


def reconstruct(params, x):
    code = deep.encode(params, x, jax.nn.relu)
    return jax.nn.sigmoid(deep.decode(params, code, jax.nn.relu))


def apply(config, spec):
    """Functions of the autoencoder of the last depth and largest training set; images [n, d] in [0, 1]."""

    def last(state):
        return jax.tree.map(lambda leaf: leaf[-1], state[f'{config.depths[-1]}'].params)

    return {
        'encode': lambda state, x: deep.encode(last(state), x, jax.nn.relu),
        'reconstruct': lambda state, x: reconstruct(last(state), x),
    }


def report(config, state, data):
    from lecture4.figures import images, lines

    constants, k = data.spec.constants, config.latent_dim
    cases, subsets = constants['cases'], constants['subsets']
    sizes = sorted({size for size, _ in cases})
    x, test = np.asarray(data.device_arrays), data.report_data
    dims_of, few = layer_dims(config, data.spec), images.spaced(test)
    names = {n: f'{n} hidden layer{"s" * (n != "1")}' for n in dims_of}
    principal = [linear.principal_components(x[own]) for own in subsets]
    run = jax.jit(reconstruct)

    def model_of(n):
        return lambda i, x: run(jax.tree.map(lambda leaf: leaf[i], state[n].params), x)

    models = {'PCA': lambda i, x: principal[i].reconstruct(x, k)}
    models |= {name: model_of(n) for n, name in names.items()}
    records, curves, rows, last = [], {}, {'image': few}, {}
    for name, model in models.items():
        parts = [[(i, x[own]), (i, test)] for i, own in enumerate(subsets)]
        errors = [[np.mean(squared_error(x, model(i, x))) for i, x in pair] for pair in parts]
        errors = np.array(errors)
        by_size = {n: errors[[size == n for size, _ in cases]].T for n in sizes}
        for n, (of_training, of_test) in by_size.items():
            record = {'autoencoder': name, 'images': n, 'error': of_test}
            records.append(record | {'train_error': of_training})
        curves[name] = (sizes, [of_test.mean() for _, of_test in by_size.values()])
        last[name] = float(curves[name][1][-1])
        rows[name] = np.asarray(model(-1, few))
    counts = [
        {'autoencoder': names[n], 'width': dims[1], 'parameters': deep.num_parameters(dims)}
        for n, dims in dims_of.items()
    ]
    panel = {'curves': curves, 'ylabel': 'squared error', 'xscale': 'log'}
    drawn = lines.panels({'test error': panel | {'xlabel': 'training images'}}, size=(6, 3.2))
    caption = f'{k} latent variables; squared error summed over pixels, mean over images.'
    shown = images.vector_rows(rows, constants['image_shape'])
    shown = train.Figure(shown, 'Test images reconstructed by the last autoencoder of each kind.')
    texts = ', '.join(f'{name} {error:.2f}' for name, error in last.items())
    return train.Report(
        metrics={'best_error': min(last[name] for name in names.values())},
        tables=(
            train.Table('Error', records, ('autoencoder',), caption=caption, pivot='images'),
            train.Table('Sizes', counts, ('autoencoder',)),
        ),
        figures={'depth': train.Figure(drawn, caption), 'reconstructions': shown},
        summary=f'Test error with {sizes[-1]} images: {texts}.',
    )


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
