"""Faster R-CNN: a detector that makes its own proposals (Ren, He, Girshick & Sun, NIPS 2015).

A region proposal network and the detector's head work on the same feature maps, trained jointly (no gradient goes
through the coordinates of proposals) or in the paper's four alternating steps. The default is a small network from
random weights on digits pasted on photographs; voc2012_animals and bccd train both on VGG-16's published convolutions,
frozen, whose feature maps are computed once and stored in --feature_cache.

Run:      python -m experiments.detection.faster_rcnn                              (scenes, no download)
          python -m experiments.detection.faster_rcnn --preset alternating
          python -m experiments.detection.faster_rcnn --preset voc2012_animals --manual_dir PATH --init vgg16.ckpt
          python -m experiments.detection.faster_rcnn --preset bccd --manual_dir PATH --init vgg16.ckpt
Hardware: 2 CPU cores (Intel Xeon with AVX-512), 3.4 minutes with compilation (5 CPU-minutes)
Results:  scenes, 1000 training images, 200 test images with 507 digits, seed 0: mAP at IoU 0.5 61.6 % (95 % interval
          58.3 to 65.5), 7.1 ms per image with proposals: convolutions 4.5, region proposals 0.8, RoI pooling 0.6, dense
          layers 0.9, suppression 0.3. With --steps 600 it was 35.6 %.
          voc2012_animals (200 test images; 23 CPU-minutes, after 25 for the feature maps): 44.8 % (40.0 to 52.4), of
          cats 75.4, of persons 30.8, with 100 proposals of its own; Fast R-CNN with 1000 of selective search 46.1.
          Trained on VOC 2007 with shorter sides of 600 pixels, published: ZF 59.9, VGG-16 69.9 (cited from memory,
          unverified); not run.
          bccd (72 test images; 4 minutes of 2 cores, Intel Xeon, with feature maps from the cache): 61.8 % (59.6 to
          65.6), white cells 97.3, red cells 77.2, platelets 10.9: their median size is 29 pixels, two cells of the
          feature maps. YOLOv8 n on another split, published: 89.3.
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from lecture4 import train
from lecture4.train import detection_data
from lecture4.train.optimizers import piecewise_constant
from lecture4.vision.detection import evaluate, fast_rcnn, faster_rcnn, networks, stages
from lecture4.vision.detection.recipe import SMALL
from lecture4.vision.weights import convolutions


@dataclasses.dataclass(frozen=True)
class Config(detection_data.Detection):
    steps: train.AtLeast1 = 1000
    batch_size: train.AtLeast1 = 8
    # Detector: small, vgg_d, zfnet, resnet_50_v1_5, resnet_101_v1_5.
    network: str = 'small'
    # Joint training, or the four alternating steps of the paper, a quarter of the steps each.
    training: Literal['joint', 'alternating'] = 'joint'
    # Numbers of units of the dense layers of the head.
    hidden_dims: train.Ints = (256,)
    # Dropout rate after each dense layer.
    dropout_rate: train.FractionBelow1 = 0.0
    # Square roots of the areas of anchors, in pixels of the resized image.
    anchor_sizes: train.Floats = (20.0, 30.0, 45.0)
    # Aspect ratios of anchors, height over width.
    anchor_ratios: train.Floats = (1.0, 1.6)
    # Number of proposals per image in testing.
    num_proposals: train.Evaluation[train.AtLeast1] = 50
    # Number of regions of interest sampled per image for the loss of the head.
    num_rois: train.AtLeast1 = 32
    # Initial learning rate of Adam; it is divided by 10 after three quarters of the steps.
    learning_rate: train.Positive = 1e-3


METRICS = (
    train.Metric('map', 'fraction', 'higher', 'mAP at IoU 0.5', primary=True),
    train.Metric('ap', 'fraction', 'higher', 'AP at IoU 0.5'),
    train.Metric('loss', '', 'lower', 'loss'),
    train.Metric('objectness_loss', 'nats', 'lower', 'objectness loss'),
    train.Metric('rpn_box_loss', '', 'lower', 'box loss of proposals'),
    train.Metric('class_loss', 'nats', 'lower', 'classification loss'),
    train.Metric('box_loss', '', 'lower', 'box loss'),
    train.Metric('roi_accuracy', 'fraction', 'higher', 'accuracy on sampled RoIs'),
    train.Metric('seconds_per_image', 's', 'lower', 'test time per image'),
)
PRESETS = {
    'smoke': {
        'steps': 2, 'batch_size': 2, 'num_train': 4, 'num_eval': 2, 'shorter_side': 64, 'features': (4, 8, 8),
        'num_convolutions': (1, 1, 1), 'hidden_dims': (16,), 'anchor_sizes': (16.0,), 'num_proposals': 10,
        'num_rois': 8,
    },
    'alternating': {'training': 'alternating', 'steps': 2000},
    'voc2012_animals': {
        'source': 'voc2012_animals', 'test_split': 'val', 'num_train': 0, 'num_eval': 0, 'shorter_side': 320,
        'longer_side': 448, 'network': 'vgg_d', 'hidden_dims': (512,), 'dropout_rate': 0.5,
        'anchor_sizes': (64.0, 128.0, 256.0), 'anchor_ratios': (0.5, 1.0, 2.0), 'num_proposals': 100,
        'num_rois': 64, 'batch_size': 4, 'steps': 1000, 'learning_rate': 2e-4,
    },
    'bccd': {
        'source': 'bccd', 'num_train': 0, 'num_eval': 0, 'longer_side': 448, 'network': 'vgg_d',
        'hidden_dims': (512,), 'dropout_rate': 0.5, 'anchor_sizes': (24.0, 32.0, 48.0, 96.0, 192.0),
        'anchor_ratios': (0.5, 1.0, 2.0), 'num_proposals': 100, 'num_rois': 64, 'batch_size': 2, 'steps': 1000,
        'learning_rate': 2e-4,
    },
}  # fmt: skip
SWEEPS = {'training': train.grid(training=('joint', 'alternating'), seed=(0, 1, 2))}


def parts(config, num_classes):
    """(network, recipe)."""
    small = networks.SmallNetwork(config.features, config.num_convolutions)
    stride = small.stride if config.network == 'small' else 16
    recipe = dataclasses.replace(
        SMALL,
        anchor_sizes=(config.anchor_sizes,),
        anchor_ratios=config.anchor_ratios,
        strides=(stride,),
        post_nms=(200, config.num_proposals),
        min_size=stride / 2,
        num_rois=config.num_rois,
        pooling='roi_pool' if config.init else 'roi_align',
        pool_scales=(1 / stride,),
    )
    network = networks.create(
        config.network,
        num_classes,
        num_anchors=recipe.anchors_per_cell,
        hidden_dims=config.hidden_dims,
        dropout_rate=config.dropout_rate,
        small=small,
    )
    return network, recipe


def data(config):
    functions = parts(config, 1)[0], convolutions.load, fast_rcnn.maps_by_frozen
    return detection_data.load_initialized(config, *functions)


def build(config, spec):
    network, recipe = parts(config, spec.num_classes)
    schedule = piecewise_constant(config.learning_rate, config.steps, (0.75,))
    is_alternating = config.training == 'alternating'

    def init(key, batch):
        variables = fast_rcnn.init(network, key, batch)
        return faster_rcnn.alternating_init(variables) if is_alternating else variables

    if is_alternating:
        losses = faster_rcnn.alternating_losses(network, recipe)
        boundaries = [config.steps * i // 4 for i in (1, 2, 3)]
        return train.phases(init, losses, optax.adam(schedule), boundaries)
    loss = functools.partial(faster_rcnn.loss, network, recipe)
    return train.optimize(init, loss, optax.adam(schedule))


def trained(config, state):
    """Variables of the detector."""
    return state.params['detector'] if config.training == 'alternating' else state.params


def apply(config, spec):
    network, recipe = parts(config, spec.num_classes)
    frozen = spec.constants.get('frozen_backbone')

    def predict(state, images, sizes=None):
        """Detections in images uint8 [n, h, w, 3], of these sizes [n, 2] where they are padded."""
        if sizes is None:
            sizes = jnp.tile(jnp.asarray([images.shape[1:3]], jnp.int32), (len(images), 1))
        batch = {'images': detection_data.normalized(images), 'sizes': sizes}
        batch = fast_rcnn.with_frozen_features(network, frozen, batch)
        return faster_rcnn.predict(network, recipe, trained(config, state), batch)

    return {'predict': predict}


def report(config, state, data):
    test, names = data.report_data, data.spec.class_names
    inputs = {name: test[name] for name in ('features' if config.init else 'images', 'sizes')}
    detections, seconds, _ = stages.predict_all(
        stages.of_faster_rcnn(*parts(config, len(names)), trained(config, state)),
        inputs,
        config.batch_size,
        prepare=jax.jit(detection_data.normalized_batch),
        track=functools.partial(train.track, config, title='test images'),
    )
    total = sum(seconds.values())
    caption = detection_data.CACHED if config.init else ''
    times = [{'stage': stage, 'seconds_per_image': own} for stage, own in seconds.items()]
    return detection_data.detection_report(
        **evaluate.summarize(detections, test, names, min_score=0.3),
        metrics={'seconds_per_image': total},
        tables=(train.Table('Test time', times, ('stage',), caption=caption),),
        text='' if config.init else f', {1000 * total:.0f} ms per image',
    )


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
