"""Geometry of windows: output sizes, and receptive fields of a stack of layers.

Sizes, parameters, multiply-adds, receptive field, stride and center of every unit follow from a list of layers and
the input's shape alone; no arrays on devices are involved.
"""

import itertools
import math
import numbers
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

Edge = Literal['floor', 'caffe', 'torch']
Index = Sequence[int] | np.ndarray  # of a unit, one integer per axis
PerAxis = int | Sequence[int]  # one number for all axes, or one per axis
Padding = int | Sequence[int] | Sequence[tuple[int, int]]


class Windows(NamedTuple):
    """Positions of windows along every axis of a grid: one entry per axis in each field.

    Window i of an axis begins at position i * stride - padding[0] and covers `window` positions; positions outside
    0..size-1 are padding, or beyond it where incomplete windows are kept.

    Attributes:
      size: Input size.
      window: Window size.
      stride: Distance between windows.
      padding: (low, high) padding.
      out: Number of windows.
    """

    size: tuple[int, ...]
    window: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    out: tuple[int, ...]


def windows(
    size: Sequence[int],
    window: PerAxis,
    stride: PerAxis = 1,
    padding: Padding = 0,
    edge: Edge = 'floor',
    name: str = 'windows',
) -> Windows:
    """Windows on a grid of a given size: checks arguments, expands them to one per axis, and counts windows.

    Args:
      size: Input size (h, w, ...).
      window: Window size, at least 1.
      stride: Distance between windows, at least 1.
      padding: One number, one per axis, or (low, high) per axis; nonnegative.
      edge: Treatment of an incomplete last window, if (size + padding - window) is not a multiple of stride. 'floor':
        it is dropped: floor((W - F + P) / S) + 1 windows. 'caffe': it is kept: ceil instead of floor; where any axis
        is padded, a last window that begins beyond the input and its lower padding is dropped.
        'torch': ceil too (ceil_mode); that window is dropped with or without padding.
      name: Name of the layer in error messages.

    Raises:
      ValueError: A window or stride is below 1, padding is negative, the number of values differs from the number of
        axes, or no window fits; for 'caffe' also if a window begins beyond an unpadded input (stride > window), which
        Caffe leaves empty. The message has `name` and the axis.

    References:
      Caffe's pooling layer and torch.nn.MaxPool2d, by their documented sizes.
    """
    if edge not in ('floor', 'caffe', 'torch'):
        raise ValueError(f"{name}: expected edge 'floor', 'caffe' or 'torch', got {edge!r}")
    size = tuple(int(n) for n in size)
    window = per_axis(name, 'window', window, len(size))
    stride = per_axis(name, 'stride', stride, len(size))
    padding = _padding(name, padding, len(size))
    any_padding = any(low or high for low, high in padding)
    out = []
    for axis, (W, F, S, (low, high)) in enumerate(zip(size, window, stride, padding, strict=True)):
        free = W + low + high - F
        n = free // S + 1 if edge == 'floor' else -(-free // S) + 1
        begins_beyond = (n - 1) * S >= W + low
        if edge != 'floor' and begins_beyond:
            if edge == 'caffe' and not any_padding:
                raise ValueError(
                    f'{name}: with stride {S} > window {F} the last window of axis {axis} begins '
                    f"beyond the input of {W}, and Caffe leaves it empty; use edge='torch'"
                )
            n -= 1
        if n < 1:
            padded = f' padded to {W + low + high}' if low or high else ''
            raise ValueError(
                f'{name}: a window of {F} does not fit axis {axis} of the input {_by(size)}'
                f'{padded}; use a window of at most {W + low + high}, or a larger input'
            )
        out.append(n)
    return Windows(size, window, stride, padding, tuple(out))


def _by(size):
    return ' x '.join(map(str, size))


