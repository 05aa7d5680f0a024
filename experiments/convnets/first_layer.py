"""First layers of 11 x 11, stride 4, and 7 x 7, stride 2 (Zeiler & Fergus, ECCV 2014, section 4.1).

"A smaller filter retains more original pixel information": ZFNet's first layer compared with AlexNet's, each of 96
filters of three channels, and, since the two differ in size and in stride, with both of the other combinations.
Networks with these first layers are trained to recognize photographs from crops. Measured, before and after training:
aliasing (the frequency of the outputs for gratings, and the folded fraction of the power for natural images), the error
of images reconstructed from the outputs before and after the ReLU, and the fractions of dead, low-frequency and
high-frequency filters.

Run:      python -m experiments.convnets.first_layer
          python -m experiments.convnets.first_layer --preset cifar10 --manual_dir PATH
Hardware: one core (AMD EPYC), 5 minutes
Results:  photos, 300 steps; PSNR (dB) of reconstructions before and after the ReLU, by trained (initial) filters

          | first layer            | before the ReLU | after the ReLU | aliased power (%) | low, high (%) |
          |------------------------|-----------------|----------------|-------------------|---------------|
          | AlexNet, 11 x 11 / 4   | 33.9 (47.3)     | 25.7 (29.1)    | 1.4 (36.6)        | 49.0, 1.0     |
          | 11 x 11 / 2            | 38.8 (58.8)     | 28.4 (32.8)    | 0.3 (18.1)        | 57.3, 4.2     |
          | 7 x 7 / 4              | 36.4 (49.5)     | 28.0 (31.0)    | 3.4 (37.0)        | 0, 3.1        |
          | ZFNet, 7 x 7 / 2       | 41.1 (59.1)     | 31.1 (34.6)    | 0.6 (18.7)        | 0, 4.2        |

          ZFNet's layer retains more: 5.4 dB, of which the smaller filters alone give 2.3 and the smaller stride alone
          2.7. Smaller filters do not lessen aliasing: at equal stride they alias more, because they pass higher
          frequencies. Gratings above 1/8 cycles per pixel are folded at stride 4, above 1/4 at stride 2. No filter is
          dead; few have most of their power above 1/4 cycles per pixel (high). Half of the 11 x 11 ones have it below
          1/16 (low), which filters of 7 x 7 are too small for. Random filters retain more than trained ones, which are
          smoother. One seed.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.data import images
from lecture4.data.images import crops
from lecture4.vision import first_layer
from lecture4.vision.first_layer import FirstLayer

ALEXNET, ZFNET = FirstLayer(11, 4), FirstLayer(7, 2)
LAYERS = (ALEXNET, FirstLayer(11, 2), FirstLayer(7, 4), ZFNET)
TITLES = {ALEXNET: 'AlexNet', ZFNET: 'ZFNet'}
FREQUENCIES = np.linspace(0.02, 0.48, 24)
NUM_FITTED, NUM_SHOWN = 100, 6  # images


@dataclasses.dataclass(frozen=True)
class Config(train.SquareImages):
    steps: train.AtLeast1 = 300
    batch_size: train.AtLeast1 = 32
    steps_per_call: train.AtLeast1 = 20
    # Source of labeled images: photos (each is a class), textures, cifar10, dir:PATH, npz:PATH, csv:PATH.
    source: str = 'photos'
    crop_size: train.AtLeast0 = 64
    # Number of filters of the first layer; 96 in the papers.
    num_filters: train.AtLeast1 = 96
    # Learning rate of Adam.
    learning_rate: train.Positive = 2e-3
    # Number of test images.
    num_eval: train.AtLeast1 = 200

    def __post_init__(self):
        super().__post_init__()
        has_crops = self.source != 'photos' or self.crop_size > 0
        train.require(self, 'crop_size', has_crops, 'at least 1 for photos, which differ in size')


METRICS = (
    train.Metric('psnr_gain', 'dB', 'higher', "ZFNet's layer over AlexNet's", primary=True),
    train.Metric('linear_psnr', 'dB', 'higher', 'reconstruction before the ReLU'),
    train.Metric('relu_psnr', 'dB', 'higher', 'reconstruction after the ReLU'),
    train.Metric('outputs_per_input', '', '', 'outputs per input value'),
    train.Metric('aliased', 'fraction', 'lower', 'aliased power'),
    train.Metric('dead', 'fraction', 'lower', 'dead filters'),
    train.Metric('low_frequency', 'fraction', '', 'low-frequency filters'),
    train.Metric('high_frequency', 'fraction', '', 'high-frequency filters'),
    train.Metric('accuracy', 'fraction', 'higher', 'accuracy'),
    train.Metric('loss', 'nats', 'lower', 'cross-entropy'),
)
PRESETS = {
    'smoke': {'steps': 4, 'steps_per_call': 4, 'batch_size': 8, 'crop_size': 40}
    | {'num_filters': 4, 'num_eval': 10},
    'cifar10': {'source': 'cifar10', 'crop_size': 0, 'steps': 1500},
}
SWEEPS = {'num_filters': train.grid(num_filters=(24, 48, 96, 192))}


def networks(config, spec):
    return {
        layer.name: first_layer.Network(layer, config.num_filters, spec.num_classes)
        for layer in LAYERS
    }


def data(config):
    if config.source == 'photos':
        task = images.load_squares('photos', config.crop_size)
    else:
        task = images.load(
            config.source, pixels='float', group_by_class=False, **config.data_kwargs()
        )
    order = np.random.default_rng(config.seed).permutation(len(task.test_labels))[: config.num_eval]
    x, x_test = (crops.to_floats(each) for each in (task.train_images, task.test_images[order]))
    mean, scale = x.mean(), x.std()
    x, x_test = (x - mean) / scale, (x_test - mean) / scale
    labels = task.train_labels.astype(np.int32)
    return train.in_memory(
        {'images': x, 'labels': labels},
        config.batch_size,
        seed=config.seed,
        spec=train.Spec(x.shape[1:], task.class_names, {'mean': mean, 'scale': scale}),
        report_data=(x, x_test, task.test_labels[order]),
    )


def build(config, spec):
    def loss(logits, batch):
        each = optax.softmax_cross_entropy_with_integer_labels(logits, batch['labels'])
        return each.mean(), {}

    optimizer = optax.adam(config.learning_rate)
    nets = networks(config, spec)
    return train.parallel({n: train.supervised(net, optimizer, loss) for n, net in nets.items()})


def apply(config, spec):
    network = networks(config, spec)[ZFNET.name]

    def predict(state, x):
        """Classes of images in [0, 1] by the network with ZFNet's first layer, [n]."""
        x = (x - spec.constants['mean']) / spec.constants['scale']
        return jnp.asarray(network.apply(train.variables(state[ZFNET.name]), x)).argmax(1)

    return {'predict': predict}


