"""Named curves in one or several panels, and histograms."""

import numpy as np

from lecture4.figures import style


@style.house()
def panels(drawn, *, columns=2, size=(3.7, 2.9)):
    """Panels of named curves.

    drawn  {title: options}, options a dict with
             curves   {name: (x [m], y [m])}, the same name in the same colour in every panel;
             xlabel, ylabel   texts; xscale, yscale   'linear' (default) or 'log';
             lines    {name: height}, dashed horizontal lines (optional).
    Errors ValueError where there is no panel, or x and y of a curve differ in length.
    """
    if not drawn:
        raise ValueError('no panel to draw')
    names = list(dict.fromkeys(name for panel in drawn.values() for name in panel['curves']))
    columns = min(columns, len(drawn))
    n_rows = -(-len(drawn) // columns)
    made = style.figure(size[0] * columns, size[1] * n_rows + 0.35, layout='constrained')
    grid = made.subplots(n_rows, columns, squeeze=False).ravel()
    for axes, (title, panel) in zip(grid, drawn.items(), strict=False):
        for name, (x, y) in panel['curves'].items():
            x, y = np.asarray(x, float), np.asarray(y, float)
            if x.shape != y.shape or x.ndim != 1:
                raise ValueError(f'curve {name!r} has x {x.shape} and y {y.shape}; [m] both')
            i = names.index(name)
            marker = style.MARKERS[i % 7] if len(x) <= 12 else None
            dashed = '-' if i < 7 else '--'
            axes.plot(x, y, dashed, color=style.COLOURS[i % 7], marker=marker, label=name)
        for name, height in panel.get('lines', {}).items():
            axes.axhline(height, color=style.FAINT, linestyle='--', linewidth=1)
            axes.text(0.99, height, name, color=style.FAINT, fontsize=8, va='bottom', ha='right',
                      transform=axes.get_yaxis_transform())  # fmt: skip
        axes.set_xscale(panel.get('xscale', 'linear'))
        axes.set_yscale(panel.get('yscale', 'linear'))
        axes.set_xlabel(panel.get('xlabel', ''))
        axes.set_ylabel(panel.get('ylabel', ''))
        axes.set_title(title)
    for axes in grid[len(drawn) :]:
        axes.remove()
    handles = {}
    for axes in grid[: len(drawn)]:
        handles |= {
            label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
    ordered = [handles[name] for name in names]
    if len(names) > 1:
        made.legend(ordered, names, loc='outside upper left', ncols=min(len(names), 5))
    return made
