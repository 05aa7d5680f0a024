"""The figures of a sweep: metrics against the swept fields, and learning curves of the variants."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from lecture4.train import report as reports
from lecture4.train.metrics import EVAL, Metric, find, label_of, metric_of, name_of
from lecture4.train.sweep.results import Result, Setting

STD = 'standard deviation'
MOST_LINES = 14  # of a figure of the rows of a table: twice the number of colors


def short(value: Any) -> str:
    """A value of a swept field as it is printed: floats with four digits, tuples joined by commas."""
    if isinstance(value, tuple):
        return ','.join(map(short, value))
    return f'{value:.4g}' if isinstance(value, float) else str(value)


def sentence(words: str) -> str:
    """Words with a capital at the beginning."""
    return words[:1].upper() + words[1:]


def against(
    settings: Sequence[Setting],
    swept: Sequence[str],
    key: str,
    metric: Metric,
    declared: Sequence[Metric],
) -> dict[str, reports.Figure]:
    """The metric against each swept field that has several values.

    Args:
      settings: All settings.
      swept: Names of the swept fields except the seed.
      key: Key of the metric.
      metric: Its declaration.
      declared: The experiment's metrics.
    """
    from lecture4.figures import variants

    figures = {}
    for field in swept:
        if len({str(setting.fields[field]) for setting in settings}) < 2:
            continue
        others = [name for name in swept if name != field]
        lines: dict[str, list] = {}
        for setting in settings:
            name = ', '.join(f'{other} {short(setting.fields[other])}' for other in others)
            spread = setting.std(key)
            value = setting.fields[field]
            value = short(value) if isinstance(value, tuple) else value
            point = (value, setting.mean(key), spread)
            lines.setdefault(name, []).append(point)
        figure = variants.against(
            lines, field, metric.label if metric.unit == 'fraction' else metric.title,
            percent=metric.unit == 'fraction',
        )  # fmt: skip
        has_bars = any(setting.draws(key).size > 1 for setting in settings)
        bars = f'; mean over seeds, bars of one {STD}' if has_bars else ''
        caption = f'{sentence(label_of(declared, key))} against {field}{bars}.'
        figures[f'{key.replace("/", "_")}_against_{field}'] = reports.Figure(figure, caption)
    return figures


def rows_against(
    settings: Sequence[Setting],
    swept: Sequence[str],
    keys: Sequence[str],
    declared: Sequence[Metric],
) -> dict[str, reports.Figure]:
    """Metrics that a table has for several rows, such as layers, against the only swept field: a line per row.

    Args:
      settings: All settings.
      swept: Names of the swept fields except the seed; there are no figures unless it is one field of numbers, with
        at least three values.
      keys: Keys of results.json; those of a metric with more than `MOST_LINES` rows are not drawn.
      declared: The experiment's metrics.
    """
    from lecture4.figures import variants

    values = [setting.fields[swept[0]] for setting in settings] if len(swept) == 1 else []
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if len(set(map(str, values))) < 3 or not numeric:
        return {}
    figures = {}
    for metric in declared:
        rows = [key for key in keys if name_of(key) == metric.name and '/' in key]
        if not metric.better or not 2 <= len(rows) <= MOST_LINES:
            continue
        lines = {
            ', '.join(key.replace('_', ' ').split('/')[1:]): [
                (value, setting.mean(key), setting.std(key))
                for value, setting in zip(values, settings, strict=True)
            ]
            for key in rows
        }
        percent = metric.unit == 'fraction'
        label = metric.label if percent else metric.title
        crossed = all(row.count('/') == 2 for row in rows)  # by row and column of a table
        figure = variants.against(lines, swept[0], label, percent=percent, crossed=crossed)
        caption = f'{sentence(metric.label)} against {swept[0]}, for each row of its table.'
        figures[f'{metric.name}_rows_against_{swept[0]}'] = reports.Figure(figure, caption)
    return figures


def learning(
    results: Iterable[Result], swept: Sequence[str], declared: Sequence[Metric]
) -> dict[str, reports.Figure]:
    """Curves of all variants: of the metrics evaluated during training, or else of the first declared metric.

    A few variants get a panel for each value of the first field and a color for each of the others.

    Args:
      results: Results of all variants.
      swept: Names of the swept fields except the seed.
      declared: The experiment's metrics.
    """
    from lecture4.figures import style, variants

    runs = []
    for result in results:
        if result.rows:
            words = [f'{name} {short(result.fields[name])}' for name in swept]
            panel = words.pop(0) if len(words) > 1 else ''
            runs.append((panel, ', '.join(words), result.rows))
    n_panels, n_lines = (len({run[i] for run in runs}) for i in (0, 1))
    if n_panels > 3 or n_lines > len(style.COLORS):
        runs = [('', ', '.join(filter(None, run[:2])), run[2]) for run in runs]
    figures = {}
    for name in _drawn(runs, declared):
        metric = metric_of(declared, name)
        percent = metric.unit == 'fraction'
        label = metric.label if percent else metric.title
        figure = variants.learning_curves(runs, name, label=label, percent=percent)
        caption = f'{sentence(metric.label)} of every variant during training.'
        if len({run[1] for run in runs}) > len(style.COLORS):
            caption += ' From the first setting (dark) to the last (bright).'
        figures[f'learning_{name}'] = reports.Figure(figure, caption)
    return figures


def _drawn(runs, declared) -> list[str]:
    """Names of the metrics whose curves are drawn."""
    from lecture4.figures import variants

    if not runs:
        return []
    paired = [name for name in variants.paired(runs[0][2]) if find(declared, name) is not None]
    measured = {
        name.removeprefix(EVAL)
        for row in runs[0][2]
        for name, value in row.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }
    return paired or [metric.name for metric in declared if metric.name in measured][:1]
