"""How the variants of a sweep learned, side by side."""

import numpy as np

from lecture4.figures import style


def paired(rows):
    """Names of metrics that were measured while training and, as evaluation/NAME, apart from it."""
    names = {name for row in rows for name in row}
    return sorted(name for name in names if f'evaluation/{name}' in names)


@style.house()
def learning(runs, metric: str, *, size=(4.4, 3.3)):
    """Curves of one metric, dashed while training, solid where evaluated; runs of one name in one colour.

    runs    [(panel, name, rows)], rows dicts as in metrics.jsonl; panels stand beside each other on one
            scale, which is cut above the largest value of the last half of all curves.
    Errors  ValueError where no row holds the metric.
    """
    panels = list(dict.fromkeys(panel for panel, *_ in runs))
    names = list(dict.fromkeys(name for _, name, _ in runs))
    made = style.figure(size[0] * len(panels), size[1] + 0.3, layout='constrained')
    grid = made.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    late, handles = [], {}
    for panel, name, rows in runs:
        axes = grid[panels.index(panel)]
        look = {'color': style.COLOURS[names.index(name) % 7]}
        for key, line in ((metric, '--'), (f'evaluation/{metric}', '-')):
            found = [(row['step'], row[key]) for row in rows if row.get(key) is not None]
            points = np.array(found, float).reshape(-1, 2)
            points = points[np.isfinite(points).all(1)]
            if len(points):
                x, y = points.T
                width = 0.9 if line == '--' else 1.7
                (handles[name],) = axes.plot(x, y, line, linewidth=width, **look)
                late.append(y[len(y) // 2 :].max())
        axes.set_title(panel)
        axes.set_xlabel('step')
    if not late:
        raise ValueError(f'no row has the metric {metric!r}: nothing to draw')
    grid[0].set_ylabel(metric.replace('_', ' '))
    grid[0].set_ylim(0, 1.15 * max(late))
    made.legend(
        [handles[name] for name in names if name in handles],
        [name for name in names if name in handles],
        loc='outside right upper', title='- - training\n— evaluated', title_fontsize=8, alignment='left',
    )  # fmt: skip
    return made
