"""Latent spaces: codes in the plane, KL per latent variable, vector fields and tangents in the plane."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float, Integer, Real
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lecture4.figures import images, style

Points = Real[np.ndarray | Array, 'n 2']


@style.context()
def scatter(
    codes: Real[np.ndarray | Array, 'n k'],
    labels: Integer[np.ndarray | Array, 'n'] | None = None,
    names: Sequence[str] = (),
    *,
    axes: tuple[int, int] = (0, 1),
    title: str = '',
    radius: int | float | None = None,
    max_points: int = 4000,
) -> Figure:
    """The codes of a dataset as dots in the plane, with the names of the classes at their medians.

    Args:
      codes: Codes; two of their coordinates are drawn.
      labels: Classes, or None.
      names: Names of the classes; if empty, their indices.
      axes: Indices of the two coordinates.
      title: Title.
      radius: Radius of a dashed circle around 0; a radius of 2.45 contains 95 % of a two-dimensional N(0, 1).
      max_points: Largest number of dots, evenly spaced among all codes.

    Raises:
      ValueError: The codes lack a coordinate, or differ in number from the labels.
    """
    codes = np.asarray(codes, float)
    if codes.ndim != 2 or codes.shape[1] <= max(axes):
        raise ValueError(f'expected codes [n, k] with coordinates {axes}, got {codes.shape}')
    if labels is not None and len(labels) != len(codes):
        raise ValueError(f'expected one label per code, got {len(labels)} for {len(codes)} codes')
    chosen = np.linspace(0, len(codes) - 1, min(max_points, len(codes))).astype(int)
    points = codes[chosen][:, list(axes)]
    classes = np.zeros(len(points), int) if labels is None else np.asarray(labels)[chosen]
    fig = style.figure(6.2, 5.6, layout='constrained')
    panel = fig.add_subplot()
    size = float(np.clip(16000 / len(points), 3, 22))
    for c in np.unique(classes):
        color = style.CLASS_COLORS[c % len(style.CLASS_COLORS)]
        panel.scatter(*points[classes == c].T, s=size, color=color, alpha=0.55, linewidths=0)
    for c in np.unique(classes) if labels is not None else ():
        x, y = np.median(points[classes == c], axis=0)
        name = style.plain_text(names[c] if len(names) else c)
        box = {'facecolor': 'white', 'alpha': 0.85, 'edgecolor': 'none', 'pad': 1.2}
        color = style.CLASS_COLORS[c % len(style.CLASS_COLORS)]
        panel.text(x, y, name, ha='center', va='center', color=color, weight='bold', bbox=box)
    if radius is not None:
        angle = np.linspace(0, 2 * np.pi, 200)
        panel.plot(radius * np.cos(angle), radius * np.sin(angle), '--', color=style.FAINT, lw=1)
    panel.set_aspect('equal', adjustable='datalim')
    panel.set_xlabel(f'z{axes[0] + 1}')
    panel.set_ylabel(f'z{axes[1] + 1}')
    panel.set_title(style.plain_text(title or f'{len(codes)} codes'))
    return fig


@style.context()
def kl_per_variable(
    kl: Real[np.ndarray | Array, 'k'],
    variance: Real[np.ndarray | Array, 'k'],
    *,
    threshold: int | float = 0.01,
    title: str = '',
) -> Figure:
    """KL divergence of every latent variable in nats, largest first, with inactive ones in another color.

    Args:
      kl: Mean divergence from the prior.
      variance: Variance of the posterior mean over the data.
      threshold: Variance above which a variable is active.
      title: Title.

    Raises:
      ValueError: The shapes differ.
    """
    kl, variance = np.asarray(kl, float), np.asarray(variance, float)
    if kl.ndim != 1 or kl.shape != variance.shape:
        raise ValueError(f'expected kl and variance [k], got {kl.shape} and {variance.shape}')
    order = np.argsort(-kl)
    active = variance[order] > threshold
    fig = style.figure(6.4, 2.8, layout='constrained')
    axes = fig.add_subplot()
    colors = np.where(active, style.COLORS[0], style.WARN)
    axes.bar(np.arange(1, len(kl) + 1), kl[order], color=colors.tolist(), width=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlabel('latent variable, by rank')
    axes.set_ylabel('KL from the prior, nats')
    axes.set_xlim(0.4, len(kl) + 0.6)
    axes.grid(axis='x', visible=False)
    prefix = style.plain_text(f'{title}: ' if title else '')
    axes.set_title(f'{prefix}{active.sum()} of {len(kl)} latent variables active')
    return fig


@style.context()
def vector_fields(
    points: Points,
    fields: Mapping[str, Points],
    *,
    data: Real[np.ndarray | Array, 'm 2'] | None = None,
    density: tuple[
        Real[np.ndarray | Array, 'w'],
        Real[np.ndarray | Array, 'h'],
        Real[np.ndarray | Array, 'h w'],
    ]
    | None = None,
    titles: Sequence[str] = (),
    title: str = '',
    scale: int | float = 1.0,
) -> Figure:
    """Vector fields in the plane, one panel each, over the data and their density (darker is denser).

    Args:
      points: Positions of the arrows.
      fields: Name -> vector at each position.
      data: Examples, drawn as dots.
      density: (x, y, values) of the data's density on a grid.
      titles: Titles of the panels in place of the names.
      title: Title of the figure.
      scale: Factor on the length of the arrows.

    Raises:
      ValueError: A field has another shape than the points.
    """
    points = np.asarray(points, float)
    fig = style.figure(4.1 * len(fields) + 0.2, 4.4, layout='constrained')
    panels = fig.subplots(1, len(fields), squeeze=False, sharex=True, sharey=True)[0]
    panel_titles = titles or tuple(fields)
    for panel, (name, field), text in zip(panels, fields.items(), panel_titles, strict=True):
        field = np.asarray(field, float)
        _check_plane(name, field, points)
        if density is not None:
            x, y, values = density
            panel.contourf(x, y, values, levels=12, cmap='gray_r', alpha=0.5, antialiased=True)
        if data is not None:
            panel.scatter(*np.asarray(data, float).T, s=2, color=style.COLORS[1], linewidths=0)
        arrows = {'angles': 'xy', 'scale_units': 'xy', 'scale': 1, 'width': 0.004, 'headwidth': 4}
        panel.quiver(*points.T, *(scale * field).T, color=style.COLORS[0], zorder=3, **arrows)
        panel.set_title(style.plain_text(text))
        panel.set_aspect('equal')
        panel.grid(visible=False)
    if title:
        fig.suptitle(style.plain_text(title), x=0.01, ha='left')
    return fig


@style.context()
def tangents(
    points: Points,
    directions: Points,
    *,
    data: Real[np.ndarray | Array, 'm 2'] | None = None,
    path: Real[np.ndarray | Array, 't 2'] | None = None,
    length: int | float = 0.2,
    title: str = '',
) -> Figure:
    """Short lines along the tangents of a manifold in the plane, and a walk on it.

    Args:
      points: Centers of the lines.
      directions: Tangents of length 1, of either sign.
      data: Examples, drawn as dots.
      path: The walk, drawn from light to dark.
      length: Length of the lines.
      title: Title.

    Raises:
      ValueError: The shapes differ.
    """
    points, directions = np.asarray(points, float), np.asarray(directions, float)
    _check_plane('directions', directions, points)
    fig = style.figure(5.4, 5.2, layout='constrained')
    axes = fig.add_subplot()
    if data is not None:
        axes.scatter(*np.asarray(data, float).T, s=2, color=style.FAINT, alpha=0.5, linewidths=0)
    ends = np.stack([points - length / 2 * directions, points + length / 2 * directions], axis=1)
    for end in ends:
        axes.plot(*end.T, color=style.COLORS[0], linewidth=2)
    if path is not None:
        path = np.asarray(path, float)
        colors = [to_rgba(style.COLORS[1], alpha) for alpha in np.linspace(0.25, 1, len(path))]
        axes.scatter(*path.T, s=14, color=colors, linewidths=0, zorder=4)
        axes.annotate('start', path[0], textcoords='offset points', xytext=(6, 6), fontsize=8)
    axes.set_aspect('equal')
    axes.grid(visible=False)
    axes.set_title(style.plain_text(title))
    return fig


def gallery(
    x: Real[np.ndarray | Array, 'n d'],
    *,
    means: Real[np.ndarray | Array, 'n k'],
    decode: Callable[[Any], Any],
    samples: Real[np.ndarray | Array, 'm d'],
    paths: Real[np.ndarray | Array, 'rows steps k'],
    kl: Real[np.ndarray | Array, 'k'],
    labels: Integer[np.ndarray | Array, 'n'] | None = None,
    class_names: Sequence[str] = (),
) -> dict[str, tuple[Figure, str]]:
    """Figures of a variational autoencoder of images: test images, samples of the prior, the latent space.

    Args:
      x: Test images as vectors.
      means: Latent means of the test images.
      decode: Latent vectors [m, k] -> images [m, h, w].
      samples: The decoder's means of samples of the prior, as vectors.
      paths: Latent vectors between pairs of test images.
      kl: Mean divergence of every latent variable from the prior, in nats.
      labels: Classes of the test images, or None.
      class_names: Names of the classes.

    Returns:
      Name -> (figure, caption): `reconstructions`, `samples`, `interpolations`, `units`; with two or more latent
      variables also `plane`, with exactly two also `decoded_plane`.
    """
    means, kl = np.asarray(means), np.asarray(kl)
    restored = np.asarray(decode(means[:12]))
    shape, (rows, steps, k) = restored.shape[1:], paths.shape
    between = np.asarray(decode(paths.reshape(rows * steps, k))).reshape(rows, steps, *shape)
    figures = {
        'reconstructions': (
            images.reconstructions(np.asarray(x[:12]).reshape(-1, *shape), restored),
            "Test images, and their reconstructions: the decoder's mean at the encoder's mean.",
        ),
        'samples': (
            images.grid(np.asarray(samples).reshape(-1, *shape), 10),
            'Means of p(x | z) for samples z of the prior N(0, 1).',
        ),
        'interpolations': (
            images.interpolations(between),
            "Spherical interpolation between two test images' latent vectors.",
        ),
        'units': (
            kl_per_variable(kl, np.var(means, axis=0)),
            'KL divergence of every latent variable from the prior.',
        ),
    }
    if k > 1:
        axes = tuple(np.argsort(-kl)[:2].tolist())
        figures['plane'] = (
            scatter(means, labels, class_names, axes=axes, radius=2.45),
            'Means of q(z | x) of the test images in the two units with the largest KL. The circle '
            'contains 95 % of the prior.',
        )
    if k == 2:
        figures['decoded_plane'] = (
            images.grid(decode(latent_grid(16).astype(means.dtype)), 16),
            'The decoded latent plane, in equal steps of probability.',
        )
    return figures


def latent_grid(n: int, max_std: int | float = 2.0) -> Float[np.ndarray, '{n*n} 2']:
    """An n x n grid of codes, equidistant in the ranks of a two-dimensional N(0, 1), top row first.

    Args:
      n: Number of codes per row.
      max_std: Distance of the outermost codes from 0 in standard deviations.
    """
    from scipy.stats import norm

    ends = norm.cdf(max_std)
    marks = norm.ppf(np.linspace(1 - ends, ends, n))
    across, down = np.meshgrid(marks, marks[::-1])
    return np.stack([across, down], axis=-1).reshape(n * n, 2)


def _check_plane(name, vectors, points):
    if vectors.shape != points.shape or points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f'expected {name} and points [n, 2], got {vectors.shape}, {points.shape}')
