"""Which classes and which images are drawn."""

import numpy as np
import pytest

from lecture4.figures import classification, style
from lecture4.figures import images as image_figures

RNG = np.random.default_rng(0)


def test_of_many_classes_those_with_the_most_errors_are_drawn():
    counts = np.diag([9] * 6)
    counts[1, 4], counts[4, 1], counts[3, 0] = 5, 2, 1
    (axes,) = classification.confusion_matrix(counts, list('abcdef'), max_classes=3).axes
    assert [t.get_text() for t in axes.get_yticklabels()] == ['a', 'b', 'e']
    assert [t.get_text() for t in axes.texts] == ['9', '0', '0', '0', '9', '5', '0', '2', '9']
    assert axes.get_title('left') == 'accuracy 79.4%'


def test_the_confusion_matrix_has_counts_shaded_by_row():
    counts = np.array([[8, 2], [0, 0]])
    figure = classification.confusion_matrix(counts, ('ham', 'spam'), title='test')
    (axes,) = figure.axes
    assert [t.get_text() for t in axes.texts] == ['8', '2', '0', '0']
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.8, 0.2], [0, 0]])
    assert axes.get_title('left') == 'test: accuracy 80.0%'
    figure.canvas.draw()
    assert [t.get_text() for t in axes.get_yticklabels()] == ['ham', 'spam']
    with pytest.raises(ValueError, match=r'expected counts \[3, 3\] for 3 names'):
        classification.confusion_matrix(counts, ('a', 'b', 'c'))


def test_the_images_of_highest_loss_come_first(monkeypatch):
    drawn = {}

    def rows(images, notes):
        drawn.update(rows=images, notes=notes)
        return style.figure(1, 1)

    monkeypatch.setattr(image_figures, 'rows', rows)
    p = np.array([[0.9, 0.1, 0], [0.2, 0.7, 0.1], [0.5, 0.3, 0.2], [0, 0.1, 0.9], [0.3, 0.3, 0.4]])
    labels = np.array([1, 1, 2, 0, 2])
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((5, 100, 50, 3), np.uint8)
    classification.top_losses(images, p, labels, ['cat', 'aeroplanes', 'dog'], n=5, columns=2)
    assert drawn['notes'] == {
        '1-2': ['cat → dog', 'aeroplan… → cat'],
        '3-4': ['dog → cat', 'dog → dog'],
    }
    for row, (a, b) in zip(drawn['rows'].values(), ((3, 0), (2, 4)), strict=True):
        assert row.shape == (2, 64, 32, 3)
        np.testing.assert_allclose(row.mean((1, 2, 3)) * 255, [a, b], atol=1e-4)


def test_the_images_of_highest_loss_are_drawn():
    images, labels = RNG.random((7, 8, 8, 1)), RNG.integers(0, 3, 7)
    p = RNG.random((7, 3))
    figure = classification.top_losses(images, p, labels, 'abc')
    assert figure.get_size_inches().min() > 1
