"""Where windows lie: output sizes, and the geometry of a stack of layers.

Sizes, parameters, multiply-adds, receptive field, stride and centre of every unit follow from a
list of layers and the input's shape alone; nothing here touches an array of the device.
"""

import itertools
import math
import numbers
from collections.abc import Sequence
from typing import Literal, NamedTuple

Edge = Literal['floor', 'caffe', 'torch']
Sides = int | Sequence[int]
Padding = int | Sequence[int] | Sequence[tuple[int, int]]


class Windows(NamedTuple):
    """Where windows lie along every axis of a grid: one entry an axis in each field.

    Window i of an axis covers positions i * stride - padding[0] to that + window - 1; positions
    outside 0..size-1 are padding, or, where a ragged edge is kept, beyond it.
    """

    size: tuple[int, ...]
    window: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    out: tuple[int, ...]


def windows(
    size,
    window: Sides,
    stride: Sides = 1,
    padding: Padding = 0,
    edge: Edge = 'floor',
    name='windows',
) -> Windows:
    """Windows on a grid of that size: sides checked, given one by axis, and counted.

    edge    what becomes of a ragged end, where (size + padding - window) is no multiple of stride.
            'floor'  its rows are dropped: floor((W - F + P) / S) + 1 windows.
            'caffe'  its rows are kept: ceil instead of floor; where any axis is padded, a last
                     window that begins beyond the input and its lower padding is dropped.
            'torch'  ceil too (ceil_mode); that window is dropped with or without padding.
    Shapes  size (h, w, ...); window and stride a whole number, or one an axis; padding a whole
            number, one an axis, or (low, high) an axis.
    Errors  ValueError, naming `name` and the axis: a window or stride below 1, negative padding, a
            count of sides that is not that of axes, no room for a window; and for 'caffe' a window
            that begins beyond an unpadded input (stride > window), which Caffe leaves empty.
    Source  Caffe's pooling layer and torch.nn.MaxPool2d, by their documented sizes.
    """
    if edge not in ('floor', 'caffe', 'torch'):
        raise ValueError(f"{name}: edge is {edge!r}; 'floor', 'caffe' or 'torch' is wanted")
    size = tuple(int(side) for side in size)
    window = _sides(name, 'window', window, len(size), 1)
    stride = _sides(name, 'stride', stride, len(size), 1)
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


def _by(sides):
    return ' x '.join(map(str, sides))


def _sides(name, what, value, n_axes, least):
    sides = (value,) * n_axes if isinstance(value, numbers.Integral) else tuple(value)
    if len(sides) != n_axes:
        raise ValueError(
            f'{name}: {what} {sides} has {len(sides)} sides, the input has {n_axes} spatial axes; '
            'give one number, or one an axis'
        )
    if min(sides, default=least) < least:
        raise ValueError(f'{name}: {what} is {value}; it has to be at least {least}')
    return tuple(int(side) for side in sides)


def _padding(name, value, n_axes):
    sides = (value,) * n_axes if isinstance(value, numbers.Integral) else value
    pairs = [(side, side) if isinstance(side, numbers.Integral) else tuple(side) for side in sides]
    if len(pairs) != n_axes or any(len(pair) != 2 for pair in pairs):
        raise ValueError(
            f'{name}: padding {value} does not fit {n_axes} spatial axes; give one number, one an '
            'axis, or (low, high) an axis'
        )
    if any(low < 0 or high < 0 for low, high in pairs):
        raise ValueError(f'{name}: padding is {value}; it has to be at least 0')
    return tuple((int(low), int(high)) for low, high in pairs)


class Layer(NamedTuple):
    """One layer of a stack.

    kind     'conv'   units filters of window x (channels / groups), with a bias each where `bias`
             'pool'   any pooling or subsampling: channel by channel, no parameters
             'dense'  all values of its input to `units` values
             'norm'   a learned scale and shift a channel (batch normalisation)
             'map'    value by value or across channels: ReLU, local response normalisation,
                      dropout; `units`, where given, is the number of channels it makes
    The other fields are as in `windows`.
    """

    name: str
    kind: Literal['conv', 'pool', 'dense', 'norm', 'map']
    units: int | None = None
    window: Sides = 1
    stride: Sides = 1
    padding: Padding = 0
    edge: Edge = 'floor'
    groups: int = 1
    bias: bool = True


