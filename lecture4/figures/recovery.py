"""Recovered pictures side by side, and what fidelity costs in coefficients."""

import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from lecture4.figures import style


@style.house()
def gallery(rows, columns, *, notes=None, side=190, title=''):
    """Pictures in a table: one row for each picture, one column for each thing done to it.

    rows     {name: [picture, ...]}, grey [h, w] or coloured [h, w, 3] in [0, 1] (cut off beyond);
             NaN is drawn in a colour of its own: a missing pixel. None leaves its place empty.
    columns  what each column shows, a word or two.
    notes    {name: [text, ...]} written under the pictures, such as their PSNR.
    Units    side: screen pixels of a tile's longer side, about; a picture's pixel is a whole number
             of screen pixels where it is smaller, and larger pictures are cut to their middle.
    Errors   ValueError where a row has not one picture (and note) for each column, or there is none.
    """
    notes = notes or {}
    if not rows:
        raise ValueError('no row of pictures to draw')
    for kind, lists in (('picture', rows), ('note', notes)):
        for name, items in lists.items():
            if len(items) != len(columns):
                raise ValueError(
                    f'row {name!r} has {len(items)} {kind}s for {len(columns)} columns; '
                    'give one for each, None where there is none'
                )
    tiles = {
        name: [None if item is None else _middle(_coloured(item), side) for item in items]
        for name, items in rows.items()
    }
    gap, left, head, foot = 8, 26, 22 + 24 * bool(title), 18 * bool(notes)
    shapes = [
        tuple(max(tile.shape[axis] for tile in row if tile is not None) for axis in (0, 1))
        for row in tiles.values()
    ]
    zoom = [max(side // max(shape), 1) for shape in shapes]
    width = max(shape[1] * z for shape, z in zip(shapes, zoom, strict=True))
    texts = [*columns, *(note or '' for row in notes.values() for note in row)]
    width = max(width, 7 * max(map(len, texts)))  # no text runs into its neighbour
    across = left + len(columns) * (width + gap)
    down = head + sum(shape[0] * z + gap + foot for shape, z in zip(shapes, zoom, strict=True))
    made = style.figure(across / style.DPI, down / style.DPI)
    if title:
        made.text(gap / across, 1 - 12 / down, title, va='center', fontsize=10)
    for j, column in enumerate(columns):
        made.text((left + j * (width + gap)) / across, 1 - (head - 9) / down, column, va='center')
    top = head
    for (name, row), shape, z in zip(tiles.items(), shapes, zoom, strict=True):
        height = shape[0] * z
        middle = 1 - (top + height / 2) / down
        made.text(13 / across, middle, name, rotation=90, va='center', ha='center')
        for j, tile in enumerate(row):
            x = left + j * (width + gap)
            if tile is not None:
                style.show(made, tile, x, top, z)
            if name in notes and notes[name][j]:
                y = 1 - (top + height + 9) / down
                made.text(x / across, y, notes[name][j], va='center', fontsize=8)
        top += height + gap + foot
    return made


@style.house()
def rate(curves, n_nonzero, *, title='', xlabel='non-zeros in a patch'):
    """PSNR against the number of coefficients that are kept.

    curves     {name: PSNR in dB, [len(n_nonzero)] or [len(n_nonzero), pictures]}; of several
               pictures the mean is drawn.
    Errors     ValueError where an array has another length, or there is none.
    """
    counts = np.asarray(n_nonzero, float)
    curves = {name: np.asarray(values, float) for name, values in curves.items()}
    if not curves:
        raise ValueError('no curve to draw')
    made = style.figure(5.6, 3.6, layout='constrained')
    axes = made.add_subplot()
    for i, (name, values) in enumerate(curves.items()):
        if values.ndim not in (1, 2) or len(values) != len(counts):
            raise ValueError(
                f'curve {name!r} has shape {values.shape}; it wants one row for each of the '
                f'{len(counts)} counts'
            )
        mean = values if values.ndim == 1 else values.mean(1)
        axes.plot(counts, mean, color=style.COLOURS[i % 7], marker=style.MARKERS[i % 7], label=name)
    axes.set_xscale('log', base=2)
    axes.xaxis.set_major_locator(FixedLocator(counts.tolist()))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
    axes.set_xlabel(xlabel)
    axes.set_ylabel('PSNR, dB')
    axes.legend(loc='upper left')
    if title:
        axes.set_title(title)
    return made


def _coloured(picture):
    """A picture as [h, w, 3] in [0, 1], missing values in the house's warning colour."""
    picture = np.asarray(picture, float)
    if picture.ndim == 2:
        picture = np.repeat(picture[:, :, None], 3, 2)
    if picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f'a picture has shape {picture.shape}; [h, w] or [h, w, 3] is wanted')
    missing = np.isnan(picture)
    warn = np.array([int(style.WARN[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(missing, warn, np.clip(picture, 0, 1))


def _middle(picture, side):
    """The middle of a picture that is larger than side x side."""
    h, w = picture.shape[:2]
    top, left = max(h - side, 0) // 2, max(w - side, 0) // 2
    return picture[top : top + side, left : left + side]
