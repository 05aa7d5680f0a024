"""The data set that every source of captioned images returns."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8

from lecture4.data.dataset import DataError
from lecture4.data.text.tokens import tokenize

Words = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class CaptionedImages:
    """Images with sentences, and features of their regions.

    Attributes:
      names: Unique names of the images.
      sentences: One or more sentences of words for each of n images.
      read_image: Row -> pixels uint8 [h, w, 3]; None if the source has no pixels.
      features: Features of r regions per image, of which the first is the whole image; None before they are computed.
      boxes: The regions [x1, y1, x2, y2] in pixels of the image.
      word_groups: Object group that each word of every sentence refers to, -1 for none; None if unknown.
      region_groups: Object group of every region, -1 for none; None if unknown.
    """

    names: tuple[str, ...]
    sentences: tuple[tuple[Words, ...], ...]
    read_image: Callable[[int], UInt8[np.ndarray, 'h w 3']] | None = None
    features: Float[np.ndarray, 'n r d'] | None = None
    boxes: Float[np.ndarray, 'n r 4'] | None = None
    word_groups: tuple[tuple[Int[np.ndarray, ' _t'], ...], ...] | None = None
    region_groups: Int[np.ndarray, 'n r'] | None = None

    def __len__(self) -> int:
        return len(self.names)


def words_of(text: str) -> Words:
    """The words of a sentence: lower case, no punctuation; the endings 's and n't are separate words."""
    return tuple(word for word in tokenize(text) if any(map(str.isalnum, word)))


def validate(
    source: str, names: Sequence[str], texts: Sequence[Sequence[str]], max_words: int = 0
) -> tuple[tuple[str, ...], tuple[tuple[Words, ...], ...]]:
    """Names and tokenized sentences of images.

    Args:
      source: Prefix of error messages.
      names: Names of the images.
      texts: Sentences of each image as text.
      max_words: Largest number of words in a sentence; 0 for any.

    Raises:
      DataError: There is no image, an image has no sentence, or a sentence has no word or more than max_words; the
        message names the image.
    """
    if not len(names):
        raise DataError(f'{source} has no images with sentences; check its split and its captions')
    sentences = tuple(tuple(words_of(text) for text in group) for group in texts)
    for name, group, raw in zip(names, sentences, texts, strict=True):
        if not group:
            raise DataError(f'{source}: image {name} has no sentence; add one, or remove the image')
        for words, text in zip(group, raw, strict=True):
            if not words:
                raise DataError(
                    f'{source}: a sentence of image {name} has no word: {text!r}; remove or fix it'
                )
            if max_words and len(words) > max_words:
                raise DataError(
                    f'{source}: a sentence of image {name} has {len(words)} words, expected at most '
                    f'{max_words}; raise --max_length'
                )
    return tuple(names), sentences


def flatten(
    sentences: Sequence[Sequence[Words]],
) -> tuple[list[Words], Int[np.ndarray, ' m']]:
    """All sentences in the order of their images, and the row of each sentence's image."""
    counts = [len(own) for own in sentences]
    flat = [words for own in sentences for words in own]
    return flat, np.repeat(np.arange(len(counts)), counts)
