"""Figures of spatial transformers: inputs with the sampled region, warped outputs, meshes, robustness."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float, Shaped
from matplotlib.figure import Figure

from lecture4.figures import style
from lecture4.figures.images import as_tiles, rows

OUTLINE, WRONG = '#009e73', '#d55e00'


@style.context()
def attended(
    images: Shaped[np.ndarray, 'n h w c'],
    outlines: Float[np.ndarray, 'n p 2'],
    warped: Shaped[np.ndarray, 'n h2 w2 c'],
    titles: Sequence[str] = (),
    is_correct: Sequence[bool] | np.ndarray = (),
    *,
    title: str = '',
    size: int | float = 1.0,
) -> Figure:
    """Inputs with the outline of the sampled region, above the sampler's outputs (the paper's figure 1).

    Args:
      images: Images in [0, 1].
      outlines: Input positions of the output's border, normalized (x, y), where -1 and 1 are the centers of the
        corner pixels; the figure closes them.
      warped: Sampler outputs in [0, 1].
      titles: A short text for each image, such as the prediction.
      is_correct: Mask; titles of False are in another color.
      title: Title of the figure.
      size: Width of a column in inches.

    Raises:
      ValueError: Numbers of images, outlines and outputs differ.
    """
    if not len(images) == len(outlines) == len(warped):
        raise ValueError(
            f'expected as many images, outlines and outputs, got {len(images)}, {len(outlines)} and '
            f'{len(warped)}'
        )
    n = len(images)
    fig = style.figure(max(n * size, 2), 2 * size + 0.35 + 0.3 * bool(title), layout='constrained')
    if title:
        fig.suptitle(style.plain_text(title), fontsize=9)
    grid = fig.subplots(2, n, squeeze=False)
    columns = zip(as_tiles(images), outlines, as_tiles(warped), strict=True)
    for i, (image, outline, output) in enumerate(columns):
        h, w = image.shape[:2]
        grid[0, i].imshow(image)
        x, y = np.concatenate([outline, outline[:1]]).T
        grid[0, i].plot((x + 1) * (w - 1) / 2, (y + 1) * (h - 1) / 2, color=OUTLINE, linewidth=1.2)
        grid[0, i].set_xlim(-0.5, w - 0.5)
        grid[0, i].set_ylim(h - 0.5, -0.5)
        grid[1, i].imshow(output)
        if i < len(titles):
            wrong = i < len(is_correct) and not is_correct[i]
            color = WRONG if wrong else style.INK
            grid[1, i].set_title(style.plain_text(titles[i]), color=color, loc='center', fontsize=8)
    for axes in grid.ravel():
        axes.set_axis_off()
    return fig


def downscaled(
    images: Shaped[np.ndarray | Array, 'n h w c'],
    sampled: Shaped[np.ndarray | Array, 'n h2 w2 c'],
    antialiased: Shaped[np.ndarray | Array, 'n h2 w2 c'],
) -> Figure:
    """Samples of strongly shrunk images: the sampler skips pixels, unless its kernel is widened.

    Args:
      images: Images in [0, 1]; they are cropped to a multiple of the outputs' size.
      sampled: Output of the paper's sampler.
      antialiased: Output of the same grid with antialiasing.
    """
    factor = images.shape[1] // sampled.shape[1]
    h, w = factor * sampled.shape[1], factor * sampled.shape[2]

    def enlarged(x):
        return np.repeat(np.repeat(np.asarray(x), factor, 1), factor, 2)

    shown = {
        'input': np.asarray(images)[:, :h, :w],
        f'{sampled.shape[1]} x {sampled.shape[2]} samples': enlarged(sampled),
        'antialiased': enlarged(antialiased),
    }
    return rows(shown)


@style.context()
def meshes(
    images: Shaped[np.ndarray, 'n h w c'],
    points: Float[np.ndarray, 'n rows columns 2'],
    titles: Sequence[str] = (),
    *,
    size: int | float = 1.7,
) -> Figure:
    """Images with the lines of a sampling grid: the map of a thin plate spline as a warped mesh.

    Args:
      images: Images in [0, 1].
      points: Grid points in normalized coordinates, as in `attended`.
      titles: A short text for each image.
      size: Width of an image in inches.
    """
    tiles = as_tiles(images)
    fig = style.figure(max(len(tiles) * size, 2), size + 0.3, layout='constrained')
    for i, (axes, tile) in enumerate(
        zip(fig.subplots(1, len(tiles), squeeze=False)[0], tiles, strict=True)
    ):
        h, w = tile.shape[:2]
        axes.imshow(tile)
        x, y = (points[i, ..., 0] + 1) * (w - 1) / 2, (points[i, ..., 1] + 1) * (h - 1) / 2
        axes.plot(x, y, color=OUTLINE, linewidth=0.7)
        axes.plot(x.T, y.T, color=OUTLINE, linewidth=0.7)
        axes.set_xlim(-0.5, w - 0.5)
        axes.set_ylim(h - 0.5, -0.5)
        axes.set_axis_off()
        if i < len(titles):
            axes.set_title(style.plain_text(titles[i]), loc='center', fontsize=8)
    return fig


@style.context()
def robustness(
    curves: Mapping[str, tuple[np.ndarray, Mapping[str, np.ndarray | Sequence[float]]]],
    *,
    height: int | float = 2.6,
) -> Figure:
    """Accuracy against the strength of a distortion, a panel for each kind and a line for each network.

    Args:
      curves: {label of the horizontal axis: (its values [k], {network: accuracies [k] as fractions})}.
      height: Height in inches.

    Raises:
        ValueError: There is no curve.
    """
    if not curves:
        raise ValueError('expected at least one panel of curves, got none')
    fig = style.figure(2.9 * len(curves), height, layout='constrained')
    panels = fig.subplots(1, len(curves), squeeze=False, sharey=True)[0]
    for axes, (label, (values, lines)) in zip(panels, curves.items(), strict=True):
        for (name, accuracies), marker in zip(lines.items(), style.MARKERS * 9, strict=False):
            percent = 100 * np.asarray(accuracies)
            axes.plot(values, percent, label=style.plain_text(name), marker=marker, markersize=3)
        axes.set_xlabel(style.plain_text(label))
    panels[0].set_ylabel('test accuracy (%)')
    panels[0].legend(fontsize=7)
    return fig


@style.context()
def equivariance(
    angles: Float[np.ndarray, ' k'], turns: Mapping[str, Float[np.ndarray, 'n k']]
) -> Figure:
    """Rotation of the sampled region against rotation of the input: a line of slope 1 inverts the rotation.

    Args:
      angles: Rotations of the input in degrees.
      turns: {network: rotation of the sampled region relative to that of the unrotated input, in degrees, for each
        image}; medians and quartiles are drawn.
    """
    fig = style.figure(3.6, 3.0, layout='constrained')
    axes = fig.subplots()
    axes.plot(angles, angles, color=style.FAINT, linestyle='--', label='equivariant')
    for name, values in turns.items():
        middle = np.median(values, axis=0)
        low, high = np.quantile(values, (0.25, 0.75), axis=0)
        (line,) = axes.plot(angles, middle, label=style.plain_text(name), marker='o', markersize=3)
        axes.fill_between(angles, low, high, alpha=0.2, color=line.get_color(), linewidth=0)
    axes.set_xlabel('rotation of the input (degrees)')
    axes.set_ylabel('rotation of the sampled region (degrees)')
    axes.legend(fontsize=7)
    return fig


Captioned = dict[str, tuple[Figure, str]]


def key(name: str) -> str:
    """A network's name as part of a file name."""
    return name.lower().replace('-', '_')