def per_axis(name: str, what: str, value: PerAxis, n_axes: int) -> tuple[int, ...]:
    """The value as one number per axis.

    Args:
      name: Name of the layer in error messages.
      what: Name of the value in error messages.
      value: One number of at least 1, or one per axis.
      n_axes: Number of spatial axes.

    Raises:
      ValueError: The number of values differs from the number of axes, or one is below 1.
    """
    values = tuple(value) if isinstance(value, Sequence) else (value,) * n_axes
    if len(values) != n_axes:
        raise ValueError(
            f'{name}: {what} {values} has {len(values)} values, the input has {n_axes} spatial '
            'axes; give one number, or one per axis'
        )
    if min(values, default=1) < 1:
        raise ValueError(f'{name}: {what} is {value}; it has to be at least 1')
    return tuple(int(n) for n in values)


def _padding(name, value, n_axes):
    values = (value,) * n_axes if isinstance(value, numbers.Integral) else value
    pairs = [(n, n) if isinstance(n, numbers.Integral) else tuple(n) for n in values]
    if len(pairs) != n_axes or any(len(pair) != 2 for pair in pairs):
        raise ValueError(
            f'{name}: padding {value} does not fit {n_axes} spatial axes; give one number, one per '
            'axis, or (low, high) per axis'
        )
    if any(low < 0 or high < 0 for low, high in pairs):
        raise ValueError(f'{name}: padding is {value}; it has to be at least 0')
    return tuple((int(low), int(high)) for low, high in pairs)


class Layer(NamedTuple):
    """One layer of a stack.

    Attributes:
      name: Its name in summaries and error messages.
      kind: 'conv': `features` filters of window x (channels / groups), each with a bias if `bias`.
        'pool': any pooling or subsampling: channel by channel, no parameters.
        'dense': all values of its input to `features` values.
        'norm': a learned scale and shift per channel (batch normalization).
        'pointwise': every position separately, without parameters: ReLU, local response
        normalization, dropout; `features`, if given, is the number of its output channels.
      features: Number of output channels.
      window: Window size; this and the next three as in `windows`.
      stride: Distance between windows.
      padding: Padding.
      edge: Treatment of an incomplete last window.
      groups: Number of groups of channels.
      bias: Whether there is a bias per filter.
    """

    name: str
    kind: Literal['conv', 'pool', 'dense', 'norm', 'pointwise']
    features: int | None = None
    window: PerAxis = 1
    stride: PerAxis = 1
    padding: Padding = 0
    edge: Edge = 'floor'
    groups: int = 1
    bias: bool = True


class Branches(NamedTuple):
    """Paths from one input, joined by channel ('concat') or summed ('add').

    Attributes:
      name: Its name; that of a path's layer is 'branches/layer'.
      paths: A tuple of `Stack`s, tuples of layers and branches; the empty stack () is the identity.
      merge: How the outputs of the paths are joined.
    """

    name: str
    paths: tuple[Any, ...]
    merge: Literal['concat', 'add']


Stack = tuple[Layer | Branches, ...]


class LayerSummary(NamedTuple):
    """Sizes, counts and receptive field of one layer, as `summarize` computes them.

    Unit i of an axis sees `receptive_field` pixels around the coordinate start + i * stride, where
    pixel j has its center at j. A receptive field is not truncated at the border of the input: positions outside are
    padding.

    Attributes:
      name: Name of the layer.
      kind: Its kind, or how branches are merged.
      input: Input shape (h, w, ..., c), or (c,) after a dense layer.
      output: Output shape, in the same form.
      parameters: Number of parameters.
      macs: Multiply-adds of one input, in convolutions and dense layers.
      receptive_field: Pixels of the network's input, one number per axis.
      stride: Pixels of the network's input between neighboring units, per axis.
      start: Center of the first unit's receptive field, per axis.
    """

    name: str
    kind: str
    input: tuple[int, ...]
    output: tuple[int, ...]
    parameters: int
    macs: int
    receptive_field: tuple[int, ...]
    stride: tuple[int, ...]
    start: tuple[float, ...]

    def center(self, index: Index) -> tuple[float, ...]:
        """Coordinates in the input of the center of the receptive field of unit `index` (i, j, ...)."""
        axes = zip(self.start, index, self.stride, strict=True)
        return tuple(start + i * stride for start, i, stride in axes)

    def box(self, index: Index) -> tuple[tuple[int, int], ...]:
        """The pixels [low, high) of each axis in the receptive field of unit `index`, padding included."""
        axes = zip(self.center(index), self.receptive_field, strict=True)
        lows = [round(center - (field - 1) / 2) for center, field in axes]
        return tuple((low, low + n) for low, n in zip(lows, self.receptive_field, strict=True))


