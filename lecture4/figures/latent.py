"""Pictures of codes: the latent plane, pictures decoded from it, vector fields in the plane.

Pictures come as [.., h, w] or [.., h, w, 3] with values in [0, 1]; what lies outside is cut off.
"""

import math

import numpy as np
from matplotlib.ticker import MaxNLocator

from lecture4.figures import style

# Ten classes need three colours more than the house has.
CLASS_COLOURS = (*style.COLOURS, '#999933', '#882255', '#44aa99')


def tiles(pictures):
    """Pictures [n, h, w], [n, h, w, 1] or [n, h, w, 3] as grey or coloured tiles [n, h, w, 3]."""
    pictures = np.asarray(pictures, float)
    if pictures.ndim == 3:
        pictures = pictures[..., None]
    if pictures.ndim != 4 or pictures.shape[3] not in (1, 3):
        raise ValueError(
            f'pictures have shape {pictures.shape}; wanted [n, h, w], or [n, h, w, c] with 1 or 3 '
            'channels'
        )
    clipped = np.clip(np.nan_to_num(pictures), 0, 1)
    return np.broadcast_to(clipped, (*clipped.shape[:3], 3))


@style.house()
def grid(pictures, columns, *, title='', width=7.0, rows=(), heads=()):
    """Pictures in rows of `columns`, every pixel a whole number of screen pixels wide.

    Shapes  pictures [n, h, w(, c)].
    rows    a word for each row, written at its left: what the row shows.
    heads   a word for each column, written above it.
    Units   width in inches, about.
    Errors  ValueError where there is no picture, or words do not fit the rows and columns.
    """
    shown = tiles(pictures)
    if not len(shown):
        raise ValueError('no picture to draw')
    n_rows = -(-len(shown) // columns)
    if len(rows) not in (0, n_rows) or len(heads) not in (0, columns):
        raise ValueError(
            f'{len(rows)} row and {len(heads)} column words for {n_rows} rows of {columns}; give '
            'one for each, or none'
        )
    picture = style.mosaic(shown, columns)
    left = 12 + 7 * max((len(word) for word in rows), default=0)
    zoom = int(np.clip((width * style.DPI - left) // picture.shape[1], 1, 12))
    top = (30 if title else 8) + (20 if heads else 0)
    across = max(picture.shape[1] * zoom + left + 8, 8 * len(title) + 16)
    down = picture.shape[0] * zoom + top + 8
    made = style.figure(across / style.DPI, down / style.DPI)
    style.show(made, picture, left, top, zoom)
    h, w = shown.shape[1:3]

    def write(x, y, text, **options):
        made.text(x / across, 1 - y / down, text, va='center', **({'fontsize': 8.5} | options))

    if title:
        write(8, 15, title, fontsize=10)
    for i, word in enumerate(rows):
        write(left - 6, top + zoom * (i * (h + 1) + 1 + h / 2), word, ha='right')
    for i, word in enumerate(heads):
        write(left + zoom * (i * (w + 1) + 1 + w / 2), top - 10, word, ha='center')
    return made


def reconstructions(pictures, restored, *, n=12, title=''):
    """The first n pictures above what came back from their codes; [m, h, w(, c)] both."""
    shown, back = tiles(pictures)[:n], tiles(restored)[:n]
    if shown.shape != back.shape:
        raise ValueError(f'pictures {shown.shape} and restored {back.shape} are not alike')
    pairs = np.concatenate([shown, back])
    return grid(pairs, len(shown), title=title, rows=('picture', 'restored'))


def interpolations(paths, *, title=''):
    """One row for each path: paths [m, n_steps, h, w(, c)]."""
    paths = np.asarray(paths, float)
    flat = paths.reshape(paths.shape[0] * paths.shape[1], *paths.shape[2:])
    return grid(flat, paths.shape[1], title=title)


@style.house()
def plane(codes, labels=None, names=(), *, axes=(0, 1), title='', radius=None, most=4000):
    """The codes of a data set as dots in the plane, the classes' names at their medians.

    Shapes  codes [n, k], of which two coordinates `axes` are drawn; labels [n] int or None.
    radius  of a dashed circle about 0: within 2.45 lie 95 % of a two-dimensional N(0, 1).
    most    of the dots, an even choice from all.
    Errors  ValueError where there are no two coordinates, or labels and codes differ in number.
    """
    codes = np.asarray(codes, float)
    if codes.ndim != 2 or codes.shape[1] <= max(axes):
        raise ValueError(f'codes {codes.shape} have no coordinates {axes}; wanted [n, k]')
    if labels is not None and len(labels) != len(codes):
        raise ValueError(f'{len(codes)} codes and {len(labels)} labels; one for each is wanted')
    chosen = np.linspace(0, len(codes) - 1, min(most, len(codes))).astype(int)
    points = codes[chosen][:, list(axes)]
    classes = np.zeros(len(points), int) if labels is None else np.asarray(labels)[chosen]
    made = style.figure(6.2, 5.6, layout='constrained')
    drawn = made.add_subplot()
    size = float(np.clip(16000 / len(points), 3, 22))
    for c in np.unique(classes):
        rows = classes == c
        colour = CLASS_COLOURS[c % len(CLASS_COLOURS)]
        drawn.scatter(*points[rows].T, s=size, color=colour, alpha=0.55, linewidths=0)
    for c in np.unique(classes) if labels is not None else ():
        x, y = np.median(points[classes == c], axis=0)
        name = str(names[c]) if len(names) else str(c)
        box = {'facecolor': 'white', 'alpha': 0.85, 'edgecolor': 'none', 'pad': 1.2}
        colour = CLASS_COLOURS[c % len(CLASS_COLOURS)]
        drawn.text(x, y, name, ha='center', va='center', color=colour, weight='bold', bbox=box)
    if radius is not None:
        turn = np.linspace(0, 2 * np.pi, 200)
        drawn.plot(radius * np.cos(turn), radius * np.sin(turn), '--', color=style.FAINT, lw=1)
    drawn.set_aspect('equal', adjustable='datalim')
    drawn.set_xlabel(f'z{axes[0] + 1}')
    drawn.set_ylabel(f'z{axes[1] + 1}')
    drawn.set_title(title or f'{len(codes)} codes')
    return made


@style.house()
def units(kl, variance, *, threshold=0.01, title=''):
    """Nats that every variable of a code carries, largest first; inactive ones in grey.

    Shapes  kl [k], mean divergence from the prior; variance [k] of the posterior mean over the
            data, active where above the threshold.
    """
    kl, variance = np.asarray(kl, float), np.asarray(variance, float)
    if kl.ndim != 1 or kl.shape != variance.shape:
        raise ValueError(f'kl {kl.shape} and variance {variance.shape} are to be [k] both')
    order = np.argsort(-kl)
    active = variance[order] > threshold
    made = style.figure(6.4, 2.8, layout='constrained')
    axes = made.add_subplot()
    colours = np.where(active, style.COLOURS[0], style.WARN)
    axes.bar(np.arange(1, len(kl) + 1), kl[order], color=colours.tolist(), width=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlabel('unit of the code, by rank')
    axes.set_ylabel('KL from the prior, nats')
    axes.set_xlim(0.4, len(kl) + 0.6)
    axes.grid(axis='x', visible=False)
    axes.set_title((f'{title}: ' if title else '') + f'{active.sum()} of {len(kl)} units active')
    return made


@style.house()
def arrows(points, fields, *, data=None, density=None, titles=(), title='', scale=1.0):
    """Vector fields in the plane side by side, over the data and, darker, their density.

    Shapes   points [n, 2]; fields {name: [n, 2]}, one panel each; data [m, 2]; density (x [w],
             y [h], values [h, w]).
    scale    arrows are drawn this many times their length.
    titles   a line for each panel instead of its name.
    Errors   ValueError where a field has another shape than the points.
    """
    points = np.asarray(points, float)
    made = style.figure(4.1 * len(fields) + 0.2, 4.4, layout='constrained')
    panels = made.subplots(1, len(fields), squeeze=False, sharex=True, sharey=True)[0]
    words = titles or tuple(fields)
    for panel, (name, field), word in zip(panels, fields.items(), words, strict=True):
        field = np.asarray(field, float)
        if field.shape != points.shape or points.ndim != 2 or points.shape[1] != 2:
            raise ValueError(
                f'{name} {field.shape} and points {points.shape} are to be [n, 2] both'
            )
        if density is not None:
            x, y, values = density
            panel.contourf(x, y, values, levels=12, cmap='Greys', alpha=0.5, antialiased=True)
        if data is not None:
            panel.scatter(*np.asarray(data, float).T, s=2, color=style.COLOURS[1], linewidths=0)
        panel.quiver(
            *points.T, *(scale * field).T, angles='xy', scale_units='xy', scale=1,
            color=style.COLOURS[0], width=0.004, headwidth=4, zorder=3,
        )  # fmt: skip
        panel.set_title(word)
        panel.set_aspect('equal')
        panel.grid(visible=False)
    if title:
        made.suptitle(title, x=0.01, ha='left')
    return made


@style.house()
def tangents(points, directions, *, data=None, path=None, length=0.2, title=''):
    """Short lines along the tangent of a manifold in the plane, and a walk on it.

    Shapes  points, directions [n, 2] (of length 1, either sign); data [m, 2]; path [t, 2], drawn
            from light to dark.
    """
    points, directions = np.asarray(points, float), np.asarray(directions, float)
    if points.shape != directions.shape or points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(
            f'points {points.shape} and directions {directions.shape} are to be [n, 2] both'
        )
    made = style.figure(5.4, 5.2, layout='constrained')
    axes = made.add_subplot()
    if data is not None:
        axes.scatter(*np.asarray(data, float).T, s=2, color=style.FAINT, alpha=0.5, linewidths=0)
    ends = np.stack([points - length / 2 * directions, points + length / 2 * directions], axis=1)
    for end in ends:
        axes.plot(*end.T, color=style.COLOURS[0], linewidth=2)
    if path is not None:
        path = np.asarray(path, float)
        shades = np.linspace(0.25, 1, len(path))
        axes.scatter(*path.T, s=14, color=style.COLOURS[1], alpha=shades, linewidths=0, zorder=4)
        axes.annotate('start', path[0], textcoords='offset points', xytext=(6, 6), fontsize=8)
    axes.set_aspect('equal')
    axes.grid(visible=False)
    axes.set_title(title)
    return made


def plane_of_codes(n, most=2.0):
    """N x n codes that cut a two-dimensional N(0, 1) evenly, by rank; [n * n, 2], top row first.

    The outermost lie at `most` standard deviations.
    """
    from scipy.stats import norm

    ends = norm.cdf(most)
    marks = norm.ppf(np.linspace(1 - ends, ends, n))
    across, down = np.meshgrid(marks, marks[::-1])
    return np.stack([across, down], axis=-1).reshape(n * n, 2)


def square(n):
    """The number of columns that makes a mosaic of n tiles nearly square."""
    return math.ceil(math.sqrt(n))
