"""Region proposals: selective search against windows of learned shapes (Uijlings et al., IJCV 2013).

Measured is the fraction of objects that a proposal covers, by IoU and by number of proposals per image. Selective
search merges the regions of several segmentations, the most similar neighbors first; windows of learned shapes
(centroids of the training objects' widths and heights) and random boxes need no image. Any other proposals can be
compared: an .npz file as lecture4.vision.detection.proposals describes it. Proposals of a set that has files are kept
next to the prepared sets under the fingerprint of its images.

Run:      python -m experiments.detection.proposals
          python -m experiments.detection.proposals --preset voc2012_animals --manual_dir PATH
Hardware: one core (AMD EPYC), selective search in mode fast 3.2 s per image of 500 x 375; default 1 minute
Results:  scenes of 240 x 180, 40 images, 106 objects, seed 0; recall (%) at IoU 0.5 and 0.7, MABO (%)

          | method                    | proposals per image | recall .5 | recall .7 | MABO |
          |---------------------------|---------------------|-----------|-----------|------|
          | selective search          | 100                 | 85.8      | 74.5      | 80.3 |
          | selective search          | 686 (all)           | 100.0     | 99.1      | 94.7 |
          | windows of learned shapes | 2000                | 95.3      | 60.4      | 71.5 |
          | random                    | 2000                | 71.7      | 21.7      | 58.1 |

          voc2012_animals, only the first 10 images of val (18 objects): selective search, 2637 proposals per
          image: 100.0, 88.9, MABO 85.4; the first 300: 100.0, 83.3, 82.9. All 200 are not measured yet.
"""

import dataclasses
import functools
import os
import pathlib

import numpy as np

from lecture4 import train
from lecture4.data import detection
from lecture4.data.detection.dataset import annotations, fingerprint
from lecture4.data.detection.scenes import SceneConfig
from lecture4.vision.detection import proposal_recall, proposals, selective_search, window_shapes

# VOC 2007 test, about 2100 windows per image: recall at IoU 0.5 and MABO of mode fast.
PUBLISHED = {'recall': '98.0', 'mabo': '80.4'}


@dataclasses.dataclass(frozen=True)
class Config(train.ImageFiles):
    steps: train.AtLeast1 = 30
    # Source of images with boxes: scenes, bccd, voc2012_animals, voc2007, voc2012, voc:PATH, coco:PATH, npz:PATH.
    source: str = 'scenes'
    # Split of the source on whose objects the proposals are evaluated.
    test_split: str = 'test'
    # Largest number of images to evaluate on; 0 takes all.
    num_images: train.AtLeast0 = 40
    # Variant of selective search: one, eight or eighty groupings of each image.
    mode: selective_search.Mode = 'fast'
    # Width that images are resized to before selective search; 0 keeps their size.
    resize_width: train.AtLeast0 = 0
    # Smallest width and height of a proposal in pixels of the resized image.
    min_size: train.AtLeast1 = 12
    # Numbers of proposals per image at which recall is measured.
    numbers: train.Ints = (10, 30, 100, 300, 1000, 2000)
    # Number of shapes of the windows, learned from the training split.
    num_shapes: train.AtLeast1 = 9
    # Number of processes that compute proposals; 0 takes one for each core.
    num_workers: train.AtLeast0 = 1
    # File of further proposals to evaluate, for the images of the test split in their order.
    proposals: str = ''


METRICS = (
    train.Metric('search_recall', 'fraction', 'higher', 'recall of selective search', primary=True),
    train.Metric('recall', 'fraction', 'higher', 'recall (IoU 0.5)'),
    train.Metric('recall_07', 'fraction', 'higher', 'recall (IoU 0.7)'),
    train.Metric('average_recall', 'fraction', 'higher', 'average recall (IoU 0.5 to 1)'),
    train.Metric('mabo', 'fraction', 'higher', 'MABO'),
    train.Metric('num_proposals', 'count', '', 'proposals per image'),
    train.Metric('seconds_per_image', 's', 'lower', 'seconds per image'),
    train.Metric('mean_iou', 'fraction', 'higher', 'IoU of objects with their nearest shape'),
)
VOC = {'num_images': 0, 'resize_width': 500, 'min_size': 20, 'num_workers': 0}
PRESETS = {
    'smoke': {'steps': 2, 'num_images': 2, 'mode': 'single', 'numbers': (10, 100)},
    'voc2012_animals': VOC | {'source': 'voc2012_animals', 'test_split': 'val'},
    'voc2007': VOC | {'source': 'voc2007'},
}
SWEEPS = {'mode': train.grid(mode=('single', 'fast', 'quality'))}
SCENE = SceneConfig(sizes=((180, 240), (240, 180)), digit_size=(24, 90))


