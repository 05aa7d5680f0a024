"""Figures hold the n-grams and their activations."""

import numpy as np
import pytest

from lecture4.figures import text

GROUPS = {
    'good': [('3 words, filter 7', [('a $b c', 2.0), ('d e f', 0.5)]), ('3 words, filter 8', [])],
    'bad': [('5 words, filter 201', [('very ' * 20, 1.0)])],
}


def test_every_ngram_is_drawn_with_its_activation():
    figure = text.top_ngrams(GROUPS, title='filters')
    figure.canvas.draw()
    titles = [axes.get_title('left') for axes in figure.axes]
    assert titles == [
        'good: 3 words, filter 7',
        'good: 3 words, filter 8',
        'bad: 5 words, filter 201',
    ]
    first, empty, long = figure.axes
    assert [t.get_text() for t in first.texts] == [r'a \$b c', '2.00', 'd e f', '0.50']
    np.testing.assert_allclose([bar.get_width() for bar in first.patches], [1, 0.25])
    assert [t.get_text() for t in empty.texts] == ['never active']
    assert long.texts[0].get_text().endswith('…')
    assert first.patches[0].get_facecolor() != long.patches[0].get_facecolor()
    for axes in figure.axes:  # nothing is cut off at the figure's edge
        for t in (*axes.texts, axes.title):
            box = t.get_window_extent()
            assert (
                box.x0 >= 0 and box.x1 <= figure.bbox.width + 1 and box.y1 <= figure.bbox.height + 1
            )
    with pytest.raises(ValueError, match='no filter'):
        text.top_ngrams({'good': []})
