"""The pictures hold the words, the counts and the shares that they were given."""

import numpy as np
import pytest

from lecture4.figures import text

GROUPS = {
    'good': [('3 words, filter 7', [('a $b c', 2.0), ('d e f', 0.5)]), ('3 words, filter 8', [])],
    'bad': [('5 words, filter 201', [('very ' * 20, 1.0)])],
}


def test_firing_draws_every_ngram_with_its_strength():
    figure = text.firing(GROUPS, title='filters')
    figure.canvas.draw()
    titles = [axes.get_title('left') for axes in figure.axes]
    assert titles == [
        'good: 3 words, filter 7',
        'good: 3 words, filter 8',
        'bad: 5 words, filter 201',
    ]
    first, silent, long = figure.axes
    assert [t.get_text() for t in first.texts] == ['a $b c', '2.00', 'd e f', '0.50']
    np.testing.assert_allclose([bar.get_width() for bar in first.patches], [1, 0.25])
    assert [t.get_text() for t in silent.texts] == ['never fires']
    assert long.texts[0].get_text().endswith('…')
    assert first.patches[0].get_facecolor() != long.patches[0].get_facecolor()
    for axes in figure.axes:  # nothing is cut off at the figure's edge
        for t in (*axes.texts, axes.title):
            box = t.get_window_extent()
            assert (
                box.x0 >= 0 and box.x1 <= figure.bbox.width + 1 and box.y1 <= figure.bbox.height + 1
            )
    with pytest.raises(ValueError, match='no filter'):
        text.firing({'good': []})


def test_confusion_is_counts_shaded_by_row():
    counts = np.array([[8, 2], [0, 0]])
    figure = text.confusion(counts, ('ham', 'spam'), title='test')
    (axes,) = figure.axes
    assert [t.get_text() for t in axes.texts] == ['8', '2', '0', '0']
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.8, 0.2], [0, 0]])
    assert axes.get_title('left') == 'test: 80.0% right'
    figure.canvas.draw()
    assert [t.get_text() for t in axes.get_yticklabels()] == ['ham', 'spam']
    with pytest.raises(ValueError, match=r'wanted counts \[3, 3\]'):
        text.confusion(counts, ('a', 'b', 'c'))
