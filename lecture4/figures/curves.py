"""Curves: metrics during learning, accuracy against labels, how often atoms are used."""

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    MaxNLocator,
    NullLocator,
)

from lecture4.figures import style


@style.house()
def learning(
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
    qualifier, dashed in training where there are evaluations too. A metric that is positive
    and spans more than a factor of 30 gets a log scale. Where a line has more than 200 points, their
    running mean is drawn over them.

    Args:
      rows: Dicts as in metrics.jsonl: `x` and any metrics; a metric may be missing from rows (an
        evaluation every so often) and may be None or not finite there (a gap in the line).
      metrics: Keys to draw, in that order; None draws all that are numbers in some row, those of
        `labels` first in their order, without counters that stayed 0.
      labels: NAME -> title of its panel; the name without underscores where it is not listed.
      percent: NAMEs that are fractions, with axes in percent.
      x: Key of the horizontal axis.
      columns: Most panels next to one another.
      title: Title of the figure.

    Raises:
      ValueError: No row holds `x` and a metric, or a key of `metrics` is in no row.
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
        raise ValueError(f'no row holds {x!r} and a metric: nothing to draw')
    panels: dict[str, list[str]] = {}
    for key in metrics:
        panels.setdefault(_panel(key), []).append(key)
    columns = min(columns, len(panels))
    lines = -(-len(panels) // columns)
    made = style.figure(2.9 * columns + 0.3, 2.0 * lines + 0.3, layout='constrained')
    grid = made.subplots(lines, columns, squeeze=False, sharex=True).ravel()
    for axes, (panel, keys) in zip(grid, panels.items(), strict=False):
        for key, (label, color, line) in zip(keys, _line_styles(keys), strict=True):
            at, value = np.array(sorted(points[key], key=lambda point: point[0]), float).T
            _line(axes, at, value, color, label, line)
        axes.set_title(labels.get(panel, panel.replace('_', ' ')))
        if len(keys) > 1:
            axes.legend()
        values = np.concatenate([np.array(points[key], float)[:, 1] for key in keys])
        _scale(axes, values[np.isfinite(values)])
        if panel in percent:
            axes.yaxis.set_major_formatter(FuncFormatter(_percent))
            axes.yaxis.set_minor_formatter(FuncFormatter(_percent))
    for axes in grid[len(panels) :]:
        axes.remove()
    for axes in grid[max(0, len(panels) - columns) : len(panels)]:
        axes.tick_params(labelbottom=True)
        axes.set_xlabel(x)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
    if title:
        made.suptitle(title, x=0.01, ha='left')
    return made


def _panel(key: str) -> str:
    """The quantity of a key of metrics.jsonl: 'recall' of 'eval/recall/cat'."""
    return key.removeprefix('eval/').partition('/')[0]


def _line_styles(keys: Sequence[str]) -> list[tuple[str, str, str]]:
    """Label, color and line of each key of a panel: a color for each qualifier, training dashed."""
    kinds = ['evaluation' if key.startswith('eval/') else 'training' for key in keys]
    qualifiers = [', '.join(key.removeprefix('eval/').split('/')[1:]) for key in keys]
    distinct = list(dict.fromkeys(qualifiers if any(qualifiers) else kinds))
    styles = []
    for kind, own in zip(kinds, qualifiers, strict=True):
        words = [kind, own] if len(set(kinds)) > 1 or not own else [own]
        i = distinct.index(own if any(qualifiers) else kind)
        dashed = any(qualifiers) and kind == 'training' and len(set(kinds)) > 1
        line = '--' if dashed else '-' if i < 7 else ':'
        styles.append((', '.join(filter(None, words)), style.COLOURS[i % 7], line))
    return styles


@style.house()
def labelled_accuracy(
    curves, labels_per_class, *, chance=None, title='', xlabel='labels per class'
):
    """Mean accuracy against the number of labels, with standard errors of the mean over draws.

    curves   {name: accuracies [n_labels, n_draws] in [0, 1]}, drawn in that order. The last means
             are written beside the curves; a single draw has no bar.
    chance   accuracy of guessing, drawn as a dashed line.
    Errors   ValueError where an array is not [len(labels_per_class), draws], or there is none.
    """
    labels = np.asarray(labels_per_class, float)
    curves = {name: np.asarray(values, float) for name, values in curves.items()}
    if not curves:
        raise ValueError('no curve to draw')
    for name, values in curves.items():
        if values.ndim != 2 or len(values) != len(labels):
            raise ValueError(
                f'curve {name!r} has shape {values.shape}; it wants one row for each of the '
                f'{len(labels)} label counts: [{len(labels)}, draws]'
            )
    made = style.figure(6.4, 3.9, layout='constrained')
    axes = made.add_subplot()
    ends = []
    for i, (name, values) in enumerate(curves.items()):
        mean = values.mean(1)
        n_draws = values.shape[1]
        bars = values.std(1, ddof=1) / math.sqrt(n_draws) if n_draws > 1 else None
        # Moved apart by 2 % so that bars at the same count can be told from one another.
        at = labels * 1.02 ** (i - (len(curves) - 1) / 2)
        look = {'color': style.COLOURS[i % 7], 'marker': style.MARKERS[i % 7], 'capsize': 2.5}
        axes.errorbar(at, mean, bars, label=name, elinewidth=1.1, **look)
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
    axes.set_xlabel(xlabel)
    axes.set_ylabel('test accuracy')
    low, high = axes.get_ylim()
    if max(values.max() for values in curves.values()) <= 1:
        high = min(high, 1.03)
    axes.set_ylim(low, high)
    notes = [(mean, f'{100 * mean:.1f}%', colour) for mean, colour in ends]
    if chance is not None:
        notes.append((chance, 'chance', style.FAINT))
    heights = _apart([note[0] for note in notes], 0.05 * (high - low), high)
    beside = axes.get_yaxis_transform()
    for height, (_, text, colour) in zip(heights, notes, strict=True):
        axes.text(1.01, height, text, color=colour, va='center', transform=beside)
    draws = sorted({values.shape[1] for values in curves.values()})
    counted = '-'.join(str(n) for n in dict.fromkeys((draws[0], draws[-1])))
    note = f'mean and standard error of {counted} draws' if draws[-1] > 1 else ''
    axes.legend(loc='best', title=note, title_fontsize=8, alignment='left')
    if title:
        axes.set_title(title)
    return made


@style.house()
def usage(shares, *, dead=None, title=''):
    """How many signals use each atom, most used first; dead atoms marked at the right end.

    Shapes  shares [k] of signals, in [0, 1]; dead [k] bool (None: share 0).
    Errors  ValueError where shares is not a vector or dead has another length.
    """
    shares = np.asarray(shares, float)
    dead = shares <= 0 if dead is None else np.asarray(dead, bool)
    if shares.ndim != 1 or shares.size == 0 or dead.shape != shares.shape:
        raise ValueError(f'shares {shares.shape} and dead {dead.shape} must be [k], one per atom')
    order = np.lexsort((-shares, dead))
    shares, n_dead, k = shares[order], int(dead.sum()), len(shares)
    made = style.figure(6.4, 2.8, layout='constrained')
    axes = made.add_subplot()
    alive = shares[: k - n_dead]
    axes.fill_between(np.arange(len(alive) + 1), np.append(alive, alive[-1:]), step='post',
                      color=style.COLOURS[0], alpha=0.8, linewidth=0)  # fmt: skip
    if n_dead:
        axes.axvspan(k - n_dead, k, color=style.WARN, alpha=0.35, linewidth=0)
    mean = float(shares.mean())
    axes.axhline(mean, color=style.INK, linewidth=0.8, linestyle=':')
    axes.text(k, mean, f' mean {mean:.1%}', va='center', fontsize=8)
    _scale(axes, alive)
    axes.yaxis.set_major_formatter(FuncFormatter(_percent))
    axes.set_xlim(0, k)
    axes.set_xlabel('atom, by rank')
    axes.set_ylabel('signals that use it')
    if axes.get_yscale() == 'linear':
        axes.set_ylim(0, max(1.05 * shares.max(), 0.01))
    axes.set_title((f'{title}: ' if title else '') + f'{n_dead} of {k} atoms dead')
    return made


def _is_number(value):
    return isinstance(value, Real) and not isinstance(value, bool)


def _finite(value):
    return value if value is not None and math.isfinite(value) else math.nan


def _line(axes, at, value, colour, label, line):
    many = len(at) > 200
    few = {'marker': 'o', 'markersize': 3} if len(at) <= 30 else {}
    behind = {'alpha': 0.3, 'linewidth': 0.8} if many else {'label': label}
    axes.plot(at, value, line, color=colour, **few, **behind)
    if many:
        window = len(at) // 40
        known = np.isfinite(value).astype(float)
        box = np.ones(window)
        total = np.convolve(np.nan_to_num(value), box, 'valid')
        count = np.convolve(known, box, 'valid')
        mean = np.where(count >= window / 2, total / np.maximum(count, 1), np.nan)
        centre = np.convolve(at, box / window, 'valid')
        axes.plot(centre, mean, line, color=colour, label=label)


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


def _apart(heights, least, high):
    """The heights, moved no further than needed to lie `least` from one another, and up to `high`."""
    order = np.argsort(heights)
    placed = np.asarray(heights, float)[order]
    for _ in range(100):
        short = least - np.diff(placed)
        if (short <= 1e-9).all():
            break
        push = np.maximum(short, 0) / 2
        placed[:-1] -= push
        placed[1:] += push
    # From the top down, so that a crowd at the upper edge makes room below itself.
    for i in range(len(placed) - 1, -1, -1):
        placed[i] = min(placed[i], high)
        high = placed[i] - least
    result = np.empty_like(placed)
    result[order] = placed
    return result
