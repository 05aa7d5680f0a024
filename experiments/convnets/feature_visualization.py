"""Visualizing and understanding convolutional networks (Zeiler & Fergus, ECCV 2014).

A small plain network (7 x 7 filters, then 3 x 3) classifies crops of the left halves of nine photographs by
photograph. On crops of the right halves: the strongest activations of some feature maps with their projections; one
unit by three backward rules; the regions whose occlusion lowers the class probability; whether occluding the region
that drives a unit changes features consistently across images (correspondence). With --init, any network.

Run:      python -m experiments.convnets.feature_visualization
          ... --network resnet_18 --init resnet18.pth --image_size 160 --steps 1 --layers conv2_2 conv4_2
Hardware: 2 CPU cores, 1 min
Results:  in %; they are sensitive to rounding: the second column sums in another order

          |                                                            | ours | other order |
          |------------------------------------------------------------|------|-------------|
          | test accuracy                                              | 77.2 | 75.8        |
          | probability of the class lost by occluding 14 x 14 pixels  | 54   | 43          |
          | signs that differ, occluding what drives a map             | 25.9 | 33.4        |
          | signs that differ, occluding random places                 | 33.7 | 35.5        |
"""

import dataclasses
from functools import partial
from typing import Annotated

import jax
import numpy as np
import optax
from annotated_types import Ge

from lecture4 import train
from lecture4.data import images as image_data
from lecture4.data.images import normalize
from lecture4.train.optimizers import piecewise_constant
from lecture4.vision import deconvnet, train_step, visualization
from lecture4.vision.models import registry
from lecture4.vision.visualization import NUM_TOP
from lecture4.vision.weights import pretrained, transfer


@dataclasses.dataclass(frozen=True)
class Config(train.SplitImages):
    # Number of training steps; 1 with --init.
    steps: train.AtLeast1 = 400
    batch_size: train.AtLeast1 = 32
    # Model name: small, or a name of lecture4.vision.models.registry.
    network: str = 'small'
    # Weights that are visualized without training: a file of torchvision or timm, a run or a checkpoint of one.
    init: str = ''
    # Source of images: photos, textures, cifar10, dir:PATH, npz:PATH, csv:PATH.
    source: str = 'photos'
    # Height and width of the crops; images of other sources are cropped and resized to it. 0 keeps their size.
    image_size: train.AtLeast0 = 64
    # Layers to visualize, by the names of their activations. Default: three of them.
    layers: tuple[str, ...] = ()
    # Number of feature maps shown per layer.
    num_maps: train.Evaluation[train.AtLeast1] = 6
    # Number of test images among which the strongest activations are searched.
    num_candidates: train.Evaluation[Annotated[int, Ge(NUM_TOP)]] = 500
    # Number of images for which the class probability is mapped by occlusion at every position.
    num_occluded: train.Evaluation[train.AtLeast1] = 3
    # Initial learning rate, divided by 10 at 60 % and 85 % of the steps.
    learning_rate: train.Positive = 0.02
    # Weight decay of all parameters.
    weight_decay: train.NonNegative = 5e-4

    def __post_init__(self):
        super().__post_init__()
        registry.create(self.network, 1)
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


def data(config):
    task = image_data.load_squares(config.source, config.image_size, **config.data_kwargs())
    task = image_data.subsample_test(task, config.num_candidates, config.seed)
    train.require(config, 'source', len(task.test_labels) >= NUM_TOP, f'{NUM_TOP} or more images')
    x, names = task.train_images, task.class_names
    shape, init = (*x.shape[1:3], 3), train.read_init(config.init)
    network, weights = registry.create(config.network, len(names)), None
    if config.init:
        network, weights = transfer.load_unchanged(network, init.source, image_shape=shape)
        names = init.class_names or pretrained.class_names(network.n_classes)
    published = pretrained.normalization(network)
    normalization = train.init_normalization('auto', init, published, x, config.seed)
    layers = visualization.choose_layers(network, shape, config.layers)
    constants = {'normalization': normalization, 'weights': weights, 'layers': layers}
    spec, fields = train.Spec(shape, names, constants), {'report_data': task, 'rows': x}

    def prepare(key, stored):
        return normalize.normalize(stored, normalization)

    fields |= {'spec': spec, 'seed': config.seed}
    return train.image_batches(x, task.train_labels, config.batch_size, prepare, **fields)


