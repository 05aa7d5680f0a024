"""What every source of captioned images returns."""

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
      names: One per image, unique.
      sentences: For each of n images one or more sentences of words.
      read_image: Row -> pixels uint8 [h, w, 3]; None where the source has no pixels.
      features: Features of r regions per image, of which the first is the whole image; None before they are computed.
      boxes: The regions [x1, y1, x2, y2] in pixels of the image.
      word_groups: For every sentence the object group that each of its words is about, -1 for none; None
        where that is not known.
      region_groups: The object group of every region, -1 for none; None where that is not known.
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
    """The words of a sentence: lower case, no punctuation; the endings 's and n't are words of their own."""
    return tuple(word for word in tokenize(text) if any(map(str.isalnum, word)))


def validate(
    source: str, names: Sequence[str], texts: Sequence[Sequence[str]], max_words: int = 0
) -> tuple[tuple[str, ...], tuple[tuple[Words, ...], ...]]:
    """Names and tokenized sentences of images.

    Args:
      source: What error messages begin with.
      names: One per image.
      texts: For each image its sentences as text.
      max_words: Longest sentence; 0 for any.

    Raises:
      DataError: No image, an image without a sentence, a sentence without a word, or one longer than
        max_words; names the image.
    """
    if not len(names):
        raise DataError(f'{source} has no images with sentences; check its split and its captions')
    sentences = tuple(tuple(words_of(text) for text in own) for own in texts)
    for name, own, raw in zip(names, sentences, texts, strict=True):
        if not own:
            raise DataError(f'{source}: image {name} has no sentence; add one, or remove the image')
        for words, text in zip(own, raw, strict=True):
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
    """All sentences in the order of their images, and the row of the image of each."""
    counts = [len(own) for own in sentences]
    flat = [words for own in sentences for words in own]
    return flat, np.repeat(np.arange(len(counts)), counts)
