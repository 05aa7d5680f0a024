"""Visualizing and understanding convolutional networks (Zeiler & Fergus, ECCV 2014).

A small plain network (7 x 7 filters, then 3 x 3) learns to classify from which of nine photographs a crop is,
by crops of their left halves; everything is then shown on crops of the right halves: the strongest activations
of some feature maps with the patches that drive them and their projections; one unit by three backward rules
(deconvnet, guided backpropagation, gradient); where occluding an image hurts its class; whether occluding what
drives a unit changes features consistently in different images (correspondence); the first filters before and
after training. Or any network, with --init and the weights of a file.

Run:      python -m experiments.convnets.feature_visualization
          ... --network resnet_18 --init resnet18.pth --image_size 160 --steps 1 --layers conv2_2 conv4_2
Hardware: 2 CPU cores, 1 min
Results:  in %; rounding alone moves all of them: the second column is with another order of the same sums

          |                                                            | ours | other order |
          |------------------------------------------------------------|------|-------------|
          | test accuracy                                              | 77.2 | 75.8        |
          | probability of the class lost by occluding 14 x 14 pixels  | 54   | 43          |
          | signs that differ, occluding what drives a map             | 25.9 | 33.4        |
          | signs that differ, occluding random places                 | 33.7 | 35.5        |
"""

import dataclasses
import functools
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from annotated_types import Ge

from lecture4 import train
from lecture4.data import batches, sources
from lecture4.data import images as image_data
from lecture4.data.images import crops, normalize
from lecture4.train.optimizers import piecewise_constant, sgd
from lecture4.vision import deconvnet, train_step
from lecture4.vision.layers import BackwardRule
from lecture4.vision.models import registry, resnet
from lecture4.vision.weights import pretrained, torch_format

NUM_TOP = 9  # strongest images of a feature map, as in the paper
OTHER_RULES: dict[str, BackwardRule] = {'guided backpropagation': 'guided', 'gradient': 'gradient'}
CHUNK_SIZE = 50  # test images per call


def small(**options):
    """Four stages of one plain block after the 7 x 7 filters."""
    return resnet.ResNet((1, 1, 1), (32, 64, 96), shortcut=None, **options)


NETWORKS = {'small': small, **registry.NETWORKS}


@dataclasses.dataclass(frozen=True)
class Config(train.Config):
    # Number of training steps; 1 with --init.
    steps: train.AtLeast1 = 400
    batch_size: train.AtLeast1 = 32
    # Model name: small, or a name of lecture4.vision.models.registry.
    network: str = 'small'
    # File of torchvision or timm weights, .pth or .safetensors, visualized without training.
    init: str = ''
    # Source of images: photos, textures, cifar10, dir:PATH, npz:PATH.
    source: str = 'photos'
    # Height and width of the crops, or of the squares that images of other sources are brought to; 0
    # keeps their size.
    image_size: train.AtLeast0 = 64
    # Layers to visualize, by the names of their activations. Default: three of them.
    layers: tuple[str, ...] = ()
    # Number of feature maps shown of each layer.
    num_maps: train.AtLeast1 = 6
    # Number of test images among which the strongest activations are searched.
    num_candidates: Annotated[int, Ge(NUM_TOP)] = 500
    # Number of images that are occluded at every place.
    num_occluded: train.AtLeast1 = 3
    # Initial learning rate, divided by 10 at 60 % and 85 % of the steps.
    learning_rate: train.Positive = 0.02
    # Weight decay of all parameters.
    weight_decay: train.NonNegative = 5e-4

    def __post_init__(self):
        super().__post_init__()
        known = f'one of {", ".join(NETWORKS)}'
        train.require(self, 'network', self.network in NETWORKS, known)
        expected = '1 with --init, whose weights are not trained'
        train.require(self, 'steps', self.steps == 1 or not self.init, expected)


METRICS = (
    train.Metric('sign_distance', 'fraction', 'lower', 'Hamming distance of signs', primary=True),
    train.Metric('accuracy', 'fraction', 'higher', 'accuracy'),
    train.Metric('probability_drop', 'fraction', '', 'largest relative drop of the probability'),
    train.Metric('loss', 'nats', 'lower', 'cross-entropy'),
)
PRESETS = {
    'smoke': {'steps': 2, 'batch_size': 8, 'image_size': 48, 'layers': ('pool1',), 'num_maps': 2}
    | {'num_candidates': 24, 'num_occluded': 1},
    'cifar10': {'source': 'cifar10', 'network': 'cifar_plain_14', 'image_size': 0}
    | {'batch_size': 64, 'steps': 600},
}
SWEEPS = {}


