"""Curves of a sweep show each run's numbers in its panel and its color."""

import numpy as np
import pytest

from lecture4.figures import style, variants


def rows(shift):
    found = [{'step': n, 'error': 50.0 - n - shift, 'loss': 1.0} for n in range(10)]
    return [
        *found,
        {'step': 5, 'eval/error': 60.0 - shift},
        {'step': 9, 'error': float('inf')},
    ]


def test_a_panel_a_value_and_a_color_a_name():
    runs = [
        ('plain', 'depth 20', rows(0)),
        ('plain', 'depth 56', rows(1)),
        ('deep', 'depth 56', rows(2)),
    ]
    assert variants.paired(rows(0)) == ['error']
    figure = variants.learning_curves(runs, 'error')
    plain, deep = figure.axes
    assert [axes.get_title('left') for axes in figure.axes] == ['plain', 'deep']
    colors = [line.get_color() for line in plain.lines]
    assert colors == [style.COLORS[0]] * 2 + [style.COLORS[1]] * 2
    training, evaluated = deep.lines
    assert training.get_color() == style.COLORS[1] and training.get_linestyle() == '--'
    np.testing.assert_array_equal(training.get_ydata(), 48 - np.arange(10.0))
    np.testing.assert_array_equal(evaluated.get_ydata(), [58])
    assert plain.get_ylim()[1] == pytest.approx(1.15 * 60)
    with pytest.raises(ValueError, match="no row has the metric 'accuracy'"):
        variants.learning_curves(runs, 'accuracy')


def test_lines_and_values_of_a_large_sweep_are_distinct():
    names = [f'a network of kind {i}' for i in range(9)]
    lines = {name: [(value, float(i), 0.0) for value in names] for i, name in enumerate(names)}
    figure = variants.against(lines, 'network', 'error')
    (axes,) = figure.axes
    drawn = [(bars[0].get_color(), bars[0].get_linestyle()) for bars in axes.containers]
    assert len(set(drawn)) == len(names)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == names
    figure.draw_without_rendering()
    assert {label.get_rotation() for label in axes.get_xticklabels()} == {35.0}