def network_of(config, spec):
    return registry.create(config.network, spec.num_classes)


def build(config, spec):
    schedule = piecewise_constant(config.learning_rate, config.steps, (0.6, 0.85))
    decay = optax.add_decayed_weights(config.weight_decay)
    optimizer = optax.chain(decay, optax.sgd(schedule, momentum=0.9))
    weights = spec.constants['weights']
    task = train.supervised(network_of(config, spec), optimizer, train_step.loss, initial=weights)

    def init(key, batch):
        state = task.init(key, batch)
        initial = {'initial_filters': visualization.first_filters(state.params)}
        return state._replace(model_state=state.model_state | initial)

    with_filters = task._replace(init=init)
    return with_filters if weights is None else train.frozen(with_filters)


def apply(config, spec):
    network, layer = network_of(config, spec), spec.constants['layers'][-1]
    prepare = partial(normalize.normalize, normalization=spec.constants['normalization'])

    def predict(state, images):
        """Class probabilities of stored images, [n, classes]."""
        return jax.nn.softmax(network.apply(train.variables(state), prepare(images))[0])

    def encode(state, images):
        """Spatial means of the feature maps of the last layer of --layers, [n, features]."""
        a = deconvnet.activation(network, train.variables(state), prepare(images), layer)
        return a.mean((1, 2))

    def project(state, images, channel):
        """Deconvnet projection to pixels of the strongest unit of a channel of that layer, [n, h, w, 3]."""
        x = prepare(images)
        return deconvnet.project(network, train.variables(state), x, layer, channel).pixels

    exported = {'state_dict': train.on_variables(partial(pretrained.to_torch, network))}
    return {'predict': predict, 'encode': encode, 'project': project} | exported


def report(config, state, data):
    from lecture4.figures import deconvnet as figures

    spec, stored, labels = data.spec, data.report_data.test_images, data.report_data.test_labels
    network, layers = network_of(config, spec), spec.constants['layers']
    variables = jax.device_put(train.variables(state))
    images = np.asarray(normalize.to_unit_interval(stored, 3))
    x = np.asarray(normalize.normalize(stored, spec.constants['normalization']))
    options = {'layers': layers, 'seed': config.seed, 'progress_fn': partial(train.track, config)}
    options |= {'num_maps': config.num_maps, 'num_occluded': config.num_occluded}
    shown = visualization.visualize(network, variables, x, images, labels, **options)
    titles = [spec.class_names[c] for c in shown.occluded_classes]
    rules = figures.backward_rules(images[shown.rule_rows], shown.by_rule)
    occluded, labeled = images[shown.occluded_rows], {'class_names': spec.class_names}
    maps = figures.occlusion_maps(occluded, shown.occlusions, titles=titles, **labeled)
    after = visualization.first_filters(variables['params'])
    filters = figures.filters_before_and_after(state.model_state['initial_filters'], after)
    plots = {
        f'strongest_{layer}': train.Figure(
            figures.top_activations(features.patches),
            f'Image regions that most activate feature maps of {layer}, and their deconvnet projections.',
        )
        for layer, features in shown.features.items()
    }
    plots['rules'] = train.Figure(rules, f'Units of {layers[-1]} by backward rule (gray: zero).')
    plots['occlusion'] = train.Figure(
        maps,
        f'A gray square of {shown.occluder_size} pixels with its upper left corner at each place: probability of the '
        f'class, sum of the strongest feature map of {layers[-1]}, and the prediction (one color per class).',
    )
    plots['filters'] = train.Figure(filters, 'Filters of the first layer (gray: zero).')
    part, random = shown.distances
    places = {'what drives one feature map in all of them': part, 'a random place': random}
    records = [{'occluded': place, 'sign_distance': value} for place, value in places.items()]
    title = f'Hamming distance of the signs of changes of {layers[-1]} between images'
    caption = 'Means over feature maps and positions; lower if features change consistently.'
    metrics = {'sign_distance': part, 'probability_drop': shown.probability_drop}
    return train.Report(
        metrics=metrics | ({} if config.init else {'accuracy': shown.accuracy}),
        tables=(train.Table(title, records, ('occluded',), caption=caption),),
        figures=plots,
        summary=f'Occlusion lowers the class probability by up to {100 * shown.probability_drop:.0f} %; '
        f'signs of feature changes differ in {100 * part:.1f} % (random positions: {100 * random:.1f} %).',
    )


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
