"""The n-grams shown are those under the windows that the filters chose."""

import numpy as np

from lecture4.language import ngrams

TEXTS = [('a', 'b', 'c'), ('d',), ('a', 'b', 'e')]


def test_top_ngrams_are_distinct_and_descending():
    found = ngrams.top_ngrams(np.array([3.0, 5.0, 4.0]), np.array([0, -1, 0]), TEXTS, 2, k=2)
    assert found == [(('·', 'd'), 5.0), (('a', 'b'), 4.0)]
    every = ngrams.top_ngrams(np.array([3.0, 5.0, 4.0]), np.array([0, -1, 0]), TEXTS, 2, k=9)
    assert every == found  # ('a', 'b') once
    assert ngrams.top_ngrams(np.zeros(3), np.zeros(3, int), TEXTS, 2) == []  # never fires


def test_ngrams_mark_positions_outside_the_text():
    assert ngrams.ngram_at(TEXTS[1], -2, 5) == ('·', '·', 'd', '·', '·')
    assert ngrams.ngram_at(TEXTS[0], 1, 2) == ('b', 'c')


def test_indicative_filters_favor_their_class():
    features = np.array([[1.0, 4.0, 2.0]])
    kernel = np.array([[2.0, 0.0], [1.0, 0.9], [-1.0, 1.0]])
    found = ngrams.indicative_filters(features, kernel, 2)
    assert found[0].tolist() == [0, 1] and found[1].tolist() == [2, 1]


def test_ngrams_by_class_names_filters_and_ngrams():
    features = np.array([[1.0, 0.0], [0.5, 4.0], [2.0, 1.0]])
    starts = np.array([[0, 0], [0, 0], [1, 0]])
    kernel = np.array([[1.0, 0.0], [0.0, 1.0]])
    found = ngrams.ngrams_by_class(
        features, starts, TEXTS, kernel, ('x', 'y'), kernel_sizes=np.array([2, 3]), per_class=1, k=2
    )
    assert found == {
        'x': [('2 words, filter 0', [('b e', 2.0), ('a b', 1.0)])],
        'y': [('3 words, filter 1', [('d · ·', 4.0), ('a b e', 1.0)])],
    }
