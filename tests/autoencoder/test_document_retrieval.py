"""Rankings of documents by hand; spaces and word vectors of documents with known topics."""

import jax
import numpy as np
import pytest

from lecture4.autoencoder import document_retrieval as retrieval
from lecture4.autoencoder import semantic_hashing

POINTS = np.array([[1.0, 0.0], [0.0, 1.0], [4.0, 1.0], [-1.0, 0.0], [1.0, 1.0]])
ROWS, QUERIES = np.array([1, 2, 3, 4]), np.array([0])


@pytest.mark.parametrize(
    'points, metric, order',
    [
        (POINTS, 'cosine', [2, 4, 1, 3]),
        (POINTS, 'euclidean', [4, 1, 3, 2]),
        (POINTS > 0, 'hamming', [2, 3, 4, 1]),  # ties keep their order
    ],
)
def test_documents_are_ranked_by_the_metric_of_the_space(points, metric, order):
    ranked = retrieval.rank(retrieval.Space(points, metric), QUERIES, ROWS)
    assert ranked.tolist() == [order]


def test_precision_counts_documents_of_the_class_of_the_query():
    labels = np.array([0, 1, 0, 1, 0])
    space = {'plane': retrieval.Space(POINTS, 'cosine')}
    ranked, hits = retrieval.search(space, labels, QUERIES, ROWS)
    assert ranked['plane'].tolist() == [[2, 4, 1, 3]]
    assert hits['plane'].tolist() == [[True, True, False, False]]
    records = retrieval.precision_records(hits, (1, 4))
    assert [(r['representation'], r['retrieved'], r['precision']) for r in records] == [
        ('plane', 1, 1.0), ('plane', 4, 0.5), ('chance', 1, 0.5), ('chance', 4, 0.5),
    ]  # fmt: skip
    counts, values = retrieval.precision_curves(hits)['plane']
    assert counts.tolist() == [1, 2] and values.tolist() == [1, 1]


@pytest.fixture(scope='module')
def topics():
    """Documents of two topics, 6 words each."""
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=80)
    rate = np.where(labels[:, None] == np.arange(12)[None] // 6, 1.5, 0.1)
    return rng.poisson(rate).astype(np.float32) + np.float32(0.0), labels


def test_spaces_compare_words_lsa_and_codes(topics):
    counts, labels = topics
    codes = {
        'map': np.stack([labels, -labels], 1).astype(float),
        'code': np.random.default_rng(1).normal(size=(80, 3)),
        'bits': np.stack([labels, 1 - labels, labels], 1) * 0.8 + 0.1,
    }
    rows, queries = np.arange(60), np.arange(60, 80)
    spaces = retrieval.spaces(counts, counts, codes, rows, seed=0)
    metrics = {name: space.metric for name, space in spaces.items()}
    assert metrics == {
        'words, tf-idf': 'cosine',
        'words, counts': 'cosine',
        'LSA, 2': 'euclidean',
        'LSA, 3': 'cosine',
        'autoencoder, 2': 'euclidean',
        'autoencoder, 3': 'cosine',
        'autoencoder, 3 bits': 'hamming',
    }
    _, hits = retrieval.search(spaces, labels, queries, rows)
    precision = {name: own[:, :5].mean() for name, own in hits.items()}
    assert precision['autoencoder, 2'] == precision['autoencoder, 3 bits'] == 1
    assert min(precision['words, counts'], precision['LSA, 2']) > 0.9
    assert precision['autoencoder, 3'] < 0.7


def test_words_of_a_topic_are_neighbors_by_co_occurrence(topics):
    counts, _ = topics
    params = semantic_hashing.init(jax.random.key(0), 12, (4,))
    vectors = retrieval.word_spaces(params, counts, dim=2, seed=0, n_iterations=30)
    assert {name: table.shape for name, table in vectors.items()} == {
        'autoencoder': (12, 4),
        'co-occurrence': (12, 2),
        'random': (12, 2),
    }
    classes, all_words = np.arange(12) // 6, np.arange(12)
    records = {
        r['word vectors']: r['word_precision']
        for r in retrieval.word_records(vectors, classes, all_words, 3)
    }
    assert records['co-occurrence'] == 1 and records['random'] < 0.8
    own = {'co-occurrence': vectors['co-occurrence']}
    ((word, neighbors),) = retrieval.named_neighbors(own, list('abcdefghijkl'), [7], 2)[
        'co-occurrence'
    ]
    assert word == 'h' and {name for name, _ in neighbors} <= set('gijkl')
    assert neighbors[0][1] >= neighbors[1][1]
