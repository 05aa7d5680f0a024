"""Contractive, denoising and plain autoencoders compared (Rifai et al., ICML 2011; Vincent et al., 2010).

One layer of logistic units with tied weights, trained with the cross-entropy, from the same initial
weights and the same batches for every method. On held-out images: the error of a linear classifier on
the codes and of a network fine-tuned from them, the norm and the singular values of the Jacobian,
how far neighborhoods are contracted, and how many units are saturated.

Run:      python -m experiments.autoencoders.contractive
          python -m experiments.autoencoders.contractive --preset mnist
Hardware: one core (AMD EPYC): half a minute; mnist 15 minutes
Results:  MNIST, 10,000 training and 50,000 test images, one seed, test error in %; published: 50,000
          training images, fine-tuned (Rifai et al. 2011, cited from memory, unverified).

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

          The order of the paper, except that masking is as good as contraction once fine-tuned (the
          standard error of one entry is 0.1) and better than Gaussian noise. Saturated units: plain
          30 %, masking 55 %, contractive 75 %. The linear classifier is solved to convergence: stopped
          early it reverses the order where gaps are small.
          Digits: a random step of length 1 moves the code of plain by 1.04, masking 0.82, Gaussian 0.74,
          contractive 0.38, contractive with curvature 0.35; 90 % of |J|^2 (70.6, 42.5, 34.8, 9.2, 8.2)
          lie in 47, 41, 46, 24, 21 singular directions; saturated units 2, 4, 15, 61, 61 %.
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.autoencoder import contractive, deep, denoising, network
from lecture4.data import images
from lecture4.features import jacobian, linear_probe
from lecture4.ops.losses import bernoulli_nll, check_unit_interval

Method = Literal[
    'random', 'plain', 'decay', 'gaussian', 'salt_and_pepper', 'masking', 'contractive', 'curvature'
]
PUBLISHED = {
    'plain': 0.0178,
    'decay': 0.0168,
    'masking': 0.0157,
    'gaussian': 0.0118,
    'contractive': 0.0114,
}
RADII = np.geomspace(0.05, 10, 14).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Config(train.Config):
    steps: train.AtLeast1 = 2000
    batch_size: train.AtLeast1 = 50
    # Source of labeled images: digits, mnist, dir:PATH, npz:PATH.
    source: str = 'digits'
    # Methods to train and compare.
    methods: tuple[Method, ...] = Method.__args__
    # Number of training images, for codes and classifiers; all splits of the source are mixed first.
    num_train: train.AtLeast1 = 1000
    # Number of images on which C and the epoch of fine-tuning are chosen.
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


METRICS = (
    train.Metric('best_probe_error', 'fraction', 'lower', 'best linear-probe error', primary=True),
    train.Metric('loss', 'nats', 'lower', 'training loss'),
    train.Metric('cross_entropy', 'nats', 'lower', 'cross-entropy'),
    train.Metric('jacobian_norm', '', '', '|J|^2'),
    train.Metric('effective_rank', 'count', '', 'effective rank (90 % energy)'),
    train.Metric('contraction_ratio', '', 'lower', 'contraction ratio (r = 1)'),
    train.Metric('saturated', 'fraction', '', 'saturated units'),
    train.Metric('probe_error', 'fraction', 'lower', 'linear-probe error'),
    train.Metric('finetuned_error', 'fraction', 'lower', 'fine-tuned error'),
)
PRESETS = {
    'smoke': {
        'steps': 20,
        'latent_dim': 32,
        'methods': ('plain', 'curvature'),
        'Cs': (0.1,),
        'finetune_epochs': 1,
    },
    'mnist': {
        'source': 'mnist',
        'num_train': 10_000,
        'num_valid': 2000,
        'num_test': 50_000,
        'latent_dim': 500,
        'steps': 8000,
        'steps_per_call': 200,
    },
}
SWEEPS = {
    'contraction': train.grid(
        methods=(('contractive',),), contraction_penalty=(0.0, 0.03, 0.1, 0.3, 1.0), seed=(0, 1, 2)
    ),
    'masking': train.grid(methods=(('masking',),), mask_rate=(0.0, 0.1, 0.25, 0.5), seed=(0, 1, 2)),
    'seeds': train.grid(seed=(0, 1, 2)),
}


def data(config):
    task = images.load(config.source, seed=config.seed, **config.data_kwargs())
    counts = (config.num_train, config.num_valid, config.num_test)
    splits = {}
    for name, (x, labels) in zip(
        ('train', 'valid', 'test'), images.shuffled_splits(task, counts, config.seed), strict=True
    ):
        flat = check_unit_interval(x.reshape(len(x), -1), config.source)
        splits[name] = np.asarray(flat), labels
    x = splits['train'][0]
    return train.in_memory(
        x,
        config.batch_size,
        seed=config.seed,
        evaluation=splits['test'][0][:2000],
        spec=train.Spec(
            x.shape[1:], task.class_names, {'image_shape': task.train_images.shape[1:3]}
        ),
        report_data=splits,
    )


encode = functools.partial(deep.encode, latent_activation=jax.nn.sigmoid)


def loss(config, method, params, x, key):
    corrupt = {
        'gaussian': functools.partial(denoising.gaussian, std=config.noise_std),
        'salt_and_pepper': functools.partial(denoising.salt_and_pepper, flip_rate=config.flip_rate),
        'masking': functools.partial(denoising.masking, mask_rate=config.mask_rate),
    }.get(method, lambda key, x: x)

    def reconstruct(noisy):
        return deep.decode(params, encode(params, noisy))

    value = jnp.mean(denoising.loss(reconstruct, bernoulli_nll, corrupt, x, key))
    layer = params.encoder[0]
    if method == 'decay':
        value = value + config.weight_decay * jnp.sum(layer.weight**2)
    if method in ('contractive', 'curvature'):
        penalty = contractive.layer_penalty(layer, x, jax.nn.sigmoid)
        value = value + config.contraction_penalty * jnp.mean(penalty)
    if method == 'curvature':
        curvature = contractive.layer_curvature(
            layer, x, jax.nn.sigmoid, key, std=config.curvature_std, n_samples=2
        )
        value = value + config.curvature_penalty * jnp.mean(curvature)
    return value, {}


def build(config, spec):
    def init(key, x):
        dims = (*spec.shape, config.latent_dim)
        return network.init_autoencoder(key, dims, tied=True, scale='sigmoid')

    def evaluate(params, x):
        return {'cross_entropy': jnp.mean(deep.loss(params, x, latent_activation=jax.nn.sigmoid))}

    def task(method):
        rate = 0.0 if method == 'random' else config.learning_rate
        own_loss = functools.partial(loss, config, method)
        return train.optimize(init, own_loss, optax.adam(rate), evaluate)

    return train.parallel({method: task(method) for method in config.methods})


def apply(config, spec):
    method = config.methods[-1]
    return {
        'encode': lambda state, x: encode(state[method].params, x),
        'decode': lambda state, z: jax.nn.sigmoid(deep.decode(state[method].params, z)),
    }


def report(config, state, data):
    from lecture4.figures import contraction, dictionary

    splits, test = data.report_data, jnp.asarray(data.evaluation)
    pixels = {name: x for name, (x, _) in splits.items()}
    labels = {name: labels for name, (_, labels) in splits.items()}
    records = [
        {'method': 'raw pixels', 'probe_error': linear_probe.error(pixels, labels, config.Cs)}
    ]
    spectra, ratios, codes, figures = {}, {}, {}, {}
    for method in config.methods:
        params, name = state[method].params, method.replace('_', ' ')
        one = functools.partial(encode, params)
        z = {split: np.asarray(jax.jit(one)(x)) for split, x in pixels.items()}
        singular = np.asarray(
            jax.jit(functools.partial(jacobian.singular_values, one))(test[:50])
        ).mean(0)
        ratio = jacobian.contraction(one, test[:50], jax.random.key(0), RADII)
        layers = deep.init_classifier(params, data.spec.num_classes)
        tuned, _ = deep.fine_tune(
            layers, splits['train'], splits['valid'], jax.random.key(config.seed),
            n_epochs=config.finetune_epochs, batch_size=config.batch_size,
            optimizer=optax.adam(config.learning_rate / 2),
        )  # fmt: skip
        records.append(
            {
                'method': name,
                'cross_entropy': deep.loss(params, test, latent_activation=jax.nn.sigmoid).mean(),
                'jacobian_norm': contractive.layer_penalty(
                    params.encoder[0], test, jax.nn.sigmoid
                ).mean(),
                'effective_rank': jacobian.effective_rank(singular),
                'contraction_ratio': np.interp(1.0, RADII, ratio),
                'saturated': jacobian.saturated(one(test)),
                'probe_error': linear_probe.error(z, labels, config.Cs),
                'finetuned_error': deep.error_rate(tuned, *splits['test']),
                'published': PUBLISHED.get(method) if config.source == 'mnist' else None,
            }
        )
        spectra[name], ratios[name], codes[name] = singular, (RADII, ratio), z['test']
        if method in ('plain', 'masking', 'contractive'):
            weight = np.asarray(params.encoder[0].weight)
            shape = data.spec.constants['image_shape']
            figures[f'filters_{method}'] = train.Figure(
                dictionary.atoms(weight, shape, n=64, columns=16), f'Filters of {name}.'
            )
    best = min(records[1:], key=lambda record: record['probe_error'])
    caption = (
        f'{len(pixels["train"])} training and {len(pixels["test"])} test images. Cross-entropy of clean '
        'images; contraction ratio |f(x + u) - f(x)| for random u of length 1; saturated: units below '
        '.05 or above .95. Published: Rifai et al. 2011, fine-tuned, 50,000 training images, cited '
        'from memory, unverified.'
    )
    views = train.Figure(
        contraction.jacobian_panels(spectra, ratios, codes),
        'A contractive code varies along few directions (left), at small and middle radii (center), '
        'because most of its units are saturated (right).',
    )
    return train.Report(
        metrics={'best_probe_error': best['probe_error']},
        tables=(train.Table('Features', tuple(records), ('method',), caption=caption),),
        figures={'contraction': views, **figures},
        summary=f'Lowest linear-probe error: {best["method"]}, {100 * best["probe_error"]:.2f} %.',
    )


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
