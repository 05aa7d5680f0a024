"""Figures of detections: colors by outcome, panels by class, bars that add up, anchors in one color a size."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from lecture4.figures import detection

RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(256, size=(40, 60, 3), dtype=np.uint8), RNG.random((50, 30, 1))]
BOXES = [np.array([[5, 5, 20, 30], [30, 10, 50, 30.0]]), np.zeros((0, 4))]


def edges(axes):
    return [(to_hex(p.get_edgecolor()), p.get_linestyle()) for p in axes.patches]


def test_colors_say_correct_false_and_missed(tmp_path):
    made = detection.detections(
        IMAGES, BOXES, [np.array([1, 2]), np.zeros(0, int)], [np.array([0.9, 0.5]), np.zeros(0)],
        [np.array([True, False]), np.zeros(0, bool)], ('a$b', 'dog'),
        missed=[np.zeros((0, 4)), np.array([[1, 1, 9, 9]])], missed_labels=[np.zeros(0, int), np.array([2])],
    )  # fmt: skip
    first, second = made.axes
    assert edges(first) == [(detection.CORRECT, '-'), (detection.FALSE, '-')]
    assert edges(second) == [(detection.MISSED, '--')]
    assert [t.get_text() for t in first.texts] == [r'a\$b 0.90', 'dog 0.50']
    made.savefig(tmp_path / 'x.png')


def test_as_many_of_everything():
    with pytest.raises(ValueError, match='as many images, boxes'):
        detection.detections(IMAGES, BOXES[:1], [], [], [], ())
    with pytest.raises(ValueError, match='as many maps as images'):
        detection.objectness(IMAGES, [])


def test_precision_and_recall_have_a_panel_per_class(tmp_path):
    recall, precision = np.linspace(0, 0.8, 9), np.linspace(1, 0.4, 9)
    curves = {f'class {i}': (recall, precision, 0.5) for i in range(6)} | {
        'empty': (recall, precision, np.nan)
    }
    made = detection.precision_recall(curves)
    assert made.axes[0].lines[0].get_xdata()[0] == 0
    detection.precision_recall({'none': (recall[:0], precision[:0], 0.0)})
    titles = [axes.get_title(loc='left') for axes in made.axes if axes.lines]
    assert titles[0] == 'class 0  50.0 %' and titles[-1] == 'empty' and len(titles) == 7
    made.savefig(tmp_path / 'x.png')
    with pytest.raises(ValueError, match='at least one class'):
        detection.precision_recall({})


def test_error_bars_add_up(tmp_path):
    made = detection.error_types(np.array([[5, 1, 2, 1, 1], [0, 0, 0, 0, 0]]), ('cat', 'dog'))
    (axes,) = made.axes
    widths = np.array([[bar.get_width() for bar in bars] for bars in axes.containers])
    np.testing.assert_allclose(widths.sum(0), [100, 0, 100])
    made.savefig(tmp_path / 'x.png')
    with pytest.raises(ValueError, match=r'expected counts \[1, 5\]'):
        detection.error_types(np.zeros((2, 5), int), ('cat',))


def test_anchors_of_one_size_have_one_color(tmp_path):
    sizes = [(16, 8), (8, 16), (32, 16), (16, 32)]
    boxes = np.array([[20 - w, 20 - h, 20 + w, 20 + h] for w, h in sizes])
    matched = np.array([True, False, False, False])
    made = detection.anchors(IMAGES[0], boxes, matched=matched, objects=BOXES[0])
    (axes,) = made.axes
    colors = [color for color, _ in edges(axes)]
    assert colors[0] == colors[1] != colors[2] == colors[3]
    assert axes.patches[0].get_linewidth() > axes.patches[1].get_linewidth()
    made.savefig(tmp_path / 'x.png')


def test_maps_cover_their_image_and_fields_their_region(tmp_path):
    made = detection.objectness(IMAGES, [np.ones((3, 4)), np.zeros((5, 3))], boxes=BOXES)
    assert [tuple(axes.images[1].get_extent()) for axes in made.axes[:2]] == [
        (-0.5, 59.5, 39.5, -0.5),
        (-0.5, 29.5, 49.5, -0.5),
    ]
    made.savefig(tmp_path / 'x.png')
    made = detection.receptive_fields(IMAGES[:1], BOXES[:1], [BOXES[0] + [-5, -5, 5, 5]])
    assert [line for _, line in edges(made.axes[0])] == ['-', '--', '-', '--']


def test_recall_is_in_percent(tmp_path):
    made = detection.proposal_recall(
        {'x': ([10, 100], [0.2, 0.5])}, {'y': ([0.5, 0.9], [0.5, 0.1])}
    )
    np.testing.assert_allclose(made.axes[0].lines[0].get_ydata(), [20, 50])
    made.savefig(tmp_path / 'x.png')
