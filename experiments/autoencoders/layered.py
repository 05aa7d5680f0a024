"""A layered sparse network learned without labels, at a small scale (Le, Ranzato, Monga et al., ICML 2012).

Local receptive fields without weight sharing, L2 pooling and local contrast normalization, three times,
learned layer by layer by reconstruction ICA, from whitened crops or from distorted digits. Measured before and after
learning: the invariance of outputs to shifts, and how well the best single neuron detects a class.

Run:      python -m experiments.autoencoders.layered [--preset olshausen, or distorted_mnist --sweep num_crops]
Hardware: one core, 4 CPU-minutes; --preset cat_neuron --model_parallel 8 --batch_size 64 (10^9 weights, as published)
          compiled for v5e:8x8, not run: 13.8 of 16 GB per chip, a step takes 21 ms at least
Results:  best neuron: balanced accuracy, % (chance 50), mean over classes, learned (before learning)

          | sublayer | textures | distorted_mnist, by number of images: 500, 2000, 8000, 32,000 |
          |----------|----------|---------------------------------------------------------------|
          | pooled 1 | 75 (60)  | 54.9 (55.2), 54.9 (55.0), 56.1 (55.4), 56.6 (55.7)            |
          | pooled 2 | 66 (70)  | 57.6 (57.5), 56.6 (57.2), 56.7 (56.2), 57.6 (57.6)            |
          | pooled 3 | 65 (67)  | 55.8 (55.6), 57.3 (56.1), 57.2 (56.8), 57.2 (57.2)            |

          (Pixels: 60, 52.2.) Depth helps where objects vary in place, size and angle, not on textures; most of that is
          pooling, since random patches do nearly as well. Published: 81.7 % for faces and 74.8 % for cats in layer 3,
          from 10 million images (cited from memory, unverified). Filters of the first layer are edges and gratings.
"""

import dataclasses
import functools
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import optax
from annotated_types import Ge, MinLen

from lecture4 import train
from lecture4.autoencoder import rica, rica_units
from lecture4.data.images import detector_sets, distort
from lecture4.features import selectivity, unit_stimuli

SHIFTS = (1, 2, 4, 8)  # pixels


@dataclasses.dataclass(frozen=True)
class Config(train.ImageOptions):
    # Number of training steps, divided equally among the layers.
    steps: train.AtLeast1 = 3000
    batch_size: train.AtLeast1 = 64
    steps_per_call: train.AtLeast1 = 20
    # Source of unlabeled images: photos, olshausen, textures, dir:PATH, npz:PATH, csv:PATH.
    source: str = 'photos'
    # Whiten unlabeled images; those of olshausen are whitened already.
    whiten: bool = True
    # Cutoff frequency of whitening in cycles per pixel; finer detail is noise or due to the pixel grid.
    cutoff: train.Positive = 0.25
    # Source of labeled images, which are whitened; training and test crops are from the two halves of each.
    labeled: str = 'textures'
    # Distortion of the images of --source, which are then also the labeled ones: none, R, RTS, P, E, TC.
    distortion: distort.Distortion = 'none'
    # Number of distorted images on which the best neuron is chosen, and of those on which it is tested.
    num_eval: train.AtLeast1 = 4000
    # Size of the crops.
    crop_size: train.AtLeast1 = 48
    # Number of crops; a tenth of them is held out.
    num_crops: Annotated[int, Ge(100)] = 8000
    # Sizes of the receptive fields, one per layer, in units of the layer's input.
    field_sizes: train.Ints = (9, 6, 3)
    # Distances between neighboring receptive fields.
    strides: train.Ints = (2, 2, 1)
    # Numbers of filters at every position.
    num_filters: train.Ints = (4, 8, 16)
    # Sizes of the pools, in positions.
    pool_sizes: train.Ints = (3, 3, 3)
    # Weights of the pools relative to the reconstruction error.
    sparsity_penalties: Annotated[tuple[train.NonNegative, ...], MinLen(1)] = (0.1, 1.0, 1.0)
    # Use the transposed filters as the decoder; otherwise the decoder has separate weights.
    tied: bool = True
    # Smallest divisor of the contrast normalization.
    min_std: train.Positive = 0.01
    # Peak learning rate of each layer, with cosine decay to 0.
    learning_rate: train.Positive = 2e-3
    # Number of units of each layer for which the best stimulus is computed.
    num_units: train.AtLeast1 = 8
    # Number of optimization steps for the best stimuli.
    num_search_steps: train.AtLeast1 = 150

    def __post_init__(self):
        super().__post_init__()
        n = len(self.field_sizes)
        for name in ('strides', 'num_filters', 'pool_sizes', 'sparsity_penalties'):
            fits = len(getattr(self, name)) == n
            train.require(self, name, fits, f'{n} values, as many as --field_sizes')
        train.require(self, 'steps', self.steps >= n, f'at least {n}, one per layer')


