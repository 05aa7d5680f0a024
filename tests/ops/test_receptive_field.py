"""Sizes by placing windows one after the other; receptive fields by what a gradient reaches."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lecture4.ops import conv, pool, receptive_field
from lecture4.ops.receptive_field import Branches, Layer


def count_windows(W, F, S, low, high, edge):
    """Windows placed from the left until the rule says stop."""
    n = 0
    while True:
        first = n * S - low
        if edge == 'floor':
            if first + F > W + high:
                return n
        else:
            # none ends a whole stride or more beyond the padded input
            if first + F - S >= W + high:
                return n
            if n and first >= W and (edge == 'torch' or low or high):
                return n
        n += 1


@settings(deadline=None, max_examples=400)
@given(
    W=st.integers(1, 30),
    F=st.integers(1, 7),
    S=st.integers(1, 7),
    pad=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    edge=st.sampled_from(['floor', 'caffe', 'torch']),
)
def test_the_number_of_windows_equals_counting_one_by_one(W, F, S, pad, edge):
    low, high = pad
    padding = [(min(low, F - 1), min(high, F - 1))]
    expected = count_windows(W, F, S, *padding[0], edge)
    try:
        placed = receptive_field.windows((W,), F, S, padding, edge)
    except ValueError as error:
        if 'leaves it empty' in str(error):
            assert edge == 'caffe' and padding == [(0, 0)]
            assert (expected - 1) * S >= W  # counted, but begins beyond the input
        else:
            assert 'does not fit' in str(error) and expected < 1
    else:
        assert placed.out == (expected,)


def test_sizes_known_from_networks():
    def size(*args):
        return receptive_field.windows(*args).out

    assert size((227, 227), 11, 4) == (55, 55)
    assert size((224, 224), 11, 4, 2) == (55, 55)
    assert size((224, 224), 7, 2, 3) == (112, 112)
    assert size((112, 112), 3, 2, 1) == size((112, 112), 3, 2, 0, 'caffe') == (56, 56)
    assert size((112, 112), 3, 2) == (55, 55)
    assert size((5, 4), (5, 1), (1, 2), ((0, 0), (1, 0))) == (1, 3)
    # Where Caffe and torch differ: unpadded, the last window begins beyond the input
    assert size((4,), 1, 2, 0, 'torch') == (2,)
    with pytest.raises(ValueError, match="edge='torch'"):
        size((4,), 1, 2, 0, 'caffe')


STACKS = {
    'valid': (
        Layer('a', 'conv', 2, 3, 2),
        Layer('b', 'pool', window=2, stride=2),
        Layer('c', 'conv', 1, 3),
    ),
    'padded': (
        Layer('a', 'conv', 2, (3, 5), 1, (1, 2)),
        Layer('b', 'pool', window=3, stride=2, padding=1),
        Layer('c', 'conv', 2, 3, (2, 1), ((0, 1), (1, 0)), groups=2),
    ),
    'branches': (
        Layer('a', 'conv', 2, 3, 2, 1),
        Branches(
            'mix',
            (
                (Layer('one', 'conv', 1, 1),),
                (Layer('wide', 'conv', 2, (1, 5), 1, (0, 2)),),
                (Layer('low', 'conv', 1, 3, 1, ((2, 0), (1, 1))), Layer('relu', 'pointwise')),
                (),
            ),
            'concat',
        ),
        Branches('sum', ((Layer('x', 'conv', 6, 3, 1, 1), Layer('n', 'norm')), ()), 'add'),
    ),
}


def apply(stack, x):
    """The stack as a linear network of positive weights, means for pools: all inputs count."""
    for layer in stack:
        if isinstance(layer, Branches):
            ends = [apply(path, x) for path in layer.paths]
            x = sum(ends[1:], ends[0]) if layer.merge == 'add' else jnp.concatenate(ends, -1)
        elif layer.kind == 'conv':
            n_axes = x.ndim - 2
            window = (layer.window,) * n_axes if isinstance(layer.window, int) else layer.window
            kernel = jnp.ones((*window, x.shape[-1] // layer.groups, layer.features))
            x = conv.cross_correlate(x, kernel, layer.stride, layer.padding, layer.groups)
        elif layer.kind == 'pool':
            x = pool.mean_pool(x, layer.window, layer.stride, layer.padding, layer.edge)
    return x


@pytest.mark.parametrize('name', STACKS)
def test_the_receptive_field_is_what_a_gradient_reaches(name):
    stack, shape = STACKS[name], (22, 19, 2)
    rows = receptive_field.summarize(stack, shape)
    back = jax.jit(jax.vjp(lambda x: apply(stack, x[None])[0], jnp.zeros(shape))[1])
    output = rows[-1].output
    assert jax.eval_shape(lambda x: apply(stack, x[None])[0], jnp.zeros(shape)).shape == output
    for index in itertools.product(*({0, n // 2, n - 1} for n in output[:-1])):
        reached = np.zeros(shape[:-1], bool)
        for channel in range(output[-1]):  # the channels of a join see different parts
            unit = jnp.zeros(output).at[(*index, channel)].set(1.0)
            reached |= np.asarray(back(unit)[0] != 0).any(-1)
        box = [
            (max(low, 0), min(high, n))
            for (low, high), n in zip(rows[-1].box(index), shape[:2], strict=True)
        ]
        along = [np.flatnonzero(reached.any(1 - axis)) for axis in (0, 1)]
        assert [(a[0], a[-1] + 1) for a in along] == box
        center = rows[-1].center(index)
        boxes = rows[-1].box(index)
        assert center == tuple((low + high - 1) / 2 for low, high in boxes)


def test_counts_of_a_small_stack():
    stack = (
        Layer('conv', 'conv', 6, (3, 2), 1, 0, groups=2),
        Layer('norm', 'norm'),
        Layer('pool', 'pool', window=2, stride=2, edge='torch'),
        Layer('pad', 'pointwise', 8),
        Layer('dense', 'dense', 10),
        Layer('out', 'dense', 3, bias=False),
    )
    rows = receptive_field.summarize(stack, (7, 6, 4))
    assert [row.output for row in rows] == [(5, 5, 6), (5, 5, 6), (3, 3, 6), (3, 3, 8), (10,), (3,)]
    assert [row.parameters for row in rows] == [6 * 2 * 6 + 6, 12, 0, 0, 72 * 10 + 10, 30]
    assert [row.macs for row in rows] == [25 * 3 * 2 * 2 * 6, 0, 0, 0, 720, 30]
    assert receptive_field.totals(rows) == (78 + 12 + 730 + 30, 1800 + 750)
    assert rows[-1].receptive_field == (8, 7)  # all, and the ragged edge beyond the image
    assert rows[-1].input == (10,)
    names = [row.name for row in receptive_field.summarize(STACKS['branches'], (22, 19, 2))]
    assert names == [
        'a',
        'mix/one',
        'mix/wide',
        'mix/low',
        'mix/relu',
        'mix',
        'sum/x',
        'sum/n',
        'sum',
    ]


def test_one_and_three_dimensions():
    (row,) = receptive_field.summarize((Layer('words', 'conv', 100, 5, 1, 4),), (20, 300))
    assert row.output == (24, 100) and row.parameters == 150_100
    (row,) = receptive_field.summarize((Layer('video', 'conv', 2, 3, 2),), (9, 9, 9, 1))
    assert row.output == (4, 4, 4, 2) and row.receptive_field == (3, 3, 3)


@pytest.mark.parametrize(
    'stack, match',
    [
        (
            (Layer('conv1', 'conv', 4, 3, 2), Layer('pool5', 'pool', window=7)),
            'pool5: a window of 7 does not fit axis 0 of the input 3 x 3; use a window of at most 3',
        ),
        ((Layer('conv1', 'conv', 4, 3, 0),), 'conv1: stride is 0; it has to be at least 1'),
        ((Layer('conv1', 'conv', 4, 0),), 'conv1: window is 0'),
        ((Layer('conv1', 'conv', 4, 3, 1, -1),), 'conv1: padding is -1; it has to be at least 0'),
        ((Layer('conv1', 'conv', 4, 3, 1, ((1, 2, 3), 1)),), 'conv1: padding .* does not fit 2'),
        ((Layer('conv1', 'conv', 4, (3, 3, 3)),), 'conv1: window .* has 3 values'),
        ((Layer('conv1', 'conv', 4, 3, groups=3),), 'conv1: 3 groups do not divide 2 channels'),
        ((Layer('conv1', 'conv', None, 3),), 'conv1: features is None'),
        ((Layer('fc', 'dense', 4), Layer('conv', 'conv', 4)), r'conv: a conv layer .* got \(4,\)'),
        (
            (Branches('res', ((Layer('down', 'conv', 2, 1, 2),), ()), 'add'),),
            r'res: its paths end in \(4, 4, 2\), \(7, 7, 2\); to add them they need the same shape',
        ),
        ((Branches('mix', (), 'concat'),), r"mix: expected merge 'concat' or 'add'"),
    ],
)
def test_errors_name_the_layer_and_the_sizes(stack, match):
    with pytest.raises(ValueError, match=match):
        receptive_field.summarize(stack, (7, 7, 2))


def test_an_input_without_pixels_is_refused():
    with pytest.raises(ValueError, match='every size has to be at least 1'):
        receptive_field.summarize((), (0, 7, 3))
