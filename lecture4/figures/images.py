"""Pictures side by side: examples above what networks make of them, with crisp pixels."""

import math

import numpy as np

from lecture4.figures import style


def as_tiles(images):
    """Pictures in [0, 1] as tiles: [n, h, w] or [n, h, w, 1 or 3] -> [n, h, w, 3], clipped.

    Errors  ValueError for another shape; not-a-number is drawn black.
    """
    images = np.nan_to_num(np.asarray(images, float))
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or not images.size:
        raise ValueError(
            f'images have shape {images.shape}; [n, h, w] or [n, h, w, 1 or 3], n >= 1, are wanted'
        )
    return np.broadcast_to(np.clip(images, 0, 1), (*images.shape[:3], 3))


@style.house()
def rows(named, *, notes=None, title='', width=7.4):
    """One row of pictures a name: originals, corrupted ones, reconstructions, in the same order.

    named   {name: images [n, h, w] or [n, h, w, c]}, all of one shape, values in [0, 1].
    notes   {name: n short texts}, written under that row's pictures.
    Units   width in inches, about: every pixel of a picture is a whole number of pixels wide.
    Errors  ValueError where there is no row, or rows differ in shape.
    """
    tiles = {name: as_tiles(images) for name, images in named.items()}
    shapes = {tile.shape for tile in tiles.values()}
    if len(shapes) != 1:
        raise ValueError(f'rows of shapes {sorted(shapes)}; one row or more of one shape is wanted')
    (n, h, w, _) = shapes.pop()
    notes = notes or {}
    label = 16 + 9 * max(len(name) for name in tiles)
    zoom = int(np.clip((width * style.DPI - label) // (n * (w + 1) + 1), 1, 12))
    margin, head, note = 8, 30 if title else 8, 15
    block = (h + 2) * zoom
    down = head + sum(block + 4 + note * (name in notes) for name in tiles) + margin
    across = max(label + (n * (w + 1) + 1) * zoom + margin, 8 * len(title))
    made = style.figure(across / style.DPI, down / style.DPI)
    top = head
    for name, tile in tiles.items():
        style.show(made, style.mosaic(tile, n), label, top, zoom)
        middle = 1 - (top + block / 2) / down
        made.text((label - 6) / across, middle, name, ha='right', va='center', fontsize=9)
        for i, text in enumerate(notes.get(name, ())):
            left = label + (i * (w + 1) + 1 + w / 2) * zoom
            below = 1 - (top + block + note / 2) / down
            made.text(left / across, below, text, ha='center', va='center', fontsize=7.5)
        top += block + 4 + note * (name in notes)
    if title:
        made.text(margin / across, 1 - head / 2 / down, title, va='center', fontsize=10)
    return made


@style.house()
def grid(images, *, columns=None, title='', width=7.0):
    """Pictures in a grid, as many columns as make it about square.

    Shapes  images [n, h, w] or [n, h, w, c], values in [0, 1].
    """
    tiles = as_tiles(images)
    n, h, w, _ = tiles.shape
    columns = columns or math.ceil(math.sqrt(n * (h + 1) / (w + 1)))
    picture = style.mosaic(tiles, min(columns, n))
    zoom = int(np.clip(width * style.DPI // picture.shape[1], 1, 12))
    margin, head = 8, 30 if title else 8
    across = max(picture.shape[1] * zoom, 8 * len(title)) + 2 * margin
    down = picture.shape[0] * zoom + head + margin
    made = style.figure(across / style.DPI, down / style.DPI)
    style.show(made, picture, margin, head, zoom)
    if title:
        made.text(margin / across, 1 - head / 2 / down, title, va='center', fontsize=10)
    return made
