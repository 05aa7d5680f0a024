"""Detections on images, precision and recall, error types, proposals, anchors, objectness.

Boxes are edges [x1, y1, x2, y2] in pixels of the image that they are drawn on.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num, Shaped
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from lecture4.figures import style
from lecture4.figures.images import as_tiles

CORRECT, FALSE, MISSED = style.COLORS[2], style.COLORS[1], style.COLORS[5]
IMAGE_SIZE = 2.6  # width of an image in inches
TYPE_COLORS = (style.COLORS[2], style.COLORS[4], style.COLORS[0], style.COLORS[3], '#999999')

Image = Shaped[np.ndarray | Array, '_h _w *_c']
Numbers = Sequence[float | int] | np.ndarray
Boxes = Num[np.ndarray | Array, '_ 4']


@style.context()
def detections(
    images: Sequence[Image],
    boxes: Sequence[Boxes],
    labels: Sequence[Int[np.ndarray | Array, ' _']],
    scores: Sequence[Float[np.ndarray | Array, ' _']],
    is_correct: Sequence[Bool[np.ndarray | Array, ' _']],
    class_names: Sequence[str],
    *,
    missed: Sequence[Boxes] = (),
    missed_labels: Sequence[Int[np.ndarray | Array, ' _']] = (),
    missed_name: str = 'missed',
    columns: int = 4,
    title: str = '',
) -> Figure:
    """Images with their detections: correct ones green, false ones red, missed objects dashed in blue.

    Args:
      images: Images [h, w, 3], [h, w, 1] or [h, w], uint8 or in [0, 1], of any sizes.
      boxes: Detections of each image.
      labels: Class of each detection, 1 to K.
      scores: Score of each detection.
      is_correct: Whether each detection is correct.
      class_names: Names of the K classes.
      missed: Objects of each image that no detection matches; () draws none.
      missed_labels: Classes of the missed objects.
      missed_name: Their name in the legend; 'object' where `missed` holds all objects.
      columns: Number of images per row.
      title: Title.

    Raises:
      ValueError: There is no image, or the numbers differ.
    """
    counts = {len(part) for part in (images, boxes, labels, scores, is_correct)}
    if len(counts) != 1 or not len(images):
        raise ValueError(
            f'expected as many images, boxes, labels, scores and flags, at least one, got {counts}'
        )
    fig, grid = _image_grid(images, columns, title, legend=0.3)
    for i, axes in enumerate(grid):
        for box, label, score, correct in zip(
            boxes[i], labels[i], scores[i], is_correct[i], strict=True
        ):
            name = f'{class_names[int(label) - 1]} {float(score):.2f}'
            _draw_box(axes, box, CORRECT if correct else FALSE, name)
        for j, box in enumerate(missed[i] if len(missed) else ()):
            name = class_names[int(missed_labels[i][j]) - 1] if len(missed_labels) else ''
            _draw_box(axes, box, MISSED, name, linestyle='--', below=True)
    handles = [Line2D([], [], color=color) for color in (CORRECT, FALSE)]
    handles.append(Line2D([], [], color=MISSED, linestyle='--'))
    fig.legend(handles, ('correct', 'false', missed_name), loc='outside lower left', ncols=3)
    return fig


@style.context()
def precision_recall(
    curves: Mapping[str, tuple[Float[np.ndarray, ' m'], Float[np.ndarray, ' m'], float]],
    *,
    title: str = '',
) -> Figure:
    """Precision against recall, a panel for each class with its average precision, and its monotone hull.

    Curves begin at recall 0 with the precision of the first detection.

    Args:
      curves: Name of the class -> (recall, precision, average precision), the former two over detections in order of
        score.
      title: Title.

    Raises:
      ValueError: There is no class.
    """
    if not curves:
        raise ValueError('expected precision and recall of at least one class, got none')
    columns = min(len(curves), 5)
    rows = math.ceil(len(curves) / columns)
    fig = style.figure(1.7 * columns + 0.4, 1.6 * rows + 0.5, layout='constrained')
    grid = fig.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes, (name, (recall, precision, ap)) in zip(grid.ravel(), curves.items(), strict=False):
        recall, precision = np.asarray(recall), np.asarray(precision)
        first = precision[:1] if len(precision) else 0.0
        recall, precision = np.append(0.0, recall), np.append(first, precision)
        hull = np.maximum.accumulate(precision[::-1])[::-1]
        axes.fill_between(recall, hull, step='pre', alpha=0.15, color=style.COLORS[0], linewidth=0)
        axes.plot(recall, precision, linewidth=1.1)
        axes.set_title(style.plain_text(f'{name}  {100 * ap:.1f} %' if np.isfinite(ap) else name))
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.04)
    for axes in grid.ravel()[len(curves) :]:
        axes.set_axis_off()
    fig.supxlabel('recall', fontsize=9)
    fig.supylabel('precision', fontsize=9)
    if title:
        fig.suptitle(style.plain_text(title), x=0.01, ha='left')
    return fig


@style.context()
def error_types(
    counts: Int[np.ndarray, 'k t'],
    class_names: Sequence[str],
    types: Sequence[str] = ('correct', 'duplicate', 'localization', 'confusion', 'background'),
    *,
    title: str = '',
) -> Figure:
    """Types of the detections of highest score: a stacked bar per class, and one for all classes.

    Args:
      counts: Numbers of detections by class and type, up to the number of objects of the class.
      class_names: Names of the K classes.
      types: Names of the columns.
      title: Title.

    Raises:
      ValueError: The shapes do not fit.
    """
    counts = np.asarray(counts)
    if counts.shape != (len(class_names), len(types)):
        raise ValueError(
            f'expected counts [{len(class_names)}, {len(types)}], got {list(counts.shape)}'
        )
    counts = np.concatenate([counts, counts.sum(0, keepdims=True)])
    names = [style.plain_text(name) for name in (*class_names, 'all classes')]
    fractions = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    fig = style.figure(6.4, 0.27 * len(names) + 1.1, layout='constrained')
    axes = fig.add_subplot()
    left = np.zeros(len(names))
    for name, values, color in zip(types, fractions.T, TYPE_COLORS, strict=True):
        axes.barh(names, values, left=left, color=color, label=style.plain_text(name), height=0.75)
        for y, (start, width) in enumerate(zip(left, values, strict=True)):
            if width >= 8:
                axes.text(
                    start + width / 2,
                    y,
                    f'{width:.0f}',
                    ha='center',
                    va='center',
                    fontsize=7.5,
                    color='white',
                )
        left = left + values
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.grid(visible=False)
    axes.set_xlabel('detections of highest score, as many as objects (%)')
    fig.legend(loc='outside upper left', ncols=len(types))
    if title:
        axes.set_title(style.plain_text(title))
    return fig


@style.context()
def proposal_recall(
    by_number: Mapping[str, tuple[Numbers, Numbers]],
    by_overlap: Mapping[str, tuple[Numbers, Numbers]],
) -> Figure:
    """Recall of region proposals against their number per image, and against IoU.

    Args:
      by_number: Label -> (numbers of proposals, recall at one IoU).
      by_overlap: Label -> (IoU thresholds, recall at one number).
    """
    fig = style.figure(7.2, 2.7, layout='constrained')
    panels = fig.subplots(1, 2, sharey=True)
    for axes, curves in zip(panels, (by_number, by_overlap), strict=True):
        for (label, (at, recall)), marker in zip(curves.items(), style.MARKERS * 9, strict=False):
            axes.plot(
                at,
                100 * np.asarray(recall),
                label=style.plain_text(label),
                marker=marker,
                markersize=3,
            )
    counts = [np.asarray(at, float) for at, _ in by_number.values()]
    style.scale_axis(panels[0].xaxis, np.concatenate(counts), 'log')
    panels[0].set_xlabel('proposals per image')
    panels[0].set_ylabel('recall (%)')
    panels[0].set_ylim(0, 102)
    panels[1].set_xlabel('IoU')
    handles = {line.get_label(): line for axes in panels for line in axes.lines}
    style.legend_outside(fig, list(handles.values()), list(handles))
    return fig


@style.context()
def best_proposals(
    images: Sequence[Image],
    objects: Sequence[Boxes],
    proposals: Sequence[Boxes],
    *,
    columns: int = 4,
) -> Figure:
    """Objects (dashed), and the proposals that overlap them most.

    Args:
      images: As in `detections`.
      objects: Objects of each image.
      proposals: Proposals of each image.
      columns: Number of images per row.
    """
    fig, grid = _image_grid(images, columns, '', legend=0.3)
    for axes, image_objects, boxes in zip(grid, objects, proposals, strict=True):
        for box in boxes:
            _draw_box(axes, box, CORRECT, '')
        for box in image_objects:
            _draw_box(axes, box, 'white', '', linestyle='--', linewidth=1.0)
    handles = [Line2D([], [], color=CORRECT), Line2D([], [], color=style.FAINT, linestyle='--')]
    fig.legend(handles, ('best proposal', 'object'), loc='outside lower left', ncols=2)
    return fig


@style.context()
def anchors(
    image: Image,
    boxes: Boxes,
    *,
    matched: Bool[np.ndarray | Array, ' _'] | None = None,
    objects: Boxes | None = None,
    title: str = '',
) -> Figure:
    """Anchors on an image, one color per size; parts outside of the image are drawn too.

    Args:
      image: As in `detections`.
      boxes: Anchors, such as those of one position.
      matched: Mask of the positive anchors, drawn with thick lines.
      objects: Objects, drawn dashed.
      title: Title.
    """
    boxes = np.asarray(boxes, float)
    pixels = _pixels(image)
    fig = style.figure(4.4, 4.4 * pixels.shape[0] / pixels.shape[1] + 0.35, layout='constrained')
    axes = fig.add_subplot()
    axes.imshow(pixels)
    area = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], -1))
    sizes = np.unique(np.round(np.log2(np.maximum(area, 1))))
    for i, (box, log_size) in enumerate(zip(boxes, np.log2(np.maximum(area, 1)), strict=True)):
        color = style.COLORS[int(np.abs(sizes - log_size).argmin()) % len(style.COLORS)]
        width = 1.0 if matched is None else 2.4 if matched[i] else 0.5
        _draw_box(axes, box, color, '', linewidth=width)
    for box in () if objects is None else np.asarray(objects):
        _draw_box(axes, box, 'white', '', linestyle='--')
    everything = boxes if objects is None else np.concatenate([boxes, np.asarray(objects, float)])
    h, w = pixels.shape[:2]
    axes.set_xlim(min(0, everything[:, 0].min()) - 2, max(w, everything[:, 2].max()) + 2)
    axes.set_ylim(max(h, everything[:, 3].max()) + 2, min(0, everything[:, 1].min()) - 2)
    axes.set_axis_off()
    if title:
        axes.set_title(style.plain_text(title))
    return fig


@style.context()
def objectness(
    images: Sequence[Image],
    maps: Sequence[Float[np.ndarray | Array, '_ _']],
    *,
    boxes: Sequence[Boxes] = (),
    columns: int = 4,
    title: str = '',
) -> Figure:
    """Objectness of the region proposal network over its positions, laid over each image.

    Args:
      images: As in `detections`.
      maps: Largest objectness in [0, 1] over the anchors of each position, [rows, columns]; a map covers its image.
      boxes: Boxes to draw for each image, such as the best proposals.
      columns: Number of images per row.
      title: Title.

    Raises:
      ValueError: There is no image, or the numbers differ.
    """
    if len(images) != len(maps) or not len(images):
        raise ValueError(
            f'expected as many maps as images, at least one, got {len(maps)} and {len(images)}'
        )
    fig, grid = _image_grid(images, columns, title, legend=0.55)
    shown: Any = None
    for i, axes in enumerate(grid):
        h, w = np.shape(images[i])[:2]
        shown = axes.imshow(
            np.asarray(maps[i], float), cmap='inferno', vmin=0, vmax=1, alpha=0.6,
            extent=(-0.5, w - 0.5, h - 0.5, -0.5), interpolation='bilinear',
        )  # fmt: skip
        for box in boxes[i] if len(boxes) else ():
            _draw_box(axes, box, 'white', '')
    bar = fig.colorbar(shown, ax=fig.axes, location='bottom', shrink=0.35, aspect=40)
    bar.set_label('objectness', fontsize=8.5)
    return fig


@style.context()
def receptive_fields(
    images: Sequence[Image], regions: Sequence[Boxes], fields: Sequence[Boxes], *, columns: int = 4
) -> Figure:
    """Regions and the receptive fields of their pooled features (dashed).

    Args:
      images: As in `detections`.
      regions: Regions of each image.
      fields: For each region, the box of all input pixels that its features depend on.
      columns: Number of images per row.
    """
    fig, grid = _image_grid(images, columns, '', legend=0.3)
    for axes, image_regions, around in zip(grid, regions, fields, strict=True):
        for i, (box, field) in enumerate(zip(image_regions, around, strict=True)):
            color = style.COLORS[i % len(style.COLORS)]
            _draw_box(axes, box, color, '')
            _draw_box(axes, field, color, '', linestyle='--')
    handles = [Line2D([], [], color=style.INK), Line2D([], [], color=style.INK, linestyle='--')]
    fig.legend(handles, ('region', 'receptive field'), loc='outside lower left', ncols=2)
    return fig


def _image_grid(images, columns, title, legend) -> tuple[Figure, list[Axes]]:
    """A figure with axes for each image, with the aspect ratio of the image."""
    tiles = [_pixels(image) for image in images]
    columns = min(columns, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    ratio = max(tile.shape[0] / tile.shape[1] for tile in tiles)
    height = rows * min(IMAGE_SIZE * ratio, 1.5 * IMAGE_SIZE) + legend + (0.3 if title else 0.05)
    fig = style.figure(max(columns * IMAGE_SIZE, 3.2), height, layout='constrained')
    grid = list(fig.subplots(rows, columns, squeeze=False).ravel())
    for axes in grid:
        axes.set_axis_off()
    for axes, tile in zip(grid, tiles, strict=False):
        axes.imshow(tile)
    if title:
        fig.suptitle(style.plain_text(title), x=0.01, ha='left')
    return fig, grid[: len(tiles)]


def _pixels(image) -> np.ndarray:
    values = np.asarray(image)
    scale = 255 if np.issubdtype(values.dtype, np.integer) else 1
    return as_tiles(values[None] / scale)[0]


def _draw_box(axes, box, color, text, *, linestyle: Any = '-', linewidth=1.5, below=False):
    x1, y1, x2, y2 = np.asarray(box, float) - 0.5  # pixel i covers i - 0.5 to i + 0.5 of the axes
    axes.add_patch(
        Rectangle(
            (x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=color, linestyle=linestyle,
            linewidth=linewidth,
        )
    )  # fmt: skip
    if text:
        bottom, top = axes.get_ylim()  # below the edge; a label above the border would be clipped
        inside = below or y1 - top < 0.07 * (bottom - top)
        axes.text(
            x1, y2 if below else y1, style.plain_text(text), fontsize=6.5, color='white',
            va='top' if inside else 'bottom', clip_on=True,
            bbox={'facecolor': color, 'edgecolor': 'none', 'pad': 0.8, 'alpha': 0.85},
        )  # fmt: skip
