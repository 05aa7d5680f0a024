"""Holes in planes of codes: regions in which decoded images are unlike every example."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lecture4.figures import style


@style.context()
def planes(panels: Mapping[str, Mapping[str, Any]], classes: np.ndarray) -> Figure:
    """One plane of codes for each autoencoder, shaded by the distance of the decoded images to the examples.

    Args:
      panels: Name -> a dict with codes [n, 2] of examples; x [w], y [h] of a grid; distances [h, w] of the decoded
        grid to the nearest example, in units of the distance below which 95 % of test examples lie; note, a text.
      classes: Classes of the examples.
    """
    fig = style.figure(4.2 * len(panels) + 0.8, 4.3, layout='constrained')
    grid = fig.subplots(1, len(panels), squeeze=False)[0]
    shown = None
    for axes, (name, panel) in zip(grid, panels.items(), strict=True):
        shade = {'levels': np.linspace(0, 2, 17), 'cmap': 'gray_r', 'extend': 'max', 'alpha': 0.8}
        shown = axes.contourf(panel['x'], panel['y'], panel['distances'], **shade)
        axes.contour(
            panel['x'],
            panel['y'],
            panel['distances'],
            levels=[1.0],
            colors=[style.INK],
            linewidths=0.8,
        )
        for c in np.unique(classes):
            color = style.CLASS_COLORS[c % len(style.CLASS_COLORS)]
            points = panel['codes'][classes == c]
            axes.scatter(*points.T, s=5, color=color, linewidths=0)
        axes.set_title(style.plain_text(f'{name}: {panel["note"]}'))
        axes.set(xlim=panel['x'][[0, -1]], ylim=panel['y'][[0, -1]])
        axes.grid(visible=False)
    if shown is not None:
        fig.colorbar(
            shown, ax=grid, label='distance to the nearest example, 95 % of test images = 1'
        )
    return fig
