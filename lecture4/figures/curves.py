"""Curves: metrics during training, accuracy against labels, usage of atoms."""

import math
import numbers
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Bool, Real
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)

from lecture4.figures import style

MAX_LEGEND = 3  # lines of a panel up to which it has a legend of its own
MAX_SHARED_LEGEND = 14  # lines of all panels up to which they have a legend


@style.context()
def learning_curves(
    rows: Iterable[Mapping[str, Any]],
    *,
    metrics: Sequence[str] | None = None,
    labels: Mapping[str, str] | None = None,
    percent: Container[str] = (),
    x: str = 'step',
    columns: int = 3,
    title: str = '',
) -> Figure:
    """Small multiples of a run's metrics, one panel for each quantity.

    A key NAME, eval/NAME or NAME/QUALIFIER... is a line in the panel NAME, one color for each
    qualifier, dashed for training if there are evaluations too. A positive metric that spans more than a factor of 30
    gets a log scale. If a line has more than 200 points, their running mean is drawn over them. A training metric
    NAME next to its NAME/QUALIFIER is their sum and is left out. Panels with many lines share one legend; with
    more than 14 they have none.

    Args:
      rows: Dicts as in metrics.jsonl: `x` and any metrics; a metric may be missing from rows (such as evaluations)
        and may be None or not finite (a gap in the line).
      metrics: Keys to draw, in this order; None draws all that are numbers in some row, those of `labels` first in
        their order, without counters that are always 0.
      labels: NAME -> title of its panel; by default the name without underscores.
      percent: NAMEs of fractions, whose axes are in percent.
      x: Key of the horizontal axis.
      columns: Largest number of panels in a row.
      title: Title of the figure.

    Raises:
      ValueError: No row has `x` and a metric, or a key of `metrics` is in no row.
    """
    labels = labels or {}
    points: dict[str, list] = {}
    for row in rows:
        for key, value in row.items():
            if key != x and x in row and (value is None or _is_number(value)):
                points.setdefault(key, []).append((row[x], _finite(value)))
    if metrics is None:
        finite = [
            key
            for key, values in points.items()
            if np.isfinite([value for _, value in values]).any()
        ]
        moved = [key for key in finite if any(value for _, value in points[key])]
        order = {name: i for i, name in enumerate(labels)}
        metrics = sorted(moved or finite, key=lambda key: order.get(_panel(key), len(order)))
    for key in metrics:
        if key not in points:
            raise ValueError(f'no row has the metric {key!r}; there are: {", ".join(points)}')
    if not metrics:
        raise ValueError(f'no row has {x!r} and a metric: nothing to draw')
    panels: dict[str, list[str]] = {}
    for key in metrics:
        panels.setdefault(_panel(key), []).append(key)
    for keys in panels.values():  # a training loss next to the losses that it is the sum of
        parts = [key for key in keys if '/' in key and not key.startswith('eval/')]
        keys[:] = [key for key in keys if '/' in key or not parts]
    qualifiers = list(dict.fromkeys(filter(None, map(_qualifier, metrics))))
    is_shared, entries = max(map(len, panels.values())) > MAX_LEGEND, {}
    columns = min(columns, len(panels))
    lines = -(-len(panels) // columns)
    fig = style.figure(2.9 * columns + 0.3, 2.0 * lines + 0.3, layout='constrained')
    grid = fig.subplots(lines, columns, squeeze=False, sharex=True).ravel()
    for axes, (panel, keys) in zip(grid, panels.items(), strict=False):
        for key, (label, color, line) in zip(keys, _line_styles(keys, qualifiers), strict=True):
            at, value = np.array(sorted(points[key], key=lambda point: point[0]), float).T
            _line(axes, at, value, color, style.plain_text(label), line)
        axes.set_title(style.wrapped(labels.get(panel, panel.replace('_', ' ')), 2.9))
        if len(keys) > 1 and is_shared:
            entries |= {line.get_label(): line for line in axes.lines if line.get_label()[0] != '_'}
        elif len(keys) > 1:
            axes.legend()
        values = np.concatenate([np.array(points[key], float)[:, 1] for key in keys])
        _scale(axes, values[np.isfinite(values)])
        if panel in percent:
            axes.yaxis.set_major_formatter(FuncFormatter(_percent))
            axes.yaxis.set_minor_formatter(NullFormatter())  # of a log scale: its labels collide
    for axes in grid[len(panels) :]:
        axes.remove()
    for axes in grid[max(0, len(panels) - columns) : len(panels)]:
        axes.tick_params(labelbottom=True)
        axes.set_xlabel(style.plain_text(x))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
    if 0 < len(entries) <= MAX_SHARED_LEGEND:
        style.legend_outside(fig, list(entries.values()), list(entries))
    if title:
        fig.suptitle(style.plain_text(title), x=0.01, ha='left')
    return fig


def _qualifier(key: str) -> str:
    """The qualifiers of a key of metrics.jsonl: 'cat' of 'eval/recall/cat'."""
    return ', '.join(key.removeprefix('eval/').split('/')[1:])


def _panel(key: str) -> str:
    """The quantity of a key of metrics.jsonl: 'recall' of 'eval/recall/cat'."""
    return key.removeprefix('eval/').partition('/')[0]


def _line_styles(keys: Sequence[str], qualifiers: Sequence[str]) -> list[tuple[str, str, str]]:
    """Label, color and line of each key of a panel: a color for each qualifier, training dashed."""
    kinds = ['evaluation' if key.startswith('eval/') else 'training' for key in keys]
    is_qualified, has_both = any(map(_qualifier, keys)), len(set(kinds)) > 1
    distinct = [*qualifiers, ''] if is_qualified else list(dict.fromkeys(kinds))
    styles = []
    for kind, key in zip(kinds, keys, strict=True):
        qualifier = _qualifier(key)
        words = [kind, qualifier] if has_both or not qualifier else [qualifier]
        i = distinct.index(qualifier if is_qualified else kind)
        dashed = is_qualified and kind == 'training' and has_both
        line = '--' if dashed else '-' if i < 7 else ':' if i < 14 else '-.'
        styles.append((', '.join(filter(None, words)), style.COLORS[i % 7], line))
    return styles


@style.context()
def label_curve(
    curves: Mapping[str, Real[np.ndarray | Array, 'counts trials']],
    labels_per_class: Sequence[int | float],
    *,
    chance: int | float | None = None,
    title: str = '',
    xlabel: str = 'labels per class',
) -> Figure:
    """Mean accuracy against the number of labels, with standard errors of the mean over trials.

    Args:
      curves: Name -> accuracies in [0, 1], drawn in this order. The last means are printed at the right of the
        curves; a single trial has no error bar.
      labels_per_class: The numbers of labels.
      chance: Chance accuracy, drawn as a dashed line.
      title: Title.
      xlabel: Title of the horizontal axis.

    Raises:
      ValueError: An array is not [len(labels_per_class), trials], or there is no curve.
    """
    labels = np.asarray(labels_per_class, float)
    curves = {name: np.asarray(values, float) for name, values in curves.items()}
    if not curves:
        raise ValueError('no curve to draw')
    for name, values in curves.items():
        if values.ndim != 2 or len(values) != len(labels):
            raise ValueError(
                f'curve {name!r} has shape {values.shape}, expected one row for each of the '
                f'{len(labels)} label counts: [{len(labels)}, trials]'
            )
    fig = style.figure(6.4, 3.9, layout='constrained')
    axes = fig.add_subplot()
    ends = []
    for i, (name, values) in enumerate(curves.items()):
        mean = values.mean(1)
        n_trials = values.shape[1]
        bars = values.std(1, ddof=1) / math.sqrt(n_trials) if n_trials > 1 else None
        # Shifted by 2 % so that bars at the same count do not hide one another.
        at = labels * 1.02 ** (i - (len(curves) - 1) / 2)
        look = {'color': style.COLORS[i % 7], 'marker': style.MARKERS[i % 7], 'capsize': 2.5}
        axes.errorbar(at, mean, bars, label=style.plain_text(name), elinewidth=1.1, **look)
        ends.append((float(mean[-1]), look['color']))
    if chance is not None:
        axes.axhline(chance, color=style.FAINT, linestyle='--', linewidth=1)
    axes.set_xscale('log')
    axes.xaxis.set_major_locator(FixedLocator(labels.tolist()))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
    axes.set_xlim(labels.min() / 1.25, labels.max() * 1.25)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(_percent))
    axes.set_xlabel(style.plain_text(xlabel))
    axes.set_ylabel('test accuracy')
    low, high = axes.get_ylim()
    if max(values.max() for values in curves.values()) <= 1:
        high = min(high, 1.03)
    axes.set_ylim(low, high)
    notes = [(mean, f'{100 * mean:.1f}%', color) for mean, color in ends]
    if chance is not None:
        notes.append((chance, 'chance', style.FAINT))
    heights = _apart([note[0] for note in notes], 0.05 * (high - low), high)
    right = axes.get_yaxis_transform()
    for height, (_, text, color) in zip(heights, notes, strict=True):
        axes.text(1.01, height, text, color=color, va='center', transform=right)
    n_trials = sorted({values.shape[1] for values in curves.values()})
    counted = '-'.join(str(n) for n in dict.fromkeys((n_trials[0], n_trials[-1])))
    note = f'mean and standard error of {counted} trials' if n_trials[-1] > 1 else ''
    axes.legend(loc='best', title=note, title_fontsize=8, alignment='left')
    if title:
        axes.set_title(style.plain_text(title))
    return fig


