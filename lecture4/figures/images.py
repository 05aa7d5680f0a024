"""Images next to one another, such as examples above their reconstructions, with crisp pixels."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Array, Float, Shaped
from matplotlib.figure import Figure

from lecture4.figures import style

Images = Shaped[np.ndarray | Array, 'n h w *c']  # [n, h, w] or [n, h, w, 1 or 3], in [0, 1]


def as_tiles(images: Images) -> Float[np.ndarray, 'n h w 3']:
    """Images as RGB tiles, clipped to [0, 1]; NaN becomes 0.

    Args:
      images: Images [n, h, w] or [n, h, w, 1 or 3], n >= 1.

    Raises:
        ValueError: The images have another shape.
    """
    images = np.nan_to_num(np.asarray(images, float))
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or not images.size:
        raise ValueError(
            f'expected images [n, h, w] or [n, h, w, 1 or 3] with n >= 1, got shape {images.shape}'
        )
    return np.broadcast_to(np.clip(images, 0, 1), (*images.shape[:3], 3))


def around_gray(
    images: Shaped[np.ndarray | Array, 'n *shape'],
) -> Float[np.ndarray, 'n *shape']:
    """Signed images mapped to [0, 1]: 0 becomes 1/2, the largest |value| of each becomes 0 or 1.

    Args:
      images: One image for each entry of the first axis; an image of zeros becomes NaN.
    """
    images = np.asarray(images)
    largest = abs(images).max(tuple(range(1, images.ndim)), keepdims=True)
    return 0.5 + 0.5 * images / largest


@style.context()
def rows(
    images: Mapping[str, Images],
    *,
    notes: Mapping[str, Sequence[str]] | None = None,
    title: str = '',
    width: int | float = 7.4,
) -> Figure:
    """One row of images per name: originals, corrupted images, reconstructions, in the same order.

    Args:
      images: Name of the row -> images, all of one shape, values in [0, 1].
      notes: Name of the row -> a short text under each of its images.
      title: Title.
      width: Approximate width in inches: every pixel of an image is an integer number of screen pixels wide.

    Raises:
      ValueError: There is no row, or the rows differ in shape.
    """
    tiles = {name: as_tiles(values) for name, values in images.items()}
    shapes = {tile.shape for tile in tiles.values()}
    if len(shapes) != 1:
        raise ValueError(f'expected at least one row, all of one shape, got {sorted(shapes)}')
    (n, h, w, _) = shapes.pop()
    notes = notes or {}
    label_width = 16 + 9 * max(len(name) for name in tiles)
    zoom = int(np.clip((width * style.DPI - label_width) // (n * (w + 1) + 1), 1, 12))
    margin, head, note_height = 8, 30 if title else 8, 15
    block = (h + 2) * zoom
    down = head + sum(block + 4 + note_height * (name in notes) for name in tiles) + margin
    across = max(label_width + (n * (w + 1) + 1) * zoom + margin, 8 * len(title))
    fig = style.figure(across / style.DPI, down / style.DPI)

    def write(x, y, text, **options):
        fig.text(x / across, 1 - y / down, style.plain_text(text), va='center', **options)

    top = head
    for name, tile in tiles.items():
        style.show_image(fig, style.mosaic(tile, n), label_width, top, zoom)
        write(label_width - 6, top + block / 2, name, ha='right', fontsize=9)
        for i, text in enumerate(notes.get(name, ())):
            x = label_width + (i * (w + 1) + 1 + w / 2) * zoom
            write(x, top + block + note_height / 2, text, ha='center', fontsize=7.5)
        top += block + 4 + note_height * (name in notes)
    if title:
        write(margin, head / 2, title, fontsize=10)
    return fig


def spaced(
    images: Shaped[np.ndarray | Array, '_ *shape'], n: int = 12
) -> Shaped[np.ndarray, '{n} *shape']:
    """N evenly spaced images of a set, which is often sorted by class."""
    return np.asarray(images)[np.linspace(0, len(images) - 1, n).astype(int)]


def vector_rows(
    images: Mapping[str, Shaped[np.ndarray | Array, 'n d']], shape: Sequence[int]
) -> Figure:
    """`rows` of images as vectors.

    Args:
      images: Name of the row -> images as vectors, values in [0, 1].
      shape: Shape of one image.
    """
    return rows({name: np.reshape(x, (-1, *shape)) for name, x in images.items()})


@style.context()
def grid(
    images: Images,
    columns: int | None = None,
    *,
    title: str = '',
    width: int | float = 7.0,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
) -> Figure:
    """Images in rows of `columns`, with every pixel an integer number of screen pixels wide.

    Args:
      images: Images [n, h, w] or [n, h, w, 1 or 3], values in [0, 1].
      columns: Number of images per row; None makes the grid about square.
      title: Title.
      width: Approximate width in inches.
      row_labels: A label on the left of each row.
      column_labels: A label above each column.

    Raises:
      ValueError: There is no image, or the labels do not fit the rows and columns.
    """
    tiles = as_tiles(images)
    n, h, w, _ = tiles.shape
    if columns is None:
        columns = min(math.ceil(math.sqrt(n * (h + 1) / (w + 1))), n)
    n_rows = -(-n // columns)
    if len(row_labels) not in (0, n_rows) or len(column_labels) not in (0, columns):
        raise ValueError(
            f'{len(row_labels)} row labels and {len(column_labels)} column labels for {n_rows} rows '
            f'and {columns} columns; give one for each, or none'
        )
    left = 12 + 7 * max(map(len, row_labels)) if row_labels else 8
    top = (30 if title else 8) + (20 if column_labels else 0)
    fig, zoom = style.mosaic_figure(style.mosaic(tiles, columns), title, width, left, top)

    def write(x, y, text, **options):
        x, y = x / fig.bbox.width, 1 - y / fig.bbox.height
        fig.text(x, y, style.plain_text(text), va='center', fontsize=8.5, **options)

    for i, label in enumerate(row_labels):
        write(left - 6, top + zoom * (i * (h + 1) + 1 + h / 2), label, ha='right')
    for i, label in enumerate(column_labels):
        write(left + zoom * (i * (w + 1) + 1 + w / 2), top - 10, label, ha='center')
    return fig


def reconstructions(
    images: Images, reconstructed: Images, *, n: int = 12, title: str = ''
) -> Figure:
    """The first n images above their reconstructions.

    Args:
      images: Originals.
      reconstructed: Reconstructions of the images, of the same shape.
      n: Number of images.
      title: Title.

    Raises:
      ValueError: The shapes differ.
    """
    above, below = as_tiles(images)[:n], as_tiles(reconstructed)[:n]
    if above.shape != below.shape:
        raise ValueError(
            f'expected images and reconstructed of one shape, got {above.shape} and {below.shape}'
        )
    labels = ('image', 'reconstruction')
    return grid(np.concatenate([above, below]), len(above), title=title, row_labels=labels)


def interpolations(
    paths: Shaped[np.ndarray | Array, 'm steps h w *c'], *, title: str = ''
) -> Figure:
    """One row for each path of images.

    Args:
      paths: Images along m paths, in [0, 1].
      title: Title.
    """
    paths = np.asarray(paths, float)
    flat = paths.reshape(paths.shape[0] * paths.shape[1], *paths.shape[2:])
    return grid(flat, paths.shape[1], title=title)
