"""A table of the data that each learning setting may use, with examples."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Integer, Real
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lecture4.figures import style


class Examples(NamedTuple):
    """A cell of the table: a few examples, their labels if known, and a note.

    Attributes:
      images: A handful of images [n, h, w] in [0, 1].
      labels: Text under each image; '?' if its label is hidden.
      note: A word or two under the labels, such as their number.
    """

    images: Real[np.ndarray, 'n h w']
    labels: tuple[str, ...]
    note: str = ''


@runtime_checkable
class LabeledSet(Protocol):
    """A set of labeled images, as lecture4.data.images.load returns it."""

    train_images: Any
    train_labels: Any
    class_names: Any


def select(
    images: Real[np.ndarray | Array, 'n h w 1'],
    rows: Integer[np.ndarray | Array, 'm'] | Sequence[int | np.integer],
    labels: Sequence[str],
    note: str,
) -> Examples:
    """Some of the images, with the text under each.

    Args:
      images: Images.
      rows: Indices of the images to show.
      labels: Text under each of these images.
      note: Text under the labels.
    """
    return Examples(np.asarray(images)[np.asarray(rows)][..., 0], tuple(labels), note)


def evenly_spaced(
    images: Real[np.ndarray | Array, 'n h w 1'], labels: Sequence[str] | None = None, n: int = 4
) -> Examples:
    """Evenly spaced images of a set, which is often sorted by class, and the size of the set.

    Args:
      images: Images of the set.
      labels: Labels of the images; None hides them.
      n: Number of images.
    """
    rows = np.linspace(0, len(images) - 1, n).astype(int)
    texts = ['?'] * n if labels is None else [str(labels[int(i)]) for i in rows]
    return select(images, rows, texts, f'{len(images)} images')


@style.context()
def data_table(
    rows: Mapping[str, Sequence[Examples | str | None]],
    columns: Sequence[str],
    *,
    image_size: int = 26,
    title: str = '',
) -> Figure:
    """A table of settings by kinds of data, with examples of the kinds that a setting may use.

    Args:
      rows: Setting -> a cell for each column: examples, a text, or None (a dash).
      columns: Heading of each column; line breaks are kept.
      image_size: Approximate screen pixels of an example (an integer number for each of its pixels).
      title: Title.

    Raises:
      ValueError: A row does not have one cell for each column, or there is no row.
    """
    if not rows:
        raise ValueError('no setting to draw')
    for name, cells in rows.items():
        if len(cells) != len(columns):
            raise ValueError(f'row {name!r} has {len(cells)} cells for {len(columns)} columns')
    gap, height, head = 10, image_size + 44, 44 + 24 * bool(title)
    left = 2 * gap + 8 * max(map(len, rows))
    widths = [
        max(
            [_width(row[j], image_size) for row in rows.values()]
            + [7 * max(map(len, column.split('\n')))]
        )
        for j, column in enumerate(columns)
    ]
    across = left + sum(widths) + gap * (len(columns) + 1)
    down = head + height * len(rows) + gap
    fig = style.figure(across / style.DPI, down / style.DPI)

    def write(x, y, text, **options: Any):
        fig.text(x / across, 1 - y / down, style.plain_text(text), va='center', **options)

    if title:
        write(gap, 14, title, fontsize=10)
    edges = left + np.concatenate([[0], np.cumsum([width + gap for width in widths])])
    for x, column in zip(edges, columns, strict=False):
        write(x, head - 20, column, fontsize=8.5, color=style.FAINT)
    for i, (name, cells) in enumerate(rows.items()):
        top = head + i * height
        write(gap, top + height / 2, name, fontsize=9.5)
        y = 1 - top / down
        line = Line2D([gap / across, 1 - gap / across], [y, y], color=style.GRID, linewidth=0.8)
        fig.add_artist(line)
        for x, cell in zip(edges, cells, strict=False):
            if isinstance(cell, Examples):
                zoom = max(image_size // max(cell.images.shape[1:]), 1)
                for k, (image, label) in enumerate(zip(cell.images, cell.labels, strict=True)):
                    position = int(x) + k * (image_size + 4)
                    unit = np.clip(_thinned(image, image_size), 0, 1)
                    rgb = np.repeat(unit[:, :, None], 3, 2)
                    style.show_image(fig, rgb, position, top + 8, zoom)
                    middle = position + image_size / 2
                    write(middle, top + image_size + 16, label, ha='center', fontsize=8)
                write(x, top + image_size + 30, cell.note, fontsize=8)
            else:
                color = style.FAINT if cell is None else style.INK
                write(x, top + height / 2, cell or '\N{EN DASH}', fontsize=9, color=color)
    return fig


def learning_settings(
    accuracies: Mapping[str, Real[np.ndarray, 'n_sizes num_trials']],
    labels_per_class: Sequence[int],
    task: LabeledSet,
    others: LabeledSet,
    unlabeled: Real[np.ndarray | Array, 'n h w 1'],
    *,
    seed: int = 0,
) -> Figure:
    """Learning settings by the data they use, with examples, and the accuracies they reach.

    Args:
      accuracies: Setting -> accuracy; semi-supervised, transfer, self-taught and active settings use more than the
        labeled examples of the task.
      labels_per_class: Numbers of labels; accuracies for the first and the last are printed.
      task: The task: a few labeled examples, and unlabeled ones.
      others: Other classes, labeled.
      unlabeled: Other images, unlabeled.
      seed: Seed of the choice of labeled examples.
    """
    rng = np.random.default_rng(seed)
    few = [rng.choice(np.flatnonzero(task.train_labels == c)) for c in range(len(task.class_names))]
    few_to_many = dict.fromkeys((min(labels_per_class), max(labels_per_class)))
    n_each = f'{" to ".join(map(str, few_to_many))} per class'
    labeled = select(task.train_images, few, task.class_names, n_each)
    evenly = evenly_spaced(task.train_images)
    names = [others.class_names[c] for c in others.train_labels]
    transfer = evenly_spaced(others.train_images, names)
    oracle = 'queries an oracle, after\none label per class'
    uses = {
        'semi-supervised': (evenly, None, None, 'random'),
        'transfer': (None, transfer, None, 'random'),
        'self-taught': (None, None, evenly_spaced(unlabeled), 'random'),
        'active: least certain': (evenly, None, None, oracle),
        'active: most diverse': (evenly, None, None, oracle),
    }
    columns = [
        'the task, labeled',
        'the task, unlabeled',
        'other classes, labeled',
        'other images, unlabeled',
        'choice of labels',
        f'accuracy (%) with\n{labels_per_class[0]} / {labels_per_class[-1]} labels per class',
    ]
    rows = {}
    for name, values in accuracies.items():
        reached = ' / '.join(f'{100 * row.mean():.1f}' for row in (values[0], values[-1]))
        rows[name] = [labeled, *uses.get(name, (None, None, None, 'random')), reached]
    return data_table(rows, columns)


def _thinned(image, image_size):
    """Every second, third, ... pixel of images that are larger than image_size."""
    step = -(-max(image.shape) // image_size)
    return np.asarray(image, float)[::step, ::step]


def _width(cell, image_size):
    if isinstance(cell, Examples):
        return max(len(cell.images) * (image_size + 4), 6 * len(cell.note))
    return 7 * max(map(len, cell.split('\n'))) if cell else 10