def summarize(stack: Sequence[Layer | Branches], shape: Sequence[int]) -> tuple[LayerSummary, ...]:
    """Sizes, counts and receptive fields of all layers, in order.

    The layers of a path have separate entries, named 'branches/layer', followed by the entry of the join, without
    parameters. So sums over all entries are those of the network.

    Args:
      stack: The layers.
      shape: Shape (h, w, ..., c) of the input without its batch axis.

    Raises:
      ValueError: As in `windows`; or groups do not divide the channels; a convolution or pooling follows a dense
        layer; paths do not fit together. The message has the layer and the sizes.
    """
    n_axes = len(shape) - 1
    shape = tuple(int(n) for n in shape)
    if min(shape) < 1:
        raise ValueError(f'the input has shape {shape}; every size has to be at least 1')
    ones, zeros = (1,) * n_axes, (0.0,) * n_axes
    entry = LayerSummary('input', 'pointwise', shape, shape, 0, 0, ones, ones, zeros)
    return tuple(_summarize(stack, entry, ''))


def _summarize(stack, before: LayerSummary, prefix: str):
    rows = []
    for layer in stack:
        if isinstance(layer, Branches):
            rows += _branches(layer, before, prefix)
        else:
            rows.append(_layer(layer, before, prefix + layer.name))
        before = rows[-1]
    return rows