METRICS = (
    train.Metric('top_layer_accuracy', 'fraction', 'higher', 'best top neuron', primary=True),
    train.Metric('best_neuron', 'fraction', 'higher', 'balanced accuracy of the best neuron'),
    train.Metric('invariance', '', 'higher', 'invariance'),
    train.Metric('loss', '', 'lower', 'loss', depends_on=('sparsity_penalties',)),
    train.Metric('reconstruction', '', 'lower', 'squared error'),
    train.Metric('sparsity', '', '', 'sum over pools'),
)
PRESETS = {
    'smoke': {'source': 'digits', 'distortion': 'RTS', 'num_eval': 200, 'crop_size': 12, 'num_crops': 100, 'steps': 6,
              'steps_per_call': 2, 'batch_size': 8, 'field_sizes': (3, 2), 'strides': (2, 1), 'num_filters': (2, 3),
              'pool_sizes': (2, 2), 'sparsity_penalties': (0.1, 1.0), 'num_units': 2, 'num_search_steps': 4},
    'olshausen': {'source': 'olshausen', 'whiten': False},
    'distorted_mnist': {'source': 'mnist', 'distortion': 'RTS', 'crop_size': 42, 'steps': 900, 'strides': (2, 1, 1),
                        'field_sizes': (7, 5, 5), 'num_filters': (8, 16, 32)},
    'cat_neuron': {'crop_size': 200, 'num_crops': 2000, 'sparsity_penalties': (0.1, 0.1, 0.1), 'strides': (1, 1, 1),
                   'field_sizes': (18, 18, 18), 'num_filters': (8, 8, 8), 'pool_sizes': (5, 5, 5), 'steps_per_call': 1},
}  # fmt: skip
PENALTIES = [(first, 1.0, 1.0) for first in (0.0, 0.03, 0.1, 0.3, 1.0)]
SWEEPS = {
    'num_crops': train.grid(num_crops=(500, 2000, 8000, 32000)),
    'sparsity_penalties': train.grid(sparsity_penalties=PENALTIES),
    'tied': train.grid(tied=(False, True), seed=(0, 1)),
}


def stages(config):
    sizes = (config.field_sizes, config.num_filters, config.strides, config.pool_sizes)
    return tuple(rica.Stage(*numbers) for numbers in zip(*sizes, strict=True))


def data(config):
    size, wide = config.crop_size, config.crop_size + max(SHIFTS)  # held-out crops are shifted
    rica.shapes((size, size, 1), stages(config))  # refused before any data are read
    options = {'num_images': config.num_crops, 'num_labeled': config.num_eval, 'seed': config.seed}
    options |= {'is_white': not config.whiten, 'cutoff': config.cutoff, **config.data_kwargs()}
    names = (config.source, config.labeled, config.distortion)
    sets = detector_sets.load(*names, size, wide, **options)
    x, num_held_out = sets.unlabeled, config.num_crops // 10
    return train.in_memory(
        np.ascontiguousarray(x[num_held_out:, :size, :size]),
        config.batch_size,
        seed=config.seed,
        evaluation=np.ascontiguousarray(x[:num_held_out][:200, :size, :size]),
        spec=train.Spec((size, size, 1), sets.class_names),
        report_data=(x[:num_held_out], sets.train, sets.test),
    )


def init_layers(config, key, x):
    return rica.init_layers(key, x, stages(config), tied=config.tied, min_std=config.min_std)


def build(config, spec):
    losses = rica.stage_losses(stages(config), config.sparsity_penalties, min_std=config.min_std)
    length = config.steps // len(losses)
    evaluate = functools.partial(rica.evaluate_layers, losses)
    adam = optax.adam(optax.cosine_decay_schedule(config.learning_rate, length))
    boundaries = [length * i for i in range(1, len(losses))]
    task = train.phases(functools.partial(init_layers, config), losses, adam, boundaries, evaluate)
    return task._replace(model_axes=rica.MODEL_AXES)


def apply(config, spec):
    """`encode` takes whitened crops [n, crop_size, crop_size, 1]."""

    def encode(state, crops):
        outputs = rica.apply(state.params, crops, stages(config), min_std=config.min_std)
        return outputs[-1]['pooled'].reshape(len(crops), -1)

    return {'encode': encode}


def report(config, state, data):
    from lecture4.figures import stimuli

    held_out, training, test = data.report_data
    size, min_std = config.crop_size, config.min_std
    before = init_layers(config, jax.random.key(config.seed + 1), data.device_arrays[:500])
    run = functools.partial(rica_units.sublayer_outputs, stages=stages(config), min_std=min_std)
    both = {'learned': state.params, 'before learning': before}
    networks = {name: functools.partial(run, layers) for name, layers in both.items()}
    invariance = selectivity.shift_invariance(networks, held_out[:400], SHIFTS, size=size)
    accuracy = selectivity.best_neurons(networks, training, test, data.spec.num_classes)
    top = f'pooled {len(config.field_sizes)}', 'learned'
    (best,) = (r['best_neuron'] for r in accuracy if (r['layer'], r['network']) == top)

    units = rica_units.central_units(stages(config), min_std=min_std)
    limits = {'max_units': config.num_units, 'num_steps': config.num_search_steps}
    starts = jnp.asarray(held_out[:, :size, :size])
    optima, tunings = unit_stimuli.search_all(units, state.params, starts, **limits)
    pool = functools.partial(units['pooled 1'][0], state.params, 0)
    field = rica_units.central_receptive_field(stages(config)[:1], data.spec.shape)
    paths = unit_stimuli.invariant_paths(pool, optima['pooled 1'][0], field=field)
    drawn = stimuli.gallery(rica_units.filters_on_grid(state.params[0]), optima, tunings, paths)
    figures = {name: train.Figure(*figure) for name, figure in drawn.items()}
    by, captions = ('layer', 'network'), (selectivity.INVARIANCE, selectivity.BEST_NEURON)
    tables = (
        train.Table('Invariance', invariance, by, (), captions[0], pivot='shift_in_pixels'),
        train.Table('Best single neuron', accuracy, by[:1], (), captions[1], pivot=by[1]),
    )
    summary = f'The best neuron of the top layer detects a class with an accuracy of {best:.1%}.'
    return train.Report({'top_layer_accuracy': best}, tables, figures, summary)


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
