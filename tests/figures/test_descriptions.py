"""Figures of images and sentences hold what they were given."""

import numpy as np
import pytest

from lecture4.figures import descriptions

IMAGES = list(np.random.default_rng(0).random((3, 12, 16, 3)))
BOXES = [np.array([[0.0, 0, 16, 12], [2, 2, 8, 8]])] * 3


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_segments_have_the_colors_of_their_regions():
    parts = [[('a dog', 1, 0.5), ('on grass', 0, 1.25)]] * 3
    figure = descriptions.segments(IMAGES, BOXES, parts, columns=2)
    assert texts(figure)[:2] == [' 0.50  a dog', ' 1.25  on grass']
    first, text = figure.axes[0], figure.axes[1].texts
    edges = [patch.get_edgecolor() for patch in first.patches]
    assert len(edges) == 2 and edges[0] != edges[1] and text[0].get_color() != text[1].get_color()
    without = descriptions.segments(IMAGES, BOXES, parts, scores=False)
    assert texts(without)[0] == 'a dog'


def test_samples_show_all_texts():
    figure = descriptions.samples(
        IMAGES, [[('generated', 'a $ dog'), ('reference', 'x ' * 60)]] * 3
    )
    found = texts(figure)
    assert found[0] == r'generated: a \$ dog' and len(found) > 6


def test_attention_has_an_image_per_word():
    figure = descriptions.attention(IMAGES[0], BOXES[0], ['a', 'dog', 'END'], np.full((3, 2), 0.5))
    assert [axes.get_title() for axes in figure.axes][:3] == ['a', 'dog', 'END']


def test_lengths_that_differ_are_refused():
    with pytest.raises(ValueError, match='expected as many texts as images'):
        descriptions.samples(IMAGES, [[('a', 'b')]])
