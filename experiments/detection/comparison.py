"""R-CNN, Fast R-CNN and Faster R-CNN on the same images: what each replaced in its predecessor, and why.

One run trains the three one after another, with the same small network, images, proposals and optimizer. The report has
mAP, training time, test time by stage, memory, and the test time of R-CNN with VGG-16 and 2000 proposals, extrapolated.

Run:      python -m experiments.detection.comparison                               (scenes, no download)
Hardware: 2 CPU cores (Intel Xeon with AVX-512), 4.4 minutes with proposals and compilation (6 CPU-minutes)
Results:  scenes, 300 training and 100 test images, seed 0, 300, 600 and 600 steps; published on VOC, from memory
          Fast and Faster R-CNN still learn: `faster_rcnn` reaches 61.6 %. R-CNN with VGG-16: 427 s per image.

          | system       | mAP at IoU 0.5 (%) | training (s) | test (s per image, with proposals) | published (s) |
          |--------------|--------------------|--------------|------------------------------------|---------------|
          | R-CNN        | 48.4               | 101          | 0.23 (selective search 0.15)       | 53 (CPU)      |
          | Fast R-CNN   | 31.0               | 48           | 0.16 (selective search 0.15)       | 2.3           |
          | Faster R-CNN | 21.0               | 54           | 0.008                              | 0.2           |
"""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lecture4 import train
from lecture4.train import detection_data, metric_writer
from lecture4.vision.detection import (
    evaluate,
    fast_rcnn,
    faster_rcnn,
    networks,
    proposals,
    rcnn,
    rcnn_stages,
    selective_search,
    stages,
)
from lecture4.vision.detection.recipe import SMALL
from lecture4.vision.models import registry

SYSTEMS = ('R-CNN', 'Fast R-CNN', 'Faster R-CNN')
STAGES = (stages.of_fast_rcnn, stages.of_faster_rcnn)
ENDS = (0.2, 0.6, 1.0)  # of the systems' training, as fractions of the steps
PUBLISHED = {'R-CNN': '53 (CPU), 13 (GPU)', 'Fast R-CNN': '2.3', 'Faster R-CNN': '0.2'}  # s, VOC


@dataclasses.dataclass(frozen=True)
class Config(detection_data.WithProposals):
    # Number of steps of all systems; R-CNN, whose steps take several times as long, has a fifth of them.
    steps: train.AtLeast8 = 1500
    batch_size: train.AtLeast1 = 4
    num_train: train.AtLeast0 = 300
    num_eval: train.AtLeast0 = 100
    # Numbers of units of the dense layers of the heads.
    hidden_dims: train.Ints = (128,)
    # Height and width that R-CNN warps proposals to.
    crop_size: train.AtLeast8 = 40
    # Number of RoIs or proposals sampled per image for the losses.
    num_rois: train.AtLeast1 = 32
    # Number of proposals per image of Faster R-CNN in testing.
    num_own_proposals: train.AtLeast1 = 50
    # Learning rate of Adam.
    learning_rate: train.Positive = 1e-3
    # Network, with fc6 and fc7, whose time for 2000 proposals is extrapolated from two of each of ten images.
    extrapolated_network: str = 'vgg_d'


METRICS = (
    train.Metric('map', 'fraction', 'higher', 'mAP at IoU 0.5', primary=True),
    train.Metric('loss', '', 'lower', 'loss'),
    train.Metric('class_loss', 'nats', 'lower', 'classification loss'),
    train.Metric('roi_accuracy', 'fraction', 'higher', 'accuracy on sampled RoIs'),
    train.Metric('training_time', 's', 'lower', 'training time'),
    train.Metric('seconds_per_image', 's', 'lower', 'test time per image'),
    train.Metric('memory', 'MB', 'lower', 'activations per image'),
    train.Metric('storage', 'MB', 'lower', 'stored features of the training set'),
)
PRESETS = {
    'smoke': {'steps': 10, 'batch_size': 2, 'num_train': 4, 'num_eval': 2, 'num_proposals': 20}
    | {'crop_size': 16, 'shorter_side': 64, 'features': (4, 8), 'num_convolutions': (1, 1)}
    | {'hidden_dims': (16,), 'num_rois': 8, 'num_own_proposals': 10}
    | {'extrapolated_network': 'zfnet'}
}
SWEEPS = {'num_proposals': train.grid(num_proposals=(50, 100, 200))}


def parts(config, num_classes) -> dict[str, Any]:
    """{system: (network, recipe)}."""
    small = networks.SmallNetwork(config.features, config.num_convolutions)
    recipe = dataclasses.replace(
        SMALL, anchor_sizes=((20.0, 30.0, 45.0),), anchor_ratios=(1.0, 1.6), strides=(small.stride,),
        post_nms=(200, config.num_own_proposals), min_size=small.stride / 2, num_rois=config.num_rois,
        pooling='roi_align', pool_scales=(1 / small.stride,),
    )  # fmt: skip
    create = functools.partial(
        networks.create, 'small', num_classes, num_anchors=recipe.anchors_per_cell, small=small,
        hidden_dims=config.hidden_dims, dropout_rate=0.0,
    )  # fmt: skip
    own = rcnn.RegionNetwork(num_classes + 1, config.hidden_dims, 0.0, small)
    made = (own, create(with_rpn=False), create())
    return {system: (network, recipe) for system, network in zip(SYSTEMS, made, strict=True)}


