"""Contractive, denoising and plain autoencoders side by side: what their features are worth.

Rifai, Vincent, Muller, Glorot & Bengio, ICML 2011, and Vincent et al. 2010. One layer of logistic
units with tied weights and the cross-entropy, the same first weights and the same batches for every
method. Then, on held-out pictures: the error of a linear classifier on the codes, the Jacobian's
norm and singular values, how far neighbourhoods are contracted, and how many units are saturated.

Run     python -m experiments.autoencoders.contractive
        python -m experiments.autoencoders.contractive --preset mnist
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.autoencoder import contractive, denoising, network
from lecture4.data import pictures
from lecture4.ops.losses import bernoulli_nll, check_unit_interval

METHODS = (
    'random',
    'plain',
    'decay',
    'gaussian',
    'salt_and_pepper',
    'masking',
    'contractive',
    'contractive_h',
)


@dataclasses.dataclass(frozen=True)
class Config(train.Common):
    # Steps of training.
    steps: int = 2000
    batch_size: int = 50
    # Where labelled pictures come from: digits, mnist, dir:PATH, npz:PATH.
    source: str = 'digits'
    # What is trained, side by side.
    methods: tuple[str, ...] = METHODS
    # Pictures to train on, codes and classifier alike; all splits of the source are mixed first.
    train_examples: int = 1000
    # Pictures on which the classifier's penalty is chosen.
    valid_examples: int = 297
    # Pictures that are tested on.
    test_examples: int = 500
    # Units of the code.
    width: int = 200
    learning_rate: float = 1e-3
    # Weight decay of `decay`.
    decay: float = 1e-3
    # Standard deviation of the noise of `gaussian`.
    gaussian: float = 0.3
    # Share of pixels set to 0 or 1 by `salt_and_pepper`.
    salt_and_pepper: float = 0.25
    # Share of pixels set to 0 by `masking`.
    masking: float = 0.5
    # Weight of ||dh/dx||^2 in `contractive` and `contractive_h`.
    contraction: float = 0.3
    # Weight of E ||J(x) - J(x + e)||^2 in `contractive_h`.
    curvature: float = 0.3
    # Standard deviation of that e.
    curvature_std: float = 0.3
    # C of logistic regression is chosen from these.
    penalties: tuple[float, ...] = (1e-3, 1e-2, 1e-1)

    def __post_init__(self):
        super().__post_init__()
        train.require(self, 'width', self.width >= 1, 'at least 1')
        for name in ('masking', 'salt_and_pepper'):
            train.require(self, name, 0 <= getattr(self, name) <= 1, 'between 0 and 1')
        for name in ('gaussian', 'contraction', 'curvature', 'curvature_std', 'decay'):
            train.require(self, name, getattr(self, name) >= 0, 'at least 0')
        known = bool(self.methods) and set(self.methods) <= set(METHODS)
        train.require(self, 'methods', known, f'some of {", ".join(METHODS)}')


PRESETS = {
    'smoke': {
        'steps': 20,
        'width': 32,
        'methods': ('plain', 'masking', 'contractive_h'),
        'penalties': (0.1,),
    },
    'mnist': {
        'source': 'mnist',
        'train_examples': 10_000,
        'valid_examples': 2000,
        'test_examples': 50_000,
        'width': 500,
        'steps': 8000,
        'steps_per_call': 200,
        'log_every': 200,
        'evaluate_every': 2000,
        'save_every': 2000,
    },
}
SWEEPS = {
    'contraction': train.grid(
        methods=(('contractive',),), contraction=(0.0, 0.03, 0.1, 0.3, 1.0), seed=(0, 1, 2)
    ),
    'masking': train.grid(methods=(('masking',),), masking=(0.0, 0.1, 0.25, 0.5), seed=(0, 1, 2)),
    'seeds': train.grid(seed=(0, 1, 2)),
}


def data(config):
    found = pictures.labelled(config.source, seed=config.seed, **config.places())
    x = np.concatenate([found.train_images, found.test_images])
    labels = np.concatenate([found.train_labels, found.test_labels])
    counts = (config.train_examples, config.valid_examples, config.test_examples)
    if sum(counts) > len(x):
        raise ValueError(
            f'{sum(counts)} pictures are wanted for train, valid and test; {config.source} has '
            f'{len(x)}: lower --test_examples or another'
        )
    rows = np.random.default_rng(config.seed).permutation(len(x))[: sum(counts)]
    parts = np.split(rows, np.cumsum(counts)[:-1])
    shape = x.shape[1:3]
    x = check_unit_interval(x.reshape(len(x), -1), config.source)
    x = np.asarray(x)
    splits = {
        name: (x[part], labels[part].astype(np.int32))
        for name, part in zip(('train', 'valid', 'test'), parts, strict=True)
    }
    return train.in_memory(
        splits['train'][0],
        config.batch_size,
        seed=config.seed,
        evaluation=splits['test'][0][:2000],
        extra={'splits': splits, 'shape': shape},
    )


def encode(params, x):
    return network.encode(params, x, network.identity, jax.nn.sigmoid)


def reconstruct(params, x):
    """Logits of the pixels."""
    return network.decode(params, encode(params, x), network.identity)


def method_loss(config, method, params, x, key):
    """The mean loss of one method."""
    corruptions = {
        'gaussian': functools.partial(denoising.gaussian, std=config.gaussian),
        'salt_and_pepper': functools.partial(
            denoising.salt_and_pepper, share=config.salt_and_pepper
        ),
        'masking': functools.partial(denoising.masking, share=config.masking),
    }
    corrupt = corruptions.get(method, lambda key, x: x)
    run = functools.partial(reconstruct, params)
    value = jnp.mean(denoising.loss(run, bernoulli_nll, corrupt, x, key))
    layer = params.encoder[0]
    if method == 'decay':
        value = value + config.decay * jnp.sum(layer.weight**2)
    if method.startswith('contractive'):
        penalty = contractive.layer_penalty(layer, x, jax.nn.sigmoid)
        value = value + config.contraction * jnp.mean(penalty)
    if method == 'contractive_h':
        bend = contractive.layer_curvature(
            layer, x, jax.nn.sigmoid, key, std=config.curvature_std, n_samples=2
        )
        value = value + config.curvature * jnp.mean(bend)
    return value


def build(config):
    trained = [method for method in config.methods if method != 'random']

    def init(key, x):
        widths = (x.shape[1], config.width)
        first = network.init_autoencoder(key, widths, tied=True, scale='sigmoid')
        return dict.fromkeys(config.methods, first)

    def loss(params, x, key):
        values = {method: method_loss(config, method, params[method], x, key) for method in trained}
        return sum(values.values(), jnp.zeros(())), values

    def evaluate(params, x):
        return {
            method: jnp.mean(bernoulli_nll(reconstruct(own, x), x))
            for method, own in params.items()
        }

    return train.optimise(init, loss, optax.adam(config.learning_rate), evaluate)


def probe_error(config, codes, extra):
    """Test error in % of a linear classifier, its penalty chosen on the validation pictures.

    codes  {'train', 'valid', 'test'} -> [n, k]; they are standardised by the training ones.
    """
    from sklearn.linear_model import LogisticRegression

    mean, std = codes['train'].mean(0, keepdims=True), codes['train'].std(0, keepdims=True)
    z = {name: (code - mean) / np.maximum(std, 1e-3) for name, code in codes.items()}
    labels = {name: extra['splits'][name][1] for name in z}
    found = []
    for penalty in config.penalties:
        fit = LogisticRegression(C=penalty, tol=1e-2, max_iter=300).fit(z['train'], labels['train'])
        wrong = (100 * np.mean(fit.predict(z[name]) != labels[name]) for name in ('valid', 'test'))
        found.append(tuple(map(float, wrong)))
    return min(found)[1]


def report(config, state, data):
    from lecture4.figures import dictionary, lines

    splits, shape = data.extra['splits'], data.extra['shape']
    few = jnp.asarray(splits['test'][0][:200])
    radii = np.geomspace(0.05, 10, 14)
    raw = {name: x for name, (x, _) in splits.items()}
    rows, metrics = [('raw pixels', '', '', '', probe_error(config, raw, data.extra))], {}
    spectra, contractions, saturations, shown = {}, {}, {}, {}
    for method in config.methods:
        params = state.params[method]
        one = functools.partial(encode, params)
        codes = {name: np.asarray(jax.jit(encode)(params, x)) for name, x in raw.items()}
        test = jnp.asarray(data.evaluation)
        values = {
            'cross_entropy': jnp.mean(bernoulli_nll(reconstruct(params, test), test)),
            'jacobian': jnp.mean(
                contractive.layer_penalty(params.encoder[0], test, jax.nn.sigmoid)
            ),
            'saturated': contractive.saturated(jnp.asarray(codes['test'])),
            'probe_error': probe_error(config, codes, data.extra),
        }
        metrics |= {f'{method}_{name}': float(value) for name, value in values.items()}
        rows.append((method.replace('_', ' '), *(float(value) for value in values.values())))
        singular = np.asarray(contractive.singular_values(one, few)).mean(0)
        spectra[method] = (np.arange(1, len(singular) + 1), np.maximum(singular, 1e-6))
        ratio = contractive.contraction(one, few, jax.random.key(0), radii)
        contractions[method] = (radii, np.asarray(ratio))
        counts, edges = np.histogram(codes['test'], 25, (0, 1), density=True)
        saturations[method] = ((edges[1:] + edges[:-1]) / 2, np.maximum(counts, 1e-3))
        if method in ('plain', 'masking', 'contractive'):
            weight = np.asarray(params.encoder[0].weight)
            shown[f'filters_{method}'] = train.Picture(
                dictionary.atoms(weight, shape, n=64, columns=16), f'Filters of {method}.'
            )
    panels = {
        'Singular values of the Jacobian': {
            'curves': spectra, 'xlabel': 'rank', 'ylabel': 'mean over test pictures', 'yscale': 'log',
        },
        'Contraction of a neighbourhood': {
            'curves': contractions, 'xlabel': 'radius', 'ylabel': '|f(x + r u) - f(x)| / r',
            'xscale': 'log', 'yscale': 'log',
        },
        'Activations of the units': {
            'curves': saturations, 'xlabel': 'h', 'ylabel': 'density', 'yscale': 'log',
        },
    }  # fmt: skip
    columns = ('', 'cross-entropy', '|J|^2', 'saturated', 'linear classifier, test error %')
    caption = (
        f'{len(data.resident)} pictures to train on, {len(raw["test"])} tested; saturated: share of '
        'units below .05 or above .95; cross-entropy in nats, of clean pictures.'
    )
    best = min(state.params, key=lambda method: metrics[f'{method}_probe_error'])
    return train.Report(
        metrics=metrics,
        tables=(train.Table('Features', columns, tuple(rows), caption),),
        pictures={
            'contraction': train.Picture(
                lines.panels(panels, columns=3),
                'A contractive code answers to few directions (left), at small and middle radii '
                '(centre), because most of its units are saturated (right).',
            ),
            **shown,
        },
        summary=f'Best for the linear classifier: {best}, '
        f'{metrics[f"{best}_probe_error"]:.2f} % test error.',
    )


if __name__ == '__main__':
    train.main(Config, data, build, report, PRESETS, SWEEPS)
