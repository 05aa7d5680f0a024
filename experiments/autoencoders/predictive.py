"""Predictive sparse decomposition (Kavukcuoglu, Ranzato & LeCun, NYU technical report 2008).

Atoms and an encoder are learned together from whitened patches; codes start at the encoder prediction and
take ten proximal gradient steps. Compared with exact codes: energy and time on held-out patches, and the
accuracy of a linear SVM on pooled codes of other, labeled images.

Run:      python -m experiments.autoencoders.predictive
          python -m experiments.autoencoders.predictive --preset handwriting --manual_dir PATH
Hardware: one core (AMD EPYC), under 2 minutes
Results:  excess (%) over the least energy, and over the least energy without the coupling term (lasso); test
          accuracy (%) on textures by labels per class

          | codes              | energy  | lasso | us per patch | 1    | 2    | 5    | 20   |
          |--------------------|---------|-------|--------------|------|------|------|------|
          | encoder prediction | 17.1    | 41.5  | 1.9          | 89.0 | 93.5 | 98.7 | 99.2 |
          | 10 steps           | < 0.001 | 12.8  | 36           | 90.9 | 95.2 | 99.0 | 99.3 |
          | energy minimum     | 0       |       | 81           |      |      |      |      |
          | ADMM               |         | 0     | 261          | 91.1 | 94.8 | 98.2 | 99.3 |
          | coordinate descent |         | 0     | 1501         |      |      |      |      |
          | PCA                |         |       |              | 81.0 | 87.4 | 92.8 | 97.3 |

          The encoder is 136 times as fast as exact sparse coding (measured alternately, on a busy core); published:
          about 100 times as fast as feature-sign search, with features as good on Caltech-101 (cited from memory,
          unverified). Trained with 50 steps instead of ten, the energy ends at 30.98 instead of 30.97.
"""

import dataclasses
import functools
from typing import Literal

import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.autoencoder import code_comparison, psd
from lecture4.features import atoms, image_accuracy, self_taught, timing
from lecture4.ops.prox import soft_threshold

ACTIVATIONS = {'tanh': jnp.tanh, 'shrink': functools.partial(soft_threshold, threshold=0.5)}
NUM_STEPS = (0, 1, 3, 10, 30)  # proximal gradient steps after which the excess energy is measured


@dataclasses.dataclass(frozen=True)
class Config(train.SelfTaught):
    # Number of alternations between codes and parameters.
    steps: train.AtLeast1 = 2000
    # Number of unlabeled patches per step, over all devices.
    batch_size: train.AtLeast1 = 256
    steps_per_call: train.AtLeast1 = 50
    candidates_per_class: train.AtLeast1 = 100
    # Size of the patches to encode.
    patch_size: train.AtLeast1 = 12
    stride: train.AtLeast1 = 4
    # Largest number of test images.
    num_eval: train.AtLeast1 = 2000
    # Number of latent units.
    latent_dim: train.AtLeast1 = 256
    # Weight of the L1 penalty on codes; whitened pixels have variance near 1.
    l1_penalty: train.Positive = 0.5
    # Weight of the squared distance between codes and encoder predictions; at 0 no encoder is learned.
    coupling: train.Positive = 1.0
    # Number of proximal gradient steps per alternation.
    num_inference_steps: train.AtLeast0 = 10
    # Activation of the encoder: tanh as in the paper, or a soft threshold, whose codes have zeros.
    activation: Literal['tanh', 'shrink'] = 'tanh'
    # Infer codes without the coupling term; the encoder is still trained to predict them.
    uncoupled: bool = False
    # Peak learning rate, with cosine decay to 0.
    learning_rate: train.Positive = 2e-3


METRICS = (
    train.Metric('encoder_accuracy', 'fraction', 'higher', 'accuracy of predictions', primary=True),
    train.Metric('accuracy', 'fraction', 'higher', 'test accuracy'),
    train.Metric('energy', '', 'lower', 'energy', depends_on=('l1_penalty', 'coupling')),
    train.Metric('excess', '', 'lower', 'excess energy / minimum'),
    train.Metric('lasso_excess', '', 'lower', 'excess lasso objective / minimum'),
    train.Metric('snr', 'dB', 'higher', 'signal-to-noise ratio'),
    train.Metric('density', 'fraction', '', 'non-zero coefficients'),
    train.Metric('time_per_patch', 'us', 'lower', 'time per patch'),
    train.Metric('speedup', '', 'higher', 'speedup of the encoder over exact sparse coding'),
    train.Metric('reconstruction', '', 'lower', 'squared error'),
    train.Metric('prediction', '', 'lower', 'squared error of the encoder prediction'),
)
PRESETS = {
    'smoke': {'steps': 20, 'steps_per_call': 10, 'num_signals': 500, 'latent_dim': 16}
    | {'patch_size': 6, 'stride': 8, 'labels_per_class': (2,), 'num_trials': 2},
    # Strokes of other alphabets, then digits.
    'handwriting': {'unlabeled': 'omniglot', 'labeled': 'mnist', 'crop_size': 0, 'stride': 2}
    | {'pooling_grid': 2, 'labels_per_class': (1, 10, 100)},
}
SWEEPS = {
    'l1_penalty': train.grid(l1_penalty=(0.25, 0.5, 1.0)),
    'coupling': train.grid(coupling=(0.1, 0.3, 1.0, 3.0)),
    'num_inference_steps': train.grid(num_inference_steps=(0, 1, 3, 10, 50)),
    'activation': train.grid(activation=('tanh', 'shrink'), uncoupled=(False, True)),
}