class Candidates(NamedTuple):
    """Test images as they are stored, [n, h, w, c], and their labels."""

    images: np.ndarray
    labels: np.ndarray


def data(config):
    task = labeled_images(config)
    x, class_names = task.train_images, task.class_names
    network = NETWORKS[config.network](n_classes=len(class_names))
    weights, normalization = None, normalize.create('standard', x, 3)
    if config.init:
        file = torch_format.read(config.init)
        num_classes = pretrained.n_classes(network, file)
        network, class_names = (
            network.clone(n_classes=num_classes),
            tuple(f'class {i}' for i in range(num_classes)),
        )
        weights, expected = pretrained.from_torch(network, file), pretrained.preprocessing(network)
        normalization = normalize.from_mean_std(expected.mean, expected.std)
    shape = (*x.shape[1:3], 3)
    example = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    try:
        (_, activations), _ = jax.eval_shape(network.init_with_output, jax.random.key(0), example)
    except ValueError as error:
        name = f'--network {config.network} --image_size {config.image_size}'
        raise ValueError(f'{name}: {error}') from None
    names = [name for name, a in activations.items() if len(a.shape) == 4 and '/' not in name]
    for layer in config.layers:
        if layer not in names:
            raise ValueError(f'--layers {layer}: expected layers of {", ".join(names)}')
    rows = np.random.default_rng(config.seed).permutation(len(task.test_images))
    rows = rows[: config.num_candidates]
    if len(rows) < NUM_TOP:
        raise ValueError(
            f'--source {config.source} has {len(rows)} test images; expected at least {NUM_TOP}'
        )

    def prepare(device_arrays, rows, key):
        del key
        images = normalize.normalize(device_arrays['images'][rows], normalization)
        return {'images': images, 'labels': device_arrays['labels'][rows]}

    layers = config.layers or tuple(names[len(names) * i // 3] for i in range(3))
    constants = {'normalization': normalization, 'weights': weights, 'layers': layers}
    return train.Data(
        lambda n: batches.indices(config.seed, n, len(x), config.batch_size),
        device_arrays={'images': x, 'labels': task.train_labels},
        prepare=prepare,
        spec=train.Spec(shape, class_names, constants),
        report_data=Candidates(task.test_images[rows], task.test_labels[rows]),
        rows=x,
    )


def labeled_images(config):
    """Labeled squares; of photographs, crops labeled by the photograph they are from."""
    size = config.image_size
    if config.source != 'photos':
        option = 'crop_size' if config.source == 'textures' else 'image_size'
        return image_data.load(
            config.source,
            **{option: size},
            pixels='stored',
            group_by_class=False,
            **config.data_kwargs(),
        )
    if size < 32:
        raise ValueError(f'--image_size is {size}; expected at least 32 for crops of photos')
    photos = sources.load('photos').images
    parts = [crops.grid_crops(half, size, size // 2) for half in crops.split_left_right(photos)]
    return image_data.ImageTask(
        *parts[0], *parts[1], tuple(f'photo {i}' for i in range(len(photos)))
    )


def first_filters(params):
    """Kernel of conv1 (VGG's conv1_1), with or without batch norm: [h, w, 3, features]."""
    layer = params['conv1' if 'conv1' in params else 'conv1_1']
    return layer.get('conv', layer)['kernel']


def network_of(config, spec):
    return NETWORKS[config.network](n_classes=spec.num_classes)


def build(config, spec):
    schedule = piecewise_constant(config.learning_rate, config.steps, (0.6, 0.85))
    optimizer = optax.chain(
        optax.add_decayed_weights(config.weight_decay), sgd(schedule, momentum=0.9)
    )
    weights = spec.constants['weights']
    task = train.supervised(network_of(config, spec), optimizer, train_step.loss, initial=weights)

    def init(key, batch):
        state = task.init(key, batch)
        initial = {'initial_filters': first_filters(state.params)}
        return state._replace(model_state=state.model_state | initial)

    def keep(state, batch, key, reduce):
        del batch, key, reduce
        return state._replace(step=state.step + 1), {'loss': jnp.zeros(())}

    return task._replace(init=init, step=task.step if weights is None else keep)


def apply(config, spec):
    network, layer = network_of(config, spec), spec.constants['layers'][-1]

    def network_input(images):
        return normalize.normalize(images, spec.constants['normalization'])

    def predict(state, images):
        """Class probabilities of images as they are stored, [n, classes]."""
        return jax.nn.softmax(network.apply(train.variables(state), network_input(images))[0])

    def encode(state, images):
        """Means over places of the feature maps of the last layer of --layers, [n, features]."""
        x = network_input(images)
        return deconvnet.activation(network, train.variables(state), x, layer).mean((1, 2))

    def project(state, images, channel):
        """Projection to pixels of the strongest unit of a channel of that layer, [n, h, w, 3]."""
        x = network_input(images)
        return deconvnet.project(network, train.variables(state), x, layer, channel).pixels

    return {'predict': predict, 'encode': encode, 'project': project}


def report(config, state, data):
    from lecture4.figures import deconvnet as figures
    from lecture4.figures import images as image_figures

    spec, (images, labels) = data.spec, data.report_data
    network, layers = network_of(config, spec), spec.constants['layers']
    unit = np.asarray(normalize.to_unit_interval(images, 3))
    x = np.asarray(normalize.normalize(images, spec.constants['normalization']))
    chunks = [x[start : start + CHUNK_SIZE] for start in range(0, len(x), CHUNK_SIZE)]
    variables = jax.device_put(train.variables(state))
    run = jax.jit(lambda v, x: jax.nn.softmax(network.apply(v, x)[0]))
    probs = np.concatenate([run(variables, chunk) for chunk in chunks])
    predictions = probs.argmax(1)
    is_correct = predictions == labels
    drawn = {}

    def visualize(layer):
        top = deconvnet.top_images(network, variables, chunks, layer, NUM_TOP)
        num_active = max((top.values[-1] > 0).sum(), 1)
        active = np.argsort(top.values[-1] <= 0, kind='stable')[:num_active]
        count = min(config.num_maps, num_active)
        channels = active[np.linspace(0, num_active - 1, count).astype(int)]
        project = projector(network, variables, layer)
        drawn[f'strongest_{layer}'] = train.Figure(
            figures.top_activations(
                top_patches(network, layer, top, channels, unit, x, project, figures.signed_images)
            ),
            f'For each feature map of {layer} the {NUM_TOP} images that drive it most: what the unit sees, '
            "and the deconvnet's projection of the unit's activation.",
        )
        return top, active, channels, project

    results = [visualize(layer) for layer in train.track(config, layers, 'layers')]
    top, active, channels, project = results[-1]
    units = active[np.linspace(0, len(active) - 1, NUM_TOP).astype(int)]
    rows = top.indices[0, units]
    named = {
        'image': unit[rows],
        'deconvnet': figures.signed_images(project(x[rows], units).pixels),
    }
    for name, rule in OTHER_RULES.items():
        other = projector(network, variables, layers[-1], rule)
        named[name] = figures.signed_images(other(x[rows], units).pixels)
    height = spec.shape[0]
    size, stride = max(height * 50 // 224, 1), max(height * 10 // 224, 1)
    order = np.argsort(probs.max(1) + 2 * ~is_correct)  # correct, and least certain
    _, first = np.unique(predictions[order], return_index=True)
    shown = order[np.sort(first)][: config.num_occluded].tolist()
    occluded = [
        deconvnet.occlude(
            network, variables, x[i], int(predictions[i]), layers[-1],
            occluder_size=size, stride=stride, batch_size=64,
        )
        for i in train.track(config, shown, 'occluded images')
    ]  # fmt: skip
    maps = {
        'class probability': [result.probability for result in occluded],
        'strongest feature map': [result.response for result in occluded],
        'prediction': [result.predicted for result in occluded],
    }
    filters = {
        'before': state.model_state['initial_filters'],
        'after': first_filters(variables['params']),
    }
    filters = {name: np.moveaxis(np.asarray(k), -1, 0)[:16] for name, k in filters.items()}
    filters = {name: figures.signed_images(kernels) for name, kernels in filters.items()}
    drawn |= {
        'rules': train.Figure(
            image_figures.rows(named),
            f'The unit of {layers[-1]} that each image drives, by three backward rules (gray: zero).',
        ),
        'occlusion': train.Figure(
            figures.occlusion(
                unit[shown], maps, titles=[spec.class_names[predictions[i]] for i in shown]
            ),
            f'A gray square of {size} x {size} with its upper left corner at each place: probability of the '
            f'class, sum of the strongest feature map of {layers[-1]}, and the prediction (one color per '
            'class). Of some classes, the correctly classified image with the least probability.',
        ),
        'filters': train.Figure(
            image_figures.rows(filters),
            'Filters of the first layer before and after training; gray is zero.',
        ),
    }
    distances = correspondence(network, variables, x, layers[-1], top, channels, size, config.seed)
    drop = np.mean([1 - result.probability.min() / result.probability.max() for result in occluded])
    metrics = {'sign_distance': distances[0], 'probability_drop': float(drop)}
    summary = ''
    if not config.init:
        metrics['accuracy'] = float(is_correct.mean())
        summary = f'Test accuracy {100 * metrics["accuracy"]:.1f} %. '
    records = (
        {'occluded': 'what drives one feature map in all of them', 'sign_distance': distances[0]},
        {'occluded': 'a random place', 'sign_distance': distances[1]},
    )
    return train.Report(
        metrics=metrics,
        tables=(
            train.Table(
                f'Hamming distance of the signs of changes of {layers[-1]} between images',
                records,
                ('occluded',),
                caption='Means over feature maps; lower where occlusion changes features consistently. '
                f'Features are means of feature maps over places; squares of {size} x {size} pixels.',
            ),
        ),
        figures=drawn,
        summary=f'{summary}Occluding the worst place lowers the probability of a class by {100 * drop:.0f} %. '
        f'Changes by occluding what drives a feature map differ in {100 * distances[0]:.1f} % of their signs '
        f'between images, by occluding random places in {100 * distances[1]:.1f} %.',
    )


def projector(network, variables, layer, rule: BackwardRule = 'deconvnet'):
    """(images, one channel per image) -> Projection, compiled once."""
    run = jax.jit(lambda v, x, c: deconvnet.project(network, v, x, layer, c, rule))
    return functools.partial(run, variables)


def top_patches(network, layer, top, channels, unit, x, project, to_images):
    """Title -> (patches that drive a feature map, their projections), both in [0, 1]."""
    field = registry.receptive_field_of(network, layer, x.shape[1:])
    features = {}
    for c in channels:
        rows = top.indices[:, c]
        pixels = project(x[rows], np.full(NUM_TOP, c)).pixels
        pair = unit[rows] - 0.5, to_images(pixels) - 0.5
        if max(field.receptive_field) < x.shape[1]:
            pair = (
                deconvnet.receptive_field_patches(part, top.positions[:, c], field) for part in pair
            )
        features[f'{layer}, map {c}'] = tuple(part + 0.5 for part in pair)
    return features


def correspondence(network, variables, x, layer, top, channels, size, seed):
    """Sign distances (occluding the part that drives a map, a random place), means over maps."""
    field = registry.receptive_field_of(network, layer, x.shape[1:])
    activation = jax.jit(lambda v, x: deconvnet.activation(network, v, x, layer))

    def features(x):
        return activation(variables, x).mean((1, 2))

    rng = np.random.default_rng(seed)
    distances = []
    for c in channels:
        images = x[top.indices[:, c]]
        centers = [field.center(place) for place in top.positions[:, c]]
        corners = np.round(np.array(centers) - size / 2).astype(int)
        random = rng.integers(0, np.array(x.shape[1:3]) - size + 1, (NUM_TOP, 2))
        distances.append(
            [
                deconvnet.correspondence(features, images, occlude(images, at, size))
                for at in (corners, random)
            ]
        )
    return tuple(float(value) for value in np.mean(distances, 0))


def occlude(images, corners, size):
    """The images, each with a square of zeros: the mean color."""
    occluded = images.copy()
    for image, (top, left) in zip(occluded, corners, strict=True):
        image[max(top, 0) : max(top + size, 0), max(left, 0) : max(left + size, 0)] = 0
    return occluded


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