class Branches(NamedTuple):
    """Paths from one input side by side, joined by channel ('concat') or summed ('add').

    paths  a tuple of stacks; the empty stack () is the identity.
    """

    name: str
    paths: tuple['Stack', ...]
    merge: Literal['concat', 'add']


Stack = tuple[Layer | Branches, ...]


class Row(NamedTuple):
    """What `trace` finds of one layer.

    Units   input, output: (h, w, ..., c), or (c,) behind a dense layer. macs: multiply-adds of
            one input, of convolutions and dense layers. field, stride, start: pixels of the
            network's input, one an axis. Unit i of an axis sees `field` pixels round the
            coordinate start + i * stride, where pixel j has its centre at j. A field is not cut
            at the border of the input: what lies outside is padding.
    """

    name: str
    kind: str
    input: tuple[int, ...]
    output: tuple[int, ...]
    parameters: int
    macs: int
    field: tuple[int, ...]
    stride: tuple[int, ...]
    start: tuple[float, ...]

    def centre(self, index) -> tuple[float, ...]:
        """Coordinates in the input of the middle of what unit `index` (i, j, ...) sees."""
        at = zip(self.start, index, self.stride, strict=True)
        return tuple(start + i * stride for start, i, stride in at)

    def box(self, index) -> tuple[tuple[int, int], ...]:
        """The pixels [low, high) of each axis that unit `index` sees, padding included."""
        at = zip(self.centre(index), self.field, strict=True)
        lows = [round(centre - (field - 1) / 2) for centre, field in at]
        return tuple((low, low + field) for low, field in zip(lows, self.field, strict=True))


def trace(stack: Sequence[Layer | Branches], shape) -> tuple[Row, ...]:
    """The layers' sizes, counts and receptive fields, one row a layer, in order.

    The layers of a path are rows of their own, named 'branches/layer'; behind them comes the row
    of the join, without parameters. So sums over all rows are those of the network.

    Shapes  shape (h, w, ..., c), the input without its batch axis.
    Errors  ValueError, naming the layer and the sizes: as `windows`; groups that do not divide the
            channels; a convolution or pooling behind a dense layer; paths that do not fit.
    """
    n_axes = len(shape) - 1
    shape = tuple(int(side) for side in shape)
    if min(shape) < 1:
        raise ValueError(f'the input has shape {shape}; every side has to be at least 1')
    here = Row('input', 'map', shape, shape, 0, 0, (1,) * n_axes, (1,) * n_axes, (0.0,) * n_axes)
    return tuple(_trace(stack, here, ''))


def _trace(stack, here: Row, prefix: str):
    rows = []
    for layer in stack:
        if isinstance(layer, Branches):
            rows += _branches(layer, here, prefix)
        else:
            rows.append(_layer(layer, here, prefix + layer.name))
        here = rows[-1]
    return rows


