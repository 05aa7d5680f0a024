"""Two-dimensional embeddings of a dataset, one color per class, one panel per method."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Array, Integer, Real
from matplotlib.figure import Figure

from lecture4.figures import style

LABEL_HEIGHT = 0.17  # inches between the middles of two labels


@style.context()
def scatter(
    points: Mapping[str, Real[np.ndarray | Array, 'n 2']],
    labels: Integer[np.ndarray | Array, 'n'],
    names: Sequence[str],
    *,
    notes: Mapping[str, str] | None = None,
    columns: int = 3,
    size: int | float = 3.1,
) -> Figure:
    """Scatter plots of the same examples under several two-dimensional codes.

    Args:
      points: Method -> points.
      labels: Classes in 0 .. len(names) - 1.
      names: Names of the classes, printed near the medians.
      notes: Method -> text under the title, such as the accuracy of nearest neighbors.
      columns: Largest number of panels in a row.
      size: Width of a panel in inches.

    Raises:
      ValueError: Points are not [n, 2] for the n labels.
    """
    labels = np.asarray(labels)
    notes = notes or {}
    columns = min(columns, len(points))
    n_rows = -(-len(points) // columns)
    fig = style.figure(size * columns, (size + 0.1) * n_rows + 0.35, layout='constrained')
    grid = fig.subplots(n_rows, columns, squeeze=False).ravel()
    for axes, (method, values) in zip(grid, points.items(), strict=False):
        values = np.asarray(values, float)
        if values.shape != (len(labels), 2):
            raise ValueError(
                f'{method}: expected points [{len(labels)}, 2], one per label, got {values.shape}'
            )
        medians = {}
        for c, name in enumerate(names):
            members = values[labels == c]
            color = style.CLASS_COLORS[c % len(style.CLASS_COLORS)]
            axes.scatter(*members.T, s=5, color=color, linewidths=0, alpha=0.7)
            if len(members):
                medians[style.plain_text(name)] = np.median(members, axis=0)
        box = {'facecolor': 'white', 'alpha': 0.75, 'pad': 0.8, 'linewidth': 0}
        apart = _apart(np.array(list(medians.values())), values, medians, size)
        for text, at in zip(medians, apart, strict=True):
            axes.text(*at, text, fontsize=8, ha='center', va='center', bbox=box)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(visible=False)
        title = f'{method}\n{notes[method]}' if method in notes else method
        axes.set_title(style.plain_text(title))
    for axes in grid[len(points) :]:
        axes.remove()
    return fig


def _apart(at, points, names, size):
    """Places of labels [n, 2] moved up and down until none overlaps another.

    Args:
      at: Where the labels belong.
      points: What is drawn, whose extent gives the scale.
      names: The labels.
      size: Width and height of the axes in inches.
    """
    if len(at) < 2:
        return at
    low, extent = points.min(0), np.maximum(np.ptp(points, axis=0), 1e-12)
    inches = (at - low) / extent * size
    width = np.array([0.05 + 0.065 * len(name) for name in names])
    for _ in range(200):
        moved = False
        for i in range(len(inches)):
            for j in range(i):
                overlaps = abs(inches[i, 0] - inches[j, 0]) < (width[i] + width[j]) / 2
                gap = inches[i, 1] - inches[j, 1]
                if overlaps and abs(gap) < LABEL_HEIGHT:
                    push = (LABEL_HEIGHT - abs(gap)) / 2 * (1 if gap >= 0 else -1)
                    inches[i, 1] += push
                    inches[j, 1] -= push
                    moved = True
        inches[:, 1] = np.clip(inches[:, 1], LABEL_HEIGHT / 2, size - LABEL_HEIGHT / 2)
        if not moved:
            break
    return inches / size * extent + low