def report(config, state, data):
    from lecture4.figures import feature_maps, lines
    from lecture4.figures import images as tiles

    x, x_test, labels = data.report_data
    mean, scale = data.spec.constants['mean'], data.spec.constants['scale']
    fitted = x[np.random.default_rng(config.seed).permutation(len(x))[:NUM_FITTED]]
    batch = {'images': x[:2], 'labels': np.zeros(2, np.int32)}
    initial = jax.jit(build(config, data.spec).init)(jax.random.key(config.seed + 1), batch)
    records, figures, gratings, errors = [], {}, {'no aliasing': (FREQUENCIES, FREQUENCIES)}, {}
    for layer in LAYERS:
        size = f'{layer.kernel_size} x {layer.kernel_size}, stride {layer.stride}'
        title = f'{TITLES[layer]}: {size}' if layer in TITLES else size
        conv1, result, inside = {}, x, x
        for filters, own in (('initial', initial), ('trained', state)):
            conv1 = own[layer.name].params['conv1']
            record, result, inside = first_layer.measure(
                layer, conv1, fitted, x_test, peak=1 / float(scale)
            )
            records.append({'layer': title, 'filters': filters, **record})
        network = networks(config, data.spec)[layer.name]
        logits = jax.jit(network.apply)(train.variables(state[layer.name]), x_test)
        records[-1]['accuracy'] = float(np.mean(np.asarray(logits).argmax(1) == labels))
        if layer in TITLES:
            folded = first_layer.output_frequencies(layer, conv1['kernel'], FREQUENCIES)
            gratings[title] = (FREQUENCIES, folded)
        errors[title] = first_layer.error_by_frequency(result, inside)
        rows = {'image': inside[:NUM_SHOWN], 'reconstruction': result[:NUM_SHOWN]}
        rows = {name: values * scale + mean for name, values in rows.items()}
        caption = f'{title}: pixels that all outputs see, and their reconstruction after the ReLU.'
        figures[f'reconstruction_{layer.name}'] = train.Figure(tiles.rows(rows), caption)
        drawn = feature_maps.filters(np.asarray(conv1['kernel']), title=title)
        figures[f'filters_{layer.name}'] = train.Figure(drawn, f'{title}: trained filters.')
    xlabel, ylabel = 'cycles per pixel', "outputs' cycles per pixel"
    panels = {'gratings': {'curves': gratings, 'xlabel': xlabel, 'ylabel': ylabel}}
    panels['images, after the ReLU'] = {'curves': errors, 'xlabel': xlabel, 'yscale': 'log'}
    panels['images, after the ReLU']['ylabel'] = 'relative squared error'
    caption = (
        'Frequency of the outputs for gratings: above 1 / (2 stride) it is folded. Squared error of '
        'reconstructed images over their power, by frequency.'
    )
    of = {(r['layer'].split(':')[0], r['filters']): r for r in records}
    alexnet, zfnet = of['AlexNet', 'trained'], of['ZFNet', 'trained']
    gain = zfnet['relu_psnr'] - alexnet['relu_psnr']
    return train.Report(
        metrics={'psnr_gain': gain},
        tables=(train.Table('First layers', records, ('layer', 'filters')),),
        figures={'aliasing': train.Figure(lines.panels(panels), caption), **figures},
        summary=f'After the ReLU: ZFNet {zfnet["relu_psnr"]:.1f} dB, AlexNet {alexnet["relu_psnr"]:.1f} dB; aliased '
        f'power {zfnet["aliased"]:.1%} and {alexnet["aliased"]:.1%}.',
    )


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
