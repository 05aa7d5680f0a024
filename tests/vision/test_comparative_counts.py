"""Counts compared with formulas on paper and with published depths."""

import numpy as np
import pytest

from lecture4.ops import receptive_field
from lecture4.vision import comparative_counts, layer_specs


def test_three_3x3_layers_against_one_7x7():
    for channels in (1, 64, 256):
        field, weights, rectifiers = comparative_counts.comparisons(channels)[:3]
        assert (field.first, field.second) == (7, 7)
        assert (weights.first, weights.second) == (27 * channels**2, 49 * channels**2)
        assert weights.ratio == pytest.approx(1.81, abs=0.005)
        assert rectifiers.ratio == 3


def test_published_ratios_are_the_counted_ones_except_two():
    ratios = {one.statement: (one.ratio, one.published) for one in comparative_counts.comparisons()}
    off = [name for name, (ratio, said) in ratios.items() if said and abs(ratio / said - 1) > 0.01]
    assert off == [
        'GoogLeNet has 12 times fewer parameters than AlexNet',
        'GoogLeNet has over 100 layers',
    ]
    assert ratios[off[0]][0] == pytest.approx(60_965_224 / 6_998_552)


def test_a_mean_before_the_classifier_saves_49_of_50_million():
    mean = next(one for one in comparative_counts.comparisons() if 'mean over' in one.statement)
    assert (mean.first, mean.second) == (1_025_000, 50_177_000)


@pytest.mark.parametrize(
    ('stack', 'depth'),
    [
        (layer_specs.alexnet(), 8),
        (layer_specs.vgg('e'), 19),
        (layer_specs.googlenet(), 22),
        *((layer_specs.resnet(n), n) for n in (18, 34, 50, 101, 152)),
        (layer_specs.cifar_resnet(1202), 1202),
    ],
)
def test_depth_is_the_number_in_the_name(stack, depth):
    assert receptive_field.depth(stack) == depth


def test_resnet_1202_has_its_published_size():
    counts = comparative_counts.networks()['CIFAR ResNet-1202']
    assert (counts.parameters, counts.multiply_adds) == (19_421_274, 2_829_238_912)


def test_first_layers_have_more_outputs_than_inputs():
    first = next(one for one in comparative_counts.comparisons() if 'first layer' in one.statement)
    assert (first.first, first.second) == (55 * 55 * 96, 110 * 110 * 96)
    assert first.first > 227 * 227 * 3 and first.second > 224 * 224 * 3


@pytest.mark.parametrize(('kernel_size', 'stride'), [(11, 4), (7, 2)])
def test_generic_first_layers_lose_nothing_and_stride_aliases(kernel_size, stride):
    rng = np.random.default_rng(0)
    n, size = 2 * stride, 31  # gray, as many filters per value as AlexNet has
    filters = rng.normal(size=(n * stride, kernel_size))
    starts = range(0, size - kernel_size + 1, stride)
    layer = np.zeros((len(starts) * len(filters), size))
    for i, start in enumerate(starts):
        layer[i * len(filters) : (i + 1) * len(filters), start : start + kernel_size] = filters
    covered = starts[-1] + kernel_size
    assert np.linalg.matrix_rank(layer[:, :covered]) == covered
    # One filter: a frequency and the one folded at the Nyquist limit of the stride have equal outputs.
    limit, low = 1 / (2 * stride), 0.02
    t = stride * np.arange(50)
    np.testing.assert_allclose(
        np.cos(2 * np.pi * (limit + low) * t), np.cos(2 * np.pi * (limit - low) * t), atol=1e-9
    )
