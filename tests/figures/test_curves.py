"""Curves show the numbers passed to them."""

import itertools

import matplotlib.colors
import numpy as np
import pytest

from lecture4.figures import curves, style


def panel(figure, title):
    return next(axes for axes in figure.axes if axes.get_title('left') == title)


def screen(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[:, :, :3].astype(int)


def ink(figure, color):
    """How many pixels of the screen have just that color."""
    wanted = np.round(255 * np.array(matplotlib.colors.to_rgb(color)))
    return int((screen(figure) == wanted).all(2).sum())


def test_learning_has_a_panel_per_metric_and_gaps_where_nothing_is_known():
    rows = [
        {'step': 0, 'loss': 2.0, 'dead': 3, 'done': False, 'note': 'text'},
        {'step': 10, 'loss': None, 'dead': 2},
        {'step': 20, 'loss': float('nan'), 'dead': 2, 'eval/loss': 1.5},
        {'step': 30, 'loss': 1.0, 'dead': 0, 'eval/loss': float('inf')},
        {'started': 5.0},
    ]
    figure = curves.learning_curves(rows, title='run')
    assert [axes.get_title('left') for axes in figure.axes] == ['loss', 'dead']
    training, evaluation = panel(figure, 'loss').lines
    assert training.get_xdata().tolist() == [0, 10, 20, 30]
    np.testing.assert_array_equal(training.get_ydata(), [2, np.nan, np.nan, 1])
    assert evaluation.get_xdata().tolist() == [20, 30]
    np.testing.assert_array_equal(evaluation.get_ydata(), [1.5, np.nan])
    labels = [text.get_text() for text in panel(figure, 'loss').get_legend().get_texts()]
    assert labels == ['training', 'evaluation']
    assert panel(figure, 'dead').get_legend() is None
    assert ink(figure, style.COLORS[0]) > 100 and ink(figure, style.COLORS[1]) > 10


def test_learning_scales_are_logarithmic_where_it_helps():
    steps = np.arange(20)
    values = {
        'gap': 10.0 ** -(steps / 4),
        'small_change': 1 + steps / 20,
        'reaches_zero': np.maximum(10.0 - steps, 0),
        'signed': np.where(steps % 2, -1.0, 100.0),
    }
    rows = [{'step': int(s), **{n: float(v[s]) for n, v in values.items()}} for s in steps]
    figure = curves.learning_curves(rows)
    scales = {axes.get_title('left'): axes.get_yscale() for axes in figure.axes}
    assert scales == {
        'gap': 'log',
        'small change': 'linear',
        'reaches zero': 'linear',
        'signed': 'linear',
    }
    chosen = curves.learning_curves(rows, metrics=['signed', 'gap'])
    assert [axes.get_title('left') for axes in chosen.axes] == ['signed', 'gap']
    screen(figure)


def test_long_runs_get_a_running_mean():
    n = 1000
    rows = [{'step': s, 'loss': 3.0 + (-1) ** s, 'gap': 1.0} for s in range(n)]
    for s in range(400, 600):
        rows[s]['gap'] = float('nan')
    figure = curves.learning_curves(rows)
    raw, mean = panel(figure, 'loss').lines
    assert len(raw.get_xdata()) == n and raw.get_alpha() < 1
    assert abs(mean.get_ydata() - 3).max() < 0.05
    step = mean.get_xdata()
    assert step[0] > 0 and step[-1] < n and np.allclose(step, 999 - step[::-1])  # centred
    gap = panel(figure, 'gap').lines[1]
    unknown = np.isnan(gap.get_ydata())
    assert unknown[(gap.get_xdata() > 402) & (gap.get_xdata() < 597)].all()
    assert (gap.get_ydata()[~unknown] == 1).all()


def test_learning_uses_declared_labels_order_and_percent():
    rows = [
        {'step': n, 'loss': 1.0 - n, 'a_error': 0.1, 'eval/a_error/top5': 0.05} for n in range(3)
    ]
    figure = curves.learning_curves(
        rows, labels={'a_error': 'error', 'loss': 'loss (nats)'}, percent={'a_error'}
    )
    assert [axes.get_title('left') for axes in figure.axes] == ['error', 'loss (nats)']
    error = panel(figure, 'error')
    assert error.yaxis.get_major_formatter()(0.1, 0) == '10%'
    assert [text.get_text() for text in error.get_legend().get_texts()] == [
        'training',
        'evaluation, top5',
    ]


def test_labels_of_rates_over_decades_do_not_collide():
    rows = [{'step': i, 'recall': value} for i, value in enumerate((0.003, 0.02, 0.2, 0.44))]
    figure = curves.learning_curves(rows, percent=('recall',))
    figure.canvas.draw()
    (axes,) = figure.axes
    both = [axes.get_yticklabels(minor=minor) for minor in (False, True)]
    shown = [text for texts in both for text in texts if text.get_text()]
    boxes = sorted((text.get_window_extent() for text in shown), key=lambda box: box.y0)
    assert len(boxes) > 1
    assert all(low.y1 <= high.y0 for low, high in itertools.pairwise(boxes))


def test_qualifiers_have_a_color_each():
    rows = [
        {'step': n, 'eval/e/a': 1.0, 'e/a': 2.0, 'eval/e/b': 3.0, 'l/a': 1.0, 'l/b': 2.0}
        for n in (0, 1)
    ]
    figure = curves.learning_curves(rows)
    both, training = panel(figure, 'e'), panel(figure, 'l')
    assert [(line.get_label(), line.get_color(), line.get_linestyle()) for line in both.lines] == [
        ('evaluation, a', style.COLORS[0], '-'),
        ('training, a', style.COLORS[0], '--'),
        ('evaluation, b', style.COLORS[1], '-'),
    ]
    assert [line.get_label() for line in training.lines] == ['a', 'b']
    many = curves.learning_curves(
        [{'step': n, **{f'e/{i}': 1.0 for i in range(8)}} for n in (0, 1)]
    ).axes[0]
    assert len({(line.get_color(), line.get_linestyle()) for line in many.lines}) == 8


@pytest.mark.parametrize(('n', 'legends'), [(14, 1), (15, 0)])
def test_many_lines_have_no_legend(n, legends):
    rows = [{'step': step} | {f'loss/{i}': i + step for i in range(n)} for step in (1, 2)]
    assert len(curves.learning_curves(rows).legends) == legends


def test_counters_that_stayed_zero_have_no_panel():
    rows = [
        {'step': n, 'dead': 0, 'eval/dead': 0, 'loss': 1.0, 'late': int(n == 2)} for n in range(3)
    ]
    figure = curves.learning_curves(rows)
    assert [axes.get_title('left') for axes in figure.axes] == ['loss', 'late']
    assert len(curves.learning_curves([{'step': 0, 'dead': 0}]).axes) == 1  # nothing else to draw
    assert len(curves.learning_curves(rows, metrics=['dead']).axes) == 1


def test_learning_errors():
    with pytest.raises(ValueError, match="no row has 'step'"):
        curves.learning_curves([{'loss': 1.0}])
    with pytest.raises(ValueError, match="no row has the metric 'lss'; there are: loss"):
        curves.learning_curves([{'step': 1, 'loss': 1.0}], metrics=['lss'])


def test_accuracy_shows_means_errors_and_plain_numbers():
    rng = np.random.default_rng(0)
    given = {'raw': rng.uniform(0.3, 0.4, (4, 20)), 'codes': rng.uniform(0.9, 1.0, (4, 20))}
    figure = curves.label_curve(given, (1, 2, 5, 20), chance=1 / 3, title='textures')
    (axes,) = figure.axes
    assert axes.get_xscale() == 'log'
    figure.canvas.draw()
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ['1', '2', '5', '20']
    assert all(tick.get_text().endswith('%') for tick in axes.get_yticklabels())
    for container, values in zip(axes.containers, given.values(), strict=True):
        line, _, (bars,) = container.lines
        mean = values.mean(1)
        np.testing.assert_allclose(line.get_ydata(), mean)
        np.testing.assert_allclose(line.get_xdata(), [1, 2, 5, 20], rtol=0.02)
        error = np.sqrt(((values - mean[:, None]) ** 2).sum(1) / 19 / 20)
        ends = np.array([segment[:, 1] for segment in bars.get_segments()])
        np.testing.assert_allclose(ends, np.stack([mean - error, mean + error], 1))
    texts = [text.get_text() for text in axes.texts]
    assert texts == [f'{100 * v[-1].mean():.1f}%' for v in given.values()] + ['chance']
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ['raw', 'codes']
    assert '20 trials' in axes.get_legend().get_title().get_text()
    levels = [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == '--']
    assert levels == [1 / 3]
    assert ink(figure, style.COLORS[0]) > 200 and ink(figure, style.COLORS[1]) > 200


def test_equal_accuracies_are_written_apart():
    same = np.full((2, 3), 0.97)
    figure = curves.label_curve(dict.fromkeys('abcd', same), (1, 10), chance=0.1)
    screen(figure)
    boxes = sorted(
        (text.get_window_extent() for text in figure.axes[0].texts), key=lambda box: box.y0
    )
    assert all(low.y1 <= high.y0 + 2 for low, high in itertools.pairwise(boxes))


def test_labels_of_curves_that_end_together_stay_inside():
    rng = np.random.default_rng(0)
    given = {str(i): np.sort(rng.uniform(0.9, 0.96, (3, 4)), 0) + 0.001 * i for i in range(7)}
    given['low'] = given.pop('0') - np.array([[0.5], [0.3], [0.0]])
    figure = curves.label_curve(given, (1, 5, 20), chance=0.2)
    screen(figure)
    (axes,) = figure.axes
    boxes = sorted((text.get_window_extent() for text in axes.texts), key=lambda box: box.y0)
    assert boxes[-1].y1 <= axes.get_window_extent().y1 + 8  # half a line
    assert all(low.y1 <= high.y0 + 2 for low, high in itertools.pairwise(boxes))
    heights = {text.get_text(): text.get_position()[1] for text in axes.texts}
    ends = sorted(100 * values[-1].mean() for values in given.values())
    found = [heights[f'{end:.1f}%'] for end in ends]
    assert found == sorted(found)


def test_one_trial_has_no_error_bar():
    figure = curves.label_curve({'raw': np.array([[0.5], [0.75]])}, (100, 1000), xlabel='labels')
    (container,) = figure.axes[0].containers
    assert not container.lines[2]
    assert figure.axes[0].get_xlabel() == 'labels'
    screen(figure)


def test_accuracy_errors():
    with pytest.raises(ValueError, match=r"'raw' has shape \(3, 2\).*4 label counts"):
        curves.label_curve({'raw': np.ones((3, 2))}, (1, 2, 5, 20))
    with pytest.raises(ValueError, match='no curve'):
        curves.label_curve({}, (1, 2))


def test_usage_is_sorted_and_dead_atoms_come_last():
    frequency = np.array([0.0, 0.2, 0.01, 0.4, 0.0])
    figure = curves.atom_usage(frequency)
    (axes,) = figure.axes
    outline = axes.collections[0].get_paths()[0].vertices
    heights = [outline[outline[:, 0] == x, 1].max() for x in (0.0, 1.0, 2.0)]
    np.testing.assert_allclose(heights, [0.4, 0.4, 0.2])  # at a step's edge the left one is higher
    assert axes.get_yscale() == 'log'
    (span,) = axes.patches
    assert (span.get_x(), span.get_width()) == (3, 2)
    assert axes.get_title('left') == '2 of 5 atoms dead'
    assert any('12.2%' in text.get_text() for text in axes.texts)
    right = screen(figure)[:, figure.canvas.get_width_height()[0] // 2 :]
    assert ((right[:, :, 0] > right[:, :, 2] + 40).sum(1) > 50).any()  # the orange band


def test_usage_takes_a_mask_and_all_dead():
    figure = curves.atom_usage(np.array([0.3, 0.2, 0.1]), dead=[False, True, False], title='t')
    assert figure.axes[0].get_title('left') == 't: 1 of 3 atoms dead'
    figure = curves.atom_usage(np.zeros(4))
    assert figure.axes[0].get_title('left') == '4 of 4 atoms dead'
    assert figure.axes[0].get_ylim()[0] == 0
    screen(figure)
    with pytest.raises(ValueError, match=r'\[k\]'):
        curves.atom_usage(np.ones(3), dead=[True])