@style.context()
def atom_usage(
    frequency: Real[np.ndarray | Array, 'k'],
    *,
    dead: Bool[np.ndarray | Array, 'k'] | Sequence[bool] | None = None,
    title: str = '',
) -> Figure:
    """Fraction of the signals that use each atom, most used first, with dead atoms marked at the right end.

    Args:
      frequency: Fraction of the signals that use each atom, in [0, 1].
      dead: Mask of the dead atoms; None takes those of frequency 0.
      title: Title.

    Raises:
      ValueError: `frequency` is not a vector, or `dead` has another length.
    """
    frequency = np.asarray(frequency, float)
    dead = frequency <= 0 if dead is None else np.asarray(dead, bool)
    if frequency.ndim != 1 or frequency.size == 0 or dead.shape != frequency.shape:
        raise ValueError(
            f'expected frequency and dead [k], one per atom, got {frequency.shape} and {dead.shape}'
        )
    order = np.lexsort((-frequency, dead))
    frequency, n_dead, k = frequency[order], int(dead.sum()), len(frequency)
    fig = style.figure(6.4, 2.8, layout='constrained')
    axes = fig.add_subplot()
    used = frequency[: k - n_dead]
    edges, heights = np.arange(len(used) + 1), np.append(used, used[-1:])
    area = {'color': style.COLORS[0], 'alpha': 0.8, 'linewidth': 0}
    axes.fill_between(edges, heights, step='post', **area)
    if n_dead:
        axes.axvspan(k - n_dead, k, color=style.WARN, alpha=0.35, linewidth=0)
    mean = float(frequency.mean())
    axes.axhline(mean, color=style.INK, linewidth=0.8, linestyle=':')
    axes.text(k, mean, f' mean {mean:.1%}', va='center', fontsize=8)
    _scale(axes, used)
    axes.yaxis.set_major_formatter(FuncFormatter(_percent))
    axes.set_xlim(0, k)
    axes.set_xlabel('atom, by rank')
    axes.set_ylabel('signals that use it')
    if axes.get_yscale() == 'linear':
        axes.set_ylim(0, max(1.05 * frequency.max(), 0.01))
    prefix = style.plain_text(f'{title}: ' if title else '')
    axes.set_title(f'{prefix}{n_dead} of {k} atoms dead')
    return fig


