"""What sparse codes cost and what they buy: accuracy against labels and against time (Raina et al., ICML 2007).

"Better generalization when labels are few; expensive at test time." Sparse codes of whole images, their predictions by
LISTA and by the encoder of predictive sparse decomposition, codes of an autoencoder of the same size, and pixels are
learned without labels and classified by logistic regression from a few; a convolutional network is trained on the few
labels alone. Times are per image, compiled, in the same run.

Run:      python -m experiments.sparse_coding.cost_of_codes
Hardware: one core (AMD EPYC), 2 minutes
Results:  digits; test accuracy (%), mean of 3 labeled sets, and time per image

          | features              | 20 labels | 100  | 1000 | time (us) |
          |-----------------------|-----------|------|------|-----------|
          | sparse codes (FISTA)  | 44.5      | 87.4 | 94.5 | 170       |
          | LISTA, 3 layers       | 47.3      | 86.5 | 92.9 | 3.6       |
          | PSD                   | 58.4      | 84.6 | 91.2 | 1.1       |
          | autoencoder           | 57.9      | 85.4 | 92.5 | 0.6       |
          | pixels                | 56.3      | 84.3 | 91.8 | 0.3       |
          | convolutional network | 60.5      | 85.9 | 94.7 | 6.9       |

          Standard errors: at most 2.3, 1.6, 0.5 points. Sparse codes take 47 times as long as LISTA, and are the best
          features at 100 and 1000 labels, but the worst at 20, two per class (patches: sparse_coding.self_taught).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.autoencoder import network, psd
from lecture4.data.images import vectors
from lecture4.features import linear_probe
from lecture4.features.timing import median_times
from lecture4.ops.losses import squared_error
from lecture4.sparse import lista, recovery, solvers
from lecture4.vision import pooling_sizes

CNN, FILTERS, MAX_POOL = 'convolutional network', 32, pooling_sizes.Pooling('max', 2, 2)
COUPLING, LISTA_LAYERS, DICTIONARY_STEPS = 1.0, 3, 200


@dataclasses.dataclass(frozen=True)
class Config(train.SquareImages):
    # Number of training steps of every network.
    steps: train.AtLeast1 = 500
    batch_size: train.AtLeast1 = 128
    steps_per_call: train.AtLeast1 = 50
    # Source of labeled images: digits, mnist, dir:PATH, npz:PATH.
    source: str = 'digits'
    # Number of atoms, and of latent variables.
    latent_dim: train.AtLeast1 = 128
    # Weight of the L1 norm of the codes.
    l1_penalty: train.Positive = 1.0
    # Learning rate of Adam.
    learning_rate: train.Positive = 3e-3
    # Numbers of labels.
    num_labels: train.Ints = (20, 100, 1000)
    # Labeled sets drawn for every number.
    num_trials: train.AtLeast1 = 3
    # Candidate values of C for logistic regression, chosen on held-out images.
    Cs: train.Floats = (1e-2, 1e-1, 1.0, 10.0)


METRICS = (
    train.Metric('few_accuracy', 'fraction', 'higher', 'sparse codes, fewest labels', primary=True),
    train.Metric('accuracy', 'fraction', 'higher', 'accuracy'),
    train.Metric('time', 'us', 'lower', 'time per image'),
    train.Metric('loss', '', 'lower', 'training loss'),
    train.Metric('reconstruction', '', 'lower', 'squared error'),
    train.Metric('prediction', '', 'lower', 'error of the prediction'),
    train.Metric('energy', '', 'lower', 'energy'),
    train.Metric('density', 'fraction', '', 'coefficients that are not 0'),
)
PRESETS = {
    'smoke': {'steps': 4, 'steps_per_call': 4, 'latent_dim': 16}
    | {'num_labels': (20,), 'num_trials': 1, 'Cs': (0.01,), 'batch_size': 16},
    'mnist': {'source': 'mnist', 'latent_dim': 512, 'num_labels': (100, 1000, 10_000)},
}
SWEEPS = {'l1_penalty': train.grid(l1_penalty=(0.3, 1.0, 3.0))}


def data(config):
    loaded = vectors.load_labeled(config.source, seed=config.seed, **config.data_kwargs())
    rows = np.random.default_rng(config.seed).permutation(len(loaded.train))
    x, labels = loaded.train[rows], loaded.train_labels[rows].astype(np.int32)
    mean, scale = x.mean(0), x.std(0).mean() + 1e-6
    signals, n = ((x - mean) / scale).astype(np.float32), len(x) // 6
    options = {'l1_penalty': config.l1_penalty, 'n_steps': DICTIONARY_STEPS, 'batch_size': 512}
    key = jax.random.key(config.seed)
    D = recovery.learn_dictionary(key, signals, config.latent_dim, **options)
    codes = np.asarray(solvers.fista(signals, D, config.l1_penalty, tile=128).codes)
    test = ((loaded.test - mean) / scale).astype(np.float32)
    constants = {'D': np.asarray(D), 'mean': mean, 'scale': scale, 'shape': loaded.image_shape[:2]}
    return train.in_memory(
        {'x': signals, 'codes': codes},
        config.batch_size,
        seed=config.seed,
        spec=train.Spec(x.shape[1:], loaded.class_names, constants),
        report_data={
            'train': (signals[n:], labels[n:]),
            'valid': (signals[:n], labels[:n]),
            'tests': {'accuracy': test},
            'test_labels': loaded.test_labels.astype(np.int32),
        },
    )


def build(config, spec):
    optimizer, d, k = optax.adam(config.learning_rate), *spec.shape, config.latent_dim
    D, n, l1_penalty = jnp.asarray(spec.constants['D']), LISTA_LAYERS, config.l1_penalty

    def lista_loss(params, batch, key):
        return lista.loss(params, batch['x'], batch['codes'], n), {}

    def autoencoder_loss(params, batch, key):
        h = network.encode(params, batch['x'], network.identity, jax.nn.relu)
        output = network.decode(params, h, network.identity)
        return jnp.mean(squared_error(batch['x'], output)), {}

    def init_autoencoder(key, batch):
        return network.init_autoencoder(key, (d, k), scale='he')

    def psd_step(state, batch, key, *, reduce):
        terms = {'l1_penalty': 2 * l1_penalty, 'coupling': COUPLING}
        return psd.step(state, batch['x'], key, optimizer=optimizer, **terms, reduce=reduce)

    tasks = {
        'LISTA': train.optimize(lambda *_: lista.init(D, l1_penalty, n), lista_loss, optimizer),
        'PSD': train.from_learner(lambda key, x: psd.init(key, x['x'], k, optimizer), psd_step),
        'autoencoder': train.optimize(init_autoencoder, autoencoder_loss, optimizer),
    }
    return train.parallel(tasks)


def encoders(config, spec, state):
    """Name -> images as signals [n, d] to features [n, k]."""
    D, autoencoder = jnp.asarray(spec.constants['D']), state['autoencoder'].params
    return {
        'sparse codes': lambda x: solvers.fista(x, D, config.l1_penalty, tile=128).codes,
        'LISTA': lambda x: lista.encode(state['LISTA'].params, x, LISTA_LAYERS),
        'PSD': lambda x: psd.encode(state['PSD'].params.params, x),
        'autoencoder': lambda x: network.encode(autoencoder, x, network.identity, jax.nn.relu),
        'pixels': jnp.asarray,
    }


def apply(config, spec):
    def encode(state, x):
        signals = (x - spec.constants['mean'][None]) / spec.constants['scale']
        return encoders(config, spec, state)['LISTA'](signals)

    return {'encode': encode}


def report(config, state, data):
    from lecture4.figures import lines

    shape, parts = (-1, *data.spec.constants['shape'], 1), data.report_data
    test = (parts['tests']['accuracy'], parts['test_labels'])
    sets = [(x.reshape(shape), labels) for x, labels in (parts['train'], test)]
    net = pooling_sizes.Network(MAX_POOL, FILTERS, 3, data.spec.num_classes)
    options = {name: getattr(config, name) for name in ('num_labels', 'num_trials', 'seed')}
    sizes = {name: getattr(config, name) for name in ('steps', 'learning_rate')}
    sizes['batch_size'] = min(config.batch_size, 64)
    records, variables = pooling_sizes.few_label_records(CNN, net, *sets, **options, **sizes)
    each, options['Cs'] = encoders(config, data.spec, state), config.Cs
    for name, encode in each.items():
        records += linear_probe.label_records(name, jax.jit(encode), **parts, **options)
    each[CNN] = lambda x: net.apply(variables, x.reshape(shape))
    seconds = median_times(each, (jnp.asarray(test[0]),))
    times = {k: 1e6 * t / len(test[0]) for k, t in seconds.items()}
    at = {(r['features'], r['num_labels']): float(np.mean(r['accuracy'])) for r in records}
    counts = sorted({n for _, n in at})
    few, many = counts[0], counts[-1]
    by_labels = {n: (counts, [at[n, c] for c in counts]) for n in times}
    axes = {'ylabel': 'test accuracy', 'xscale': 'log'}
    panels = {'by labels': {'curves': by_labels, 'xlabel': 'labels', **axes}}
    for n in (few, many):
        points = {name: ([t], [at[name, n]]) for name, t in times.items()}
        panels[f'{n} labels'] = {'curves': points, 'xlabel': 'µs per image', **axes}
    drawn = lines.panels(panels, columns=3)
    timed = [{'features': name, 'time': t} for name, t in times.items()]
    slower = times['sparse codes'] / times['LISTA']
    return train.Report(
        metrics={'few_accuracy': at['sparse codes', few]},
        tables=(
            train.Table('Accuracy', records, ('features',), pivot='num_labels'),
            train.Table('Time per image', timed, ('features',)),
        ),
        figures={'cost': train.Figure(drawn, 'Accuracy by labels, and by time at test.')},
        summary=f'{few} labels: sparse codes {at["sparse codes", few]:.1%}, LISTA {at["LISTA", few]:.1%}, pixels '
        f'{at["pixels", few]:.1%}; codes take {slower:.0f} times as long as LISTA.',
    )


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
