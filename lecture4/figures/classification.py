"""Errors of a classifier: the classes that it confuses, the images with the highest loss."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Integer, Real
from matplotlib.figure import Figure
from PIL import Image

from lecture4.figures import images as image_figures
from lecture4.figures import style

THUMBNAIL = 64  # longer side of an image in screen pixels; larger images are reduced


@style.context()
def confusion_matrix(
    counts: Real[np.ndarray | Array, 'c c'],
    names: Sequence[str],
    *,
    max_classes: int = 20,
    title: str = '',
) -> Figure:
    """Counts by true class (rows) and predicted class (columns), shaded by fraction of the row.

    If there are more than `max_classes` classes, those with the most errors are drawn; the accuracy in the title is
    that of the drawn classes.

    Args:
      counts: Counts of examples.
      names: Names of the classes.
      max_classes: Largest number of classes that is drawn.
      title: Title.

    Raises:
      ValueError: The shapes do not fit.
    """
    counts = np.asarray(counts)
    if counts.shape != (len(names), len(names)):
        expected = [len(names), len(names)]
        raise ValueError(f'expected counts {expected} for {len(names)} names, got {counts.shape}')
    errors = counts - np.diag(np.diag(counts))
    drawn = np.argsort(-(errors.sum(0) + errors.sum(1)), kind='stable')[:max_classes]
    drawn = np.sort(drawn)
    counts, c = counts[np.ix_(drawn, drawn)], len(drawn)
    labels = [style.plain_text(names[i]) for i in drawn]
    fractions = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = 0.52 * c
    fig = style.figure(size + 2.0, size + 1.5, layout='constrained')
    axes = fig.add_subplot()
    axes.imshow(fractions, cmap='Blues', vmin=0, vmax=1)
    axes.grid(visible=False)
    for i in range(c):
        for j in range(c):
            ink = 'white' if fractions[i, j] > 0.55 else style.INK
            axes.text(j, i, f'{counts[i, j]:g}', ha='center', va='center', fontsize=8, color=ink)
    is_long = c > 2 and max(map(len, labels)) > 4
    rotation = {'rotation': 35, 'ha': 'right'} if is_long else {'rotation': 0, 'ha': 'center'}
    axes.set_xticks(range(c), labels, **rotation)
    axes.set_yticks(range(c), labels)
    axes.set_xlabel('predicted')
    axes.set_ylabel('true')
    accuracy = np.trace(counts) / max(counts.sum(), 1)
    prefix = style.plain_text(f'{title}: ' if title else '')
    axes.set_title(f'{prefix}accuracy {100 * accuracy:.1f}%')
    return fig


def top_losses(
    images: Any,
    probs: Real[np.ndarray | Array, 'm classes'],
    labels: Integer[np.ndarray | Array, 'm'],
    names: Sequence[str],
    *,
    n: int = 12,
    columns: int = 6,
) -> Figure:
    """The images whose true class has the lowest probability, with true and predicted class under each.

    Args:
      images: Images [m, h, w, c], uint8 or in [0, 1]: an array, or an object that returns the image of a row.
      probs: Predicted probabilities.
      labels: True classes.
      names: Names of the classes.
      n: Number of images.
      columns: Number of images per row.
    """
    probs, labels = np.asarray(probs), np.asarray(labels)
    true_probs = probs[np.arange(len(labels)), labels]
    order = np.argsort(true_probs, kind='stable')[:n]
    columns = min(columns, len(order))
    order = order[: len(order) // columns * columns]
    notes = []
    for i in order.tolist():
        prediction = int(probs[i].argmax())
        notes.append(f'{_short(names[int(labels[i])])} → {_short(names[prediction])}')
    thumbnails = np.stack([_thumbnail(images[i]) for i in order.tolist()])
    rows = {
        f'{start + 1}-{start + columns}': slice(start, start + columns)
        for start in range(0, len(order), columns)
    }
    return image_figures.rows(
        {name: thumbnails[row] for name, row in rows.items()},
        notes={name: notes[row] for name, row in rows.items()},
    )


def _thumbnail(image):
    image = np.asarray(image)
    unit = image / 255 if image.dtype == np.uint8 else image
    h, w = unit.shape[:2]
    if max(h, w) <= THUMBNAIL:
        return unit
    size = (THUMBNAIL * w // max(h, w), THUMBNAIL * h // max(h, w))
    channels = [
        np.asarray(
            Image.fromarray(np.float32(unit[..., c])).resize(size, Image.Resampling.BILINEAR)
        )
        for c in range(unit.shape[-1])
    ]
    return np.stack(channels, -1)


def _short(name, max_length=9):
    name = str(name)
    return name if len(name) <= max_length else name[: max_length - 1] + '…'