def _is_number(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _finite(value):
    return value if value is not None and math.isfinite(value) else math.nan


def _line(axes, at, value, color, label, line):
    many = len(at) > 200
    few = {'marker': 'o', 'markersize': 3} if len(at) <= 30 else {}
    behind = {'alpha': 0.3, 'linewidth': 0.8} if many else {'label': label}
    axes.plot(at, value, line, color=color, **few, **behind)
    if many:
        window = len(at) // 40
        known = np.isfinite(value).astype(float)
        box = np.ones(window)
        total = np.convolve(np.nan_to_num(value), box, 'valid')
        count = np.convolve(known, box, 'valid')
        mean = np.where(count >= window / 2, total / np.maximum(count, 1), np.nan)
        center = np.convolve(at, box / window, 'valid')
        axes.plot(center, mean, line, color=color, label=label)


def _scale(axes, values):
    """A log scale where it helps."""
    if len(values) and values.min() > 0 and values.max() > 30 * values.min():
        axes.set_yscale('log')


def _percent(value, _):
    return f'{100 * value:g}%'


def _thousands(value, _):
    if abs(value) >= 1e6:
        return f'{value / 1e6:g}M'
    return f'{value / 1e3:g}k' if abs(value) >= 1e4 else f'{value:g}'


def _apart(heights, distance, high):
    """The heights, shifted as little as possible so that they are `distance` apart and at most `high`."""
    order = np.argsort(heights)
    shifted = np.asarray(heights, float)[order]
    for _ in range(100):
        short = distance - np.diff(shifted)
        if (short <= 1e-9).all():
            break
        push = np.maximum(short, 0) / 2
        shifted[:-1] -= push
        shifted[1:] += push
    # From top to bottom, so that labels at the upper limit push the others down.
    for i in range(len(shifted) - 1, -1, -1):
        shifted[i] = min(shifted[i], high)
        high = shifted[i] - distance
    result = np.empty_like(shifted)
    result[order] = shifted
    return result
