"""R-CNN: a network's features of warped proposals, linear SVMs and box regression (Girshick et al., CVPR 2014).

Each proposal of selective search is warped to a square with context and passed through the network separately. The
stages of the paper follow one another: fine-tuning with one output per class and one for the background, an SVM per
class with one pass of hard-negative mining, a ridge regression of boxes per class, non-maximum suppression per class
at IoU 0.3. The small network starts from random weights, on digits pasted on photographs; preset voc2012_animals trains
a dense layer on the published convolutions of AlexNet, frozen.

Run:      python -m experiments.detection.rcnn                                     (scenes, no download)
          python -m experiments.detection.rcnn --preset voc2012_animals --manual_dir PATH --init alexnet.ckpt
Hardware: 2 CPU cores (Intel Xeon with AVX-512), 3.7 minutes with proposals and compilation (5.2 CPU-minutes)
Results:  scenes, 300 training and 100 test images, seed 0, mAP at IoU 0.5 in %

          | method              | mAP                 |
          |---------------------|---------------------|
          | softmax             | 51.1                |
          | SVM                 | 58.9                |
          | SVM, box regression | 58.7 (55.1 to 64.5) |

          As in the paper the SVMs are better than the softmax of fine-tuning (50.9 to 54.2 on VOC 2007 there, cited
          from memory, unverified); box regression adds nothing here. AP is 90 % for zeros and 16 % for ones. 86
          CPU-milliseconds per image without proposals.

          voc2012_animals, 200 test images (18.5 CPU-minutes, after 5 for the proposals): softmax 24.4, SVM 25.6, with
          box regression 29.5 (26.0 to 34.6), of sheep 39.1, of persons 16.7. Fast R-CNN 46.1, Faster R-CNN 44.8, both
          on VGG-16. Of its best detections, as many as objects, 38 % confuse classes and 21 % have an IoU below 0.5:
          crops are of 128 pixels, not 227, of 200 proposals per image, not 2000, and the dense layer is new.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import optax

from lecture4 import train
from lecture4.train import detection_data
from lecture4.train.optimizers import piecewise_constant
from lecture4.vision.detection import evaluate, networks, proposals, rcnn, rcnn_stages
from lecture4.vision.detection.recipe import Recipe
from lecture4.vision.models import registry
from lecture4.vision.weights import convolutions


@dataclasses.dataclass(frozen=True)
class Config(detection_data.WithProposals):
    steps: train.AtLeast1 = 600
    batch_size: train.AtLeast1 = 4
    num_train: train.AtLeast0 = 300
    num_eval: train.AtLeast0 = 100
    # Convolutions: small, or an image network such as alexnet_v2 or vgg_d, from --init or from random weights.
    network: str = 'small'
    # Name of the activation that is the input of the SVMs: fc (the last dense layer), pool5 (the last feature maps), or
    # feature maps of the network; an unknown name prints the list.
    activation: str = 'fc'
    # Height and width that proposals are warped to; 227 in the paper.
    crop_size: train.AtLeast8 = 40
    # Width in pixels of the context around a proposal in the square; 16 in the paper.
    context: train.AtLeast0 = 3
    # Numbers of units of the dense layers of the network.
    hidden_dims: train.Ints = (128,)
    # Dropout rate after each dense layer.
    dropout_rate: train.FractionBelow1 = 0.0
    # Number of proposals sampled per image in fine-tuning, a quarter of them positive.
    num_rois: train.AtLeast1 = 32
    # Weight C of the hinge losses of the SVMs.
    C: train.Positive = 1e-3
    # Penalty parameter of the ridge regression of boxes.
    ridge: train.Positive = 1000.0
    # Initial learning rate of Adam; it is divided by 10 after three quarters of the steps.
    learning_rate: train.Positive = 1e-3


METRICS = (
    train.Metric('map', 'fraction', 'higher', 'mAP at IoU 0.5', primary=True),
    train.Metric('ap', 'fraction', 'higher', 'AP at IoU 0.5'),
    train.Metric('loss', '', 'lower', 'loss'),
    train.Metric('class_loss', 'nats', 'lower', 'classification loss'),
    train.Metric('roi_accuracy', 'fraction', 'higher', 'accuracy on sampled proposals'),
    train.Metric('walltime', 's', 'lower', 'walltime'),
    train.Metric('seconds_per_image', 's', 'lower', 'test time per image, without proposals'),
)
PRESETS = {
    'smoke': {
        'steps': 2, 'batch_size': 2, 'num_train': 4, 'num_eval': 2, 'num_proposals': 20, 'crop_size': 16,
        'features': (4, 8), 'num_convolutions': (1, 1), 'hidden_dims': (16,), 'num_rois': 8,
    },
    'voc2012_animals': {
        'source': 'voc2012_animals', 'test_split': 'val', 'num_train': 0, 'num_eval': 0, 'shorter_side': 320,
        'longer_side': 448, 'network': 'alexnet_v2', 'crop_size': 128, 'context': 9, 'hidden_dims': (512,),
        'dropout_rate': 0.5, 'search_width': 250, 'num_proposals': 200, 'num_rois': 16, 'steps': 400,
        'learning_rate': 2e-4,
    },
}  # fmt: skip
SWEEPS = {
    'context': train.grid(context=(0, 3, 6), seed=(0, 1, 2)),
    'activation': train.grid(activation=('fc', 'pool5', 'conv3_2'), seed=(0, 1, 2)),
}


def network_of(config, num_classes):
    return rcnn.RegionNetwork(
        num_classes + 1,
        config.hidden_dims,
        config.dropout_rate,
        networks.SmallNetwork(config.features, config.num_convolutions)
        if config.network == 'small'
        else registry.create(config.network, 1, features_only=True),
    )


def data(config):
    constants = {}
    if config.init:
        source = detection_data.init_source(config)
        constants['convolutions'] = convolutions.load(network_of(config, 1).network, source)
    return detection_data.load_detection(
        config,
        8,
        propose=detection_data.proposer(config, proposals.prepare),
        keep_training_set=True,
        constants=constants,
    )


def build(config, spec):
    network = network_of(config, spec.num_classes)
    crops = jnp.zeros((1, config.crop_size, config.crop_size, 3))
    rcnn.check_activation(network, config.crop_size, config.activation)
    initial = spec.constants.get('convolutions', {})
    recipe = Recipe(extent='continuous', num_rois=config.num_rois)
    schedule = piecewise_constant(config.learning_rate, config.steps, (0.75,))

    def init(key, batch):
        del batch
        variables = network.init(key, crops)
        return {
            kind: {**tree, 'network': initial[kind]} if kind in initial else tree
            for kind, tree in variables.items()
        }

    def loss(variables, batch, key):
        variables = networks.freeze(variables, ('network',) if initial else ())
        warped = {'crop_size': config.crop_size, 'context': config.context}
        return rcnn.loss(network, recipe, variables, batch, key, **warped)

    return train.optimize(init, loss, optax.adam(schedule))


def apply(config, spec):
    network = network_of(config, spec.num_classes)

    def features(state, image, boxes):
        """(logits, input of the SVMs, last feature maps) of boxes [p, 4] of an image uint8 [h, w, 3]."""
        return rcnn.region_features(
            network,
            state.params,
            detection_data.normalized(image[None])[0],
            boxes,
            (config.activation, 'pool5'),
            crop_size=config.crop_size,
            context=config.context,
        )

    return {'features': features}


def report(config, state, data):
    names, test = data.spec.class_names, data.report_data
    features = functools.partial(jax.jit(apply(config, data.spec)['features']), state)
    track = functools.partial(train.track, config)
    trained = rcnn_stages.fit(
        features, test['train'], len(names), C=config.C, ridge=config.ridge,
        track=functools.partial(track, title='features of proposals'),
    )  # fmt: skip
    by_method, seconds, _ = rcnn_stages.predict_all(
        features, trained, test, track=functools.partial(track, title='test images')
    )
    values = {m: evaluate.mean_ap(own, test, len(names))[0] for m, own in by_method.items()}
    records = [{'method': method, 'map': value} for method, value in values.items()]
    stages = [{'stage': stage, 'walltime': value} for stage, value in trained.seconds.items()]
    times = [{'stage': stage, 'seconds_per_image': value} for stage, value in seconds.items()]
    best = by_method['SVM, box regression']
    return detection_data.detection_report(
        **evaluate.summarize(best, test, names, min_score=-0.5),
        tables=(
            train.Table('Mean average precision', records, ('method',)),
            train.Table('Training after fine-tuning', stages, ('stage',)),
            train.Table('Test time', times, ('stage',)),
        ),
        text=f', {sum(seconds.values()):.2f} s per image without proposals',
    )


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
