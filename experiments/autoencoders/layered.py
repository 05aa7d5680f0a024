"""A layered sparse network learned without labels (Le, Ranzato, Monga et al., ICML 2012), in small.

Local receptive fields without weight sharing, reconstruction ICA with L2 pooling, and local contrast
normalization, three times, learned layer by layer from unlabeled whitened crops. Compared with the same
network before learning, whose filters are patches of crops: how invariant outputs are to shifts, how well
the best single neuron detects a class of labeled crops, and for units of every layer the best stimulus and
the directions it is invariant to.

Run:      python -m experiments.autoencoders.layered
          python -m experiments.autoencoders.layered --preset olshausen --manual_dir PATH
Hardware: one core, 4 CPU-minutes
Results:  invariance: correlation of outputs with those for crops shifted by 2 pixels; best neuron: balanced
          accuracy on textures in % (chance 50)

          | sublayer  | invariance, before learning | best neuron, before learning |
          |-----------|-----------------------------|------------------------------|
          | pixels    |                             | 60, 60                       |
          | filters 1 | 0.14, 0.63                  |                              |
          | pooled 1  | 0.86, 0.93                  | 75, 60                       |
          | pooled 2  |                             | 66, 70                       |
          | pooled 3  |                             | 65, 67                       |

          Filters of the first layer are small edges and gratings. Learning helps in the first layer and not
          above it; the paper's gain came with depth, on 10 million images of 200 x 200. A sparsity penalty of
          1 in the first layer, ten times this, makes filters of the finest detail that whitening leaves,
          which resemble noise.
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
from lecture4.autoencoder import rica
from lecture4.data import images as image_data
from lecture4.data.images import crops, whiten
from lecture4.features import rica_units, selectivity

SHIFTS = (1, 2, 4, 8)  # pixels
BORDER = 4  # pixels that whitening, which takes images for periodic, distorts


@dataclasses.dataclass(frozen=True)
class Config(train.Config):
    # Number of steps of all layers together, divided equally.
    steps: train.AtLeast1 = 3000
    batch_size: train.AtLeast1 = 64
    steps_per_call: train.AtLeast1 = 20
    # Source of unlabeled images: photos, olshausen, textures, dir:PATH, npz:PATH.
    source: str = 'photos'
    # Whiten unlabeled images; those of olshausen are whitened already.
    whiten: bool = True
    # Cutoff of whitening in cycles per pixel: finer detail is noise, or of the pixel grid.
    cutoff: train.Positive = 0.25
    # Source of labeled images, which are whitened; train and test are the two halves of each.
    labeled: str = 'textures'
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
    # Use the transposed filters as the decoder; otherwise it has weights of its own.
    tied: bool = True
    # The least divisor of the contrast normalization.
    min_std: train.Positive = 0.01
    # Peak learning rate of each layer; it falls to 0 along a half cosine.
    learning_rate: train.Positive = 2e-3
    # Number of units of each layer whose best stimulus is searched for.
    num_units: train.AtLeast1 = 8
    # Number of steps of that search.
    num_search_steps: train.AtLeast1 = 150

    def __post_init__(self):
        super().__post_init__()
        n = len(self.field_sizes)
        for name in ('strides', 'num_filters', 'pool_sizes', 'sparsity_penalties'):
            fits = len(getattr(self, name)) == n
            train.require(self, name, fits, f'{n} values, as many as --field_sizes')
        train.require(self, 'steps', self.steps >= n, f'at least {n}, one per layer')


METRICS = (
    train.Metric(
        'top_layer_accuracy', 'fraction', 'higher', 'best neuron of the top layer', primary=True
    ),
    train.Metric('best_neuron', 'fraction', 'higher', 'balanced accuracy of the best neuron'),
    train.Metric('invariance', '', 'higher', 'invariance'),
    train.Metric('loss', '', 'lower', 'loss'),
    train.Metric('reconstruction', '', 'lower', 'squared error'),
    train.Metric('sparsity', '', '', 'sum over pools'),
)
PRESETS = {
    'smoke': {'steps': 6, 'steps_per_call': 2, 'batch_size': 8, 'crop_size': 16, 'num_crops': 100}
    | {'field_sizes': (5, 3), 'strides': (2, 1), 'num_filters': (2, 3), 'pool_sizes': (2, 3)}
    | {'sparsity_penalties': (0.1, 1.0), 'num_units': 2, 'num_search_steps': 4},
    'olshausen': {'source': 'olshausen', 'whiten': False},
}
SWEEPS = {
    'sparsity_penalties': train.grid(
        sparsity_penalties=tuple((w, 1.0, 1.0) for w in (0.0, 0.03, 0.1, 0.3, 1.0))
    ),
    'tied': train.grid(tied=(False, True), seed=(0, 1)),
}


def stages(config):
    sizes = (config.field_sizes, config.num_filters, config.strides, config.pool_sizes)
    return tuple(rica.Stage(*numbers) for numbers in zip(*sizes, strict=True))


def inside(images):
    """Images without the border that whitening distorts."""
    return tuple(image[BORDER:-BORDER, BORDER:-BORDER] for image in images)


def data(config):
    size = config.crop_size
    rica.shapes((size, size, 1), stages(config))  # refused before anything is read
    images = image_data.load_images(config.source, **config.data_kwargs()).images
    white = whiten.whiten(images, config.cutoff) if config.whiten else whiten.standardize(images)
    wide = size + max(SHIFTS)  # room to shift held-out crops
    x = crops.sample_patches(inside(white), config.num_crops, wide, config.seed)
    x, num_held_out = x.reshape(-1, wide, wide, 1), config.num_crops // 10
    pixels, labels, names = image_data.load_images(config.labeled, **config.data_kwargs())
    if labels is None or len(names) < 2:
        raise ValueError(f'--labeled {config.labeled} has no two classes; name a labeled set')
    splits = {}
    halves = crops.split_left_right(inside(whiten.whiten(pixels, config.cutoff)))
    for name, half in zip(('train', 'test'), halves, strict=True):
        parts, rows = crops.grid_crops(half, size, max(size // 4, 1))
        splits[name] = parts, labels[rows]
    return train.in_memory(
        np.ascontiguousarray(x[num_held_out:, :size, :size]),
        config.batch_size,
        seed=config.seed,
        evaluation=np.ascontiguousarray(x[:num_held_out][:200, :size, :size]),
        spec=train.Spec((size, size, 1), tuple(names)),
        report_data={'held_out': x[:num_held_out], **splits},
    )


def init_layers(config, key, x):
    return rica.init_layers(key, x, stages(config), tied=config.tied, min_std=config.min_std)


def build(config, spec):
    n_layers = len(stages(config))
    length = config.steps // n_layers
    optimizer = optax.adam(optax.cosine_decay_schedule(config.learning_rate, length))

    def loss(i, layers, x, key=None):
        values, metrics = rica.layer_loss(
            layers, x, i, stages(config),
            sparsity_penalty=config.sparsity_penalties[i], min_std=config.min_std,
        )  # fmt: skip
        return jnp.mean(values), metrics

    def evaluate(layers, x):
        values = [loss(i, layers, x) for i in range(n_layers)]
        return {
            f'{name}/layer_{i + 1}': value
            for i, (total, parts) in enumerate(values)
            for name, value in {'loss': total, **parts}.items()
        }

    losses = [functools.partial(loss, i) for i in range(n_layers)]
    boundaries = [length * i for i in range(1, n_layers)]
    init = functools.partial(init_layers, config)
    return train.phases(init, losses, optimizer, boundaries, evaluate)


def apply(config, spec):
    """`encode` takes whitened crops [n, crop_size, crop_size, 1]."""

    def encode(state, crops):
        outputs = rica.apply(state.params, crops, stages(config), min_std=config.min_std)
        return outputs[-1]['pooled'].reshape(len(crops), -1)

    return {'encode': encode}


def tiles(crops):
    """Crops as images in [0, 1], each with zero at mid gray."""
    crops = np.asarray(crops)[..., 0]
    return 0.5 + 0.5 * crops / abs(crops).max((1, 2), keepdims=True)


def report(config, state, data):
    from lecture4.figures import dictionary, images, lines

    held_out, (x, labels), (test_x, test_labels) = data.report_data.values()
    sizes, size, min_std = stages(config), config.crop_size, config.min_std
    before = init_layers(config, jax.random.key(config.seed + 1), data.device_arrays[:500])
    invariance, accuracy = [], []
    for network, layers in {'learned': state.params, 'before learning': before}.items():
        curves = rica_units.shift_invariance(
            layers, held_out[:400], sizes, SHIFTS, size=size, min_std=min_std
        )
        outputs, test_outputs = (
            rica_units.sublayer_outputs(layers, images, sizes, min_std=min_std)
            for images in (x, test_x)
        )
        for name, curve in curves.items():
            row = {'sublayer': name, 'network': network}
            invariance += [
                {**row, 'shift_in_pixels': s, 'invariance': value}
                for s, value in zip(SHIFTS, curve, strict=True)
            ]
            per_class = selectivity.best_neuron(
                outputs[name], labels, test_outputs[name], test_labels, data.spec.num_classes
            )
            accuracy.append({**row, 'best_neuron': float(per_class.mean())})
    seen = jnp.asarray(held_out[:, :size, :size])
    stimuli, tunings = {}, {}
    for i, kind in ((0, 'filters'), *((i, 'pooled') for i in range(len(sizes)))):
        stimuli[f'{kind} {i + 1}'], tunings[f'{kind} {i + 1}'] = rica_units.best_stimuli(
            state.params[: i + 1], sizes[: i + 1], kind, seen,
            num_units=min(config.num_units, config.num_filters[i]),
            num_steps=config.num_search_steps, min_std=min_std,
        )  # fmt: skip
    panels = {
        name: {'curves': {sublayer: curve[name] for sublayer, curve in tunings.items()}}
        | {'xlabel': name, 'ylabel': 'response / best response'}
        for name in rica_units.TRANSFORMS
    }
    angles = np.linspace(-np.pi / 3, np.pi / 3, 7)
    paths = rica_units.invariant_paths(
        state.params[0], sizes[0], jnp.asarray(stimuli['pooled 1'][0]), angles, min_std=min_std
    )
    first, n_shown = np.asarray(state.params[0].encoder), min(config.num_filters)
    filters = first[1::4, 1::4].transpose(2, 0, 1, 3).reshape(first.shape[2], -1)
    best = {(r['sublayer'], r['network']): r['best_neuron'] for r in accuracy}
    top = best[f'pooled {len(sizes)}', 'learned']
    return train.Report(
        metrics={'top_layer_accuracy': top},
        tables=(
            train.Table(
                'Invariance to shifts', invariance, ('sublayer', 'network'), pivot='shift_in_pixels',
                caption='Correlation of the outputs of a unit on held-out crops with those on the '
                'crops shifted sideways, mean over units. Before learning, filters are patches.',
            ),
            train.Table(
                f'Best single neuron on {config.labeled}', accuracy, ('sublayer',), pivot='network',
                caption='One class against the rest, both weighted equally (chance is 50 %), mean over '
                'classes. Unit and threshold are chosen on the left halves of the images and tested '
                'on the right ones.',
            ),
        ),
        figures={
            'filters': train.Figure(
                dictionary.atoms(filters, (config.field_sizes[0],) * 2, n=160, columns=16),
                'Filters of the first layer, at every fourth position.',
            ),
            'stimuli': train.Figure(
                images.rows({name: tiles(x[:n_shown]) for name, x in stimuli.items()}),
                'Best stimuli of units at the central position, layer by layer.',
            ),
            'tuning': train.Figure(
                lines.panels(panels, columns=3),
                'Responses to the best stimulus, shifted, rotated and scaled; means over units.',
            ),
            'invariant_directions': train.Figure(
                images.rows(
                    {name: tiles(x) for name, (x, _) in paths.items()},
                    notes={name: [f'{v:.0%}' for v in r] for name, (_, r) in paths.items()},
                ),
                'A pooled unit of the first layer: its best stimulus (center), and great circles along '
                'the directions in which its response is least and most curved, in its receptive '
                'field; below, the response relative to the best.',
            ),
        },
        summary=f'The best single neuron of the top layer detects a class with a balanced accuracy of '
        f'{top:.1%}, before learning {best[f"pooled {len(sizes)}", "before learning"]:.1%}; of pixels '
        f'{best["pixels", "learned"]:.1%}.',
    )  # fmt: skip


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