def of_networks(views: Mapping[str, Sequence[Any]]) -> Captioned:
    """{'attention_NAME': (figure, caption)} of networks with transformers.

    Args:
      views: Name -> the positional arguments of `attended`.
    """
    caption = 'inputs with the sampled region, samples, predictions (in red if wrong).'
    return {
        f'attention_{key(name)}': (attended(*own), f'{name}: {caption}')
        for name, own in views.items()
    }


def of_meshes(
    images: Shaped[np.ndarray, 'n h w c'],
    points: Mapping[str, Float[np.ndarray, 'n rows columns 2']],
) -> Captioned:
    """{'mesh_NAME': (figure, caption)} of networks with thin plate splines, by the arguments of `meshes`."""
    caption = 'input positions of a mesh over the output.'
    return {
        f'mesh_{key(name)}': (meshes(images, own), f'{name}: {caption}')
        for name, own in points.items()
    }


def of_poses(
    curves: Mapping[str, tuple[np.ndarray, Mapping[str, np.ndarray | Sequence[float]]]],
    turns: Mapping[str, Float[np.ndarray, 'n k']],
) -> Captioned:
    """(figure, caption) of `robustness` and, if a network is affine, of `equivariance`.

    Args:
      curves: As in `robustness`; 'rotation' is one of them.
      turns: Argument `turns` of `equivariance`, over the same rotations.
    """
    caption = 'Test accuracy against rotation (degrees), scale, and offset (of the width).'
    captioned = {'robustness': (robustness(curves), caption)}
    if turns:
        caption = (
            'Rotation of the sampled region against rotation of the input: median and quartiles.'
        )
        captioned['equivariance'] = (equivariance(curves['rotation'][0], turns), caption)
    return captioned


def of_shrinking(images: Shaped[np.ndarray | Array, 'n h w c'], *shrunk: Array) -> Captioned:
    """(figure, caption) of `downscaled`, by its arguments."""
    caption = "Shrinking: the paper's sampler skips pixels; a widened kernel averages them."
    return {'antialiasing': (downscaled(images, *shrunk), caption)}
