"""The classic networks as stacks of layers, for counting: sizes, parameters, receptive fields.

Each function returns a stack for `ops.receptive_field.summarize`. ReLU, dropout and softmax change no size and
hold no parameters, so they are left out; local response normalisation is there as 'pointwise'. Inputs
are 224 x 224 x 3 unless said.
"""

from typing import Literal

from lecture4.ops.receptive_field import Branches, Edge, Layer, Stack


def _pool(name, window, stride, padding=0, edge: Edge = 'floor') -> Layer:
    return Layer(name, 'pool', None, window, stride, padding, edge)


def _head(units, prefix='fc', first=6) -> Stack:
    return tuple(Layer(f'{prefix}{first + i}', 'dense', n) for i, n in enumerate(units))


def alexnet(groups: int = 2) -> Stack:
    """AlexNet on 227 x 227 x 3; groups=1 joins the two streams, which the paper does not.

    Source  Krizhevsky, Sutskever & Hinton 2012, sections 3.2-3.5. Its text says 224, from which no
            whole number of windows follows.
    """
    return (
        Layer('conv1', 'conv', 96, 11, 4),
        Layer('norm1', 'pointwise'),
        _pool('pool1', 3, 2),
        Layer('conv2', 'conv', 256, 5, 1, 2, groups=groups),
        Layer('norm2', 'pointwise'),
        _pool('pool2', 3, 2),
        Layer('conv3', 'conv', 384, 3, 1, 1),
        Layer('conv4', 'conv', 384, 3, 1, 1, groups=groups),
        Layer('conv5', 'conv', 256, 3, 1, 1, groups=groups),
        _pool('pool5', 3, 2),
        *_head((4096, 4096, 1000)),
    )


def one_tower() -> Stack:
    """The one-tower variant of AlexNet on 224 x 224 x 3, torchvision's.

    Source  Krizhevsky 2014, as torchvision has it.
    """
    return (
        Layer('conv1', 'conv', 64, 11, 4, 2),
        _pool('pool1', 3, 2),
        Layer('conv2', 'conv', 192, 5, 1, 2),
        _pool('pool2', 3, 2),
        Layer('conv3', 'conv', 384, 3, 1, 1),
        Layer('conv4', 'conv', 256, 3, 1, 1),
        Layer('conv5', 'conv', 256, 3, 1, 1),
        _pool('pool5', 3, 2),
        *_head((4096, 4096, 1000)),
    )


def zfnet() -> Stack:
    """The network (a) of Zeiler & Fergus 2014, figure 3: the ragged edge of its pools is kept."""
    return (
        Layer('conv1', 'conv', 96, 7, 2, 1),
        _pool('pool1', 3, 2, edge='caffe'),
        Layer('norm1', 'pointwise'),
        Layer('conv2', 'conv', 256, 5, 2),
        _pool('pool2', 3, 2, edge='caffe'),
        Layer('norm2', 'pointwise'),
        Layer('conv3', 'conv', 384, 3, 1, 1),
        Layer('conv4', 'conv', 384, 3, 1, 1),
        Layer('conv5', 'conv', 256, 3, 1, 1),
        _pool('pool5', 3, 2),
        *_head((4096, 4096, 1000)),
    )


# Convolutions of each block: how many of 3 x 3, and how many of 1 x 1 behind them.
VGG_BLOCKS = {
    'a': ((1, 0), (1, 0), (2, 0), (2, 0), (2, 0)),
    'b': ((2, 0), (2, 0), (2, 0), (2, 0), (2, 0)),
    'c': ((2, 0), (2, 0), (2, 1), (2, 1), (2, 1)),
    'd': ((2, 0), (2, 0), (3, 0), (3, 0), (3, 0)),
    'e': ((2, 0), (2, 0), (4, 0), (4, 0), (4, 0)),
}


