"""All sentences of a labeled set: words, classes, and the rows of each split."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from lecture4.data.text import sentences, vocabulary


class Corpus(NamedTuple):
    """The sentences of all splits of a set, one after another.

    Attributes:
      texts: n sequences of words, truncated like `encoded`.
      labels: [n], values in 0..len(class_names) - 1.
      class_names: Names of the classes.
      rows: {split: its rows}.
      vocabulary: Vocabulary of all sentences.
      encoded: The sentences as indices into the vocabulary.
    """

    texts: tuple[tuple[str, ...], ...]
    labels: Int[np.ndarray, ' n']
    class_names: tuple[str, ...]
    rows: dict[str, Int[np.ndarray, ' _n']]
    vocabulary: vocabulary.Vocabulary
    encoded: list[Int[np.ndarray, ' _length']]


def load(source: str, *, max_length: int = 0, **data_kwargs: Any) -> Corpus:
    """All splits of a set.

    Args:
      source: As in `sentences.load`.
      max_length: Number of words at which sentences are truncated; 0 keeps all. The vocabulary has all words.
      **data_kwargs: data_dir, manual_dir and download, as in `sentences.load`.

    Raises:
      DataError: As in `sentences.load`.
    """
    parts = {name: sentences.load(source, name, **data_kwargs) for name in sentences.splits(source)}
    texts = tuple(tuple(words) for part in parts.values() for words in part.texts)
    ends = np.cumsum([len(part.texts) for part in parts.values()])
    words = vocabulary.build(texts)
    return Corpus(
        tuple(text[: max_length or None] for text in texts),
        np.concatenate([part.labels for part in parts.values()]),
        tuple(parts[min(parts)].class_names),
        dict(zip(parts, np.split(np.arange(len(texts)), ends[:-1]), strict=True)),
        words,
        vocabulary.encode(words, texts, max_length=max_length, truncate=True),
    )
