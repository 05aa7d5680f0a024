"""Retrieval of documents by codes, compared with word counts and latent semantic analysis; word vectors."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from lecture4.autoencoder import linear, semantic_hashing

COUNTS = (1, 2, 5, 10, 20, 50, 100, 200)  # numbers of documents retrieved, for curves
# Captions of tables of `precision_records` and `word_records`.
DOCUMENTS = (
    'Held-out documents are queries for the training documents, by cosine; in two dimensions by Euclidean '
    'distance; bits by Hamming distance.'
)
WORDS = (
    'Fraction of the nearest 5 words of the same class, for words in 10 or more documents; the class of '
    'a word is the one in which it is most over-represented.'
)

Metric = Literal['cosine', 'euclidean', 'hamming']


class Space(NamedTuple):
    """A representation of all documents, with the metric by which it is searched.

    Attributes:
      points: A vector for every document, or bits.
      metric: Metric of nearest documents.
    """

    points: Shaped[np.ndarray | Array, 'n k']
    metric: Metric


def spaces(
    tfidf: Float[np.ndarray, 'n words'],
    counts: Float[np.ndarray, 'n words'],
    codes: Mapping[str, Float[np.ndarray, 'n _k']],
    rows: Int[np.ndarray, ' m'],
    *,
    seed: int,
) -> dict[str, Space]:
    """Representations of the same documents: words, latent semantic analysis and codes.

    LSA has the dimensions of the two real codes. Two dimensions, a map, are searched by Euclidean distance, as a map
    is read; bits by the number that differ; the others by cosine.

    Args:
      tfidf: Weighted counts.
      counts: Word counts.
      codes: 'map' of two latent variables, 'code' of any number, 'bits' of logistic units.
      rows: The training documents, from which LSA is learned.
      seed: Seed of the randomized singular value decomposition.

    References:
      Deerwester et al. 1990, Indexing by latent semantic analysis.
    """
    from sklearn.decomposition import TruncatedSVD

    result = {'words, tf-idf': Space(tfidf, 'cosine'), 'words, counts': Space(counts, 'cosine')}
    dim, num_bits = codes['code'].shape[1], codes['bits'].shape[1]
    for n in sorted({2, dim}):
        lsa = TruncatedSVD(n, random_state=seed).fit(tfidf[rows])
        result[f'LSA, {n}'] = Space(lsa.transform(tfidf), 'euclidean' if n == 2 else 'cosine')
    result['autoencoder, 2'] = Space(codes['map'], 'euclidean')
    result[f'autoencoder, {dim}'] = Space(codes['code'], 'euclidean' if dim == 2 else 'cosine')
    bits = semantic_hashing.to_bits(codes['bits'])
    result[f'autoencoder, {num_bits} bits'] = Space(bits, 'hamming')
    return result


def rank(
    space: Space, queries: Int[np.ndarray, ' q'], rows: Int[np.ndarray, ' m']
) -> Int[np.ndarray, 'q m']:
    """The documents `rows` for every query, nearest first; ties keep their order.

    Args:
      space: A representation of all documents.
      queries: Row numbers of the queries.
      rows: Row numbers of the documents to rank.
    """
    query_codes, others = np.asarray(space.points)[queries], np.asarray(space.points)[rows]
    if space.metric == 'cosine':
        return rows[semantic_hashing.nearest_by_cosine(others, query_codes, len(rows))[0]]
    if space.metric == 'euclidean':
        distances = ((query_codes[:, None] - others[None]) ** 2).sum(2)
    else:
        distances = semantic_hashing.hamming_distance(jnp.asarray(query_codes), jnp.asarray(others))
    return rows[np.argsort(np.asarray(distances), axis=1, kind='stable')]


def search(
    spaces: Mapping[str, Space],
    labels: Int[np.ndarray, ' n'],
    queries: Int[np.ndarray, ' q'],
    rows: Int[np.ndarray, ' m'],
) -> tuple[dict[str, Int[np.ndarray, 'q m']], dict[str, Bool[np.ndarray, 'q m']]]:
    """`rank` in several spaces.

    Args:
      spaces: Name -> representation of all documents.
      labels: Classes of all documents.
      queries: As in `rank`.
      rows: As in `rank`.

    Returns:
      ({name: documents, nearest first}, {name: whether each document is of the query's class}).
    """
    ranked = {name: rank(space, queries, rows) for name, space in spaces.items()}
    classes = labels[queries][:, None]
    return ranked, {name: labels[order] == classes for name, order in ranked.items()}


def precision_records(
    hits: Mapping[str, Bool[np.ndarray, 'q m']], counts: Sequence[int]
) -> list[dict[str, Any]]:
    """Fraction of the nearest documents that are of the query's class, and the fraction among all documents.

    Args:
      hits: Representation -> whether each document, nearest first, is of the query's class.
      counts: Numbers of documents retrieved.

    Returns:
      A record per representation and count: `representation`, `retrieved`, `precision`; the last ones are of
      'chance', the fraction among all documents.
    """
    chance = next(iter(hits.values()))
    records = [
        {'representation': name, 'retrieved': n, 'precision': float(is_relevant[:, :n].mean())}
        for name, is_relevant in hits.items()
        for n in counts
    ]
    return records + [
        {'representation': 'chance', 'retrieved': n, 'precision': float(chance.mean())}
        for n in counts
    ]


def precision_curves(
    hits: Mapping[str, Bool[np.ndarray, 'q m']],
) -> dict[str, tuple[Int[np.ndarray, ' c'], Float[np.ndarray, ' c']]]:
    """Representation -> (numbers of documents retrieved, precision at each); see `precision_records`."""
    curves = {}
    for name, own in hits.items():
        counts = [n for n in COUNTS if n <= own.shape[1]]
        curves[name] = np.array(counts), np.array([own[:, :n].mean() for n in counts])
    return curves


def word_spaces(
    params: semantic_hashing.Autoencoder,
    counts: Float[np.ndarray, 'n V'],
    *,
    dim: int,
    seed: int,
    n_iterations: int = 60,
) -> dict[str, Shaped[np.ndarray, 'V _k']]:
    """Word vectors: the autoencoder's weights, vectors from co-occurrences, and random vectors.

    Those from co-occurrences belong to a linear autoencoder of positive pointwise mutual information, which is latent
    semantic analysis of words.

    Args:
      params: An autoencoder of bags of words.
      counts: Word counts of the training documents.
      dim: Dimension of the other two kinds.
      seed: Seed of the linear autoencoder's start and of the random vectors.
      n_iterations: Number of iterations of alternating least squares.

    Returns:
      'autoencoder', 'co-occurrence' and 'random'.
    """
    strength = semantic_hashing.ppmi(semantic_hashing.cooccurrences(counts > 0))
    moment = jnp.asarray(strength.T @ strength / len(strength), jnp.float32)
    model = linear.init(jax.random.key(seed), len(strength), dim)
    zero = jnp.zeros(len(strength), jnp.float32)
    step = jax.jit(linear.alternating_least_squares)
    for _ in range(n_iterations):
        model = step(model, zero, moment)
    basis = np.linalg.qr(np.asarray(linear.decoder_matrix(model)))[0]
    return {
        'autoencoder': np.asarray(semantic_hashing.word_vectors(params)),
        'co-occurrence': strength @ basis,
        'random': np.random.default_rng(seed).normal(size=(len(strength), dim)),
    }


def word_records(
    vectors: Mapping[str, Shaped[np.ndarray, 'V _k']],
    classes: Int[np.ndarray, ' V'],
    words: Int[np.ndarray, ' m'],
    n: int = 5,
) -> list[dict[str, Any]]:
    """Fraction of the n nearest words by cosine that have the same class as the word.

    Args:
      vectors: Kind of vectors -> a vector for every word.
      classes: A class for every word.
      words: Row numbers of the words to compare with one another.
      n: Number of neighbors of each word.

    Returns:
      A record per kind: `word vectors`, `word_precision`.
    """
    records = []
    for name, table in vectors.items():
        nearest, _ = semantic_hashing.nearest_by_cosine(table[words], np.arange(len(words)), n)
        same = classes[words][nearest] == classes[words][:, None]
        records.append({'word vectors': name, 'word_precision': float(same.mean())})
    return records


def named_neighbors(
    vectors: Mapping[str, Shaped[np.ndarray, 'V _k']],
    words: Sequence[str],
    rows: Sequence[int],
    n: int,
) -> dict[str, list[tuple[str, list[tuple[str, float]]]]]:
    """The n nearest words by cosine of some words.

    Args:
      vectors: Kind of vectors -> a vector for every word.
      words: The words.
      rows: Row numbers of the words whose neighbors are returned.
      n: Number of neighbors of each word.

    Returns:
      Kind of vectors -> [(word, [(neighbor, cosine), ...]), ...].
    """
    groups = {}
    for name, table in vectors.items():
        nearest, cosine = semantic_hashing.nearest_by_cosine(table, np.asarray(rows), n)
        groups[name] = [
            (words[row], [(words[j], c) for j, c in zip(near, cosines, strict=True)])
            for row, near, cosines in zip(rows, nearest, cosine, strict=True)
        ]
    return groups