def vgg(letter: str, batch_norm: bool = False) -> Stack:
    """Configurations A to E. A-LRN counts as A; batch normalisation is not in the paper.

    Source  Simonyan & Zisserman 2015, table 1.
    """
    layers = []
    blocks = zip(VGG_BLOCKS[letter], (64, 128, 256, 512, 512), strict=True)
    for i, ((n_wide, n_narrow), units) in enumerate(blocks, 1):
        for j, window in enumerate([3] * n_wide + [1] * n_narrow, 1):
            layers.append(Layer(f'conv{i}_{j}', 'conv', units, window, 1, window // 2))
            if batch_norm:
                layers.append(Layer(f'bn{i}_{j}', 'norm'))
        layers.append(_pool(f'pool{i}', 2, 2))
    return (*layers, *_head((4096, 4096, 1000)))


# 1 x 1 | 3 x 3 reduced, 3 x 3 | 5 x 5 reduced, 5 x 5 | behind the pool
INCEPTION = {
    '3a': (64, 96, 128, 16, 32, 32),
    '3b': (128, 128, 192, 32, 96, 64),
    '4a': (192, 96, 208, 16, 48, 64),
    '4b': (160, 112, 224, 24, 64, 64),
    '4c': (128, 128, 256, 24, 64, 64),
    '4d': (112, 144, 288, 32, 64, 64),
    '4e': (256, 160, 320, 32, 128, 128),
    '5a': (256, 160, 320, 32, 128, 128),
    '5b': (384, 192, 384, 48, 128, 128),
}


def _inception(name, paper: bool) -> Branches:
    one, reduce3, three, reduce5, five, behind = INCEPTION[name]
    wide = 5 if paper else 3
    unit = _biased if paper else _conv_norm
    paths = (
        unit('1x1', one, 1),
        (*unit('3x3_reduce', reduce3, 1), *unit('3x3', three, 3)),
        (*unit('5x5_reduce', reduce5, 1), *unit('5x5', five, wide)),
        (_pool('pool', 3, 1, 1), *unit('pool_proj', behind, 1)),
    )
    return Branches(f'inception_{name}', paths, 'concat')


def googlenet(version: Literal['paper', 'torchvision'] = 'paper') -> Stack:
    """GoogLeNet without its auxiliary classifiers, its pools as in Caffe.

    version  'torchvision': batch norm for biases and response normalisation, 3 x 3 for 5 x 5, and a
             pool of 2 before inception 5a.
    Source   Szegedy et al. 2015, table 1, whose own column of parameters does not add up.
    """
    paper = version == 'paper'
    unit = _biased if paper else _conv_norm
    first, second = ((Layer(f'norm{i}', 'pointwise'),) if paper else () for i in (1, 2))
    return (
        *unit('conv1', 64, 7, 2),
        _pool('pool1', 3, 2, edge='caffe'),
        *first,
        *unit('conv2_reduce', 64, 1),
        *unit('conv2', 192, 3),
        *second,
        _pool('pool2', 3, 2, edge='caffe'),
        *(_inception(name, paper) for name in ('3a', '3b')),
        _pool('pool3', 3, 2, edge='caffe'),
        *(_inception(f'4{letter}', paper) for letter in 'abcde'),
        _pool('pool4', 3 if paper else 2, 2, edge='caffe'),
        *(_inception(name, paper) for name in ('5a', '5b')),
        _pool('pool5', 7, 1),
        Layer('classifier', 'dense', 1000),
    )


def googlenet_auxiliary() -> Stack:
    """An auxiliary classifier of GoogLeNet, on the output of inception 4a or 4d (14 x 14)."""
    return (
        _pool('pool', 5, 3, edge='caffe'),
        Layer('conv', 'conv', 128),
        Layer('fc', 'dense', 1024),
        Layer('classifier', 'dense', 1000),
    )


def _biased(name, units, window, stride=1) -> Stack:
    return (Layer(name, 'conv', units, window, stride, window // 2),)


def _conv_norm(name, units, window, stride=1) -> Stack:
    conv = Layer(name, 'conv', units, window, stride, window // 2, bias=False)
    return conv, Layer(f'{name}_bn', 'norm')


def _block(name, n_in, units, stride, shortcut, bottleneck, first_strides) -> Stack:
    """One residual block, or its layers without the shortcut where that is None."""
    if bottleneck:
        strides = (stride, 1) if first_strides else (1, stride)
        layers = (
            *_conv_norm('conv1', units, 1, strides[0]),
            *_conv_norm('conv2', units, 3, strides[1]),
            *_conv_norm('conv3', 4 * units, 1),
        )
    else:
        layers = (*_conv_norm('conv1', units, 3, stride), *_conv_norm('conv2', units, 3))
    n_out = 4 * units if bottleneck else units
    if shortcut is None:
        return tuple(layer._replace(name=f'{name}/{layer.name}') for layer in layers)
    changes = stride > 1 or n_in != n_out
    if shortcut == 'C' or (shortcut == 'B' and changes):
        beside = _conv_norm('project', n_out, 1, stride)
    elif changes:
        beside = (_pool('subsample', 1, stride), Layer('zeros', 'pointwise', n_out))
    else:
        beside = ()
    return (Branches(name, (layers, beside), 'add'),)


RESNET_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
Shortcut = Literal['A', 'B', 'C'] | None


def resnet(depth: int, shortcut: Shortcut = 'B', version: Literal['v1', 'v1.5'] = 'v1') -> Stack:
    """ResNets for ImageNet; shortcut None is the plain network beside them.

    shortcut  'A'  subsampled, with zeros for the new channels: no parameters
              'B'  projected by 1 x 1 convolutions where the shape changes
              'C'  always projected
    version   where a bottleneck strides: on its first 1 x 1 (the paper) or on its 3 x 3 (v1.5).
    Errors    KeyError for a depth other than 18, 34, 50, 101, 152.
    Source    He, Zhang, Ren & Sun 2016, table 1.
    """
    return residual(
        RESNET_BLOCKS[depth], (64, 128, 256, 512), depth >= 50, 'imagenet', shortcut, version
    )


def residual(
    blocks: tuple[int, ...],
    units: tuple[int, ...],
    bottleneck: bool = False,
    stem: Literal['imagenet', 'cifar'] = 'imagenet',
    shortcut: Shortcut = 'B',
    version: Literal['v1', 'v1.5'] = 'v1',
) -> Stack:
    """Stages of residual blocks; fields as those of resnet.ResNet."""
    n_in, large = units[0], stem == 'imagenet'
    layers = [*_conv_norm('conv1', n_in, 7, 2)] if large else [*_conv_norm('conv1', n_in, 3)]
    if large:
        layers.append(_pool('pool1', 3, 2, 1))
    for i, (n_blocks, n_units) in enumerate(zip(blocks, units, strict=True)):
        for j in range(n_blocks):
            stride = 2 if i and not j else 1
            name = f'conv{i + 2}_{j + 1}'
            layers += _block(name, n_in, n_units, stride, shortcut, bottleneck, version == 'v1')
            n_in = 4 * n_units if bottleneck else n_units
    last = _pool('pool5', 7, 1) if large else _pool('pool', 8, 1)
    return (*layers, last, Layer('fc', 'dense', 1000 if large else 10))


def cifar_resnet(depth: int, shortcut: Shortcut = 'A') -> Stack:
    """The thin ResNets of 6 n + 2 layers on 32 x 32 x 3; shortcut as in `resnet`.

    Errors  ValueError where depth is not 6 n + 2.
    Source  He, Zhang, Ren & Sun 2016, section 4.2.
    """
    if depth < 8 or depth % 6 != 2:
        raise ValueError(f'depth is {depth}; it has to be 6 n + 2: 20, 32, 44, 56, 110, ...')
    return residual(((depth - 2) // 6,) * 3, (16, 32, 64), False, 'cifar', shortcut)
