"""What the units of a network look for: Zeiler & Fergus, ECCV 2014, and two other rules beside theirs.

A small plain network (7 x 7 filters, then 3 x 3) learns to tell from which of nine photographs a crop
is, by crops of their left halves; everything is then shown on crops of the right halves: the strongest
activations of some maps with the patches that they see and their projections; one unit by three rules
(deconvnet, guided backpropagation, gradient); where covering a picture hurts its class; whether
covering what drives a unit changes features alike in different pictures (correspondence); the first
filters before and after training. Or any network, with --init as the weights of a file are.

Run     python -m experiments.convnets.feature_visualization
        ... --network resnet_18 --init resnet18.pth --side 160 --steps 1 --layers conv2_2 conv4_2
Cost    one minute of two cores.
Found   77.2 % of the test crops are told right. A square of 14 x 14 pixels of 64 x 64 at its worst place takes
        54 % of the probability of a class. Covering what drives a map of the last layer changes features more
        alike (25.9 % of signs differ between pictures) than covering random places (33.7 %). Rounding alone
        moves all of them: with another order of the same sums 75.8 and 43 %, 33.4 and 35.5.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.data import batches, sources
from lecture4.data import images as image_data
from lecture4.data.images import crops, normalize
from lecture4.ops.reduce import Reduce
from lecture4.train import sgd
from lecture4.vision import deconvnet, train_step
from lecture4.vision.layers import BackwardRule
from lecture4.vision.models import registry, resnet
from lecture4.vision.weights import pretrained, torch_format

SHOWN = 9  # strongest pictures of a map, as in the paper
OTHER_RULES: dict[str, BackwardRule] = {'guided backpropagation': 'guided', 'gradient': 'gradient'}


def small(**options):
    """Four stages of one plain block behind the 7 x 7 filters."""
    return resnet.ResNet((1, 1, 1), (32, 64, 96), shortcut=None, **options)


NETWORKS = {'small': small, **registry.NETWORKS}


@dataclasses.dataclass(frozen=True)
class Config(train.Config):
    # Steps of training; 1 with --init.
    steps: int = 400
    batch_size: int = 32
    # Which network: small, or a name of lecture4.vision.models.registry.
    network: str = 'small'
    # Weights of torchvision or timm, .pth or .safetensors, to be looked at as they are.
    init: str = ''
    # Where pictures come from: photos, textures, cifar10, dir:PATH, npz:PATH.
    source: str = 'photos'
    # Side of the crops, or of the squares that other sources' pictures are brought to; 0: as they are.
    side: int = 64
    # Layers to look into, by the names of their activations; () takes three of them.
    layers: tuple[str, ...] = ()
    # Maps shown of each layer.
    maps: int = 6
    # Test pictures among which the strongest are sought.
    searched: int = 500
    # Pictures that are covered piece by piece.
    occluded: int = 3
    learning_rate: float = 0.02
    weight_decay: float = 5e-4

    def __post_init__(self):
        super().__post_init__()
        known = f'one of {", ".join(NETWORKS)}'
        train.require(self, 'network', self.network in NETWORKS, known)
        told = '1 with --init, whose weights are not trained'
        train.require(self, 'steps', self.steps == 1 or not self.init, told)
        for name in ('maps', 'occluded'):
            train.require(self, name, getattr(self, name) >= 1, 'at least 1')
        train.require(self, 'searched', self.searched >= SHOWN, f'at least {SHOWN}')


PRESETS = {
    'smoke': {'steps': 2, 'batch_size': 8, 'side': 48, 'layers': ('pool1',), 'maps': 2, 'searched': 24,
              'occluded': 1},
    'cifar10': {'source': 'cifar10', 'network': 'cifar_plain_14', 'side': 0, 'batch_size': 64, 'steps': 600},
}  # fmt: skip
SWEEPS = {}


def data(config):
    task = _task(config)
    x = task.train_images
    network = NETWORKS[config.network](n_classes=len(task.class_names))
    start, scale = (), normalize.create('standard', x, 3)
    if config.init:
        state = torch_format.read(config.init)
        network = network.clone(n_classes=pretrained.n_classes(network, state))
        start, wanted = pretrained.from_torch(network, state), pretrained.preprocessing(network)
        scale = normalize.from_mean_std(wanted.mean, wanted.std)
    seen = jax.ShapeDtypeStruct((1, *x.shape[1:3], 3), jnp.float32)
    try:
        (_, found), _ = jax.eval_shape(network.init_with_output, jax.random.key(0), seen)
    except ValueError as error:
        raise ValueError(f'--network {config.network} --side {config.side}: {error}') from None
    maps = [name for name, a in found.items() if len(a.shape) == 4 and '/' not in name]
    for layer in config.layers:
        if layer not in maps:
            raise ValueError(f'--layers {layer}: the layers of maps are {", ".join(maps)}')
    rows = np.random.default_rng(config.seed).permutation(len(task.test_images))[: config.searched]
    if len(rows) < SHOWN:
        raise ValueError(f'--source {config.source}: {len(rows)} test pictures; {SHOWN} are wanted')

    def prepare(resident, rows, key):
        del key
        pictures = normalize.normalize(resident['x'][rows], scale)
        kept = {name: resident[name] for name in ('start', 'classes')}
        return kept | {'images': pictures, 'labels': resident['labels'][rows]}

    return train.Data(
        lambda n: batches.indices(config.seed, n, len(x), config.batch_size),
        resident={
            'x': x, 'labels': task.train_labels, 'start': start,
            'classes': np.zeros(network.n_classes, np.float32),
        },
        prepare=prepare,
        extra=Seen(
            network, config.layers or tuple(maps[len(maps) * i // 3] for i in range(3)), scale,
            task.test_images[rows], task.test_labels[rows], task.class_names,
        ),
    )  # fmt: skip


class Seen(NamedTuple):
    """What the report looks at: a network's layers, and test pictures with their classes."""

    network: Any
    layers: tuple[str, ...]
    scale: normalize.Normalization
    images: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]


