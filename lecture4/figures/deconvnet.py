"""What drives units of a network: the strongest patches beside what was projected back; occlusion."""

import numpy as np

from lecture4.figures import style
from lecture4.figures.images import as_tiles

MARGIN, HEAD = 8, 22  # screen pixels


def signal(pixels):
    """Projections [n, h, w, c] as pictures: zero is mid grey, each one's largest |value| black or white.

    Shapes  [n, h, w, 1 or 3] -> the same, in [0, 1].
    """
    pixels = np.asarray(pixels, float)
    largest = np.abs(pixels).max((1, 2, 3), keepdims=True)
    return 0.5 + 0.5 * pixels / np.where(largest > 0, largest, 1)


@style.house()
def strongest(units, *, columns=2, width=9.0):
    """Units side by side: their strongest patches in a square, and beside it the projections of these.

    units   {title: (patches [k, h, w, c], projections [k, h, w, c])}, all of one shape, in [0, 1].
    Errors  ValueError where there is none.
    """
    if not units:
        raise ValueError('no unit to draw')
    pairs = [[as_tiles(part) for part in pair] for pair in units.values()]
    k = len(pairs[0][0])
    side = int(np.ceil(np.sqrt(k)))
    squares = [[style.mosaic(tiles, side) for tiles in pair] for pair in pairs]
    h, w = squares[0][0].shape[:2]
    columns = min(columns, len(units))
    pixels = round(width * style.DPI)
    zoom = max(1, min(8, int((pixels - (2 * columns + 1) * MARGIN) / columns / (2 * w))))
    if 2 * columns * w * zoom > pixels:  # large patches: every so many pixels of them
        thin = -(-2 * columns * w // pixels)
        squares = [[square[::thin, ::thin] for square in pair] for pair in squares]
        h, w = squares[0][0].shape[:2]
    n_rows = -(-len(units) // columns)
    step = 2 * w * zoom + 4 + 2 * MARGIN
    across, down = columns * step + MARGIN, n_rows * (h * zoom + HEAD + MARGIN) + MARGIN
    made = style.figure(across / style.DPI, down / style.DPI)
    for i, (title, pair) in enumerate(zip(units, squares, strict=True)):
        left = MARGIN + i % columns * step
        top = i // columns * (h * zoom + HEAD + MARGIN) + HEAD
        for j, square in enumerate(pair):
            style.show(made, square, left + j * (w * zoom + 4), top, zoom)
        made.text(left / across, 1 - (top - 5) / down, title, fontsize=9, va='bottom')
    return made


@style.house()
def occlusion(pictures, named, *, titles=(), width=8.4):
    """One row a picture: the picture, and maps over where it was covered.

    named   {title: maps [n, rows, columns]}; numbers get a colour bar of their own, whole numbers
            (classes) colours without one.
    Shapes  pictures [n, h, w, c] in [0, 1]; titles n short texts.
    """
    tiles = as_tiles(pictures)
    n, columns = len(tiles), 1 + len(named)
    made = style.figure(width, n * width / columns * 0.86 + 0.2, layout='constrained')
    grid = made.subplots(n, columns, squeeze=False)
    for i, row in enumerate(grid):
        row[0].imshow(tiles[i])
        row[0].set_title(titles[i] if len(titles) else 'picture')
        for axes, (title, maps) in zip(row[1:], named.items(), strict=True):
            values = np.asarray(maps[i])
            if np.issubdtype(values.dtype, np.integer):
                axes.imshow(values, cmap='tab20', vmin=0, vmax=19)
            else:
                shown = axes.imshow(values, cmap='viridis')
                made.colorbar(shown, ax=axes, shrink=0.8)
            axes.set_title(title)
        for axes in row:
            axes.set_xticks([])
            axes.set_yticks([])
            axes.grid(visible=False)
    return made
