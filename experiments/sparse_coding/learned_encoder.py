"""Learned encoders (LISTA): a few layers that predict sparse codes (Gregor & LeCun, ICML 2010).

Codes cost an optimization at test time; an encoder with the form of a few iterations, trained on pairs of patches and
exact codes, predicts them in as many matrix products. Encoders of several depths are trained in parallel; the error
of their codes on held-out patches and the time per patch are compared with FISTA and ADMM stopped after some
iterations, on the same device in the same run. The paper reports about a tenth of the computation at equal error.

Run:      python -m experiments.sparse_coding.learned_encoder
Hardware: one CPU core, 85 s
Results:  speedup over the solver stopped at the same error of the codes

          | layers | error | FISTA | ADMM |
          |--------|-------|-------|------|
          | 0      | 0.19  | 17    | 7.4  |
          | 1      | 0.098 | 5.6   | 2.1  |
          | 3      | 0.043 | 4.9   | 2.0  |
          | 7      | 0.022 | 2.2   | 0.9  |

          Learned encoders pay off where an error of a few percent does not matter; below, the solver is faster, and
          certified.
"""

import dataclasses
import functools
from typing import Annotated

import annotated_types
import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.data import images
from lecture4.data.images import whiten
from lecture4.features import encoder_speed, self_taught
from lecture4.sparse import lista, recovery, solvers

CONTRAST_EPSILON = (
    0.04  # standard deviation, of pixels in [0, 1], below which a patch counts as flat
)
Layers = Annotated[tuple[train.AtLeast0, ...], annotated_types.MinLen(1)]


@dataclasses.dataclass(frozen=True)
class Config(train.ImageOptions):
    # Number of training steps of the encoders.
    steps: train.AtLeast1 = 2000
    batch_size: train.AtLeast1 = 256
    # Source of images: photos, bsd400, textures, dir:PATH, npz:PATH, csv:PATH.
    source: str = 'photos'
    # Size of the patches, in pixels.
    patch_size: train.AtLeast1 = 10
    # Number of atoms of the dictionary.
    num_atoms: train.AtLeast1 = 200
    # Weight of the L1 penalty on codes of whitened patches of variance near 1.
    l1_penalty: train.Positive = 1.0
    # Number of steps of dictionary learning, before the encoders are trained.
    dictionary_steps: train.AtLeast1 = 150
    # Number of patches with exact codes; a tenth of them is held out.
    num_patches: train.AtLeast2 = 20_000
    # Numbers of layers (applications of the second matrix); one encoder is trained for each.
    num_layers: Layers = (0, 1, 3, 7)
    # Share one matrix among all layers, as in the paper; otherwise each layer has its own.
    tied: bool = True
    # Initial learning rate, with cosine decay to 0.
    learning_rate: train.Positive = 1e-3
    # Numbers of iterations after which the solvers are stopped, for comparison.
    iterations: train.Ints = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


METRICS = (
    train.Metric('deepest_error', '', 'lower', 'error of the deepest encoder', primary=True),
    train.Metric('loss', '', 'lower', 'squared error of the codes'),
    train.Metric('error', '', 'lower', 'error of the codes'),
    train.Metric('excess', '', 'lower', 'excess of the objective'),
    train.Metric('time', 'us/patch', 'lower', 'time'),
    train.Metric('speedup_FISTA', '', 'higher', 'speedup over FISTA'),
    train.Metric('speedup_ADMM', '', 'higher', 'speedup over ADMM'),
)
PRESETS = {
    'smoke': {'steps': 4, 'num_patches': 400, 'batch_size': 32, 'patch_size': 6, 'num_atoms': 24}
    | {'dictionary_steps': 3, 'num_layers': (0, 1), 'iterations': (1, 4)},
}
SWEEPS = {
    'learning_rate': train.grid(learning_rate=(3e-4, 1e-3, 3e-3)),
    'tied': train.grid(tied=(True, False)),
}


