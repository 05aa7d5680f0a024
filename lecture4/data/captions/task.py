"""Captioned images as training data of a model: projected features, word indices, padded groups of sentences."""

import pathlib
from collections.abc import Sequence
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int32

from lecture4.data.captions import batches, registry
from lecture4.data.captions.dataset import CaptionedImages, flatten
from lecture4.data.dataset import DataError
from lecture4.data.text import vocabulary
from lecture4.data.text.vocabulary import Vocabulary

VOCABULARY_FILE = 'vocabulary.txt'
CLIP = 6.0  # bound of a whitened feature in standard deviations


class Split(NamedTuple):
    """A split with projected features and encoded sentences.

    Attributes:
      images: Names, sentences, pixels, boxes.
      features: Features of regions, of which the first is the whole image.
      encoded: All sentences in the order of their images.
      image_of: Row of the image of each sentence.
    """

    images: CaptionedImages
    features: Float[np.ndarray, 'n r k']
    encoded: list[Int[np.ndarray, ' _t']]
    image_of: Int[np.ndarray, ' m']

    def padded(
        self, rows: Sequence[int] | Int[np.ndarray, ' k'], length: int | None = None
    ) -> Int32[np.ndarray, 'k t']:
        """Sentences padded with zeros.

        Args:
          rows: Rows of the sentences to pad.
          length: Length of the result; None takes the smallest of `batches.LENGTHS` that fits all.
        """
        chosen = [self.encoded[row] for row in rows]
        if length is None:
            length = vocabulary.length_for(max(map(len, chosen)), batches.LENGTHS)
        return vocabulary.pad(chosen, length)

    def groups(self) -> list[tuple[Int[np.ndarray, ' k'], Int32[np.ndarray, 'k t']]]:
        """All sentences in groups of similar length: (rows, padded words)."""
        groups = vocabulary.group_by_length(self.encoded, batches.LENGTHS)
        return [(rows, self.padded(rows, length)) for length, rows in groups.items()]


class CaptionTask(NamedTuple):
    """The splits of a source, with one vocabulary and one projection of features.

    Attributes:
      splits: Name -> split.
      vocabulary: Vocabulary of the training sentences.
      mean: Mean of the features.
      projection: Matrix from features minus mean to model inputs.
    """

    splits: dict[str, Split]
    vocabulary: Vocabulary
    mean: Float[np.ndarray, ' d']
    projection: Float[np.ndarray, 'd k']


def load(
    source: str,
    names: Sequence[str] = ('train', 'dev', 'test'),
    *,
    whiten_dim: int,
    min_count: int,
    drop_unknown: bool,
    max_length: int = 0,
    num_images: int = 1000,
    features: str | registry.FeaturesFn = '',
    **kwargs: Any,
) -> CaptionTask:
    """The splits of a source; vocabulary and whitening are fitted to the training split.

    Args:
      source: As in `registry.load`.
      names: Names of the splits, training first.
      whiten_dim: As in `fit_whitening`.
      min_count: Number of occurrences in training sentences below which a word is unknown.
      drop_unknown: Whether unknown words are left out, or become the unknown word.
      max_length: Largest number of words in a sentence, longer ones are refused; 0 for the largest of
        `batches.LENGTHS`.
      num_images: Number of scenes to train on; each other split has a quarter of it.
      features: As in `registry.load`.
      **kwargs: Further options of `registry.load`, such as manual_dir.

    Raises:
      DataError: As in `registry.load` and `batches.encode`.
    """
    loaded = {
        name: registry.load(
            source,
            name,
            features=features,
            num_images=num_images if name == names[0] else max(num_images // 4, 10),
            max_words=max_length or max(batches.LENGTHS),
            **kwargs,
        )
        for name in names
    }
    texts = [words for own in loaded[names[0]].sentences for words in own]
    words = vocabulary.build(texts, min_count)
    fitted = loaded[names[0]].features
    assert fitted is not None
    mean, projection = fit_whitening(fitted, whiten_dim)
    splits = {}
    for name, images in loaded.items():
        flat, image_of = flatten(images.sentences)
        assert images.features is not None
        projected = project(images.features, mean, projection)
        encoded = batches.encode(words, flat, drop_unknown=drop_unknown)
        splits[name] = Split(images, projected, encoded, image_of)
    return CaptionTask(splits, words, mean, projection)


def fit_whitening(
    features: Float[np.ndarray, 'n r d'], dim: int, shrinkage: float = 0.05
) -> tuple[Float[np.ndarray, ' d'], Float[np.ndarray, 'd k']]:
    """Mean and projection to `dim` principal components of about unit variance.

    The variance of a component is divided by itself plus `shrinkage` times the mean variance of the kept components,
    so that small ones are not amplified without bound.

    Args:
      features: Features of the training images; those of the whole images (region 0) are compared.
      dim: Number of components; 0 keeps all dimensions and divides each by its standard deviation over all
        regions.
      shrinkage: Relative regularization, nonnegative.
    """
    if not dim:
        every = np.asarray(features.reshape(-1, features.shape[2]), np.float32)
        mean, std = every.mean(0), every.std(0)
        return mean.astype(np.float32), np.diag(1 / (std + 0.1 * std.mean())).astype(np.float32)
    whole = np.asarray(features[:, 0], np.float64)
    mean = whole.mean(0)
    dim = min(dim, whole.shape[1], len(whole))
    covariance = (whole - mean).T @ (whole - mean) / len(whole)
    variance, components = np.linalg.eigh(covariance)
    variance, components = variance[::-1][:dim], components[:, ::-1][:, :dim]
    scale = 1 / np.sqrt(variance + shrinkage * variance.mean() + 1e-12)
    return mean.astype(np.float32), (components * scale).astype(np.float32)


def project(
    features: Float[np.ndarray, 'n r d'],
    mean: Float[np.ndarray, ' d'],
    projection: Float[np.ndarray, 'd k'],
) -> Float[np.ndarray, 'n r k']:
    """Whitened features, clipped to +-CLIP; 500 images at a time, so that float16 inputs are not converted as a whole.

    Raises:
      DataError: The dimension of the features differs from that of the training images.
    """
    if features.shape[2] != len(mean):
        raise DataError(
            f'features have {features.shape[2]} dimensions, those of the training images {len(mean)}; use '
            'features of one network'
        )
    n, r, d = features.shape
    result = np.empty((n, r, projection.shape[1]), np.float32)
    for i in range(0, n, 500):  # one product with many rows instead of one for each image
        rows = features[i : i + 500].reshape(-1, d).astype(np.float32) - mean
        result[i : i + 500] = (rows @ projection).reshape(-1, r, projection.shape[1])
    return np.clip(result, -CLIP, CLIP, out=result)


def check_vocabulary(directory: str | PathLike[str], words: Vocabulary, overwrite: bool) -> None:
    """Write the vocabulary into a run directory, or compare it with the stored one.

    Args:
      directory: The run directory; '' checks nothing.
      words: Vocabulary of the current sentences.
      overwrite: Whether a run in the directory will be replaced.

    Raises:
        DataError: The run started with another vocabulary, so that its parameters belong to other words.
    """
    if not directory:
        return
    path = pathlib.Path(directory) / VOCABULARY_FILE
    if path.is_file() and (path.parent / 'config.json').is_file() and not overwrite:
        stored = tuple(path.read_text(encoding='utf-8').split('\n'))
        if stored != words.words:
            raise DataError(
                f'the run in {directory} started with a vocabulary of {len(stored)} words, the current sentences '
                f'give a different one of {len(words)}; use the same sentences, or --overwrite'
            )
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(words.words), encoding='utf-8')
