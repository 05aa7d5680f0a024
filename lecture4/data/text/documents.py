"""Labeled documents as bags of words, and the classes of the words themselves."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int
from scipy import sparse

from lecture4.data.text import sentences, vocabulary

FREQUENT = 10  # smallest number of documents with a word for its class to be compared


class Documents(NamedTuple):
    """All documents of a source, and the rows of the training documents.

    Attributes:
      counts: Number of occurrences of each word in each document.
      tfidf: Logarithmic counts, weighted by rarity among the training documents; rows have norm 1, or 0 if no word is
        known.
      labels: Values in 0..len(class_names) - 1.
      class_names: Names of the classes.
      words: Words of the columns, by descending frequency in the training documents.
      texts: All words of each document.
      train_rows: Rows of the training documents, ascending.
      test_rows: The others, ascending.
    """

    counts: Float32[np.ndarray, 'n words']
    tfidf: Float32[np.ndarray, 'n words']
    labels: Int[np.ndarray, ' n']
    class_names: tuple[str, ...]
    words: tuple[str, ...]
    texts: list[tuple[str, ...]]
    train_rows: Int[np.ndarray, ' train']
    test_rows: Int[np.ndarray, ' test']


def load(
    source: str, *, held_out: float, num_words: int, min_count: int, seed: int, **data_kwargs: Any
) -> Documents:
    """The documents of a source, with the vocabulary and weights of its training documents.

    Args:
      source: As in `lecture4.data.text.sentences.load`.
      held_out: Fraction of the documents to hold out, at random, if the source has no test split.
      num_words: Number of most frequent words to count; tokens without a letter are not words.
      min_count: Smallest number of occurrences of a word in the training documents.
      seed: Seed of the choice of held-out documents.
      **data_kwargs: Keyword arguments of `lecture4.data.text.sentences.load`.

    Raises:
      DataError: As in `lecture4.data.text.sentences.load`.
    """
    from sklearn.feature_extraction.text import TfidfTransformer

    splits = sentences.splits(source)
    parts = [sentences.load(source, split, **data_kwargs) for split in splits]
    texts = [text for part in parts for text in part.texts]
    labels = np.concatenate([part.labels for part in parts])
    if 'test' in splits:
        start = sum(len(part.texts) for part in parts[: splits.index('test')])
        test_rows = np.arange(start, start + len(parts[splits.index('test')].texts))
    else:
        order = np.random.default_rng(seed).permutation(len(texts))
        test_rows = np.sort(order[: round(held_out * len(texts))])
    train_rows = np.setdiff1d(np.arange(len(texts)), test_rows)
    special, frequent = 2, vocabulary.build([texts[i] for i in train_rows], min_count).words
    kept = [word for word in frequent[special:] if any(letter.isalpha() for letter in word)]
    words = (*frequent[:special], *kept[:num_words])
    known = vocabulary.Vocabulary(words, {word: i for i, word in enumerate(words) if i >= special})
    encoded = vocabulary.encode(known, texts)
    counts = np.stack([np.bincount(text, minlength=len(words)) for text in encoded])
    counts = counts[:, special:].astype(np.float32)
    tfidf = TfidfTransformer(sublinear_tf=True).fit(counts[train_rows]).transform(counts)
    tfidf = sparse.csr_array(tfidf).toarray().astype(np.float32)
    return Documents(
        counts,
        tfidf,
        labels,
        parts[0].class_names,
        words[special:],
        texts,
        train_rows,
        test_rows,
    )


def word_classes(
    corpus: Documents,
) -> tuple[Int[np.ndarray, ' words'], Int[np.ndarray, ' frequent'], list[int]]:
    """The class in which each word is most over-represented, by a pseudo-count of 1.

    Args:
      corpus: Documents, of which the training documents are used.

    Returns:
      The class of every word; the words that occur in 10 or more training documents; and all words, the most
      indicative of a class first, alternating between classes. Words are columns of corpus.counts.
    """
    present = corpus.counts[corpus.train_rows] > 0
    labels = corpus.labels[corpus.train_rows]
    documents = np.stack(
        [present[labels == c].sum(0) + 1 for c in range(len(corpus.class_names))]
    )  # [classes, words]
    lift = documents / documents.sum(1, keepdims=True) * documents.sum() / documents.sum(0)
    frequent = np.flatnonzero(present.sum(0) >= FREQUENT)
    # In standard deviations under chance, so that words of all documents with a slight bias do not rank first.
    order = np.argsort(-(np.sqrt(documents) * np.log(lift)), axis=1)
    return lift.argmax(0), frequent, list(dict.fromkeys(order.T.ravel().tolist()))


def nearest_examples(
    corpus: Documents, ranked: Mapping[str, Int[np.ndarray, 'queries m']], n: int = 4
) -> list[dict[str, str]]:
    """The first test document of each of n classes, and the nearest document by several representations.

    Args:
      corpus: Documents.
      ranked: Representation -> row numbers of documents for every test document, nearest first.
      n: Largest number of classes.

    Returns:
      A record per class, with the beginnings of the documents: `query`, and one entry per representation.
    """
    labels = corpus.labels[corpus.test_rows]
    firsts = [np.flatnonzero(labels == c)[0] for c in np.unique(labels)[:n]]

    def beginning(row):
        return ' '.join(corpus.texts[row])[:60]

    return [
        {'query': beginning(corpus.test_rows[i])}
        | {name: beginning(order[i, 0]) for name, order in ranked.items()}
        for i in firsts
    ]
