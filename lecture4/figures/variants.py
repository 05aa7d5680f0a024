"""The variants of a sweep: learning curves, and a metric against a swept field."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from lecture4.figures import style

EVAL = 'eval/'  # prefix in metrics.jsonl of metrics evaluated during training
MOST_INSIDE = 4  # lines of a legend inside the axes
MOST_CHARACTERS = 45  # of tick labels that are not rotated


def paired(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of metrics that are logged both in training and, as eval/NAME, in evaluations."""
    names = {name for row in rows for name in row}
    return sorted(name for name in names if EVAL + name in names)


@style.context()
def learning_curves(
    runs: Sequence[tuple[str, str, Sequence[Mapping[str, Any]]]],
    metric: str,
    *,
    label: str = '',
    percent: bool = False,
    size: tuple[int | float, int | float] = (4.4, 3.3),
) -> Figure:
    """Curves of one metric, dashed in training, solid in evaluations; one color for each name.

    If there are more names than colors, they have shades from the first (dark) to the last (bright), and no legend.

    Args:
      runs: (panel, name, rows) of each run, rows as in metrics.jsonl. The panels share one scale, which extends to
        just above the largest value in the second half of all curves.
      metric: Key in the rows; `eval/` and the key are drawn too.
      label: Title of the vertical axis; if empty, the key in words.
      percent: Whether the values are fractions.
      size: Width and height of a panel, in inches.

    Raises:
      ValueError: No row holds the metric.
    """
    panels = list(dict.fromkeys(panel for panel, *_ in runs))
    names = list(dict.fromkeys(name for _, name, _ in runs))
    fig = style.figure(size[0] * len(panels), size[1] + 0.3, layout='constrained')
    grid = fig.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    many = len(names) > len(style.COLORS)
    shades = matplotlib.colormaps['viridis'](np.linspace(0, 0.9, len(names)))
    late, handles = [], {}
    for panel, name, rows in runs:
        axes = grid[panels.index(panel)]
        color = shades[names.index(name)] if many else style.COLORS[names.index(name)]
        for key, line in ((metric, '--'), (EVAL + metric, '-')):
            known = [(row['step'], row[key]) for row in rows if row.get(key) is not None]
            points = np.array(known, float).reshape(-1, 2)
            points = points[np.isfinite(points).all(1)]
            if len(points):
                x, y = points.T
                width = 0.9 if line == '--' else 1.7
                (handles[name],) = axes.plot(x, y, line, linewidth=width, color=color)
                late.append(y[len(y) // 2 :].max())
        axes.set_title(style.plain_text(panel))
        axes.set_xlabel('step')
    if not late:
        raise ValueError(f'no row has the metric {metric!r}: nothing to draw')
    grid[0].set_ylabel(style.plain_text(label or metric.replace('_', ' ')))
    if max(late) > 0:
        grid[0].set_ylim(min(0, min(late)), 1.15 * max(late))
    if percent:
        grid[0].yaxis.set_major_formatter(FuncFormatter(_percent))
    shown = [] if many else [name for name in names if name in handles]
    fig.legend(
        [handles[name] for name in shown],
        [style.plain_text(name) for name in shown],
        loc='outside right upper',
        title='- - training\n— evaluation',
        title_fontsize=8,
        alignment='left',
    )
    return fig


@style.context()
def against(
    lines: Mapping[str, Sequence[tuple[Any, int | float, int | float]]],
    field: str,
    label: str,
    *,
    percent: bool = False,
    crossed: bool = False,
) -> Figure:
    """A metric against a swept field, with one line for each setting of the other fields.

    More settings than colors have dashed lines; more than twice as many are gray, without a legend.

    Args:
      lines: Setting of the other fields -> (value of the field, mean, standard deviation) of each point; nan if there
        is none.
      field: Title of the horizontal axis. Positive numbers over more than a factor of 30 get a log
        scale; values that are not numbers are equally spaced.
      label: Title of the vertical axis.
      percent: Whether the values are fractions.
      crossed: Whether names are 'A, B': lines of equal A have one color, those of equal B are solid, dashed or dotted.
    """
    values = list(dict.fromkeys(value for points in lines.values() for value, *_ in points))
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    n_colors = len(style.COLORS)
    many = len(lines) > 2 * n_colors
    is_outside = MOST_INSIDE < len(lines) <= 2 * n_colors
    figure = style.figure(7.6 if is_outside else 5.6, 3.4, layout='constrained')
    axes = figure.add_subplot()
    keys = [tuple(name.partition(', ')[::2]) if crossed else (name, '') for name in lines]
    firsts, seconds = (list(dict.fromkeys(key[i] for key in keys)) for i in (0, 1))
    for (name, points), (first, second) in zip(lines.items(), keys, strict=True):
        i = firsts.index(first)
        dashes = seconds.index(second) if crossed else i // n_colors
        points = sorted(points) if numeric else points
        stds = np.nan_to_num([std for *_, std in points])
        axes.errorbar(
            [value if numeric else values.index(value) for value, *_ in points],
            [mean for _, mean, _ in points],
            yerr=stds if stds.any() else None,
            marker=style.MARKERS[i % n_colors],
            linestyle='-' if many else ('-', '--', ':')[min(dashes, 2)],
            capsize=3,
            color=style.FAINT if many else style.COLORS[i % n_colors],
            label=style.plain_text(name) or None,
        )
    if not numeric:
        names = [style.plain_text(value) for value in values]
        is_long = sum(map(len, names)) > MOST_CHARACTERS
        rotation = {'rotation': 35, 'ha': 'right'} if is_long else {}
        axes.set_xticks(range(len(values)), names, **rotation)
    elif min(values) > 0 and max(values) > 30 * min(values):
        axes.set_xscale('log')
    if percent:
        axes.yaxis.set_major_formatter(FuncFormatter(_percent))
    axes.set_xlabel(style.plain_text(field))
    axes.set_ylabel(style.plain_text(label))
    if is_outside:
        figure.legend(loc='outside right upper')
    elif any(lines) and not many:
        axes.legend()
    return figure


def _percent(value, _):
    return f'{100 * value:g}%'
