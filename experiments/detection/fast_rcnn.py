"""Fast R-CNN: one pass over an image, features of each proposal by RoI pooling (Girshick, ICCV 2015).

Proposals are those of selective search, computed once and stored in --proposal_cache. Classes and boxes are learned
together by the multi-task loss, with hierarchical sampling: few images, many RoIs of each. The report also has the
truncated singular value decomposition of the dense layers. The default is a small network from random weights on
digits pasted on photographs; preset voc2012_animals trains the head on VGG-16's published convolutions, frozen, whose
feature maps are computed once and stored in --feature_cache.

Run:      python -m experiments.detection.fast_rcnn                                (scenes, no download)
          python -m experiments.detection.fast_rcnn --preset voc2012_animals --manual_dir PATH --init vgg16.ckpt
Hardware: 2 CPU cores (Intel Xeon with AVX-512), 3 minutes with proposals and compilation (4.5 CPU-minutes)
Results:  scenes, 500 training and 100 test images, seed 0, in %; test time of the dense layers

          | head          | mAP at IoU 0.5 | 95 % interval | squared singular values kept | ms per image |
          |---------------|----------------|---------------|------------------------------|--------------|
          | dense layers  | 53.2           | 49.6 to 58.0  | 100                          | 2.2          |
          | truncated SVD | 52.6           |               | 40.9                         | 0.4          |

          8.8 ms per image without proposals: convolutions 3.9, RoI pooling 2.2, dense layers 2.2, suppression 0.4.
          R-CNN, trained on 300 images: 58.7 % (`rcnn`). voc2012_animals (45 CPU-minutes, 25 of them for the feature
          maps): 46.1 (41.8 to 54.4), of cats 71.3, of horses 37.2; 46.7 with 38 % of the squared singular
          values. A third of its best detections are of the right class, with IoU below 0.5: shorter sides are 320
          pixels, not 600, and 400 images train it (published for VGG-16 on VOC 2007: 66.9, cited from memory).
"""

import dataclasses
import functools

import jax
import optax

from lecture4 import train
from lecture4.train import detection_data
from lecture4.train.optimizers import piecewise_constant
from lecture4.vision.detection import (
    evaluate,
    fast_rcnn,
    networks,
    proposals,
    stages,
    truncated_svd,
)
from lecture4.vision.detection.recipe import SMALL
from lecture4.vision.weights import convolutions


@dataclasses.dataclass(frozen=True)
class Config(detection_data.WithProposals):
    steps: train.AtLeast1 = 800
    batch_size: train.AtLeast1 = 8
    num_train: train.AtLeast0 = 500
    num_eval: train.AtLeast0 = 100
    # Network before the head: small, vgg_d, zfnet, resnet_50_v1_5, resnet_101_v1_5.
    network: str = 'small'
    # Numbers of units of the dense layers of the head.
    hidden_dims: train.Ints = (256,)
    # Dropout rate after each dense layer.
    dropout_rate: train.FractionBelow1 = 0.0
    # Number of regions of interest sampled per image; in the paper 64 for each of 2 images.
    num_rois: train.AtLeast1 = 32
    # Number of singular values kept for each dense layer of the compressed head.
    svd_ranks: train.Ints = (32,)
    # Initial learning rate of Adam; it is divided by 10 after three quarters of the steps.
    learning_rate: train.Positive = 1e-3

    def __post_init__(self):
        super().__post_init__()
        fits = len(self.svd_ranks) == len(self.hidden_dims)
        train.require(self, 'svd_ranks', fits, 'as many numbers as --hidden_dims')


