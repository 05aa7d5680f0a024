"""Two-dimensional maps of a data set, class by class in colour, method beside method."""

import numpy as np

from lecture4.figures import style

# Ten classes: the house's colours without black, then lighter ones that stay apart from them.
CLASS_COLOURS = (*style.COLOURS[:6], '#7a5195', '#999999', '#8c564b', '#bcbd22')


@style.house()
def maps(named, labels, names, *, notes=None, columns=3, size=3.1):
    """Scatter plots of the same examples under several two-dimensional codes.

    named   {method: points [n, 2]}; labels [n] in 0 .. len(names) - 1; notes {method: text} beside
            the title, such as the accuracy of nearest neighbours in the map.
    Errors  ValueError where points are not [n, 2] for the n labels.
    """
    labels = np.asarray(labels)
    notes = notes or {}
    columns = min(columns, len(named))
    n_rows = -(-len(named) // columns)
    made = style.figure(size * columns, (size + 0.1) * n_rows + 0.35, layout='constrained')
    grid = made.subplots(n_rows, columns, squeeze=False).ravel()
    for axes, (method, points) in zip(grid, named.items(), strict=False):
        points = np.asarray(points, float)
        if points.shape != (len(labels), 2):
            raise ValueError(f'{method}: points {points.shape} for {len(labels)} labels; [n, 2]')
        for c, name in enumerate(names):
            rows = labels == c
            colour = CLASS_COLOURS[c % len(CLASS_COLOURS)]
            axes.scatter(*points[rows].T, s=5, color=colour, linewidths=0, alpha=0.7, label=name)
            if rows.any():
                middle = np.median(points[rows], axis=0)
                box = {'facecolor': 'white', 'alpha': 0.75, 'pad': 0.8, 'linewidth': 0}
                axes.text(*middle, name, fontsize=8, ha='center', va='center', bbox=box)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(visible=False)
        axes.set_title(f'{method}   {notes[method]}' if method in notes else method)
    for axes in grid[len(named) :]:
        axes.remove()
    return made
