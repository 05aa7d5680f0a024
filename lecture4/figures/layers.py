"""The layers of a network: their sizes, parameters, multiply-adds and receptive fields."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Polygon

from lecture4.figures import style
from lecture4.ops.receptive_field import LayerSummary

TIMES = '\N{MULTIPLICATION SIGN}'
KINDS = {
    'conv': ('convolution', style.COLORS[0]),
    'pool': ('pooling', style.COLORS[1]),
    'dense': ('dense', style.COLORS[2]),
    'concat': ('concatenated', style.COLORS[3]),
    'add': ('added', style.COLORS[4]),
    'norm': ('normalization', '#999999'),
    'pointwise': ('pointwise', '#bbbbbb'),
}


@style.context()
def network(rows: Sequence[LayerSummary], *, title: str = '') -> Figure:
    """Three panels over the same layers, input on the left.

    At the top, every layer's output as a box: its height is the height of the feature map (log scale), its depth the
    number of channels. In the middle, the layer's fraction of all parameters and of all multiply-adds. At the bottom,
    the receptive field, compared with the size of the input.

    Args:
      rows: Rows of `ops.receptive_field.summarize`, possibly collapsed.
      title: Title.

    Raises:
      ValueError: There is no layer.
    """
    if not rows:
        raise ValueError('no layer to draw')
    n = len(rows)
    width = float(np.clip(1.6 + 0.37 * (n + 1), 6.5, 22))
    fig = style.figure(width, 7.2, layout='constrained')
    boxes, fractions, fields = fig.subplots(3, 1, sharex=True, height_ratios=(1.45, 1, 0.9))
    _boxes(boxes, rows)
    _fractions(fractions, rows)
    _fields(fields, rows)
    names = [style.plain_text(row.name) for row in rows]
    fields.set_xticks(range(n + 1), ['input', *names], rotation=90, fontsize=8)
    fields.set_xlim(-0.8, n + 0.9)
    if title:
        fig.suptitle(style.plain_text(title), x=0.01, ha='left')
    return fig


def _boxes(axes, rows):
    shapes = [rows[0].input, *(row.output for row in rows)]
    tallest = math.log2(max(shape[0] for shape in shapes if len(shape) > 1) + 1)
    for i, shape in enumerate(shapes):
        color = '#dddddd' if i == 0 else KINDS[rows[i - 1].kind][1]
        height = math.log2(shape[0] + 1) / tallest if len(shape) > 1 else 0.05
        depth = 0.03 * math.log2(shape[-1] + 1)
        _box(axes, i, height, depth, color)
        if i == 0 or shape != shapes[i - 1]:
            size = TIMES.join(map(str, shape[:-1]))
            text = f'{size}, {shape[-1]}' if size else f'{shape[-1]}'
            x, y = i + depth / 2, height + 0.35 * depth + 0.03
            axes.text(x, y, text, rotation=90, fontsize=7.5, ha='center', va='bottom')
    axes.set_ylim(0, 1.75)
    axes.axis('off')
    used = dict.fromkeys(row.kind for row in rows)
    handles = [Patch(facecolor=KINDS[kind][1], label=KINDS[kind][0]) for kind in used]
    axes.legend(handles=handles, loc='upper right', ncols=len(handles), fontsize=8)
    axes.set_title('outputs: height of the feature map (log scale), channels as depth')


def _box(axes, left, height, depth, color):
    """A block seen from the front left, standing on the axis."""
    right, up = 0.42, 0.35 * depth
    x = left - 0.21
    edge = {'edgecolor': 'white', 'linewidth': 0.6}
    front = [(x, 0), (x + right, 0), (x + right, height), (x, height)]
    top = [
        (x, height),
        (x + right, height),
        (x + right + depth, height + up),
        (x + depth, height + up),
    ]
    side = [
        (x + right, 0),
        (x + right + depth, up),
        (x + right + depth, height + up),
        (x + right, height),
    ]
    for corners, strength in ((front, 1.0), (top, 0.55), (side, 0.75)):
        axes.add_patch(Polygon(corners, facecolor=color, alpha=strength, **edge))


def _fractions(axes, rows):
    at = np.arange(1, len(rows) + 1)
    for offset, name, color in ((-0.2, 'parameters', 0), (0.2, 'multiply-adds', 5)):
        values = np.array([row.macs if offset > 0 else row.parameters for row in rows], float)
        total = values.sum()
        label = f'{name}, {_engineering(total)} in total'
        percent = 100 * values / max(total, 1)
        axes.bar(at + offset, percent, 0.4, color=style.COLORS[color], label=label)
    axes.set_ylabel('% of the total')
    axes.grid(axis='x', visible=False)
    axes.legend(loc='upper left')


def _fields(axes, rows):
    size = rows[0].input[0]
    values = [1, *(max(row.receptive_field) for row in rows)]
    axes.plot(range(len(values)), values, marker='o', markersize=3, label='receptive field')
    axes.axhline(size, color=style.FAINT, linestyle='--', linewidth=1)
    axes.text(-0.5, size, 'the input', fontsize=8, color=style.FAINT, va='bottom')
    axes.set_ylabel('pixels')
    axes.set_ylim(0, None)


def _engineering(value):
    """'138.4 M': four significant digits and a prefix."""
    for power, unit in ((1e9, ' G'), (1e6, ' M'), (1e3, ' k')):
        if value >= power:
            return f'{value / power:.4g}{unit}'
    return f'{value:.0f}'


@style.context()
def comparison(
    networks: Mapping[str, tuple[int, int, int]],
    ratios: Mapping[str, tuple[float, float | None]],
) -> Figure:
    """Sizes of networks in the plane, and ratios of counts with the published ones.

    Args:
      networks: Name -> (parameters, multiply-adds, layers with weights).
      ratios: Statement -> (ratio of its counts, published ratio or None), from the top.

    Raises:
      ValueError: There is no network or no ratio.
    """
    if not networks or not ratios:
        raise ValueError('no network or no ratio to draw')
    fig = style.figure(13, 4.6, layout='constrained')
    plane, bars = fig.subplots(1, 2, width_ratios=(1, 0.75))
    for i, (name, (parameters, macs, n_layers)) in enumerate(
        sorted(networks.items(), key=lambda item: item[1])
    ):
        plane.scatter(macs, parameters, s=12 + 3 * math.sqrt(n_layers), color=style.COLORS[0])
        # Networks of similar size get labels on different sides.
        left = i % 2 == 0
        plane.annotate(
            f'{style.plain_text(name)} ({n_layers})',
            (macs, parameters),
            xytext=(-4, 3) if left else (4, -3),
            textcoords='offset points',
            ha='right' if left else 'left',
            va='bottom' if left else 'top',
            fontsize=8,
        )
    plane.set(xscale='log', yscale='log', xlabel='multiply-adds of one image', ylabel='parameters')
    plane.set_xlim(2e6, 1.5e11)
    plane.set_title('size and cost, labeled with the number of layers with weights')
    at = np.arange(len(ratios))[::-1]
    values = [ratio for ratio, _ in ratios.values()]
    bars.barh(at, values, color=style.COLORS[5], label='counted')
    known = [(ratio, y) for y, (_, ratio) in zip(at, ratios.values(), strict=True) if ratio]
    bars.scatter(*zip(*known, strict=True), color=style.COLORS[1], zorder=3, label='published')
    for y, value in zip(at, values, strict=True):
        bars.text(value * 1.06, y - 0.34, f'{value:.3g}', va='center', fontsize=7.5)
    bars.set_yticks(at, [style.plain_text(name) for name in ratios], fontsize=8)
    bars.set(xscale='log', xlabel='ratio of the counts', xlim=(0.8, 4 * max(values)))
    bars.legend()
    return fig
