"""What a convolutional layer has learned and what it makes of a picture: filters, feature maps."""

import numpy as np

from lecture4.figures import style
from lecture4.figures.dictionary import tiles
from lecture4.figures.images import as_tiles

MARGIN, HEAD = 8, 30  # screen pixels


@style.house()
def filters(kernel, *, n=64, columns=None, title='', width=7.0):
    """The filters of a layer as tiles: zero is mid grey, each one's largest |weight| black or white.

    Filters of 1 or 3 channels are one tile each. Others are a row of tiles each, one a channel, on
    the filter's common scale, the first `n` // channels of them.

    Shapes  kernel [h, w, c, o]; the first n tiles are drawn; width in inches, about.
    Errors  ValueError for another shape.
    """
    kernel = np.asarray(kernel, float)
    if kernel.ndim != 4 or not kernel.size:
        raise ValueError(f'kernel has shape {kernel.shape}; [h, w, c, o] is wanted')
    h, w, c, o = kernel.shape
    if c in (1, 3):
        pictures = tiles(kernel.reshape(-1, o), (h, w, c))[:n]
        columns = columns or min(len(pictures), 16)
    else:
        scale = np.repeat(abs(kernel).max((0, 1, 2)), c)
        by_filter = kernel.transpose(0, 1, 3, 2).reshape(h * w, o * c)
        pictures = tiles(by_filter, (h, w), scale)[: max(n // c, 1) * c]
        columns = c
    picture = style.mosaic(pictures, columns)
    zoom = int(np.clip(width * style.DPI // picture.shape[1], 1, 12))
    head = 30 if title else MARGIN
    across = max(picture.shape[1] * zoom, 8 * len(title)) + 2 * MARGIN
    down = picture.shape[0] * zoom + head + MARGIN
    made = style.figure(across / style.DPI, down / style.DPI)
    style.show(made, picture, MARGIN, head, zoom)
    made.text(MARGIN / across, 1 - head / 2 / down, title, va='center', fontsize=10)
    return made


@style.house()
def maps(images, layers, *, n=12, width=9.0):
    """Pictures, each with the maps that a network's layers make of it.

    One row a picture: the picture itself, then for each layer its first `n` maps, on that map's own
    scale over all pictures drawn: black is its least value, white its largest; a map that is the
    same everywhere is black.

    Shapes  images [m, h, w, 1 or 3] in [0, 1]; layers {name: activations [m, h', w', c]}.
    Errors  ValueError where a layer is not [m, h', w', c] for the m images.
    """
    pictures = as_tiles(images)
    first = style.mosaic(pictures, 1)
    drawn = {}
    for name, values in layers.items():
        values = np.asarray(values, float)
        if values.ndim != 4 or len(values) != len(pictures):
            raise ValueError(
                f'{name} has shape {values.shape}; [{len(pictures)}, h, w, c] is wanted'
            )
        values = np.moveaxis(values[..., :n], -1, 1)  # [m, c, h, w]
        low = values.min((0, 2, 3), keepdims=True)
        spread = values.max((0, 2, 3), keepdims=True) - low
        tiled = ((values - low) / np.where(spread > 0, spread, 1)).reshape(-1, *values.shape[2:])
        drawn[name] = style.mosaic(as_tiles(tiled), values.shape[1])
    zoom = max(1, 90 // pictures.shape[2])
    left = 2 * MARGIN + first.shape[1] * zoom
    pixels = round(width * style.DPI)
    zooms = {
        name: max(1, (pixels - left - MARGIN) // picture.shape[1])
        for name, picture in drawn.items()
    }
    below = sum(picture.shape[0] * zooms[name] + HEAD for name, picture in drawn.items())
    down = max(below, first.shape[0] * zoom + HEAD) + MARGIN
    made = style.figure(pixels / style.DPI, down / style.DPI)

    def place(picture, left, top, zoom, text):
        style.show(made, picture, left, top + HEAD, zoom)
        made.text(left / pixels, 1 - (top + HEAD - 5) / down, text, fontsize=9, va='bottom')

    place(first, MARGIN, 0, zoom, 'input')
    top = 0
    for name, picture in drawn.items():
        place(picture, left, top, zooms[name], name)
        top += picture.shape[0] * zooms[name] + HEAD
    return made
