"""Named curves in one or several panels."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Real
from matplotlib.figure import Figure

from lecture4.figures import style


@style.context()
def panels(
    panels: Mapping[str, Mapping[str, Any]],
    *,
    columns: int = 2,
    size: tuple[int | float, int | float] = (3.7, 2.9),
) -> Figure:
    """Panels of named curves.

    Args:
      panels: Title -> options of the panel, a dict with
        curves: name -> (x [m], y [m]), one color per name in all panels; xlabel, ylabel: texts;
        xscale, yscale: 'linear' (default) or 'log', which is used for values over more than a factor of 10 and
        omits values that are not positive;
        lines: name -> height of a dashed horizontal line (optional).
      columns: Largest number of panels in a row.
      size: Width and height of a panel in inches.

    Raises:
      ValueError: There is no panel, or x and y of a curve differ in length.
    """
    if not panels:
        raise ValueError('no panel to draw')
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel['curves']))
    columns = min(columns, len(panels))
    n_rows = -(-len(panels) // columns)
    fig = style.figure(size[0] * columns, size[1] * n_rows + 0.15, layout='constrained')
    grid = fig.subplots(n_rows, columns, squeeze=False).ravel()
    handles = {}
    for axes, (title, panel) in zip(grid, panels.items(), strict=False):
        drawn = {'x': [], 'y': []}
        for name, (x, y) in panel['curves'].items():
            x, y = np.array(x, float), np.array(y, float)
            if x.shape != y.shape or x.ndim != 1:
                raise ValueError(
                    f'curve {name!r}: expected x and y of one shape [m], got {x.shape} and {y.shape}'
                )
            for key, values in (('x', x), ('y', y)):
                if panel.get(f'{key}scale') == 'log':
                    values[values <= 0] = np.nan
            is_drawn = np.isfinite(x) & np.isfinite(y)
            drawn['x'].append(x[is_drawn])
            drawn['y'].append(y[is_drawn])
            i = names.index(name)
            marker = style.MARKERS[i % 7] if len(x) <= 12 else None
            dashes = '-' if i < 7 else '--'
            look = {'color': style.COLORS[i % 7], 'marker': marker, 'label': style.plain_text(name)}
            (handles[name],) = axes.plot(x, y, dashes, **look)
        for name, height in panel.get('lines', {}).items():
            axes.axhline(height, color=style.FAINT, linestyle='--', linewidth=1)
            axes.text(
                1.01,
                height,
                style.plain_text(name),
                color=style.FAINT,
                fontsize=8,
                va='center',
                transform=axes.get_yaxis_transform(),
            )
        for key, axis in (('x', axes.xaxis), ('y', axes.yaxis)):
            if drawn[key]:
                style.scale_axis(
                    axis, np.concatenate(drawn[key]), panel.get(f'{key}scale', 'linear')
                )
        axes.set_xlabel(style.plain_text(panel.get('xlabel', '')))
        axes.set_ylabel(style.plain_text(panel.get('ylabel', '')))
        axes.set_title(style.wrapped(title, size[0] - 0.5))
    for axes in grid[len(panels) :]:
        axes.remove()
    if len(names) > 1:
        style.legend_outside(fig, [handles[name] for name in names], names)
    return fig


def by_entry(
    records: Iterable[Mapping[str, Any]], x: str, by: str, entries: Sequence[str]
) -> Figure:
    """Panels from the records of a table: one panel per entry, with one curve per name.

    Args:
      records: Dicts with the entries `x`, `by`, and some of `entries`.
      x: Entry on the horizontal axis, and its label.
      by: Entry that names the curves.
      entries: Entries on the vertical axes, and titles of the panels.
    """
    panel_of: dict[str, Any] = {}
    records = list(records)
    for y in entries:
        points: dict[str, list] = {}
        for record in records:
            if y in record:
                points.setdefault(str(record[by]), []).append((record[x], record[y]))
        curves = {name: tuple(np.array(pairs).T) for name, pairs in points.items()}
        panel_of[y.replace('_', ' ')] = {'curves': curves, 'xlabel': x}
    return panels(panel_of)


def by_class(values: Mapping[str, Real[np.ndarray, ' c']], title: str) -> Figure:
    """One wide panel of values per class, a curve for each name.

    Args:
      values: Name -> a value for each class.
      title: Title of the panel.
    """
    curves = {name: (np.arange(len(each)), each) for name, each in values.items()}
    return panels({title: {'curves': curves, 'xlabel': 'class'}}, size=(6.4, 3))


def coincidence(
    names: Sequence[str],
    first: Real[np.ndarray, ' m'],
    second: Real[np.ndarray, ' m'],
    *,
    smallest: float = 1e-9,
) -> Figure:
    """Two losses by step that should coincide, and their relative difference, on log scales.

    Args:
      names: Names of the two curves.
      first: Losses drawn as a line.
      second: Losses drawn as markers at 12 steps, since the curves coincide.
      smallest: Constant added to the difference, drawn where there is none.
    """
    first, second = np.asarray(first), np.asarray(second)
    steps, some = np.arange(1, len(first) + 1), np.linspace(0, len(first) - 1, 12).astype(int)
    axis = {'xlabel': 'step', 'yscale': 'log'}
    curves = {names[0]: (steps, first), names[1]: (steps[some], second[some])}
    difference = abs(second - first) / first + smallest
    return panels(
        {
            'loss': axis | {'curves': curves},
            'relative difference': axis | {'curves': {'difference': (steps, difference)}},
        }
    )


def single(
    title: str,
    curves: Mapping[str, tuple[Any, Any]],
    *,
    xlabel: str = '',
    ylabel: str = '',
    xscale: str = 'linear',
    yscale: str = 'linear',
    lines: Mapping[str, int | float] | None = None,
    size: tuple[int | float, int | float] = (6, 3.2),
) -> Figure:
    """One panel of named curves.

    Args:
      title: Title of the panel.
      curves: Name -> (x [m], y [m]).
      xlabel: Title of the horizontal axis.
      ylabel: Title of the vertical axis.
      xscale: Scale of the horizontal axis, 'linear' or 'log'.
      yscale: Scale of the vertical axis, 'linear' or 'log'.
      lines: Name -> height of a dashed horizontal line.
      size: Width and height in inches.

    Raises:
      ValueError: As in `panels`.
    """
    options = {'xlabel': xlabel, 'ylabel': ylabel, 'xscale': xscale, 'yscale': yscale}
    panel = {'curves': curves, 'lines': lines or {}, **options}
    return panels({title: panel}, columns=1, size=size)
