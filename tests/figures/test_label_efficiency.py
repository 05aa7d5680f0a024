"""The table of settings shows examples, labels and dashes, inside the figure."""

import numpy as np
import pytest

from lecture4.figures import label_efficiency
from lecture4.figures.label_efficiency import Examples


def example(n=3, size=8):
    images = np.random.default_rng(0).uniform(size=(n, size, size))
    return Examples(images, tuple('5?7')[:n], '100 images')


def test_examples_labels_and_dashes_have_their_positions():
    rows = {
        'supervised': [example(), None, 'chance'],
        'semi-supervised': [example(), example(2, 30), 'an oracle,\nin rounds'],
    }
    figure = label_efficiency.data_table(
        rows, ['labeled', 'unlabeled', 'who\nchooses'], title='map'
    )
    assert len(figure.axes) == 3 + 3 + 2
    small, large = figure.axes[0], figure.axes[-1]
    np.testing.assert_allclose(
        small.images[0].get_array()[:, :, 0], rows['supervised'][0].images[0]
    )
    assert small.get_window_extent().width == pytest.approx(24)  # 8 pixels, each of 3 by 3
    assert large.images[0].get_array().shape == (15, 15, 3)  # every second pixel of 30
    texts = [text.get_text() for text in figure.texts]
    assert texts.count('?') == 3 and texts.count('7') == 2 and texts.count('100 images') == 3
    assert texts.count('\N{EN DASH}') == 1
    figure.canvas.draw()
    width, height = figure.canvas.get_width_height()
    boxes = {}
    for text in figure.texts:
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height, text
        boxes[text] = box
    for axes in figure.axes:  # no text on a image
        extent = axes.get_window_extent()
        assert not any(box.overlaps(extent) for box in boxes.values())
    dash = next(text for text in figure.texts if text.get_text() == '\N{EN DASH}')
    header = next(text for text in figure.texts if text.get_text() == 'unlabeled')
    assert dash.get_position()[0] == header.get_position()[0]


def test_examples_are_evenly_spaced():
    images = np.arange(10)[:, None, None, None] * np.ones((1, 3, 3, 1))
    hidden = label_efficiency.evenly_spaced(images)
    assert hidden.images[:, 0, 0].tolist() == [0, 3, 6, 9] and hidden.note == '10 images'
    assert hidden.labels == ('?',) * 4
    assert label_efficiency.evenly_spaced(images, 'abcdefghij').labels == ('a', 'd', 'g', 'j')
    few = label_efficiency.select(images, [7, 2], ['x', 'y'], '1 label per class')
    assert few.images[:, 0, 0].tolist() == [7, 2] and few.labels == ('x', 'y')


def test_errors():
    with pytest.raises(ValueError, match='no setting'):
        label_efficiency.data_table({}, ['a'])
    with pytest.raises(ValueError, match="row 'x' has 2 cells for 1 columns"):
        label_efficiency.data_table({'x': [None, None]}, ['a'])
