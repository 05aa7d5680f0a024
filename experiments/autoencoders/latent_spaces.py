"""Latent spaces of plain, denoising and variational autoencoders (Kingma & Welling, ICLR 2014).

"The latent space [of a standard autoencoder] may not be continuous, or allow easy interpolation"; variational ones
are, by design. Networks of equal size have three objectives. Random codes (a Gaussian of the codes' mean and
covariance; the prior), midpoints and lines between test images of different classes are decoded, and their distance
to the nearest training image is measured, in pixels and in features of a classifier, over that of test images.

Run:      python -m experiments.autoencoders.latent_spaces
          python -m experiments.autoencoders.latent_spaces --preset mnist
Hardware: one core (AMD EPYC), 1 minute
Results:  digits; fraction (%) of decoded points farther from all images than 95 % of test images are, in features

          | latent dimension | codes     | plain | denoising | variational | between pixels |
          |------------------|-----------|-------|-----------|-------------|----------------|
          | 10               | random    | 30.4  | 17.8      | 0.6         |                |
          | 10               | midpoints | 12.2  | 4.0       | 0.6         | 24.0           |
          | 2                | random    | 3.6   | 4.0       | 0.2         |                |

          The statement holds for 10 dimensions and hardly for 2, where codes fill the plane. It is loose: every
          decoder here is continuous. What a plain one lacks is codes everywhere, and a prior that says where.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.autoencoder import denoising, vae
from lecture4.data.images import vectors
from lecture4.features import decoded_codes

METHODS = ('plain', 'denoising', 'variational')


@dataclasses.dataclass(frozen=True)
class Config(train.SquareImages):
    steps: train.AtLeast1 = 5000
    batch_size: train.AtLeast1 = 100
    steps_per_call: train.AtLeast1 = 100
    # Source of labeled images: digits, mnist, dir:PATH, npz:PATH, csv:PATH.
    source: str = 'digits'
    # Units of the hidden layers of the encoders; the decoders are their mirror images.
    hidden_dims: train.Ints = (200,)
    # Latent dimensions; the first is drawn as a plane where it is 2.
    latent_dims: train.Ints = (2, 10)
    # Fraction of pixels set to 0 for the denoising autoencoder.
    mask_rate: train.Fraction = 0.3
    # Learning rate of Adam.
    learning_rate: train.Positive = 1e-3
    # Number of random codes, and of pairs of test images.
    num_points: train.AtLeast1 = 500
    # Number of points along each axis of the plane.
    grid_size: train.AtLeast2 = 60


METRICS = (
    train.Metric(
        'unlike',
        'fraction',
        'lower',
        'random codes of the variational one unlike images',
        primary=True,
    ),
    train.Metric('loss', 'nats', 'lower', 'training loss'),
    train.Metric('reconstruction', 'nats', 'lower', 'cross-entropy of the reconstructions'),
    train.Metric('distance_pixels', '', 'lower', 'distance in pixels'),
    train.Metric('distance_features', '', 'lower', 'distance in features'),
    train.Metric('unlike_pixels', 'fraction', 'lower', 'unlike images, in pixels'),
    train.Metric('unlike_features', 'fraction', 'lower', 'unlike images, in features'),
)
PRESETS = {
    'smoke': {'steps': 20, 'steps_per_call': 20, 'hidden_dims': (16,), 'latent_dims': (2,)}
    | {'num_points': 20, 'grid_size': 5},
    'mnist': {'source': 'mnist', 'hidden_dims': (400,), 'latent_dims': (2, 20), 'steps': 6000},
}
SWEEPS = {'mask_rate': train.grid(mask_rate=(0.1, 0.3, 0.5))}


def data(config):
    loaded = vectors.load_labeled(config.source, seed=config.seed, **config.data_kwargs())
    rows = np.random.default_rng(config.seed).permutation(len(loaded.train))
    constants = {'image_shape': loaded.image_shape[:2]}
    return train.in_memory(
        loaded.train[rows],
        config.batch_size,
        seed=config.seed,
        evaluation=loaded.test,
        spec=train.Spec(loaded.train.shape[1:], loaded.class_names, constants),
        report_data=(loaded.train_labels[rows], loaded.test_labels),
    )


def models(config, spec):
    """Name -> (method, networks), the same networks for the three methods."""
    return {
        f'{method}-{k}': (method, vae.mlp(spec.shape[0], config.hidden_dims, k))
        for k in config.latent_dims
        for method in METHODS
    }


def encode(model, params, x):
    return model.latent.mean(model.encode(params, x))


def decode(model, params, z):
    return model.pixels.mean(model.decode(params, z))


def build(config, spec):
    each = models(config, spec)

    def init(key, x):
        # The methods start from the same weights.
        return {name: model.init(key) for name, (_, model) in each.items()}

    def cross_entropy(model, params, x, z):
        return -jnp.mean(model.pixels.log_prob(model.decode(params, z), x))

    def loss(params, x, key):
        losses = {}
        for name, (method, model) in each.items():
            if method == 'variational':
                losses[name] = vae.loss(vae.bound(model, params[name], x, key))
            else:
                rate = config.mask_rate if method == 'denoising' else 0.0
                z = encode(model, params[name], denoising.masking(key, x, rate))
                losses[name] = cross_entropy(model, params[name], x, z)
        return sum(losses.values(), jnp.zeros(())), {
            f'loss/{name}': value for name, value in losses.items()
        }

    def evaluate(params, x):
        codes = {name: encode(model, params[name], x) for name, (_, model) in each.items()}
        return {
            f'reconstruction/{name}': cross_entropy(model, params[name], x, codes[name])
            for name, (_, model) in each.items()
        }

    return train.optimize(init, loss, optax.adam(config.learning_rate), evaluate)


def apply(config, spec):
    name, (_, model) = list(models(config, spec).items())[-1]

    def of_model(function):
        return lambda params, x: function(model, params[name], x)

    return train.on_params({'encode': of_model(encode), 'decode': of_model(decode)})


def report(config, state, data):
    from lecture4.figures import code_holes
    from lecture4.figures import images as drawn

    x, test, (labels, test_labels) = data.device_arrays, data.evaluation, data.report_data
    shape, k = data.spec.constants['image_shape'], config.latent_dims[-1]
    spaces = decoded_codes.spaces(x, labels, test, config.seed)
    functions = {
        name: (
            jax.jit(functools.partial(encode, model, state.params[name])),
            jax.jit(functools.partial(decode, model, state.params[name])),
            method == 'variational',
        )
        for name, (method, model) in models(config, data.spec).items()
    }
    sizes = {'n_points': config.num_points, 'grid_size': config.grid_size, 'seed': config.seed}
    result = decoded_codes.compare(spaces, functions, x, test, test_labels, **sizes)
    by_name = {(r['codes'], r['autoencoder']): r['unlike_features'] for r in result.records}
    unlike = {method: by_name['random', f'{method}-{k}'] for method in METHODS}
    caption = (
        'Distance to the nearest training image over that of test images (1); unlike images: farther than 95 % of '
        'test images. The number after a name is the latent dimension. Features: hidden layer of a classifier.'
    )
    figures = {
        'random': (drawn.vector_rows(result.random, shape), 'Decoded random codes.'),
        'lines': (drawn.vector_rows(result.paths, shape), 'Decoded lines between two test images.'),
    }
    if result.planes:
        figures['holes'] = (
            code_holes.planes(result.planes, np.asarray(test_labels)),
            'Codes of test images, over the distance of what is decoded there; holes have an outline.',
        )
    at_end = train.evaluate(build(config, data.spec), state, jnp.asarray(test))
    index, words = ('codes', 'autoencoder'), (f'{v:.0%} {name}' for name, v in unlike.items())
    return train.Report(
        metrics={'unlike': unlike['variational'], **at_end},
        tables=(train.Table('Decoded codes', result.records, index, caption=caption),),
        figures={name: train.Figure(*figure) for name, figure in figures.items()},
        summary=f'Random codes of {k} dimensions unlike any image: {", ".join(words)}.',
    )


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
