"""Which data each way of learning may look at: examples in a table."""

from typing import NamedTuple

import numpy as np
from matplotlib.lines import Line2D

from lecture4.figures import style


class Shown(NamedTuple):
    """What a cell of the table shows: a few examples, what is known of each, and how many there are.

    images   [n, h, w] in [0, 1], a handful.
    labels   what is written under each image; '?' where its label is hidden.
    note     a word or two under the labels, such as their number.
    """

    images: np.ndarray
    labels: tuple[str, ...]
    note: str = ''


def examples(images, rows, labels, note):
    """Shown of some rows of images [n, h, w, 1], with what is written under each."""
    return Shown(np.asarray(images)[rows][..., 0], tuple(labels), note)


def spread(images, labels=None, n=4):
    """Shown of n images from all over a set, which often lies class by class, and its size.

    labels  one for each image of the set; None: hidden.
    """
    rows = np.linspace(0, len(images) - 1, n).astype(int)
    known = ['?'] * n if labels is None else [labels[i] for i in rows]
    return examples(images, rows, known, f'{len(images)} pictures')


@style.house()
def allowed(rows, columns, *, side=26, title=''):
    """A table of settings by kinds of data, with examples where a setting may look at that kind.

    rows     {setting: [cell, ...]}, a cell for each column: Shown, a text, or None (a dash).
    columns  what each column holds; line breaks are kept.
    Units    side: screen pixels of an example, about (a whole number for each of its own pixels).
    Errors   ValueError where a row has not one cell for each column, or there is no row.
    """
    if not rows:
        raise ValueError('no setting to draw')
    for name, cells in rows.items():
        if len(cells) != len(columns):
            raise ValueError(f'row {name!r} has {len(cells)} cells for {len(columns)} columns')
    gap, height, head = 10, side + 44, 44 + 24 * bool(title)
    left = 2 * gap + 8 * max(map(len, rows))
    widths = [
        max(
            [_width(row[j], side) for row in rows.values()]
            + [7 * max(map(len, column.split('\n')))]
        )
        for j, column in enumerate(columns)
    ]
    across = left + sum(widths) + gap * (len(columns) + 1)
    down = head + height * len(rows) + gap
    made = style.figure(across / style.DPI, down / style.DPI)

    def write(x, y, text, **look):
        made.text(x / across, 1 - y / down, text, va='center', **look)

    if title:
        write(gap, 14, title, fontsize=10)
    edges = left + np.concatenate([[0], np.cumsum([width + gap for width in widths])])
    for x, column in zip(edges, columns, strict=False):
        write(x, head - 20, column, fontsize=8.5, color=style.FAINT)
    for i, (name, cells) in enumerate(rows.items()):
        top = head + i * height
        write(gap, top + height / 2, name, fontsize=9.5)
        line = 1 - top / down
        made.add_artist(
            Line2D([gap / across, 1 - gap / across], [line, line], color=style.GRID, linewidth=0.8)
        )
        for x, cell in zip(edges, cells, strict=False):
            if isinstance(cell, Shown):
                zoom = max(side // max(cell.images.shape[1:]), 1)
                for k, (image, label) in enumerate(zip(cell.images, cell.labels, strict=True)):
                    place = int(x) + k * (side + 4)
                    grey = np.repeat(np.clip(_fitted(image, side), 0, 1)[:, :, None], 3, 2)
                    style.show(made, grey, place, top + 8, zoom)
                    write(place + side / 2, top + side + 16, label, ha='center', fontsize=8)
                write(x, top + side + 30, cell.note, fontsize=8)
            else:
                look = {'color': style.FAINT} if cell is None else {}
                write(x, top + height / 2, cell or '\N{EN DASH}', fontsize=9, **look)
    return made


def _fitted(image, side):
    """The image, thinned out by whole steps where it is larger than side x side."""
    step = -(-max(image.shape) // side)
    return image[::step, ::step]


def _width(cell, side):
    if isinstance(cell, Shown):
        return max(len(cell.images) * (side + 4), 6 * len(cell.note))
    return 7 * max(map(len, cell.split('\n'))) if cell else 10
