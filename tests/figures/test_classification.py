"""Which classes and which pictures are drawn."""

import numpy as np

from lecture4.figures import classification, images, text

RNG = np.random.default_rng(0)


def test_of_many_classes_those_with_the_most_mistakes_are_drawn(monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        text, 'confusion', lambda counts, names, title: drawn.update(n=names, c=counts)
    )
    counts = np.diag([9] * 6)
    counts[1, 4], counts[4, 1], counts[3, 0] = 5, 2, 1
    classification.confusion(counts, list('abcdef'), most=3)
    assert drawn['n'] == ['a', 'b', 'e']
    np.testing.assert_array_equal(drawn['c'], [[9, 0, 0], [0, 9, 5], [0, 2, 9]])


def test_the_worst_are_those_whose_own_class_has_the_least_probability(monkeypatch):
    drawn = {}
    monkeypatch.setattr(images, 'rows', lambda rows, notes: drawn.update(rows=rows, notes=notes))
    p = np.array([[0.9, 0.1, 0], [0.2, 0.7, 0.1], [0.5, 0.3, 0.2], [0, 0.1, 0.9], [0.3, 0.3, 0.4]])
    labels = np.array([1, 1, 2, 0, 2])
    pictures = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones(
        (5, 100, 50, 3), np.uint8
    )
    classification.worst(pictures, p, labels, ['cat', 'aeroplanes', 'dog'], n=5, columns=2)
    assert drawn['notes'] == {
        '1-2': ['cat → dog', 'aeroplan… → cat'],
        '3-4': ['dog → cat', 'dog → dog'],
    }
    for row, (a, b) in zip(drawn['rows'].values(), ((3, 0), (2, 4)), strict=True):
        assert row.shape == (2, 64, 32, 3)
        np.testing.assert_allclose(row.mean((1, 2, 3)) * 255, [a, b], atol=1e-4)


def test_they_can_be_drawn():
    pictures, labels = RNG.random((7, 8, 8, 1)), RNG.integers(0, 3, 7)
    p = RNG.random((7, 3))
    figure = classification.worst(pictures, p, labels, 'abc')
    assert figure.get_size_inches().min() > 1
    assert classification.confusion(np.eye(3), 'abc').get_size_inches().min() > 1