def _layer(layer: Layer, here: Row, name: str) -> Row:
    *size, channels = here.output
    kind, units = layer.kind, layer.units
    if kind in ('conv', 'dense') and (units is None or units < 1):
        raise ValueError(f'{name}: units is {units}; a {kind} layer needs at least 1')
    row = here._replace(name=name, kind=kind, input=here.output, parameters=0, macs=0)
    if kind == 'map':
        return row._replace(output=(*size, units or channels))
    if kind == 'norm':
        return row._replace(parameters=2 * channels)
    if kind == 'dense':
        assert units is not None
        n_inputs = math.prod(here.output)
        low, high = _span(here)
        return row._replace(
            output=(units,),
            parameters=n_inputs * units + units * layer.bias,
            macs=n_inputs * units,
            field=tuple(round(b - a) + 1 for a, b in zip(low, high, strict=True)),
            stride=(0,) * len(here.field),
            start=tuple((a + b) / 2 for a, b in zip(low, high, strict=True)),
        )
    if len(size) != len(here.field) or not size:
        raise ValueError(
            f'{name}: a {kind} layer needs an input (h, w, ..., c), it gets {here.output}; '
            'put it before the dense layers'
        )
    found = windows(size, layer.window, layer.stride, layer.padding, layer.edge, name)
    parameters = macs = 0
    if kind == 'conv':
        assert units is not None
        if layer.groups < 1 or channels % layer.groups or units % layer.groups:
            raise ValueError(
                f'{name}: {layer.groups} groups do not divide {channels} channels and {units} '
                'filters; use a number that divides both'
            )
        weights = math.prod(found.window) * (channels // layer.groups) * units
        parameters = weights + units * layer.bias
        macs = weights * math.prod(found.out)
        channels = units
    sides = zip(here.field, found.window, here.stride, strict=True)
    field = tuple(f + (window - 1) * stride for f, window, stride in sides)
    sides = zip(here.start, found.window, found.padding, here.stride, strict=True)
    start = tuple(s + ((window - 1) / 2 - low) * stride for s, window, (low, _), stride in sides)
    sides = zip(here.stride, found.stride, strict=True)
    return row._replace(
        output=(*found.out, channels),
        parameters=parameters,
        macs=macs,
        field=field,
        stride=tuple(before * stride for before, stride in sides),
        start=start,
    )


def _span(row: Row):
    """Coordinates of the first and the last pixel that any unit of the layer sees, by axis."""
    size = row.output[:-1] or (1,) * len(row.field)
    low = [start - (field - 1) / 2 for start, field in zip(row.start, row.field, strict=True)]
    sides = zip(low, row.field, row.stride, size, strict=True)
    return low, [a + field - 1 + (n - 1) * stride for a, field, stride, n in sides]


def _branches(layer: Branches, here: Row, prefix: str):
    name = prefix + layer.name
    paths = [_trace(path, here, f'{name}/') for path in layer.paths]
    ends = [path[-1] if path else here for path in paths]
    outputs = [end.output for end in ends]
    compared = [output[:-1] if layer.merge == 'concat' else output for output in outputs]
    if layer.merge not in ('concat', 'add') or not ends:
        raise ValueError(
            f"{name}: merge is {layer.merge!r} of {len(ends)} paths; give 'concat' or 'add' and paths"
        )
    if len(set(compared)) > 1 or len({end.stride for end in ends}) > 1:
        wanted = 'the same height and width' if layer.merge == 'concat' else 'the same shape'
        raise ValueError(
            f'{name}: its paths end in {", ".join(map(str, outputs))}; to {layer.merge} them they '
            f'need {wanted} and stride; change their strides, padding or units'
        )
    channels = sum(o[-1] for o in outputs) if layer.merge == 'concat' else outputs[0][-1]
    edges = [
        [(s - (f - 1) / 2, s + (f - 1) / 2) for s, f in zip(end.start, end.field, strict=True)]
        for end in ends
    ]
    spans = [
        (min(low for low, _ in axis), max(high for _, high in axis))
        for axis in zip(*edges, strict=True)
    ]
    joined = Row(
        name,
        layer.merge,
        here.output,
        (*outputs[0][:-1], channels),
        0,
        0,
        tuple(round(high - low) + 1 for low, high in spans),
        ends[0].stride,
        tuple((low + high) / 2 for low, high in spans),
    )
    return [*itertools.chain.from_iterable(paths), joined]


def totals(rows: Sequence[Row]) -> tuple[int, int]:
    """(parameters, multiply-adds) of all rows."""
    return sum(row.parameters for row in rows), sum(row.macs for row in rows)


def collapse(rows: Sequence[Row]) -> tuple[Row, ...]:
    """One row for each name up to its first '/': the parts' counts summed, what they end in."""
    found = []
    for name, group in itertools.groupby(rows, lambda row: row.name.partition('/')[0]):
        parts = list(group)
        parameters, macs = totals(parts)
        entered = parts[0].input
        found.append(parts[-1]._replace(name=name, input=entered, parameters=parameters, macs=macs))
    return tuple(found)
