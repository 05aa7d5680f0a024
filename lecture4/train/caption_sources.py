"""Shared parts of the experiments on captioned images: options of the source, batches of sentences with features."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from lecture4.data.captions import batches, task
from lecture4.data.text import vocabulary
from lecture4.train.config import Config
from lecture4.train.fields import AtLeast0, AtLeast1, AtLeast4
from lecture4.train.task import Data, Spec

NUM_DEV = 200  # images of the dev split in evaluations during training
METHODS = {'test': 'this run', 'held_out': 'this run, unseen combinations'}


@dataclasses.dataclass(frozen=True)
class Captioned(Config):
    """Options of an experiment on captioned images."""

    # Source of captioned images: scenes, flickr8k, flickr8k_pixels, coco:PATH, folder:PATH.
    source: str = 'scenes'
    # Features of regions: hog or npz:PATH; empty takes those of the source.
    features: str = ''
    # Number of scenes to train on; each other split has a quarter.
    num_images: AtLeast4 = 800
    # Number of principal components of the features; 0 keeps all dimensions.
    whiten_dim: AtLeast0 = 0
    # Number of occurrences in the training sentences below which a word is unknown.
    min_count: AtLeast1 = 1


def load_captioned(config: Captioned, *, drop_unknown: bool) -> task.CaptionTask:
    """The splits of the config's source: train, dev, test, and held_out if the source is scenes.

    Args:
      config: Options; with a --workdir the run's vocabulary is stored there and checked on resumption.
      drop_unknown: Whether unknown words are left out of sentences.

    Raises:
      DataError: As in `task.load` and `task.check_vocabulary`.
    """
    loaded = task.load(
        config.source,
        ('train', 'dev', 'test', 'held_out')[: 4 if config.source == 'scenes' else 3],
        whiten_dim=config.whiten_dim,
        min_count=config.min_count,
        drop_unknown=drop_unknown,
        num_images=config.num_images,
        features=config.features,
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
