"""The lecture's small network: convolution, activation, pooling, and what pooling is good for.

One network per kind of pooling is trained on the same batches from the same initial filters. Then test images
are translated: how far do the features move, how much accuracy is left? 'subsample' makes the feature maps as
small as pooling does, but drops all values of a window but one, so that what differs between it and 'max' is
the pooling. Compared with them: 'manual_backprop', the 'max' network with gradients from the delta rules
instead of jax.grad; 'imbalanced', the 'max' network on a set in which the second half of the classes is rare;
'balanced', the same set with the frequent classes downsampled in every epoch.

Run:      python -m experiments.convnets.small_network
          python -m experiments.convnets.small_network --preset mnist --manual_dir PATH
Hardware: one core, under a minute; mnist two to three minutes
Results:  seed 0

          |                                         | none | subsample | mean | max  |
          |-----------------------------------------|------|-----------|------|------|
          | MNIST, accuracy, %                      | 95.9 | 94.3      | 94.0 | 95.4 |
          | translated by 2 pixels                  | 78.0 | 72.5      | 73.0 | 78.0 |
          | features moved by 1 pixel (pixels 0.52) | 0.54 | 0.48      | 0.42 | 0.44 |
          | digits, accuracy, %                     | 92.2 | 91.6      | 90.4 | 92.8 |
          | translated by 1 pixel                   | 46.4 | 44.0      | 46.8 | 54.3 |

          Features move less with pooling, and accuracy decreases less with maxima than with subsampling; on
          MNIST as little without any pooling, which takes four times the weights. Manual backpropagation:
          losses differ by at most 9e-7 (MNIST) and 2e-6 (digits) relatively. Recall of the rare classes,
          MNIST with 1 % of their images: 42.2 %, with balanced batches 86.1; digits with 5 %: 61.6 and 79.3.
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.data import batches, sources
from lecture4.features import invariance
from lecture4.ops import receptive_field
from lecture4.vision.models import cnn
from lecture4.vision.models.cnn import CNN

POOLINGS = ('none', 'subsample', 'mean', 'max')
MANUAL, IMBALANCED, BALANCED = 'manual_backprop', 'imbalanced', 'balanced'
SAMPLINGS = {'all images': 'max', 'imbalanced': IMBALANCED, 'balanced': BALANCED}


@dataclasses.dataclass(frozen=True)
class Config(train.Config):
    steps: train.AtLeast1 = 600
    batch_size: train.AtLeast1 = 64
    # Source of labeled images: digits, mnist, dir:PATH, npz:PATH.
    source: str = 'digits'
    # Zero border in pixels around every image, so that translations lose nothing.
    margin: train.AtLeast0 = 3
    # Largest translation to evaluate, in pixels; at most the margin.
    max_translation: train.AtLeast0 = 3
    # Number of filters of each stage.
    num_filters: train.Ints = (16,)
    # Size of the filters.
    kernel_size: train.AtLeast1 = 3
    # Zero padding of the input of each convolution.
    padding: train.AtLeast0 = 0
    # Size and stride of the pooling windows; the ragged edge is kept.
    window: train.AtLeast1 = 2
    # Activation function between convolution and pooling (the lecture's detector stage).
    activation: Literal['relu', 'sigmoid'] = 'relu'
    # Softmax with cross-entropy, or sigmoid units with the squared error.
    output: Literal['softmax', 'sigmoid'] = 'softmax'
    # Learning rate of SGD with momentum 0.9.
    learning_rate: train.Positive = 0.02
    # Weight decay of kernels and dense weights, added to their gradients.
    weight_decay: train.NonNegative = 1e-3
    # Fraction of the training images of the second half of the classes that the imbalanced set keeps.
    minority_fraction: train.PositiveFraction = 0.05
    # Number of test images to evaluate and translate; 0 takes all.
    num_eval: train.AtLeast0 = 1000

    def __post_init__(self):
        super().__post_init__()
        fits = self.max_translation <= self.margin
        limit = f'at most --margin {self.margin}, or images leave the frame'
        train.require(self, 'max_translation', fits, limit)


METRICS = (
    train.Metric(
        'translated_accuracy', 'fraction', 'higher', "accuracy of 'max', translated", primary=True
    ),
    train.Metric('loss', '', 'lower', 'loss'),
    train.Metric('accuracy', 'fraction', 'higher', 'accuracy'),
    train.Metric('movement', '', 'lower', 'movement of the features'),
    train.Metric('recall', 'fraction', 'higher', 'recall, all classes'),
    train.Metric('frequent_recall', 'fraction', 'higher', 'recall, frequent classes'),
    train.Metric('rare_recall', 'fraction', 'higher', 'recall, rare classes'),
    train.Metric('max_difference', '', 'lower', 'largest relative difference of losses'),
)
_MNIST = {'source': 'mnist', 'kernel_size': 5, 'num_filters': (8,), 'steps': 500}
_MNIST |= {'minority_fraction': 0.01}
PRESETS = {
    'smoke': {'steps': 4, 'batch_size': 16, 'num_filters': (4,), 'num_eval': 20}
    | {'max_translation': 1},
    'mnist': _MNIST,
    'mnist_two_stages': {**_MNIST, 'num_filters': (8, 16)},
}
SWEEPS = {'minority_fraction': train.grid(minority_fraction=(0.02, 0.05, 0.2, 1.0), seed=(0, 1, 2))}


def networks(config, num_classes) -> dict[str, CNN]:
    make = functools.partial(
        CNN,
        config.num_filters,
        config.kernel_size,
        config.padding,
        config.activation,
        window=config.window,
        edge='torch',
        n_classes=num_classes,
        output=config.output,
    )
    kinds = {pooling: make(pooling=pooling) for pooling in POOLINGS}
    return kinds | dict.fromkeys((MANUAL, IMBALANCED, BALANCED), kinds['max'])


def data(config):
    border = ((0, 0), (config.margin,) * 2, (config.margin,) * 2, (0, 0))
    images, labels, names = {}, {}, ()
    for split in ('test', 'train'):
        loaded = sources.load(config.source, split, **config.data_kwargs())
        if not isinstance(loaded.images, np.ndarray) or loaded.labels is None:
            raise ValueError(f'--source {config.source}: expected labeled images of one size')
        padded = np.pad(loaded.images, border)
        scale = 255 if padded.dtype == np.uint8 else 1
        images[split], labels[split] = padded.astype(np.float32) / scale, loaded.labels
        names = loaded.class_names
    x, shape = images['train'], images['train'].shape[1:]
    if shape != images['test'].shape[1:]:
        raise ValueError(f'--source {config.source}: its test images have another size')
    for name, network in networks(config, len(names)).items():
        try:
            receptive_field.summarize(cnn.layer_stack(network), shape)
        except ValueError as error:
            raise ValueError(f'network {name}: {error}') from None
    kept = batches.subsample_minority(labels['train'], config.minority_fraction, config.seed)
    balanced = batches.balanced(labels['train'][kept], config.batch_size, seed=config.seed)

    def batch(n):
        rows = functools.partial(batches.indices, config.seed, n, batch_size=config.batch_size)
        every = rows(num_examples=len(x))
        own = {IMBALANCED: kept[rows(num_examples=len(kept))], BALANCED: kept[balanced(n)]}
        return dict.fromkeys((*POOLINGS, MANUAL), every) | own

    def prepare(arrays, rows, key):
        del key
        return {name: (arrays['x'][at], arrays['labels'][at]) for name, at in rows.items()}

    some = slice(config.num_eval or None)
    return train.Data(
        batch,
        device_arrays={'x': x, 'labels': labels['train']},
        prepare=prepare,
        evaluation=(images['test'][some], labels['test'][some]),
        spec=train.Spec(shape, names),
        report_data=(images['test'], labels['test']),
    )


def manual_loss(network):
    """The loss with its gradient by the delta rules in place of automatic differentiation."""

    @jax.custom_vjp
    def loss(params, x, labels):
        return cnn.loss(params, x, labels, network)

    def forward(params, x, labels):
        return cnn.manual_value_and_grad(params, x, labels, network)

    def backward(grads, cotangent):
        return jax.tree.map(lambda leaf: cotangent * leaf, grads), None, None

    loss.defvjp(forward, backward)
    return loss


def build(config, spec):
    optimizer = optax.chain(
        optax.add_decayed_weights(
            config.weight_decay, lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)
        ),
        optax.sgd(config.learning_rate, momentum=0.9),
    )

    def task(name, network):
        value = (
            manual_loss(network) if name == MANUAL else functools.partial(cnn.loss, network=network)
        )

        def init(key, batch):
            del batch
            return cnn.init(key, network, spec.shape)

        def loss(params, batch, key):
            del key
            return value(params, *batch), {}

        def evaluate(params, evaluation):
            x, labels = evaluation
            z, _ = cnn.apply(params, x, network)
            return {'accuracy': jnp.mean(jnp.argmax(z, 1) == labels, dtype=z.dtype)}

        return train.optimize(init, loss, optimizer, evaluate)

    both = train.parallel(
        {name: task(name, net) for name, net in networks(config, spec.num_classes).items()}
    )

    def init(key, batch):
        return {'networks': both.init(key, batch), 'curves': jnp.zeros((2, config.steps))}

    def step(state, batch, key, reduce):
        n = state['networks']['max'].step
        states, metrics = both.step(state['networks'], batch, key, reduce)
        curve = jnp.stack([metrics['loss/max'], metrics[f'loss/{MANUAL}']])
        return {'networks': states, 'curves': state['curves'].at[:, n].set(curve)}, metrics

    def evaluate(state, evaluation):
        assert both.evaluate is not None
        return both.evaluate(state['networks'], evaluation)

    return train.Task(init, step, evaluate)


def apply(config, spec):
    network = networks(config, spec.num_classes)['max']

    def predict(state, x):
        z, _ = cnn.apply(state['networks']['max'].params, x, network)
        return jnp.argmax(z, axis=1)

    return {'predict': predict}


def translations(run, x, labels, largest):
    """(movement of the features, accuracy) for 0 .. largest pixels, means over four directions."""
    run = jax.jit(run)
    _, original = run(x)
    result = []
    for pixels in range(largest + 1):
        views = [run(view) for view in invariance.translations(x, pixels)]
        movement = np.mean([invariance.relative_change(f, original) for _, f in views])
        result.append((movement, np.mean([np.asarray(p) == labels for p, _ in views])))
    return np.array(result).T


def report(config, state, data):
    from lecture4.figures import feature_maps, lines

    names, (x, labels) = data.spec.class_names, data.evaluation
    nets, params = networks(config, len(names)), {n: s.params for n, s in state['networks'].items()}
    half, last = len(names) // 2, f'pool{len(config.num_filters)}'

    def run(name, x):
        z, activations = cnn.apply(params[name], x, nets[name])
        return jnp.argmax(z, axis=1), activations[last]

    def pixels_only(x):
        return jnp.zeros(len(x), jnp.int32), x

    movement, accuracy = {}, {}
    movement['pixels'], _ = translations(pixels_only, x, labels, config.max_translation)
    for name in POOLINGS:
        each = functools.partial(run, name)
        movement[name], accuracy[name] = translations(each, x, labels, config.max_translation)
    pixels = np.arange(config.max_translation + 1)
    records = [
        {'pooling': name, 'pixels': n, 'accuracy': value, 'movement': movement[name][n]}
        for name, values in accuracy.items()
        for n, value in enumerate(values)
    ]
    records += [
        {'pooling': 'pixels', 'pixels': n, 'movement': value}
        for n, value in enumerate(movement['pixels'])
    ]
    x_all, labels_all = data.report_data
    recall = {}
    for name in nets:
        classify = jax.jit(lambda x, name=name: run(name, x)[0])
        predicted = [np.asarray(classify(x_all[i : i + 500])) for i in range(0, len(x_all), 500)]
        correct = labels_all[np.concatenate(predicted) == labels_all]
        counts = np.maximum(np.bincount(labels_all, minlength=len(names)), 1)
        recall[name] = np.bincount(correct, minlength=len(names)) / counts
    recalls = [
        {
            'network': name,
            'recall': r.mean(),
            'frequent_recall': r[:half].mean(),
            'rare_recall': r[half:].mean(),
        }
        for name, r in recall.items()
    ]
    curves = np.asarray(state['curves'])
    difference = abs(curves[1] - curves[0]) / curves[0]
    steps, shown = np.arange(1, config.steps + 1), np.asarray(x[:4])
    some = np.linspace(0, config.steps - 1, 12).astype(int)  # the curves cover one another
    _, maps = cnn.apply(params['max'], jnp.asarray(shown), nets['max'])
    axis = {'xlabel': 'step', 'yscale': 'log'}
    loss_curves = {'jax.grad': (steps, curves[0]), 'delta rules': (steps[some], curves[1, some])}
    manual_panels = {
        'loss': axis | {'curves': loss_curves},
        'relative difference': axis | {'curves': {'difference': (steps, difference + 1e-9)}},
    }
    translated_panels = {
        title: {'curves': {n: (pixels, v) for n, v in values.items()}, 'xlabel': 'pixels'}
        for title, values in (('movement of the features', movement), ('accuracy', accuracy))
    }
    by_class = {title: (np.arange(len(names)), recall[name]) for title, name in SAMPLINGS.items()}
    recall_panel = {'curves': by_class, 'xlabel': f'class; rare from {half} on'}
    kept = f'{100 * config.minority_fraction:g} % of the images of classes {half} and up are kept.'
    translated = accuracy['max'][-1]
    return train.Report(
        metrics={'translated_accuracy': translated, 'max_difference': difference.max()},
        tables=(
            train.Table(
                'Translated test images', records, ('pooling',), pivot='pixels',
                caption='Movement: distance of the features, 1: to those of another image.',
            ),
            train.Table('Recall, mean over classes', recalls, ('network',), caption=kept),
        ),
        figures={
            'translations': train.Figure(
                lines.panels(translated_panels),
                'Movement of the features of the last stage and accuracy when images are translated.',
            ),
            'manual_backprop': train.Figure(
                lines.panels(manual_panels),
                'One network, gradients from jax.grad and from the delta rules (marked at some steps). '
                '1e-9 stands for no difference.',
            ),
            'recall': train.Figure(
                lines.panels({'recall by class': recall_panel}, size=(6.4, 3)),
                'The imbalanced set, and the same with the frequent classes downsampled.',
            ),
            'filters': train.Figure(
                feature_maps.filters(params['max']['conv1']['kernel']), "The first filters of 'max'."
            ),
            'maps': train.Figure(
                feature_maps.activations(shown, {name: a for name, a in maps.items() if a.ndim == 4}),
                "Test images and the feature maps of 'max'.",
            ),
        },
        summary=f'Accuracy at 0 and {config.max_translation} pixels: '
        + ', '.join(f'{n} {100 * v[0]:.1f} and {100 * v[-1]:.1f} %' for n, v in accuracy.items())
        + f'. Manual backpropagation: losses differ by at most {difference.max():.0e} relatively.',
    )  # fmt: skip


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