def data(config):
    load = functools.partial(
        detection.load, config.source, seed=config.seed, scene=SCENE, **config.data_kwargs()
    )
    splits = {
        'train': load('train', num_images=200 if config.source == 'scenes' else 0),
        'test': load(config.test_split, num_images=config.num_images),
    }
    sides = [
        (boxes[:, 2:] - boxes[:, :2]) / size[::-1]
        for boxes, size in zip(splits['train'].boxes, splits['train'].sizes, strict=True)
    ]
    sides = np.concatenate(sides).astype(np.float32)
    spec = train.Spec((2,), splits['test'].class_names)
    return train.full_batch(sides, spec=spec, report_data=splits['test'])


def build(config, spec):
    init = functools.partial(window_shapes.init, num_shapes=config.num_shapes)

    def step(shapes, sides, key, *, reduce):
        return window_shapes.step(shapes, sides, reduce=reduce)

    return train.from_learner(init, step)


def apply(config, spec):
    return {
        'encode': lambda state, sides: window_shapes.shape_iou(sides, state.params.sides),
        'propose': lambda state, image: propose_of(config)(np.asarray(image)),
    }


def propose_of(config):
    return functools.partial(
        selective_search.propose, mode=config.mode, seed=config.seed, width=config.resize_width,
        min_size=config.min_size,
    )  # fmt: skip


def searched(config, dataset):
    """Selective search's proposals, computed once and stored for sets that have files."""
    track = functools.partial(train.track, config, title='selective search')
    if config.source == 'scenes':
        boxes = proposals.compute(
            dataset.images, propose_of(config), num_workers=config.num_workers
        )
        return [next(boxes) for _ in track(range(dataset.num_images))]
    key, settings = (
        fingerprint(dataset),
        f'{config.mode}_width{config.resize_width}_min{config.min_size}',
    )
    folder = config.data_dir or os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
    folder = pathlib.Path(folder).expanduser() / 'lecture4_proposals'
    path = folder / proposals.cache_name(key, settings, config.seed)
    options = {'num_workers': config.num_workers, 'track': track}
    return proposals.cached(path, dataset.images, key, propose_of(config), **options)


def report(config, state, data):
    from lecture4.figures import detection as drawn

    dataset, most = data.report_data, max(config.numbers)
    truth = annotations(dataset)
    counted = ~truth['difficult'] & ~truth['crowd']
    truth = {name: values[counted] for name, values in truth.items()}
    sizes, sides = dataset.sizes.tolist(), np.asarray(state.params.sides)
    methods = {'selective search': searched(config, dataset)}
    seconds = proposals.seconds_per_image(dataset.images[:3], propose_of(config))
    if config.proposals:
        methods['given'] = proposals.load(
            config.proposals, dataset.num_images, fingerprint(dataset)
        )
    methods['windows of learned shapes'] = [
        window_shapes.windows(sides, h, w, most) for h, w in sizes
    ]
    methods['random'] = [
        window_shapes.random_windows(h, w, most, config.seed + i) for i, (h, w) in enumerate(sizes)
    ]
    records, by_number, by_overlap, thresholds = [], {}, {}, np.linspace(0.5, 1, 26)
    for name, boxes in methods.items():
        rows = proposal_recall.measure(boxes, truth, config.numbers)
        records += [{'method': name} | record for record in rows]
        overlaps = proposal_recall.best_overlaps(boxes, truth, [most])
        by_number[name] = (config.numbers, [record['recall'] for record in rows])
        by_overlap[name] = (thresholds, proposal_recall.recall(overlaps, thresholds)[0])
    last = len(config.numbers) - 1  # of selective search
    records[last]['seconds_per_image'] = seconds
    caption = (
        f'{dataset.num_images} images of {config.source}, {len(truth["labels"])} objects that are not difficult. '
        f'Published for VOC 2007 test, selective search in mode fast, 2134 windows per image: recall '
        f'{PUBLISHED["recall"]} %, MABO {PUBLISHED["mabo"]} % (Uijlings et al. 2013, cited from memory, unverified).'
    )
    shown = list(dataset.images[:4])
    best = list(map(proposal_recall.nearest, methods['selective search'][:4], dataset.boxes[:4]))
    figures = {
        'recall': train.Figure(
            drawn.proposal_recall(by_number, by_overlap),
            f'Recall at IoU 0.5 against the number of proposals; against IoU with at most {most}.',
        ),
        'best': train.Figure(
            drawn.best_proposals(shown, dataset.boxes[:4], best),
            'Objects (dashed) and the proposals of selective search that overlap them most.',
        ),
    }
    return train.Report(
        {'search_recall': records[last]['recall']},
        (train.Table('Proposals', records, ('method', 'at most'), caption=caption),),
        figures,
    )


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
