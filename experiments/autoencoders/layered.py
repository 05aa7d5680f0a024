"""A layered sparse network on pictures, learned layer by layer without labels: what its units want.

Le et al., ICML 2012, in small: local receptive fields whose weights are not shared, reconstruction
ICA with L2 pooling, local contrast normalisation, three times over. Learned from unlabelled crops,
whitened. Then, beside the same network before it learned anything, whose filters are pieces of
crops: how far outputs stay the same when the picture moves, how well the best single unit tells a
class of labelled crops from the others, and for units of every layer the best stimulus found by
optimisation, with what it may undergo unnoticed.

Run     python -m experiments.autoencoders.layered
        python -m experiments.autoencoders.layered --preset olshausen --manual_dir PATH
Cost    4 minutes of processor time.
Found   filters of the first layer are small edges and gratings. Moved by 2 pixels, pictures keep 0.14 of their
        outputs (as correlation) and 0.86 of the pools', unlearned 0.63 and 0.93. The best single unit tells a
        texture from the others with 60 % of pixels, 75 of pools of the first layer (unlearned 60), 66 of the
        second (70) and 65 of the third (67): here learning helps in the first layer and not above it. The
        paper's gain came with depth, on 10 million pictures of 200 x 200. A weight of 1 in the first layer, ten
        times this, makes filters of the finest detail that whitening left, which look like noise.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.autoencoder import rica
from lecture4.autoencoder.rica import Stage
from lecture4.data import images as image_data
from lecture4.data.images import crops
from lecture4.data.images import whiten as whitening
from lecture4.features import selectivity, stimulus

SHIFTS = (1, 2, 4, 8)
MARGIN = max(SHIFTS)
STARTS = 3  # of the search for a unit's best stimulus


@dataclasses.dataclass(frozen=True)
class Config(train.Config):
    # Steps, of all layers together; each gets an equal share.
    steps: int = 3000
    batch_size: int = 64
    # Steps compiled into one call (a scan).
    steps_per_call: int = 20
    log_every: int = 20
    evaluate_every: int = 3000
    save_every: int = 1000
    # Where unlabelled pictures come from: photos, olshausen, textures, dir:PATH, npz:PATH.
    source: str = 'photos'
    # Whether they still have to be whitened; those of olshausen come whitened.
    whiten: bool = True
    # Where whitening cuts off, in cycles per pixel: finer detail is noise, or of the pixel grid.
    cutoff: float = 0.25
    # Where labelled pictures come from; they are whitened, train and test are the two halves of each.
    labelled: str = 'textures'
    # Side of the crops.
    side: int = 48
    # Crops that are drawn; a tenth of them is held out.
    crops: int = 8000
    # Sides of the receptive fields, a layer each, in units of the layer's input.
    sizes: tuple[int, ...] = (9, 6, 3)
    # Steps between neighbouring receptive fields.
    strides: tuple[int, ...] = (2, 2, 1)
    # Units at every place.
    maps: tuple[int, ...] = (4, 8, 16)
    # Sides of the pools, in places.
    pools: tuple[int, ...] = (3, 3, 3)
    # Weights of the pools beside the reconstruction error.
    weights: tuple[float, ...] = (0.1, 1.0, 1.0)
    # Use the transposed filters as the decoder; else it has weights of its own.
    tied: bool = True
    # Least divisor of the contrast normalisation.
    floor: float = 0.01
    learning_rate: float = 2e-3
    # Units of each layer whose best stimulus is sought.
    probed: int = 8
    # Steps of that search.
    search: int = 150

    def __post_init__(self):
        super().__post_init__()
        others = (self.strides, self.maps, self.pools, self.weights)
        wanted = 'as many numbers as --strides, --maps, --pools and --weights, at least one'
        alike = {len(self.sizes)} == set(map(len, others)) != {0}
        train.require(self, 'sizes', alike, wanted)
        train.require(self, 'maps', min(self.maps) >= 1, 'at least 1 in every layer')
        train.require(self, 'steps', self.steps >= len(self.sizes), 'at least one a layer')
        train.require(self, 'weights', min(self.weights) >= 0, 'at least 0')
        train.require(self, 'crops', self.crops >= 100, 'at least 100')
        for name in ('probed', 'search'):
            train.require(self, name, getattr(self, name) >= 1, 'at least 1')


PRESETS = {
    'smoke': {
        'steps': 6,
        'steps_per_call': 2,
        'log_every': 2,
        'evaluate_every': 6,
        'save_every': 6,
        'batch_size': 8,
        'side': 16,
        'crops': 100,
        'sizes': (5, 3),
        'strides': (2, 1),
        'maps': (2, 3),
        'pools': (2, 3),
        'weights': (0.1, 1.0),
        'probed': 2,
        'search': 4,
    },
    'olshausen': {'source': 'olshausen', 'whiten': False},
}
SWEEPS = {
    'weights': train.grid(weights=tuple((w, 1.0, 1.0) for w in (0.0, 0.03, 0.1, 0.3, 1.0))),
    'tied': train.grid(tied=(False, True), seed=(0, 1)),
}


class State(NamedTuple):
    layers: tuple[rica.Layer, ...]
    opt_states: tuple[optax.OptState, ...]
    done: jax.Array  # steps


def stages(config):
    sizes = zip(config.sizes, config.maps, config.strides, config.pools, strict=True)
    return tuple(Stage(*numbers) for numbers in sizes)


def data(config):
    rica.shapes((config.side, config.side, 1), stages(config))  # refused before anything is read
    images, _, _ = image_data.load_images(config.source, **config.data_kwargs())
    prepared = (
        whitening.whiten(images, config.cutoff) if config.whiten else whitening.standardize(images)
    )
    wide = config.side + MARGIN  # room to move held-out crops
    drawn = crops.sample_patches(inside(prepared), config.crops, wide, config.seed)
    drawn = drawn.reshape(-1, wide, wide, 1)
    held_out = drawn[: config.crops // 10]
    pixels, labels, names = image_data.load_images(config.labelled, **config.data_kwargs())
    if labels is None or len(names) < 2:
        raise ValueError(f'{config.labelled} has no two classes; name a labelled set')
    parts = {}
    halves = crops.split_left_right(inside(whitening.whiten(pixels, config.cutoff)))
    for name, half in zip(('train', 'test'), halves, strict=True):
        pieces, rows = crops.grid_crops(half, config.side, max(config.side // 4, 1))
        parts[name] = (pieces, labels[rows])
    return train.in_memory(
        np.ascontiguousarray(drawn[config.crops // 10 :, : config.side, : config.side]),
        config.batch_size,
        seed=config.seed,
        evaluation=np.ascontiguousarray(held_out[:200, : config.side, : config.side]),
        extra={'held_out': held_out, 'parts': parts, 'names': names},
    )


def inside(images, border=4):
    """Whitening takes pictures for periodic: what it makes of their borders is left out."""
    return tuple(image[border:-border, border:-border] for image in images)


def fresh(config, key, x):
    """Layers that have learned nothing: each has pieces of what the layer below makes of x."""
    layers = []
    for stage, own in zip(stages(config), jax.random.split(key, len(config.sizes)), strict=True):
        layers.append(rica.init(own, x, stage, tied=config.tied))
        x = rica.apply(layers[-1:], x, (stage,), min_std=config.floor)[0]['contrast']
    return tuple(layers)


def build(config):
    n_layers = len(config.sizes)
    length = config.steps // n_layers
    # Within a layer's own steps the rate falls to 0.
    optimizer = optax.adam(optax.cosine_decay_schedule(config.learning_rate, length))

    def init(key, x):
        layers = fresh(config, key, x)
        states = tuple(optimizer.init(layer) for layer in layers)
        return State(layers, states, jnp.zeros((), jnp.int32))

    def learn(i, state, x, axis_name):
        def value(layer):
            layers = (*state.layers[:i], layer, *state.layers[i + 1 :])
            run = rica.layer_loss(
                layers,
                x,
                i,
                stages(config),
                sparsity_penalty=config.weights[i],
                min_std=config.floor,
            )
            return jnp.mean(run[0]), run[1]

        (loss, metrics), grads = jax.value_and_grad(value, has_aux=True)(state.layers[i])
        metrics = {'loss': loss, **metrics}
        if axis_name is not None:
            grads, metrics = jax.lax.pmean((grads, metrics), axis_name)
        with jax.numpy_dtype_promotion('standard'):
            updates, own = optimizer.update(grads, state.opt_states[i])
        layer = jax.tree.map(jnp.add, state.layers[i], updates)
        layers = (*state.layers[:i], layer, *state.layers[i + 1 :])
        opt_states = (*state.opt_states[:i], own, *state.opt_states[i + 1 :])
        return State(layers, opt_states, state.done + 1), metrics

    def step(state, x, key, *, axis_name=None):
        del key
        now = jnp.minimum(state.done // length, n_layers - 1)
        branches = [functools.partial(learn, i, axis_name=axis_name) for i in range(n_layers)]
        return jax.lax.switch(now, branches, state, x)

    def evaluate(state, x):
        found = {}
        for i in range(n_layers):
            loss, metrics = rica.layer_loss(
                state.layers,
                x,
                i,
                stages(config),
                sparsity_penalty=config.weights[i],
                min_std=config.floor,
            )
            found |= {f'layer_{i + 1}_loss': jnp.mean(loss)}
            found |= {f'layer_{i + 1}_reconstruction': metrics['reconstruction']}
        return found

    return train.Task(init, step, evaluate)


def answers(config, layers, x, tile=64):
    """{sublayer: outputs [n, units]} of crops [n, side, side, 1], pixels included."""

    @jax.jit
    def run(x):
        return rica.apply(layers, x, stages(config), min_std=config.floor)

    parts = [run(x[i : i + tile]) for i in range(0, len(x), tile)]
    found = {'pixels': np.asarray(x).reshape(len(x), -1)}
    for i in range(len(layers)):
        for kind in ('filters', 'pooled'):
            whole = np.concatenate([np.asarray(part[i][kind]) for part in parts])
            found[f'{kind} {i + 1}'] = whole.reshape(len(x), -1)
    return found


def constancy(config, layers, held_out):
    """{sublayer: [len(SHIFTS)]}: mean over units of the constancy when the picture moves."""
    side = config.side
    still = answers(config, layers, held_out[:, :side, :side])
    moved = [answers(config, layers, held_out[:, :side, s : s + side]) for s in SHIFTS]
    return {
        name: [float(np.nanmean(selectivity.invariance(a, other[name]))) for other in moved]
        for name, a in still.items()
    }


CHANGES = {
    'shift, pixels': (np.arange(-8, 9), lambda x, t: stimulus.translate(x, jnp.zeros_like(t), t)),
    'turn, degrees': (np.arange(-90, 91, 10), lambda x, t: stimulus.rotate(x, jnp.deg2rad(t))),
    'scale': (np.geomspace(0.5, 2, 13), stimulus.scale),
}


def probed(config, layers, i, kind, crops):
    """Best stimuli [m, side, side, 1] of m units of layer i, and {change: (amounts, tuning)}.

    The search starts from the crops that the unit answers to most. The pixels of a stimulus have variance
    1, as whitened ones have; tunings are means over units.
    """

    @jax.jit
    def probe(layers, map_):
        used = layers[: i + 1], stages(config)[: i + 1]
        response = rica.unit_response(*used, kind, map_, min_std=config.floor)
        answers = jax.lax.map(response, crops, batch_size=64)
        starts = crops[jax.lax.top_k(answers, STARTS)[1]]
        found = stimulus.maximize(response, starts, norm=config.side, n_steps=config.search)
        curves = {
            name: stimulus.tuning_curve(response, found.stimuli[0], change, jnp.float32(amounts))
            for name, (amounts, change) in CHANGES.items()
        }
        return found.stimuli[0], curves

    found = [probe(layers, m) for m in range(min(config.probed, config.maps[i]))]
    stimuli, tunings = jax.tree.map(lambda *values: np.stack(values), *found)
    return stimuli, {name: (CHANGES[name][0], v.mean(0)) for name, v in tunings.items()}


def unnoticed(config, layers, best):
    """Walks from the best stimulus of a first pooled unit, flattest directions to the steepest."""
    response = rica.unit_response(layers[:1], stages(config)[:1], 'pooled', 0, min_std=config.floor)
    values, directions = jax.jit(functools.partial(stimulus.invariant_directions, response))(best)
    h, w, _ = rica.shapes(best.shape, stages(config)[:1])[1]
    seen = rica.receptive_field(stages(config)[:1], (h // 2, w // 2))
    rows, notes = {}, {}
    for name, j in (('flattest', 0), ('2nd', 1), ('3rd', 2), ('steepest', len(values) - 1)):
        walked = stimulus.great_circle(best, directions[j], np.linspace(-np.pi / 3, np.pi / 3, 7))
        share = jax.vmap(response)(walked) / response(best)
        rows[name] = tiles(walked[:, *seen])
        notes[name] = [f'{value:.0%}' for value in np.asarray(share)]
    return rows, notes


def tiles(crops):
    """Crops as pictures in [0, 1], each with zero at mid grey."""
    crops = np.asarray(crops)[..., 0]
    return 0.5 + 0.5 * crops / abs(crops).max((1, 2), keepdims=True)


def report(config, state, data):
    from lecture4.figures import dictionary, images, lines

    extra, n_layers = data.extra, len(config.sizes)
    networks = {
        'learned': state.layers,
        'unlearned': fresh(config, jax.random.key(config.seed + 1), data.resident[:500]),
    }
    still, singles = {}, {}
    (learned, labels), (tested, test_labels) = (extra['parts'][part] for part in ('train', 'test'))
    for name, layers in networks.items():
        still[name] = constancy(config, layers, extra['held_out'][:400])
        outputs, others = (answers(config, layers, x) for x in (learned, tested))
        singles[name] = {
            kind: float(
                selectivity.best_neuron(
                    a, labels, others[kind], test_labels, len(extra['names'])
                ).mean()
            )
            for kind, a in outputs.items()
        }
    kinds = list(still['learned'])
    seen = jnp.asarray(extra['held_out'][:, : config.side, : config.side])
    sublayers = [(0, 'filters'), *((i, 'pooled') for i in range(n_layers))]
    found, curves = {}, {}
    for i, kind in sublayers:
        found[f'{kind} {i + 1}'], curves[f'{kind} {i + 1}'] = probed(
            config, state.layers, i, kind, seen
        )
    panels = {
        name: {
            'curves': {kind: curve[name] for kind, curve in curves.items()},
            'xlabel': name,
            'ylabel': 'response, share of the best',
        }
        for name in CHANGES
    }
    rows, notes = unnoticed(config, state.layers, jnp.asarray(found['pooled 1'][0]))
    first = np.asarray(state.layers[0].encoder)
    shown = first[1::4, 1::4].transpose(2, 0, 1, 3).reshape(first.shape[2], -1)
    metrics = {}
    for name in networks:
        for kind in kinds:
            metrics[f'{name}_{kind.replace(" ", "_")}_constancy'] = float(still[name][kind][1])
            metrics[f'{name}_{kind.replace(" ", "_")}_best_unit'] = singles[name][kind]
    table = train.Table(
        'Outputs when the picture moves',
        ('sublayer', *(f'{n} px' for n in SHIFTS), *(f'unlearned, {n} px' for n in SHIFTS)),
        tuple(
            (kind, *(f'{v:.3f}' for name in networks for v in still[name][kind])) for kind in kinds
        ),
        "Correlation of a unit's outputs on held-out crops with those on the crops moved "
        'sideways, mean over units; right: the network whose filters are pieces of crops.',
    )
    detection = train.Table(
        f'The best single unit on {config.labelled}, %',
        ('sublayer', 'learned', 'unlearned'),
        tuple((kind, *(100 * singles[name][kind] for name in networks)) for kind in kinds),
        'One class against the others, both weighted alike (chance is 50), mean over classes. Unit '
        'and threshold are chosen on the left halves of the pictures and tested on the right ones.',
    )
    top = f'pooled {n_layers}'
    return train.Report(
        metrics=metrics,
        tables=(table, detection),
        pictures={
            'filters': train.Picture(
                dictionary.atoms(shown, (config.sizes[0],) * 2, n=160, columns=16),
                'Filters of the first layer: all maps at every fourth place.',
            ),
            'stimuli': train.Picture(
                images.rows(
                    {name: tiles(best[: min(config.maps)]) for name, best in found.items()}
                ),
                'Best stimuli of units at the middle place, layer by layer.',
            ),
            'tuning': train.Picture(
                lines.panels(panels, columns=3),
                'Responses to the best stimulus, moved, turned and scaled; means over units.',
            ),
            'unnoticed': train.Picture(
                images.rows(rows, notes=notes),
                'A pooled unit of the first layer: its best stimulus (middle), and walks on the '
                'sphere of equal norm along the directions in which its response is least and most '
                'curved, in its field; below, the response that is left.',
            ),
        },
        summary=f'Moved by {SHIFTS[1]} pixels, pictures keep {still["learned"]["filters 1"][1]:.2f} '
        f"of the first filters' outputs (as correlation), {still['learned']['pooled 1'][1]:.2f} of "
        f"their pools', {still['learned'][top][1]:.2f} of the top's. The best single unit of the "
        f'top tells a class with {singles["learned"][top]:.1%}, of pixels {singles["learned"]["pixels"]:.1%}.',
    )


if __name__ == '__main__':
    train.main(Config, data, build, report, PRESETS, SWEEPS)
