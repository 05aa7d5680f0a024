"""Localization as regression: class and box of a single object (Simonyan & Zisserman, ICLR 2015, appendix A).

A network sees the whole image and predicts the class and, for each class, the box, by regression: no proposals and no
search. The error counts an image where the class is wrong or the box overlaps the object by an IoU of at most 0.5. The
default is a small network from random weights on single digits pasted on photographs; preset voc2012_animals trains
the dense layers on VGG-16's published convolutions, frozen, on the images that have one object.

Run:      python -m experiments.detection.localization                             (scenes, no download)
          python -m experiments.detection.localization --preset voc2012_animals --manual_dir PATH --init vgg16.ckpt
Hardware: 2 CPU cores (Intel Xeon with AVX-512), 4.7 minutes with compilation (6 CPU-minutes)
Results:  scenes, 200 images: localization error 44.0 % (95 % interval 37.3 to 50.9), the class is wrong in 37.5 %, the
          box of the true class in 23.0 %; with --steps 1500, 5.1 minutes, 40.0, 33.0 and 19.5 %. After 400 steps the
          class is still a guess: position is learned first. VGG's 25.3 % (cited from memory, unverified) is of
          ImageNet's 1000 classes. voc2012_animals, 207 training and 96 test images with one object, convolutions frozen
          (9 CPU-minutes with feature maps): 40.6 % (31.3 to 50.6), class wrong in 29.2 %, box of the true class 24.0.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.data.detection.scenes import SceneConfig
from lecture4.ops import metrics as scores
from lecture4.train import detection_data
from lecture4.train.optimizers import piecewise_constant
from lecture4.vision.detection import fast_rcnn, localization, networks
from lecture4.vision.detection.recipe import Recipe
from lecture4.vision.weights import convolutions


@dataclasses.dataclass(frozen=True)
class Config(detection_data.Detection):
    steps: train.AtLeast1 = 1300
    batch_size: train.AtLeast1 = 32
    num_train: train.AtLeast0 = 4000
    shorter_side: train.AtLeast0 = 60
    # Network before the dense layers: small, vgg_d, zfnet, resnet_50_v1_5, resnet_101_v1_5.
    network: str = 'small'
    # Numbers of units of the dense layers after the feature maps.
    hidden_dims: train.Ints = (256,)
    # Dropout rate after each dense layer.
    dropout_rate: train.FractionBelow1 = 0.2
    # Weight decay of AdamW.
    weight_decay: train.NonNegative = 1e-4
    # Initial learning rate; it is divided by 10 after three quarters of the steps.
    learning_rate: train.Positive = 1e-3


METRICS = (
    train.Metric('localization_error', 'fraction', 'lower', 'localization error', primary=True),
    train.Metric('class_error', 'fraction', 'lower', 'classification error'),
    train.Metric('box_error', 'fraction', 'lower', 'box error given the true class'),
    train.Metric('loss', '', 'lower', 'loss'),
    train.Metric('class_loss', 'nats', 'lower', 'classification loss'),
    train.Metric('box_loss', '', 'lower', 'box loss'),
    train.Metric('roi_accuracy', 'fraction', 'higher', 'training accuracy'),
)
PRESETS = {
    'smoke': {
        'steps': 2, 'batch_size': 4, 'num_train': 8, 'num_eval': 8, 'shorter_side': 64, 'features': (4, 8, 8),
        'num_convolutions': (1, 1, 1), 'hidden_dims': (16,),
    },
    'voc2012_animals': {
        'source': 'voc2012_animals', 'test_split': 'val', 'num_train': 0, 'num_eval': 0, 'shorter_side': 320,
        'longer_side': 448, 'network': 'vgg_d', 'hidden_dims': (512,), 'dropout_rate': 0.5, 'learning_rate': 2e-4,
        'steps': 600,
    },
}  # fmt: skip
SWEEPS = {'dropout_rate': train.grid(dropout_rate=(0.0, 0.2, 0.5), seed=(0, 1, 2))}


def parts(config, num_classes):
    """(network, recipe); the whole image is the only region, so that targets are of order 1."""
    small = networks.SmallNetwork(config.features, config.num_convolutions)
    stride = small.stride if config.network == 'small' else 16
    recipe = Recipe(
        extent='continuous',
        std=(0.2, 0.2, 0.5, 0.5),
        strides=(stride,),
        pooling='roi_align',
        pool_scales=(1 / stride,),
    )
    head = {'hidden_dims': config.hidden_dims, 'dropout_rate': config.dropout_rate}
    return networks.create(config.network, num_classes, with_rpn=False, small=small, **head), recipe


def data(config):
    scene = SceneConfig(num_digits=(1, 1), digit_size=(48, 110), num_clutter=4)
    functions = parts(config, 1)[0], convolutions.load, fast_rcnn.maps_by_frozen
    return detection_data.load_initialized(config, *functions, scene=scene, single_object=True)


def build(config, spec):
    network, recipe = parts(config, spec.num_classes)
    schedule = piecewise_constant(config.learning_rate, config.steps, (0.75,))
    init = functools.partial(fast_rcnn.init, network)

    def evaluate(params, test):
        batch = detection_data.normalized_batch(test)
        truth, labels = test['boxes'][:, 0], test['labels'][:, 0]
        result = localization.predict(network, recipe, params, batch, labels)
        is_class = result.labels == labels
        is_both = is_class & localization.is_localized(result.boxes, truth)
        is_box = localization.is_localized(result.boxes_of_true_class, truth)
        flags = {'localization_error': is_both, 'class_error': is_class, 'box_error': is_box}
        return {name: 1 - jnp.mean(flag, dtype=jnp.float32) for name, flag in flags.items()}

    loss = functools.partial(localization.loss, network, recipe)
    optimizer = optax.adamw(schedule, weight_decay=config.weight_decay)
    return train.optimize(init, loss, optimizer, evaluate)


def apply(config, spec):
    network, recipe = parts(config, spec.num_classes)
    frozen = spec.constants.get('frozen_backbone')

    def predict(state, images):
        """Class and box of the object in images uint8 [n, h, w, 3] of one size."""
        batch = {'images': detection_data.normalized(images)}
        batch = fast_rcnn.with_frozen_features(network, frozen, batch)
        sizes = jnp.tile(jnp.asarray([images.shape[1:3]], jnp.int32), (len(images), 1))
        return localization.predict(network, recipe, state.params, batch | {'sizes': sizes})

    return {'predict': predict}


def report(config, state, data):
    from lecture4.figures import detection as figures

    names, test, n = (
        data.spec.class_names,
        data.report_data,
        min(8, len(data.report_data['labels'])),
    )
    network, recipe = parts(config, data.spec.num_classes)
    kind = 'features' if config.init else 'images'
    inputs = detection_data.normalized_batch({name: test[name][:n] for name in (kind, 'sizes')})
    predict = jax.jit(functools.partial(localization.predict, network, recipe))
    result = jax.device_get(predict(state.params, inputs))
    correct = np.asarray(localization.is_localized(result.boxes, test['boxes'][:n, 0]))
    correct = correct & (result.labels == test['labels'][:n, 0])
    sizes = test['sizes'][:n].tolist()
    images = [image[:h, :w] for image, (h, w) in zip(test['shown'], sizes, strict=False)]
    figure = figures.detections(
        images,
        list(result.boxes[:, None]),
        list(result.labels[:, None]),
        list(result.scores[:, None]),
        list(correct[:, None]),
        names,
        missed=[box[:1] for box in test['boxes'][:n]],
        missed_name='object',
    )
    values = train.evaluate(build(config, data.spec), state, data.evaluation)
    total = len(test['labels'])
    low, high = scores.wilson_interval(round(values['localization_error'] * total), total)
    return train.Report(
        values,
        figures={
            'boxes': train.Figure(figure, 'Predicted boxes, and the boxes of the objects (dashed).')
        },
        summary=f'The localization error on {total} images is {100 * values["localization_error"]:.1f} % (95 % '
        f'interval {100 * low:.1f} to {100 * high:.1f}); the class is wrong in {100 * values["class_error"]:.1f} %, '
        f'the box of the true class in {100 * values["box_error"]:.1f} %.',
    )


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