def data(config):
    given = detection_data.proposer(config, proposals.prepare)
    return detection_data.load_detection(config, 32, propose=given, keep_training_set=True)


def build(config, spec):
    of = parts(config, spec.num_classes)

    def init(key, batch):
        crops = jnp.zeros((1, config.crop_size, config.crop_size, 3))
        inputs = (crops, batch['images'], batch['images'])
        keys = dict(zip(SYSTEMS, zip(jax.random.split(key, 3), inputs, strict=True), strict=True))
        return {system: dict(of[system][0].init(*given)) for system, given in keys.items()}

    def loss_of(system):
        network, recipe = of[system]
        warped = {'crop_size': config.crop_size, 'context': config.crop_size // 14}
        kinds = (functools.partial(rcnn.loss, **warped), fast_rcnn.loss, faster_rcnn.loss)
        loss = dict(zip(SYSTEMS, kinds, strict=True))[system]

        def run(params, batch, key):
            value, metrics = loss(network, recipe, params[system], batch, key)
            return value, {name: metrics[name] for name in ('class_loss', 'roi_accuracy')}

        return run

    losses, boundaries = list(map(loss_of, SYSTEMS)), [int(config.steps * end) for end in ENDS[:2]]
    return train.phases(init, losses, optax.adam(config.learning_rate), boundaries)


def apply(config, spec):
    of = parts(config, spec.num_classes)

    def region_features(state, image, boxes):
        """R-CNN's (logits, last dense layer, last feature maps) of boxes [p, 4] of an image uint8 [h, w, 3]."""
        return rcnn.region_features(
            of['R-CNN'][0], state.params['R-CNN'], detection_data.normalized(image[None])[0], boxes,
            ('fc', 'pool5'), crop_size=config.crop_size, context=config.crop_size // 14,
        )  # fmt: skip

    return {'region_features': region_features}


def report(config, state, data):
    names, test, of = data.spec.class_names, data.report_data, parts(config, data.spec.num_classes)
    track = functools.partial(train.track, config, title='images')
    search = functools.partial(
        selective_search.propose, width=config.search_width, min_size=config.min_proposal_size
    )
    searching = {'selective search': proposals.seconds_per_image(test['shown'][:5], search)}
    features = functools.partial(jax.jit(apply(config, data.spec)['region_features']), state)
    trained = rcnn_stages.fit(features, test['train'], len(names), track=track)
    rows = pathlib.Path(config.workdir) / 'metrics.jsonl'
    walltimes = metric_writer.phase_seconds(rows, [int(config.steps * end) for end in ENDS])
    times: dict[str, float] = dict(zip(SYSTEMS, walltimes, strict=True))
    times['R-CNN'] += sum(trained.seconds.values())
    by_method, seconds, crop_bytes = rcnn_stages.predict_all(features, trained, test, track=track)
    tested = {'R-CNN': stages.Tested(by_method['SVM, box regression'], seconds, crop_bytes)}
    prepare = jax.jit(detection_data.normalized_batch)
    for system, of_system in zip(SYSTEMS[1:], STAGES, strict=True):
        inputs = {n: test[n] for n in ('images', 'sizes', 'proposals', 'proposals_valid')}
        network, recipe = of[system]
        run = of_system(network, recipe, state.params[system])
        tested[system] = stages.predict_all(run, inputs, 1, prepare=prepare, track=track)
    records, by_stage = [], []
    for system, (detections, seconds, num_bytes) in tested.items():
        all_stages = ({} if system == 'Faster R-CNN' else searching) | seconds
        records.append({
            'system': system,
            'map': evaluate.mean_ap(detections, test, len(names))[0],
            'training_time': times[system],
            'seconds_per_image': sum(all_stages.values()),
            'memory': num_bytes / 1e6,
            'storage': trained.num_bytes / 1e6 if system == 'R-CNN' else 0.0,
            'paper (s)': PUBLISHED[system],
        })  # fmt: skip
        for stage, value in all_stages.items():
            by_stage.append({'system': system, 'stage': stage, 'seconds_per_image': value})
    network = registry.create(config.extrapolated_network, 1, features_only=True)
    images, boxes = detection_data.normalized(test['images'][:10]), test['proposals'][:10, :2]
    crop = rcnn_stages.seconds_per_crop(network, images, boxes)
    name = f'R-CNN, {config.extrapolated_network}, 2000 crops (extrapolated)'
    records.append({'system': name, 'seconds_per_image': 2000 * crop, 'paper (s)': '47 (GPU)'})
    caption = 'Paper: seconds per image with proposals, other data and machines, cited from memory, unverified.'
    return train.Report(
        {'map': records[2]['map']},
        (
            train.Table('Three systems', records, ('system',), caption=caption),
            train.Table('Test time', by_stage, ('system', 'stage')),
        ),
    )


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
