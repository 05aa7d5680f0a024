"""Comparisons of the classic networks: the statements of the papers about their sizes, checked by counting.

`comparisons` is a list of statements, each with the two counts it compares, their ratio, and the ratio that
was published. If the published ratio is one of other counts, the note names these.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from lecture4.ops import receptive_field
from lecture4.ops.receptive_field import Layer, Stack
from lecture4.vision import layer_specs

IMAGENET_SHAPE = (224, 224, 3)


class Counts(NamedTuple):
    """Counts of one network.

    Attributes:
      weight_layers: Layers with weights (convolution, dense) on the longest path: the depth in its name.
      blocks: All building blocks: layers of all paths, joins, and the rectifiers after convolutions and hidden
        dense layers.
      parameters: Number of parameters.
      multiply_adds: Multiply-adds for one image, in convolutions and dense layers.
      dense_parameters: Parameters of the dense layers.
      receptive_field: Receptive field in pixels of a unit of the last feature maps before a dense layer or a global
        mean.
    """

    weight_layers: int
    blocks: int
    parameters: int
    multiply_adds: int
    dense_parameters: int
    receptive_field: int


class Comparison(NamedTuple):
    """A statement with the two counts that it compares.

    Attributes:
      statement: The statement.
      quantity: The counted quantity.
      first: Count of the network or layer named first in `statement`.
      second: Count of the one that it is compared with.
      published: The published ratio second / first, or None.
      note: Definition of the published number, if it is not the ratio of these counts.
    """

    statement: str
    quantity: str
    first: int
    second: int
    published: float | None = None
    note: str = ''

    @property
    def ratio(self) -> float:
        """Second / first."""
        return self.second / self.first


def count(stack: Stack, shape: Sequence[int] = IMAGENET_SHAPE) -> Counts:
    """Count a network.

    Args:
      stack: Layers of the network.
      shape: (h, w, c) of the input.
    """
    rows = receptive_field.summarize(stack, shape)
    parameters, macs = receptive_field.totals(rows)
    dense = [row for row in rows if row.kind == 'dense']
    n_rectifiers = sum(row.kind == 'conv' for row in rows) + max(len(dense) - 1, 0)
    before_mean = [row for row in rows if row.kind in ('conv', 'add', 'concat')]
    field = max(before_mean[-1].receptive_field) if before_mean else 0
    return Counts(
        receptive_field.depth(stack),
        len(rows) + n_rectifiers,
        parameters,
        macs,
        sum(row.parameters for row in dense),
        field,
    )


def comparisons(channels: int = 256) -> tuple[Comparison, ...]:
    """The statements of the lecture and of the papers about sizes.

    Args:
      channels: Number of input and output channels of the convolutions in the comparison of 3 x 3 with 7 x 7; the
        ratio does not depend on it.

    References:
      Simonyan & Zisserman 2015, section 2.3 (81 % more parameters); Szegedy et al. 2015, section 1 (12 times
      fewer parameters) and section 4 (about 100 building blocks); He et al. 2016, section 3.3 and table 1. Szegedy
      et al., 'Rethinking the Inception architecture', 2016, gives 5 million parameters (cited from memory,
      unverified).
    """
    three, seven = _plain(channels, 3, 3), _plain(channels, 7, 1)
    alexnet, googlenet = count(layer_specs.alexnet(), (227, 227, 3)), count(layer_specs.googlenet())
    vgg, resnet = count(layer_specs.vgg('e')), count(layer_specs.resnet(152, version='v1'))
    features, n_classes = 7 * 7 * 1024, 1000
    flattened, averaged = (n * n_classes + n_classes for n in (features, 1024))
    hidden = features * 4096 + 4096
    loose = (
        f'60 million over 5 million gives 12; the layers of its table have '
        f'{googlenet.parameters / 1e6:.2f} million, '
        f'{(googlenet.parameters - googlenet.dense_parameters) / 1e6:.2f} without the classifier'
    )
    return (
        Comparison(
            'three 3 x 3 layers have the receptive field of one 7 x 7',
            'receptive field',
            three.receptive_field,
            seven.receptive_field,
            1.0,
        ),
        Comparison(
            'three 3 x 3 layers have fewer parameters than one 7 x 7',
            'weights',
            three.parameters - 3 * channels,
            seven.parameters - channels,
            1.81,
        ),
        Comparison('one 7 x 7 layer has fewer ReLUs than three 3 x 3', 'ReLUs', 1, 3, 3.0),
        Comparison(
            'GoogLeNet has 12 times fewer parameters than AlexNet',
            'parameters',
            googlenet.parameters,
            alexnet.parameters,
            12.0,
            loose,
        ),
        Comparison(
            'AlexNet needs fewer multiply-adds than GoogLeNet',
            'multiply-adds',
            alexnet.multiply_adds,
            googlenet.multiply_adds,
        ),
        Comparison(
            'a mean over 7 x 7 before the classifier saves parameters',
            'parameters of the classifier',
            averaged,
            flattened,
            None,
            '7 x 7 x 1024 becomes 1 x 1 x 1024',
        ),
        Comparison(
            "the mean has fewer than AlexNet's first dense layer would",
            'parameters',
            averaged,
            hidden,
            None,
            '4096 units on 7 x 7 x 1024, in place of the mean and the classifier',
        ),
        Comparison(
            'ResNet-152 needs fewer multiply-adds than VGG-19',
            'multiply-adds',
            resnet.multiply_adds,
            vgg.multiply_adds,
            19.6 / 11.3,
        ),
        Comparison(
            'VGG-19 has fewer layers than ResNet-152',
            'layers with weights',
            vgg.weight_layers,
            resnet.weight_layers,
            152 / 19,
        ),
        Comparison(
            "AlexNet's first layer has fewer outputs than ZFNet's",
            'outputs of the first layer',
            *_first_outputs(),
            None,
            f'11 x 11, stride 4, and 7 x 7, stride 2, of {3 * 227**2:,} and {3 * 224**2:,} '
            'input values: neither layer has fewer outputs than inputs, so '
            'generic filters lose nothing before the ReLU. What stride 4 does is alias: above 1/8 cycles per pixel '
            'frequencies fold, with stride 2 above 1/4',
        ),
        Comparison(
            'GoogLeNet has over 100 layers',
            'building blocks over layers with weights',
            googlenet.weight_layers,
            googlenet.blocks,
            100 / 22,
            f'{googlenet.weight_layers} layers with weights in depth; about 100 blocks of all paths in the paper, '
            f'{googlenet.blocks} here with ReLUs, '
            f'{len(receptive_field.summarize(layer_specs.googlenet(), IMAGENET_SHAPE))} without',
        ),
    )


def _first_outputs() -> tuple[int, int]:
    """Numbers of outputs of the first layers of AlexNet and ZFNet."""
    alexnet = receptive_field.summarize(layer_specs.alexnet()[:1], (227, 227, 3))[0]
    zfnet = receptive_field.summarize(layer_specs.zfnet()[:1], IMAGENET_SHAPE)[0]
    return math.prod(alexnet.output), math.prod(zfnet.output)


def _plain(channels: int, kernel_size: int, n_layers: int) -> Counts:
    """Convolutions of stride 1, one after another."""
    names = [f'conv{i + 1}' for i in range(n_layers)]
    stack = tuple(Layer(name, 'conv', channels, kernel_size, 1, kernel_size // 2) for name in names)
    return count(stack, (16, 16, channels))


def networks() -> dict[str, Counts]:
    """Counts of the networks that the papers introduce, by title, oldest first."""
    cifar = {
        f'CIFAR ResNet-{depth}': count(layer_specs.cifar_resnet(depth), (32, 32, 3))
        for depth in (20, 110, 1202)
    }
    return {
        'AlexNet': count(layer_specs.alexnet(), (227, 227, 3)),
        'ZFNet': count(layer_specs.zfnet()),
        'VGG-16': count(layer_specs.vgg('d')),
        'VGG-19': count(layer_specs.vgg('e')),
        'GoogLeNet': count(layer_specs.googlenet()),
        **{f'ResNet-{n}': count(layer_specs.resnet(n)) for n in (18, 34, 50, 101, 152)},
        **cifar,
    }