def _layer(layer: Layer, before: LayerSummary, name: str) -> LayerSummary:
    *size, channels = before.output
    kind, features = layer.kind, layer.features
    if kind in ('conv', 'dense') and (features is None or features < 1):
        raise ValueError(f'{name}: features is {features}; a {kind} layer needs at least 1')
    row = before._replace(name=name, kind=kind, input=before.output, parameters=0, macs=0)
    if kind == 'pointwise':
        return row._replace(output=(*size, features or channels))
    if kind == 'norm':
        return row._replace(parameters=2 * channels)
    if kind == 'dense':
        assert features is not None
        n_inputs = math.prod(before.output)
        low, high = _span(before)
        return row._replace(
            output=(features,),
            parameters=n_inputs * features + features * layer.bias,
            macs=n_inputs * features,
            receptive_field=tuple(round(b - a) + 1 for a, b in zip(low, high, strict=True)),
            stride=(0,) * len(before.receptive_field),
            start=tuple((a + b) / 2 for a, b in zip(low, high, strict=True)),
        )
    if len(size) != len(before.receptive_field) or not size:
        raise ValueError(
            f'{name}: a {kind} layer needs an input (h, w, ..., c), got {before.output}; '
            'put it before the dense layers'
        )
    placed = windows(size, layer.window, layer.stride, layer.padding, layer.edge, name)
    parameters = macs = 0
    if kind == 'conv':
        assert features is not None
        if layer.groups < 1 or channels % layer.groups or features % layer.groups:
            raise ValueError(
                f'{name}: {layer.groups} groups do not divide {channels} channels and {features} '
                'filters; use a number that divides both'
            )
        weights = math.prod(placed.window) * (channels // layer.groups) * features
        parameters = weights + features * layer.bias
        macs = weights * math.prod(placed.out)
        channels = features
    axes = zip(before.receptive_field, placed.window, before.stride, strict=True)
    field = tuple(f + (window - 1) * stride for f, window, stride in axes)
    axes = zip(before.start, placed.window, placed.padding, before.stride, strict=True)
    start = tuple(s + ((window - 1) / 2 - low) * stride for s, window, (low, _), stride in axes)
    strides = zip(before.stride, placed.stride, strict=True)
    return row._replace(
        output=(*placed.out, channels),
        parameters=parameters,
        macs=macs,
        receptive_field=field,
        stride=tuple(a * b for a, b in strides),
        start=start,
    )


def _span(row: LayerSummary):
    """Coordinates of the first and the last pixel in the receptive field of any unit of the layer, by axis."""
    size = row.output[:-1] or (1,) * len(row.receptive_field)
    low = [
        start - (field - 1) / 2 for start, field in zip(row.start, row.receptive_field, strict=True)
    ]
    axes = zip(low, row.receptive_field, row.stride, size, strict=True)
    return low, [a + field - 1 + (n - 1) * stride for a, field, stride, n in axes]


def _branches(layer: Branches, before: LayerSummary, prefix: str):
    name = prefix + layer.name
    paths = [_summarize(path, before, f'{name}/') for path in layer.paths]
    ends = [path[-1] if path else before for path in paths]
    outputs = [end.output for end in ends]
    compared = [output[:-1] if layer.merge == 'concat' else output for output in outputs]
    if layer.merge not in ('concat', 'add') or not ends:
        raise ValueError(
            f"{name}: expected merge 'concat' or 'add' of at least one path, got {layer.merge!r} of "
            f'{len(ends)} paths'
        )
    if len(set(compared)) > 1 or len({end.stride for end in ends}) > 1:
        expected = 'the same height and width' if layer.merge == 'concat' else 'the same shape'
        raise ValueError(
            f'{name}: its paths end in {", ".join(map(str, outputs))}; to {layer.merge} them they '
            f'need {expected} and stride; change their strides, padding or features'
        )
    channels = sum(o[-1] for o in outputs) if layer.merge == 'concat' else outputs[0][-1]
    edges = [
        [
            (s - (f - 1) / 2, s + (f - 1) / 2)
            for s, f in zip(end.start, end.receptive_field, strict=True)
        ]
        for end in ends
    ]
    spans = [
        (min(low for low, _ in axis), max(high for _, high in axis))
        for axis in zip(*edges, strict=True)
    ]
    joined = LayerSummary(
        name,
        layer.merge,
        before.output,
        (*outputs[0][:-1], channels),
        0,
        0,
        tuple(round(high - low) + 1 for low, high in spans),
        ends[0].stride,
        tuple((low + high) / 2 for low, high in spans),
    )
    return [*itertools.chain.from_iterable(paths), joined]


def depth(stack: Sequence[Layer | Branches]) -> int:
    """Number of convolutions and dense layers on the longest path: the depth that networks are named after."""
    return sum(
        max(map(depth, layer.paths))
        if isinstance(layer, Branches)
        else layer.kind in ('conv', 'dense')
        for layer in stack
    )


def totals(rows: Sequence[LayerSummary]) -> tuple[int, int]:
    """(parameters, multiply-adds) of all layers."""
    return sum(row.parameters for row in rows), sum(row.macs for row in rows)


def collapse(rows: Sequence[LayerSummary]) -> tuple[LayerSummary, ...]:
    """One entry for each name up to its first '/'.

    Counts are summed, the input is that of the first layer, the rest that of the last.
    """
    collapsed = []
    for name, group in itertools.groupby(rows, lambda row: row.name.partition('/')[0]):
        parts = list(group)
        parameters, macs = totals(parts)
        entry = parts[-1]._replace(
            name=name, input=parts[0].input, parameters=parameters, macs=macs
        )
        collapsed.append(entry)
    return tuple(collapsed)
