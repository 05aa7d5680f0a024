"""Segments of sentences with regions, as encoded by an alignment run, as training data for region captions."""

import json
import pathlib
from os import PathLike

import numpy as np
from jaxtyping import Int

from lecture4.data.captions.task import CaptionTask
from lecture4.data.dataset import DataError


def read(
    directory: str | PathLike[str], loaded: CaptionTask, min_words: int = 1
) -> tuple[list[Int[np.ndarray, ' _t']], Int[np.ndarray, ' m'], Int[np.ndarray, ' m']]:
    """Segments of the training sentences.

    Args:
      directory: The codes of an alignment run (`--stage encode`): `regions` [n, t] of the words of every
        training sentence, in order.
      loaded: The splits of the same source, with unknown words kept in `sentences`.
      min_words: Smallest number of known words of a segment to keep.

    Returns:
      (encoded, image_of, region_of): word indices, image and region of each segment.

    Raises:
      DataError: The codes are incomplete, or of other sentences.
    """
    directory = pathlib.Path(directory).expanduser()
    try:
        index = json.loads((directory / 'index.json').read_text())
        blocks = [np.load(path)['regions'] for path in sorted(directory.glob('*-*.npz'))]
        regions = np.concatenate(blocks)
    except (OSError, KeyError, ValueError) as error:
        raise DataError(
            f'{directory} contains no codes of an alignment run ({error}); run it with --stage encode'
        ) from error
    train = loaded.splits['train']
    if len(regions) != index['rows'] or len(regions) != len(train.encoded):
        raise DataError(
            f'{directory} has regions of {len(regions)} sentences, expected {len(train.encoded)}; encode the '
            'same source with as many images'
        )
    known = loaded.vocabulary.word_index
    encoded, image_of, region_of = [], [], []
    flat = [words for sentences in train.images.sentences for words in sentences]
    for row, words in enumerate(flat):
        region_of_word = regions[row, : len(words)]
        ends = [*(np.flatnonzero(np.diff(region_of_word)) + 1).tolist(), len(words)]
        start = 0
        for end in ends:
            segment = [known[word] for word in words[start:end] if word in known]
            if len(segment) >= max(min_words, 1):
                encoded.append(np.array(segment, np.int32))
                image_of.append(train.image_of[row])
                region_of.append(region_of_word[start])
            start = end
    return encoded, np.array(image_of, np.int32), np.array(region_of, np.int32)