def _task(config):
    """Labelled squares; of photographs, crops labelled by the photograph they are from."""
    if config.source != 'photos':
        cut = config.source == 'textures'
        return image_data.load(
            config.source,
            **{'crop_size' if cut else 'image_size': config.side},
            pixels='stored',
            group_by_class=False,
            **config.data_kwargs(),
        )
    if config.side < 32:
        raise ValueError(f'--side is {config.side}; of photos crops of 32 x 32 or larger are taken')
    photos = sources.load('photos').images
    parts = [
        crops.grid_crops(half, config.side, config.side // 2)
        for half in crops.split_left_right(photos)
    ]
    names = tuple(f'photo {i}' for i in range(len(photos)))
    return image_data.ImageTask(*parts[0], *parts[1], names)


class State(NamedTuple):
    """variables and the optimiser's memory; first: the filters of conv1 before training."""

    variables: dict[str, Any]
    memory: Any
    first: jax.Array


def first_filters(variables):
    """Of conv1 (VGG's conv1_1), with or without batch norm: [h, w, 3, o]."""
    layers = variables['params']
    layer = layers['conv1' if 'conv1' in layers else 'conv1_1']
    return layer.get('conv', layer)['kernel']


def build(config):
    rate = sgd.schedule('drops', config.learning_rate, config.steps, drops=(0.6, 0.85))
    decay = optax.add_decayed_weights(config.weight_decay)
    optimizer = optax.chain(decay, sgd.momentum(rate, 0.9, 'torch'))

    def network(batch):
        return NETWORKS[config.network](n_classes=len(batch['classes']))

    def init(key, batch):
        variables = dict(network(batch).init(key, batch['images']))
        first = first_filters(variables)
        if config.init:
            return State(batch['start'], (), first)
        return State(variables, optimizer.init(variables['params']), first)

    def step(state, batch, key, *, axis_name=None):
        if config.init:
            return state, {'loss': jnp.zeros(())}
        variables, memory, metrics = train_step.train_step(
            network(batch), optimizer, state.variables, state.memory, batch, key, Reduce(axis_name)
        )
        return State(variables, memory, state.first), metrics

    return train.Task(init, step)


def report(config, state, data):
    from lecture4.figures import deconvnet as seeing
    from lecture4.figures import images as images_of

    network, layers, scale, images, labels, names = data.extra
    shape = (*images.shape[1:3], 3)
    unit = np.asarray(normalize.to_unit_interval(images, 3))
    seen = np.asarray(normalize.normalize(images, scale))
    parts = [seen[at : at + 50] for at in range(0, len(seen), 50)]
    variables = jax.device_put(state.variables)
    run = jax.jit(lambda v, x: jax.nn.softmax(network.apply(v, x)[0]))
    told = np.concatenate([run(variables, part) for part in parts])
    answers = told.argmax(1)
    right = answers == labels
    pictures = {}

    def look(layer):
        top = deconvnet.top_images(network, variables, parts, layer, SHOWN)
        n_alive = max((top.values[-1] > 0).sum(), 1)
        alive = np.argsort(top.values[-1] <= 0, kind='stable')[:n_alive]
        chosen = alive[np.linspace(0, n_alive - 1, min(config.maps, n_alive)).astype(int)]
        back = projector(network, variables, layer)
        field = registry.receptive_field_of(network, layer, shape)
        units = {}
        for c in chosen:
            rows = top.indices[:, c]
            pixels = back(seen[rows], np.full(SHOWN, c)).pixels
            pair = unit[rows] - 0.5, seeing.signed_images(pixels) - 0.5
            if max(field.receptive_field) < shape[0]:
                pair = (
                    deconvnet.receptive_field_patches(part, top.positions[:, c], field)
                    for part in pair
                )
            units[f'{layer}, map {c}'] = tuple(part + 0.5 for part in pair)
        pictures[f'strongest_{layer}'] = train.Picture(
            seeing.top_activations(units),
            f'Of each map of {layer} the {SHOWN} pictures that drive it most: what the unit sees, and the '
            "deconvnet's projection of the unit's activation.",
        )
        return top, alive, chosen, back

    found = [look(layer) for layer in train.track(config, layers, 'layers')]
    top, alive, chosen, back = found[-1]
    units = alive[np.linspace(0, len(alive) - 1, SHOWN).astype(int)]
    rows = top.indices[0, units]
    named = {'picture': unit[rows], 'deconvnet': seeing.signed_images(back(seen[rows], units).pixels)}
    for name, rule in OTHER_RULES.items():
        run = projector(network, variables, layers[-1], rule)
        named[name] = seeing.signed_images(run(seen[rows], units).pixels)
    size, stride = max(shape[0] * 50 // 224, 1), max(shape[0] * 10 // 224, 1)
    order = np.argsort(told.max(1) + 2 * ~right)  # right, and least sure
    _, first = np.unique(answers[order], return_index=True)
    shown = order[np.sort(first)][: config.occluded]
    covered = [
        deconvnet.occlude(
            network, variables, seen[i], int(answers[i]), layers[-1], occluder_size=size, stride=stride, batch_size=64
        )
        for i in train.track(config, shown, 'covered pictures')
    ]  # fmt: skip
    parts = correspondence(data.extra, variables, layers[-1], top, chosen, size, config.seed)
    filters = {'before': state.first, 'after': first_filters(variables)}
    filters = {name: np.moveaxis(np.asarray(k), -1, 0)[:16] for name, k in filters.items()}
    pictures |= {
        'rules': train.Picture(
            images_of.rows(named),
            f'The unit of {layers[-1]} that each picture drives, sent back by three rules (grey: zero).',
        ),
        'occlusion': train.Picture(
            seeing.occlusion(
                unit[shown],
                {
                    'its class': [found.probability for found in covered],
                    'strongest map': [found.response for found in covered],
                    'answer': [found.predicted for found in covered],
                },
                titles=[_name(names, answers[i], config) for i in shown],
            ),
            f'A grey square of {size} x {size} with its upper left corner at each place: probability of the '
            f'class, sum of the strongest map of {layers[-1]}, and the answer (a colour a class). Of some '
            'classes the picture that is told right, but least surely.',
        ),
        'filters': train.Picture(
            images_of.rows({name: seeing.signed_images(kernels) for name, kernels in filters.items()}),
            'Filters of the first layer before and after training; grey is zero.',
        ),
    }
    accuracy = 100 * float(right.mean())
    drop = float(
        np.mean([1 - found.probability.min() / found.probability.max() for found in covered])
    )
    metrics = {'correspondence_part': parts[0], 'correspondence_elsewhere': parts[1]}
    metrics |= {} if config.init else {'accuracy': accuracy}
    return train.Report(
        metrics=metrics | {'worst_cover': drop},
        tables=(
            train.Table(
                f'Hamming distance of the signs of changes of {layers[-1]} between pictures',
                ('covered', 'distance'),
                (('what drives one map in all of them', parts[0]), ('a random place', parts[1])),
                'Means over maps; less where covering changes features alike. Features are means of maps '
                f'over places; squares of {size} x {size} pixels.',
            ),
        ),
        pictures=pictures,
        summary=('' if config.init else f'{accuracy:.1f} % of the test pictures are told right. ')
        + f'Covering the worst place takes {100 * drop:.0f} % of the probability of a class. Changes by '
        f'covering what drives a map differ in {100 * parts[0]:.1f} % of their signs between pictures, by '
        f'covering random places in {100 * parts[1]:.1f} %.',
    )


def projector(network, variables, layer, rule: BackwardRule = 'deconvnet'):
    """(pictures, a channel for each) -> Projection, compiled once."""
    run = jax.jit(lambda v, x, c: deconvnet.project(network, v, x, layer, c, rule))
    return functools.partial(run, variables)


def correspondence(seen: Seen, variables, layer, top, channels, size, seed):
    """(where the part that drives a map is covered, where a random place is), means over maps."""
    x = np.asarray(normalize.normalize(seen.images, seen.scale))
    field = registry.receptive_field_of(seen.network, layer, x.shape[1:])
    activation = jax.jit(lambda v, x: deconvnet.activation(seen.network, v, x, layer))
    feature_fn = lambda x: activation(variables, x).mean((1, 2))  # noqa: E731
    rng = np.random.default_rng(seed)
    found = []
    for c in channels:
        pictures = x[top.indices[:, c]]
        middles = [field.center(place) for place in top.positions[:, c]]
        corners = np.round(np.array(middles) - size / 2).astype(int)
        random = rng.integers(0, np.array(x.shape[1:3]) - size + 1, (SHOWN, 2))
        found.append(
            [
                deconvnet.correspondence(feature_fn, pictures, cover(pictures, at, size))
                for at in (corners, random)
            ]
        )
    return tuple(float(value) for value in np.mean(found, 0))


def cover(pictures, corners, size):
    """The pictures, each with a square of zeros: the mean colour."""
    covered = pictures.copy()
    for picture, (top, left) in zip(covered, corners, strict=True):
        picture[max(top, 0) : max(top + size, 0), max(left, 0) : max(left + size, 0)] = 0
    return covered


def _name(names, answer, config):
    return f'class {answer}' if config.init else names[answer]


if __name__ == '__main__':
    train.main(Config, data, build, report, PRESETS, SWEEPS)
