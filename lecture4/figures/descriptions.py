"""Figures of images and sentences: segments aligned with regions, samples with references, attention over regions."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float, Shaped
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lecture4.figures import lines, style

Image = Shaped[np.ndarray | Array, '_h _w 3'] | Shaped[np.ndarray | Array, '_h _w']
LINE_HEIGHT = 0.17  # inches


@style.context()
def segments(
    images: Sequence[Image],
    boxes: Sequence[Float[np.ndarray, '_r 4']] | Float[np.ndarray, '_n _r 4'],
    sentences: Sequence[Sequence[tuple[str, int, float]]],
    *,
    columns: int = 2,
    title: str = '',
    scores: bool = True,
) -> Figure:
    """Images with the regions that segments of a sentence are aligned with, in the segments' colors.

    Args:
      images: Values in 0..255 (uint8) or [0, 1].
      boxes: Boxes of the regions of each image, [x1, y1, x2, y2] in pixels.
      sentences: Segments of each image in order: (words, region, score).
      columns: Number of images per row.
      title: Title.
      scores: Whether to print scores.

    Raises:
      ValueError: There is no image, or the lengths differ.
    """
    _check(images, boxes, sentences)
    spacing = 1.25 * LINE_HEIGHT
    heights = [max(1.75, spacing * (len(parts) + 0.5)) for parts in sentences]
    fig, cells = _grid(heights, columns, title)
    for (left, right, height), image, image_boxes, parts in zip(
        cells, images, boxes, sentences, strict=True
    ):
        left.imshow(image)
        h, w = image.shape[:2]
        order = list(dict.fromkeys(region for _, region, _ in parts))
        colors = {r: style.CLASS_COLORS[i % 10] for i, r in enumerate(order)}
        for region in order:
            (x1, y1), (x2, y2) = np.clip(image_boxes[region].reshape(2, 2), 0, (w - 0.5, h - 0.5))
            shape = Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, linewidth=2.2)
            shape.set_edgecolor(colors[region])
            left.add_patch(shape)
        left.set_xlim(-1.5, w + 0.5)
        left.set_ylim(h + 0.5, -1.5)
        for i, (text, region, score) in enumerate(parts):
            y = 1 - (i + 0.7) * spacing / height
            line = textwrap.shorten(text, 40, placeholder='…')
            line = f'{score:5.2f}  {line}' if scores else line
            right.text(0, y, style.plain_text(line), color=colors[region], fontsize=8.5)
    return fig


@style.context()
def samples(
    images: Sequence[Image],
    texts: Sequence[Sequence[tuple[str, str]]],
    *,
    columns: int = 2,
    title: str = '',
) -> Figure:
    """Images, each with lines of a label and a text: a generated sentence, references, ...

    Args:
      images: Values in 0..255 (uint8) or [0, 1].
      texts: (label, text) pairs of each image, the first one in bold.
      columns: Number of images per row.
      title: Title.

    Raises:
      ValueError: There is no image, or the lengths differ.
    """
    _check(images, texts)
    wrapped = [[_wrap(label, text) for label, text in own] for own in texts]
    heights = [max(1.5, LINE_HEIGHT * (sum(map(len, own)) + 0.5)) for own in wrapped]
    fig, cells = _grid(heights, columns, title)
    for (left, right, height), image, own in zip(cells, images, wrapped, strict=True):
        left.imshow(image)
        y = 0
        for i, block in enumerate(own):
            weight = 'bold' if i == 0 else 'normal'
            for line in block:
                place = 1 - (y + 0.7) * LINE_HEIGHT / height
                color = style.INK if i == 0 else style.FAINT
                right.text(0, place, style.plain_text(line), fontsize=8, color=color, weight=weight)
                y += 1
    return fig


@style.context()
def attention(
    image: Image,
    boxes: Float[np.ndarray, 'r 4'],
    words: Sequence[str],
    weights: Float[np.ndarray | Array, 't r'],
    *,
    columns: int = 7,
) -> Figure:
    """One image for every word, brighter in the regions that the word attends to.

    Args:
      image: Values in 0..255 (uint8) or [0, 1].
      boxes: Boxes of the regions, [x1, y1, x2, y2] in pixels.
      words: t words.
      weights: Attention of every word over the regions, summing to 1.
      columns: Number of images per row.
    """
    pixels = np.asarray(image, float)
    pixels = pixels / 255 if pixels.max() > 1 else pixels
    rows = -(-len(words) // columns)
    fig = style.figure(1.25 * columns, 1.5 * rows, layout='constrained')
    grid = fig.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.axis('off')
    for axes, word, weight in zip(grid, words, np.asarray(weights), strict=False):
        heat = np.zeros(pixels.shape[:2])
        for (x1, y1, x2, y2), value in zip(boxes.round().astype(int), weight, strict=True):
            area = max((x2 - x1) * (y2 - y1), 1)
            heat[max(y1, 0) : y2, max(x1, 0) : x2] += value / area
        axes.imshow(pixels * (0.25 + 0.75 * heat / max(heat.max(), 1e-12))[:, :, None])
        axes.set_title(style.plain_text(word), fontsize=8.5, loc='center')
    return fig


def beam_widths(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Figure:
    """Metrics against beam width, one curve for each split.

    Args:
      records: Records with 'split', 'beam_width' and the metrics, fractions.
      names: Names of the metrics, one panel for each.
    """
    splits = dict.fromkeys(record['split'] for record in records)
    panels = {}
    for name in names:
        curves = {}
        for split in splits:
            of_split = [record for record in records if record['split'] == split]
            curves[split] = ([r['beam_width'] for r in of_split], [100 * r[name] for r in of_split])
        label = name.replace('_', '-').upper()
        panels[label] = {'curves': curves, 'xlabel': 'beam width', 'ylabel': f'{label} (%)'}
    return lines.panels(panels)


def lengths(sentences: Mapping[str, Sequence[Sequence[str]]]) -> Figure:
    """Histograms of the number of words: name -> sentences."""
    counts = {
        name: np.bincount([len(words) for words in own]) / len(own)
        for name, own in sentences.items()
    }
    curves = {name: (np.arange(len(own)), own) for name, own in counts.items()}
    panel = {'curves': curves, 'xlabel': 'words', 'ylabel': 'fraction of sentences'}
    return lines.panels({'Length of sentences': panel}, size=(5.0, 2.9))


def beta_sweep(records: Sequence[Mapping[str, float]]) -> Figure:
    """Segment length and, if known, word accuracy against the reward beta of the random field."""
    titles = {
        'segment_length': 'words per segment',
        'word_accuracy': 'words aligned with their object (fraction)',
    }
    panels = {}
    for key, title in titles.items():
        if key in records[0]:
            curve = ([r['beta'] for r in records], [r[key] for r in records])
            panels[title] = {'curves': {'test': curve}, 'xlabel': 'beta'}
    return lines.panels(panels)


def _wrap(label, text):
    return textwrap.wrap(f'{label}: {text}', 46, subsequent_indent='    ') or [f'{label}:']


def _check(*parts):
    lengths = {len(part) for part in parts}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f'expected as many texts as images, at least one, got {sorted(lengths)}')


def _grid(heights, columns, title):
    """A figure with cells of an image and a text: (figure, [(axes, axes, height of the row in inches)])."""
    columns = min(columns, len(heights))
    rows = [max(heights[i : i + columns]) for i in range(0, len(heights), columns)]
    head = 0.3 if title else 0.05
    total = sum(rows) + 0.12 * len(rows) + head
    fig = style.figure(4.9 * columns, total)
    if title:
        fig.suptitle(style.plain_text(title), x=0.01, y=1 - 0.06 / total, ha='left')
    cells = []
    for i in range(len(heights)):
        row, column = divmod(i, columns)
        height = rows[row]
        bottom = 1 - (head + sum(rows[: row + 1]) + 0.12 * (row + 1) - 0.06) / total
        left, size = column / columns, height / total
        side = min(height, 1.75)
        low = bottom + (height - side) / total
        first = fig.add_axes((left + 0.008, low, side / (4.9 * columns), side / total))
        second = fig.add_axes(
            (left + (side + 0.15) / (4.9 * columns), bottom, (4.65 - side) / (4.9 * columns), size)
        )
        for axes in (first, second):
            axes.axis('off')
        cells.append((first, second, height))
    return fig, cells