def data(config):
    photos = images.load_images(config.source, **config.data_kwargs()).images
    signals, whitening = whiten.whitened_patches(
        photos,
        config.num_patches,
        config.patch_size,
        config.seed,
        contrast_epsilon=CONTRAST_EPSILON,
        zca_epsilon=0.1,
    )
    D = recovery.learn_dictionary(
        jax.random.key(config.seed),
        signals,
        config.num_atoms,
        l1_penalty=config.l1_penalty,
        n_steps=config.dictionary_steps,
    )
    solution = solvers.admm(signals, D, config.l1_penalty, tolerance=1e-5, tile=128)
    num_held_out = max(config.num_patches // 10, 1)
    pairs = {'x': np.asarray(signals), 'codes': np.asarray(solution.codes)}
    return train.in_memory(
        {name: array[num_held_out:] for name, array in pairs.items()},
        config.batch_size,
        seed=config.seed,
        evaluation={name: array[:num_held_out] for name, array in pairs.items()},
        spec=train.Spec(signals.shape[1:], constants={'D': D, 'whitening': whitening}),
        report_data=float(solution.gap.max()),
    )


def build(config, spec):
    def task(n):
        def init(key, batch):
            del key
            return lista.init(spec.constants['D'], config.l1_penalty, n, tied=config.tied)

        def loss(encoder, batch, key):
            del key
            return lista.loss(encoder, batch['x'], batch['codes'], n), {}

        def evaluate(encoder, pairs):
            codes = lista.encode(encoder, pairs['x'], n)
            return {'error': lista.prediction_error(codes, pairs['codes'])}

        schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps)
        return train.optimize(init, loss, optax.adam(schedule), evaluate)

    return train.parallel({str(n): task(n) for n in config.num_layers})


def apply(config, spec):
    def encode(state, x):
        n = config.num_layers[-1]
        whitening = spec.constants['whitening']
        signals = self_taught.preprocess(jnp.asarray(x), CONTRAST_EPSILON, whitening)
        return lista.encode(state[str(n)].params, signals, n)

    return {'encode': encode}


def report(config, state, data):
    from lecture4.figures import lines

    x, exact = (jnp.asarray(data.evaluation[name]) for name in ('x', 'codes'))
    D = data.spec.constants['D']
    encoders = {
        (encoder_speed.LEARNED, n): functools.partial(
            lista.encode, state[str(n)].params, n_layers=n
        )
        for n in config.num_layers
    }
    encoders |= encoder_speed.stopped_solvers(D, config.l1_penalty, config.iterations)
    measured = encoder_speed.measure(encoders, x, exact, D, config.l1_penalty)
    density = float(jnp.mean(exact != 0, dtype=x.dtype))
    caption = (
        f'{len(x)} held-out patches of {config.source}, d = {x.shape[1]}, k = {config.num_atoms}, '
        f'{density:.1%} of the codes not zero. Error: squared, relative to predicting zero. Excess: of '
        'the objective, relative to its minimum. Speedup: over the solver stopped at the first error '
        'that is no larger. The exact codes have a relative duality gap of at most '
        f'{data.report_data:.0e}.'
    )
    axes = {'xlabel': 'µs/patch', 'xscale': 'log', 'yscale': 'log'}
    panels = {
        title: {**axes, 'curves': encoder_speed.against_time(measured, field)}
        for title, field in (
            ('error of the codes', 'error'),
            ('objective above its minimum', 'excess'),
        )
    }
    records = encoder_speed.speedups(measured)
    table = train.Table('Learned encoders at equal error', records, ('layers',), caption=caption)
    figure = train.Figure(
        lines.panels(panels), 'Accuracy against time: encoders of several depths, and solvers.'
    )
    deepest = measured[encoder_speed.LEARNED, config.num_layers[-1]]
    return train.Report({'deepest_error': deepest.error}, (table,), {'speed': figure})


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
