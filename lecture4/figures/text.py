"""Pictures of text classifiers: what filters fire on, and which classes are taken for which."""

import numpy as np

from lecture4.figures import style


@style.house()
def firing(groups, *, title='', columns=2):
    """Panels of filters, each with its n-grams as bars: the longer, the stronger it fires.

    groups  {name: filters}, a filter being (label, [(text, value), ...]) with the largest value first; one block of
            panels for each name, in a colour of its own.
    Errors  ValueError where there is no filter.
    """
    panels = [(name, label, list(rows)) for name, found in groups.items() for label, rows in found]
    if not panels:
        raise ValueError('no filter to draw; name some')
    colour = {name: style.COLOURS[i % 7] for i, name in enumerate(groups)}
    most = max(max(len(rows) for *_, rows in panels), 1)
    lines = -(-len(panels) // columns)
    high = 0.19 * most + 0.34
    made = style.figure(4.6 * columns, high * lines + (0.35 if title else 0.05))
    grid = made.subplots(lines, columns, squeeze=False)
    top = (0.35 if title else 0.05) / (high * lines + (0.35 if title else 0.05))
    made.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=1 - top - 0.24 / (high * lines),
                         hspace=0.34 / (high - 0.3) * 0.9, wspace=0.04)  # fmt: skip
    for axes in grid.ravel()[len(panels) :]:
        axes.remove()
    for axes, (name, label, rows) in zip(grid.ravel(), panels, strict=False):
        values = [value for _, value in rows]
        scale = max(values, default=1) or 1
        axes.barh(range(len(rows)), [value / scale for value in values], 0.86,
                  color=colour[name], alpha=0.25, linewidth=0)  # fmt: skip
        for i, (text, value) in enumerate(rows):
            axes.text(0.01, i, _short(text), va='center', fontsize=8, parse_math=False)
            axes.text(
                1.13, i, f'{value:.2f}', va='center', ha='right', fontsize=7, color=style.FAINT
            )
        if not rows:
            axes.text(0.01, 0, 'never fires', va='center', fontsize=8, color=style.FAINT)
        axes.set_title(f'{name}: {label}', color=colour[name], fontsize=8.5, parse_math=False)
        axes.set_xlim(0, 1.15)
        axes.set_ylim(most - 0.5, -0.5)
        axes.axis('off')
    if title:
        made.suptitle(title, x=0.01, ha='left')
    return made


def _short(text, most=58):
    return text if len(text) <= most else text[: most - 1] + '…'


@style.house()
def confusion(counts, names, *, title=''):
    """Counts of examples by true class (rows) and given class (columns), shaded by share of the row.

    Shapes  counts [c, c], names c of them.
    Errors  ValueError where the shapes differ.
    """
    counts = np.asarray(counts)
    c = len(names)
    if counts.shape != (c, c):
        raise ValueError(f'counts {counts.shape} and {c} names; wanted counts [{c}, {c}]')
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = 0.52 * c
    made = style.figure(side + 2.0, side + 1.5, layout='constrained')
    axes = made.add_subplot()
    axes.imshow(share, cmap='Blues', vmin=0, vmax=1)
    axes.grid(visible=False)
    for i in range(c):
        for j in range(c):
            ink = 'white' if share[i, j] > 0.55 else style.INK
            axes.text(j, i, f'{counts[i, j]:g}', ha='center', va='center', fontsize=8, color=ink)
    axes.set_xticks(range(c), names, rotation=35 if c > 2 else 0, ha='right' if c > 2 else 'center')
    axes.set_yticks(range(c), names)
    axes.set_xlabel('given')
    axes.set_ylabel('true')
    right = np.trace(counts) / max(counts.sum(), 1)
    axes.set_title((f'{title}: ' if title else '') + f'{100 * right:.1f}% right')
    return made
