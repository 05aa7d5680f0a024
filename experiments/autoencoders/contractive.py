"""Contractive, denoising and plain autoencoders compared (Rifai et al., ICML 2011; Vincent et al., 2010).

One layer of logistic units with tied weights, from the same initial weights and batches for every method. On
held-out images: the error of a linear classifier on the codes (solved to convergence) and of a network fine-tuned
from them, the Jacobian's norm and singular values, contraction of neighborhoods, saturated units.

Run:      python -m experiments.autoencoders.contractive
          python -m experiments.autoencoders.contractive --preset mnist
Hardware: one core (AMD EPYC): half a minute; mnist 15 minutes
Results:  MNIST, 10,000 training and 50,000 test images, test error in %; published (unverified): 50,000, fine-tuned

          | method                     | linear probe | fine-tuned | published |
          |----------------------------|--------------|------------|-----------|
          | raw pixels                 | 9.11         |            |           |
          | random                     | 8.43         | 4.91       |           |
          | plain                      | 7.28         | 5.01       | 1.78      |
          | weight decay               | 6.93         | 4.87       | 1.68      |
          | salt and pepper            | 6.20         | 4.62       |           |
          | Gaussian                   | 6.02         | 4.67       | 1.18      |
          | masking                    | 5.41         | 4.09       | 1.57      |
          | contractive                | 5.04         | 4.18       | 1.14      |
          | contractive with curvature | 4.12         | 4.13       |           |

          Ranks as in the paper, except that masking is as good as contraction when fine-tuned (standard error 0.1) and
          better than Gaussian noise. Saturated units: plain 30 %, masking 55 %, contractive 75 %. Digits: a step of
          length 1 moves the code by 1.04, .82, .74, .38, .35 (plain, masking, Gaussian, contractive, curvature); 90 %
          of |J|^2 (70.6, 42.5, 34.8, 9.2, 8.2) lie in 47, 41, 46, 24, 21 directions; saturated: 2, 4, 15, 61, 61 %.
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.autoencoder import contractive, deep, registry
from lecture4.data.images import vectors
from lecture4.features import jacobian, linear_probe

Method = Literal[
    'random', 'plain', 'decay', 'gaussian', 'salt_and_pepper', 'masking', 'contractive', 'curvature'
]
REGULARIZATION = ('weight_decay', 'noise_std', 'flip_rate', 'mask_rate', 'contraction_penalty')
REGULARIZATION += ('curvature_penalty', 'curvature_std')
PUBLISHED = {'plain': 0.0178, 'decay': 0.0168, 'masking': 0.0157, 'gaussian': 0.0118}
PUBLISHED |= {'contractive': 0.0114}
CAPTION = f'{jacobian.CAPTION} Published: Rifai et al. 2011, fine-tuned, from memory, unverified.'


@dataclasses.dataclass(frozen=True)
class Config(train.SquareImages):
    steps: train.AtLeast1 = 2000
    batch_size: train.AtLeast1 = 50
    # Source of labeled images: digits, mnist, dir:PATH, npz:PATH, csv:PATH.
    source: str = 'digits'
    # Methods to train and compare.
    methods: tuple[Method, ...] = Method.__args__
    # Number of training images, for autoencoders and classifiers; all splits of the source are mixed first.
    num_train: train.AtLeast1 = 1000
    # Number of validation images, on which C and the epoch of fine-tuning are chosen.
    num_valid: train.AtLeast1 = 297
    # Number of test images.
    num_test: train.AtLeast1 = 500
    # Number of latent units.
    latent_dim: train.AtLeast1 = 200
    # Learning rate of Adam.
    learning_rate: train.Positive = 1e-3
    # Weight decay of the method `decay`.
    weight_decay: train.NonNegative = 1e-3
    # Standard deviation of the noise of `gaussian`.
    noise_std: train.NonNegative = 0.3
    # Fraction of pixels set to 0 or 1 by `salt_and_pepper`.
    flip_rate: train.Fraction = 0.25
    # Fraction of pixels set to 0 by `masking`.
    mask_rate: train.Fraction = 0.5
    # Weight of ||dh/dx||^2 in `contractive` and `curvature`.
    contraction_penalty: train.NonNegative = 0.3
    # Weight of E ||J(x) - J(x + e)||^2 in `curvature`.
    curvature_penalty: train.NonNegative = 0.3
    # Standard deviation of e in the curvature penalty.
    curvature_std: train.NonNegative = 0.3
    # Candidate values of C for logistic regression.
    Cs: train.Floats = (1e-3, 1e-2, 1e-1)
    # Number of epochs of fine-tuning, at half the learning rate.
    finetune_epochs: train.AtLeast1 = 30


PENALTIES = ('contraction_penalty', 'curvature_penalty', 'weight_decay')
METRICS = (
    train.Metric('best_probe_error', 'fraction', 'lower', 'best linear-probe error', primary=True),
    train.Metric('loss', 'nats', 'lower', 'training loss', depends_on=PENALTIES),
    train.Metric('cross_entropy', 'nats', 'lower', 'cross-entropy'),
    train.Metric('jacobian_norm', '', '', '|J|^2'),
    train.Metric('effective_rank', 'count', '', 'effective rank (90 % energy)'),
    train.Metric('contraction_ratio', '', 'lower', 'contraction ratio (r = 1)'),
    train.Metric('saturated', 'fraction', '', 'saturated units'),
    train.Metric('probe_error', 'fraction', 'lower', 'linear-probe error'),
    train.Metric('finetuned_error', 'fraction', 'lower', 'fine-tuned error'),
)
PRESETS = {
    'smoke': {'steps': 20, 'latent_dim': 32, 'methods': ('plain', 'curvature'), 'Cs': (0.1,)}
    | {'finetune_epochs': 1},
    'mnist': {'source': 'mnist', 'num_train': 10_000, 'num_valid': 2000, 'num_test': 50_000}
    | {'latent_dim': 500, 'steps': 8000, 'steps_per_call': 200},
}
SWEEPS = {
    'contraction': train.grid(
        methods=(('contractive',),), contraction_penalty=(0.0, 0.03, 0.1, 0.3, 1.0), seed=(0, 1, 2)
    ),
    'masking': train.grid(methods=(('masking',),), mask_rate=(0.0, 0.1, 0.25, 0.5), seed=(0, 1, 2)),
    'seeds': train.grid(seed=(0, 1, 2)),
}


def data(config):
    sizes = {'train': config.num_train, 'valid': config.num_valid, 'test': config.num_test}
    options = {'seed': config.seed, **config.data_kwargs()}
    splits, names, shape = vectors.load_shuffled(config.source, sizes, **options)
    x = splits['train'][0]
    return train.in_memory(
        x,
        config.batch_size,
        seed=config.seed,
        evaluation=splits['test'][0][:2000],
        spec=train.Spec(x.shape[1:], names, {'image_shape': shape}),
        report_data=splits,
    )


def variant(config, method):
    options = {name: getattr(config, name) for name in REGULARIZATION}
    return registry.regularized(method, config.latent_dim, **options)


def build(config, spec):
    def task(method):
        own = variant(config, method)

        def loss(params, x, key):
            return own.loss(params, x, key), {}

        def evaluate(params, x):
            return {'cross_entropy': deep.loss(params, x, latent_activation=jax.nn.sigmoid).mean()}

        adam = optax.adam(0.0 if method == 'random' else config.learning_rate)
        return train.optimize(lambda key, x: own.init(key, *spec.shape), loss, adam, evaluate)

    return train.parallel({method: task(method) for method in config.methods})


def apply(config, spec):
    own, method = variant(config, config.methods[-1]), config.methods[-1]
    return {
        'encode': lambda state, x: own.encode(state[method].params, x),
        'decode': lambda state, z: own.decode(state[method].params, z),
    }


def report(config, state, data):
    from lecture4.figures import contraction, dictionary

    splits, shape = data.report_data, data.spec.constants['image_shape']
    test = jnp.asarray(data.evaluation)
    pixels, labels = ({k: v[i] for k, v in splits.items()} for i in (0, 1))
    error = linear_probe.error(pixels, labels, config.Cs)
    records: list[dict] = [{'method': 'raw pixels', 'probe_error': error}]
    options = {'n_epochs': config.finetune_epochs, 'batch_size': config.batch_size}
    options |= {'n_classes': data.spec.num_classes, 'key': jax.random.key(config.seed)}
    options |= {'optimizer': optax.adam(config.learning_rate / 2)}
    spectra, ratios, codes, figures = {}, {}, {}, {}
    for method in config.methods:
        params, name = state[method].params, method.replace('_', ' ')
        encode = functools.partial(variant(config, method).encode, params)
        spectra[name], ratios[name], measured = jacobian.sensitivity(encode, test)
        z = {split: np.asarray(jax.jit(encode)(x)) for split, x in pixels.items()}
        codes[name], layer = z['test'], params.encoder[0]
        norm = contractive.layer_penalty(layer, test, jax.nn.sigmoid)
        cross_entropy = deep.loss(params, test, latent_activation=jax.nn.sigmoid)
        record = {'cross_entropy': cross_entropy.mean(), 'jacobian_norm': norm.mean(), **measured}
        record['probe_error'] = linear_probe.error(z, labels, config.Cs)
        record['finetuned_error'] = deep.fine_tuned_error(params, splits, **options)
        record['published'] = PUBLISHED.get(method) if config.source == 'mnist' else None
        records.append({'method': name, **record})
        if method in ('plain', 'masking', 'contractive'):
            drawn = dictionary.atoms(np.asarray(layer.weight), shape, n=64, columns=16)
            figures[f'filters_{method}'] = train.Figure(drawn, f'Filters of {name}.')
    best = min(records[1:], key=lambda record: record['probe_error'])
    panels = contraction.jacobian_panels(spectra, ratios, codes)
    figures = {'contraction': train.Figure(panels, contraction.CAPTION), **figures}
    table = train.Table('Features', records, ('method',), caption=CAPTION)
    summary = f'Lowest linear-probe error: {best["method"]}, {best["probe_error"]:.2%}.'
    return train.Report({'best_probe_error': best['probe_error']}, (table,), figures, summary)


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
