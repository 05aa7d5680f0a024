"""The n-grams shown are those under the windows that the filters chose."""

import numpy as np

from lecture4.language import ngrams

TEXTS = [('a', 'b', 'c'), ('d',), ('a', 'b', 'e')]


def test_strongest_are_different_and_falling():
    features = np.array([[3.0, 0.0], [5.0, 0.0], [4.0, 0.0]])  # filters 0 (width 2) and 1 (width 3)
    starts = {2: np.array([[0], [-1], [0]]), 3: np.array([[0], [0], [0]])}
    first, second = ngrams.strongest(features, starts, TEXTS, [0, 1], maps=1, widths=(2, 3), k=2)
    assert first == ngrams.Firing(0, 2, (('·', 'd'), ('a', 'b')), (5.0, 4.0))  # ('a', 'b') once
    assert second == ngrams.Firing(1, 3, (), ())  # never fires


def test_window_marks_what_is_outside():
    assert ngrams.window(TEXTS[1], -2, 5) == ('·', '·', 'd', '·', '·')
    assert ngrams.window(TEXTS[0], 1, 2) == ('b', 'c')


def test_telling_filters_speak_for_a_class_more_than_for_others():
    features = np.array([[1.0, 4.0, 2.0]])
    kernel = np.array([[2.0, 0.0], [1.0, 0.9], [-1.0, 1.0]])
    found = ngrams.telling(features, kernel, 2)
    assert found[0].tolist() == [0, 1] and found[1].tolist() == [2, 1]