def data(config):
    min_std = 1e-3 if config.unlabeled == 'omniglot' else 0.0  # blank paper
    options = {'min_std': min_std, 'num_eval': config.num_eval}
    return train.self_taught_data(config, config.latent_dim, config.batch_size, **options)


def energy_terms(config):
    """The options of the energy other than the parameters."""
    activation = ACTIVATIONS[config.activation]
    return {'l1_penalty': config.l1_penalty, 'coupling': config.coupling, 'activation': activation}


def encoders(config):
    """{method: (params, whitened patches [n, d]) -> codes [n, k]}, fastest first."""
    return code_comparison.encoders(n_steps=config.num_inference_steps, **energy_terms(config))


def build(config, spec):
    optimizer = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps))
    terms, methods = energy_terms(config), encoders(config)
    init = functools.partial(psd.init, latent_dim=config.latent_dim, optimizer=optimizer)
    step = functools.partial(psd.step, n_steps=config.num_inference_steps, **terms)
    step = functools.partial(step, optimizer=optimizer, uncoupled=config.uncoupled)

    def evaluate(learner, x):
        params = learner.params
        codes = {name: methods[name](params, x) for name in ('encoder', 'inferred')}
        energies = {name: psd.energy(params, x, h, **terms) for name, h in codes.items()}
        return {f'energy/{name}': jnp.mean(values) for name, values in energies.items()}

    return train.from_learner(init, step, evaluate)


def features(config, spec):
    """{method: (params, images [n, h, w, c]) -> pooled features [n, p]}."""
    codes, whitening = encoders(config), spec.constants['whitening']
    methods = {
        'encoder': (codes['encoder'], whitening),
        'inferred': (codes['inferred'], whitening),
        'sparse coding': (codes['sparse coding, ADMM'], whitening),
        'PCA': (lambda params, x: x, spec.constants['components']),
    }
    return self_taught.pooled_encoders(methods, **config.patch_options())


def apply(config, spec):
    whitening, pooled = spec.constants['whitening'], features(config, spec)['encoder']

    def encode(state, patches):
        whitened = self_taught.preprocess(patches, config.contrast_epsilon, whitening)
        return encoders(config)['encoder'](state.params.params, whitened)

    return {'encode': encode, 'features': lambda state, x: pooled(state.params.params, x)}


def report(config, state, data):
    from lecture4.figures import curves, dictionary, lines

    params, x, task = state.params.params, jnp.asarray(data.evaluation[:2000]), data.report_data
    terms, methods, counts = energy_terms(config), encoders(config), config.labels_per_class
    seconds = timing.median_times(methods, (params, x), num_repeats=3)
    records = code_comparison.compare_codes(methods, params, x, 'energy minimum', seconds, **terms)
    encoder, _, minimum, *exact = records
    speedup = min(r['time_per_patch'] for r in exact) / encoder['time_per_patch']
    excess = code_comparison.excess_by_steps(params, x, NUM_STEPS, minimum['energy'], **terms)
    options = {'labels_per_class': counts, 'num_trials': config.num_trials, 'seed': config.seed}
    draws, _ = image_accuracy.accuracies(features(config, data.spec), params, task, **options)
    accuracy = {name: float(values[-1].mean()) for name, values in draws.items()}
    caption = code_comparison.CAPTION.format(n_steps=config.num_inference_steps, **terms)
    tables = (
        train.Table('Codes of held-out patches', records, ('codes',), caption=caption),
        train.label_table(draws, counts, caption=f'{config.labeled}, {config.num_trials} trials.'),
    )
    D, W = np.asarray(params.atoms), np.asarray(params.encoder.weight)
    back, shape = (data.spec.constants[name] for name in ('unwhitening', 'signal_shape'))
    drawn = functools.partial(dictionary.atoms, patch_shape=shape, order=atoms.display_order(D))
    figures = {
        'excess': train.Figure(
            lines.single('Proximal gradient steps', excess, ylabel='relative excess', yscale='log'),
            'Relative excess of the energy over its minimum, from two starting points.',
        ),
        'accuracy': train.Figure(
            curves.label_curve(draws, counts, chance=1 / data.spec.num_classes),
            'Test accuracy of encoder predictions and exact codes, with the same classifier.',
        ),
        'atoms': train.Figure(drawn(back.T @ D), 'Atoms without whitening, sorted by similarity.'),
        'encoder': train.Figure(drawn(W), 'Encoder filters of the same units, whitened.'),
    }
    metrics = {'encoder_accuracy': accuracy['encoder'], 'speedup': speedup}
    summary = (
        f'The encoder is {speedup:.0f} times as fast as exact sparse coding; accuracy with the most labels '
        f'{accuracy["encoder"]:.1%}, on exact codes {accuracy["sparse coding"]:.1%}.'
    )
    return train.Report(metrics, tables, figures, summary)


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