METRICS = (
    train.Metric('map', 'fraction', 'higher', 'mAP at IoU 0.5', primary=True),
    train.Metric('ap', 'fraction', 'higher', 'AP at IoU 0.5'),
    train.Metric('loss', '', 'lower', 'loss'),
    train.Metric('class_loss', 'nats', 'lower', 'classification loss'),
    train.Metric('box_loss', '', 'lower', 'box loss'),
    train.Metric('roi_accuracy', 'fraction', 'higher', 'accuracy on sampled RoIs'),
    train.Metric('energy', 'fraction', 'higher', 'fraction of squared singular values kept'),
    train.Metric('seconds_per_image', 's', 'lower', 'test time per image, without proposals'),
)
PRESETS = {
    'smoke': {
        'steps': 2, 'batch_size': 2, 'num_train': 4, 'num_eval': 2, 'num_proposals': 20, 'shorter_side': 64,
        'features': (4, 8, 8), 'num_convolutions': (1, 1, 1), 'hidden_dims': (16,), 'svd_ranks': (4,),
        'num_rois': 8,
    },
    'voc2012_animals': {
        'source': 'voc2012_animals', 'test_split': 'val', 'num_train': 0, 'num_eval': 0, 'shorter_side': 320,
        'longer_side': 448, 'network': 'vgg_d', 'hidden_dims': (512,), 'dropout_rate': 0.5, 'svd_ranks': (128,),
        'search_width': 250, 'num_proposals': 1000, 'num_rois': 64, 'batch_size': 4, 'steps': 1000,
        'learning_rate': 2e-4,
    },
}  # fmt: skip
SWEEPS = {'num_rois': train.grid(num_rois=(16, 32, 64), seed=(0, 1, 2))}


def parts(config, num_classes):
    """(network, recipe)."""
    small = networks.SmallNetwork(config.features, config.num_convolutions)
    stride = small.stride if config.network == 'small' else 16
    recipe = dataclasses.replace(
        SMALL,
        num_rois=config.num_rois,
        strides=(stride,),
        pooling='roi_pool' if config.init else 'roi_align',
        pool_scales=(1 / stride,),
    )
    head = {'hidden_dims': config.hidden_dims, 'dropout_rate': config.dropout_rate}
    return networks.create(config.network, num_classes, with_rpn=False, small=small, **head), recipe


def data(config):
    given = detection_data.proposer(config, proposals.prepare)
    functions = parts(config, 1)[0], convolutions.load, fast_rcnn.maps_by_frozen
    return detection_data.load_initialized(config, *functions, propose=given)


def build(config, spec):
    network, recipe = parts(config, spec.num_classes)
    schedule = piecewise_constant(config.learning_rate, config.steps, (0.75,))
    init = functools.partial(fast_rcnn.init, network)

    loss = functools.partial(fast_rcnn.loss, network, recipe)
    return train.optimize(init, loss, optax.adam(schedule))


def apply(config, spec):
    network, recipe = parts(config, spec.num_classes)
    frozen = spec.constants.get('frozen_backbone')

    def predict(state, batch):
        """Detections of a batch of {'images' uint8 or 'features', 'sizes', 'proposals', 'proposals_valid'}."""
        batch = detection_data.normalized_batch(batch)
        batch = fast_rcnn.with_frozen_features(network, frozen, batch)
        return fast_rcnn.predict(network, recipe, state.params, batch)

    return {'predict': predict}


def report(config, state, data):
    test, names = data.report_data, data.spec.class_names
    kind = 'features' if config.init else 'images'
    inputs = {name: test[name] for name in (kind, 'sizes', 'proposals', 'proposals_valid')}
    track = functools.partial(train.track, config, title='test images')
    params = state.params['params']
    ranks = {f'fc{i}': rank for i, rank in enumerate(config.svd_ranks, 6)}
    layers, kept = truncated_svd.decompose(params['head']['layers'], ranks)
    compressed = {'params': {**params, 'head': {**params['head'], 'layers': layers}}}
    energy = min(map(float, kept.values()))
    heads = {
        'dense layers': (state.params, 1.0),
        'truncated SVD': (state.params | compressed, energy),
    }
    records, times, first = [], [], None
    for head, (variables, own_energy) in heads.items():
        detections, seconds, _ = stages.predict_all(
            stages.of_fast_rcnn(*parts(config, len(names)), variables), inputs, config.batch_size,
            prepare=jax.jit(detection_data.normalized_batch), track=track,
        )  # fmt: skip
        value, _ = evaluate.mean_ap(detections, test, len(names))
        first = first or detections
        total = sum(seconds.values())
        records.append(
            {'head': head, 'map': value, 'energy': own_energy, 'seconds_per_image': total}
        )
        times += [{'head': head, 'stage': s, 'seconds_per_image': t} for s, t in seconds.items()]
    assert first is not None
    caption = detection_data.CACHED if config.init else ''
    return detection_data.detection_report(
        **evaluate.summarize(first, test, names, min_score=0.3),
        tables=(
            train.Table('Dense layers, whole and compressed', records, ('head',)),
            train.Table('Test time', times, ('head',), caption=caption, pivot='stage'),
        ),
    )


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
