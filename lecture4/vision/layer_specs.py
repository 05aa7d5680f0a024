"""The classic networks as stacks of layers, for counting: sizes, parameters, receptive fields.

Each function returns a stack for `ops.receptive_field.summarize`. ReLU, dropout and softmax change no size and
have no parameters, so they are left out; local response normalization is listed as 'pointwise'. Inputs are
224 x 224 x 3 unless the function says otherwise.
"""

from typing import Literal

from lecture4.ops.receptive_field import Branches, Edge, Layer, Stack


def _pool(name, window, stride, padding=0, edge: Edge = 'floor') -> Layer:
    return Layer(name, 'pool', None, window, stride, padding, edge)


def _dense_layers(features) -> Stack:
    return tuple(Layer(f'fc{6 + i}', 'dense', n) for i, n in enumerate(features))


def alexnet(groups: int = 2) -> Stack:
    """AlexNet on 227 x 227 x 3.

    Args:
      groups: Number of groups: 2 as in the paper; 1 joins the two groups of feature maps.

    References:
      Krizhevsky, Sutskever & Hinton 2012, sections 3.2-3.5. Its text says 224, which does not give an integer number
      of windows.
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
        *_dense_layers((4096, 4096, 1000)),
    )


def alexnet_v2() -> Stack:
    """AlexNet without groups and normalization, on 224 x 224 x 3: torchvision's alexnet.

    References:
      Krizhevsky 2014, 'One weird trick for parallelizing convolutional neural networks', as implemented in torchvision.
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
        *_dense_layers((4096, 4096, 1000)),
    )


def zfnet() -> Stack:
    """The network (a) of Zeiler & Fergus 2014, figure 3; incomplete windows of its pools are kept."""
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
        *_dense_layers((4096, 4096, 1000)),
    )


# Convolutions of each block: the number of 3 x 3 ones, and of the 1 x 1 ones after them.
VGG_BLOCKS = {
    'a': ((1, 0), (1, 0), (2, 0), (2, 0), (2, 0)),
    'b': ((2, 0), (2, 0), (2, 0), (2, 0), (2, 0)),
    'c': ((2, 0), (2, 0), (2, 1), (2, 1), (2, 1)),
    'd': ((2, 0), (2, 0), (3, 0), (3, 0), (3, 0)),
    'e': ((2, 0), (2, 0), (4, 0), (4, 0), (4, 0)),
}


def vgg(configuration: str, batch_norm: bool = False) -> Stack:
    """Configurations 'a' to 'e' of VGG.

    Args:
      configuration: A letter of table 1. A-LRN has the counts of 'a'.
      batch_norm: Whether batch norm follows every convolution; not in the paper.

    Raises:
      KeyError: There is no such configuration.

    References:
      Simonyan & Zisserman 2015, table 1.
    """
    layers = []
    blocks = zip(VGG_BLOCKS[configuration], (64, 128, 256, 512, 512), strict=True)
    for i, ((n_3x3, n_1x1), features) in enumerate(blocks, 1):
        for j, kernel_size in enumerate([3] * n_3x3 + [1] * n_1x1, 1):
            padding = kernel_size // 2
            layers.append(Layer(f'conv{i}_{j}', 'conv', features, kernel_size, 1, padding))
            if batch_norm:
                layers.append(Layer(f'bn{i}_{j}', 'norm'))
        layers.append(_pool(f'pool{i}', 2, 2))
    return (*layers, *_dense_layers((4096, 4096, 1000)))


# Features of 1 x 1 | 3 x 3 reduce, 3 x 3 | 5 x 5 reduce, 5 x 5 | pool projection
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
    n_1x1, n_3x3_reduce, n_3x3, n_5x5_reduce, n_5x5, n_pool_proj = INCEPTION[name]
    conv = _conv_bias if paper else _conv_norm
    paths = (
        conv('1x1', n_1x1, 1),
        (*conv('3x3_reduce', n_3x3_reduce, 1), *conv('3x3', n_3x3, 3)),
        (*conv('5x5_reduce', n_5x5_reduce, 1), *conv('5x5', n_5x5, 5 if paper else 3)),
        (_pool('pool', 3, 1, 1), *conv('pool_proj', n_pool_proj, 1)),
    )
    return Branches(f'inception_{name}', paths, 'concat')


def googlenet(version: Literal['paper', 'torchvision'] = 'paper') -> Stack:
    """GoogLeNet without its auxiliary classifiers, with the pools of Caffe.

    Args:
      version: 'torchvision' has batch norm in place of biases and response normalization, 3 x 3 for 5 x 5,
        and a pool of 2 before inception 5a.

    References:
      Szegedy et al. 2015, table 1, whose own column of parameters does not add up.
    """
    paper = version == 'paper'
    conv = _conv_bias if paper else _conv_norm
    norm1, norm2 = ((Layer(f'norm{i}', 'pointwise'),) if paper else () for i in (1, 2))
    return (
        *conv('conv1', 64, 7, 2),
        _pool('pool1', 3, 2, edge='caffe'),
        *norm1,
        *conv('conv2_reduce', 64, 1),
        *conv('conv2', 192, 3),
        *norm2,
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


def _conv_bias(name, features, kernel_size, stride=1) -> Stack:
    return (Layer(name, 'conv', features, kernel_size, stride, kernel_size // 2),)


def _conv_norm(name, features, kernel_size, stride=1) -> Stack:
    conv = Layer(name, 'conv', features, kernel_size, stride, kernel_size // 2, bias=False)
    return conv, Layer(f'{name}_bn', 'norm')


def _block(name, n_in, features, stride, shortcut, bottleneck, version) -> Stack:
    """One residual block, or its layers without the shortcut where that is None."""
    if bottleneck:
        strides = (stride, 1) if version == 'v1' else (1, stride)
        layers = (
            *_conv_norm('conv1', features, 1, strides[0]),
            *_conv_norm('conv2', features, 3, strides[1]),
            *_conv_norm('conv3', 4 * features, 1),
        )
    else:
        layers = (*_conv_norm('conv1', features, 3, stride), *_conv_norm('conv2', features, 3))
    n_out = 4 * features if bottleneck else features
    if shortcut is None:
        return tuple(layer._replace(name=f'{name}/{layer.name}') for layer in layers)
    changes_shape = stride > 1 or n_in != n_out
    if shortcut == 'C' or (shortcut == 'B' and changes_shape):
        path = _conv_norm('project', n_out, 1, stride)
    elif changes_shape:
        path = (_pool('subsample', 1, stride), Layer('zeros', 'pointwise', n_out))
    else:
        path = ()
    return (Branches(name, (layers, path), 'add'),)


RESNET_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
Shortcut = Literal['A', 'B', 'C'] | None
ResNetVersion = Literal['v1', 'v1.5']


def resnet(depth: int, shortcut: Shortcut = 'B', version: ResNetVersion = 'v1') -> Stack:
    """ResNets for ImageNet.

    Args:
      depth: 18, 34, 50, 101 or 152.
      shortcut: 'A' subsamples and appends zeros for the new channels (no parameters); 'B' projects by 1 x 1
        convolutions where the shape changes; 'C' always projects; None is the plain network.
      version: Position of the stride of a bottleneck: its first 1 x 1 ('v1', the paper) or its 3 x 3 ('v1.5').

    Raises:
      KeyError: There is no ResNet of this depth.

    References:
      He, Zhang, Ren & Sun 2016, table 1.
    """
    return residual(
        RESNET_BLOCKS[depth], (64, 128, 256, 512), depth >= 50, 'imagenet', shortcut, version
    )


def residual(
    blocks: tuple[int, ...],
    features: tuple[int, ...],
    bottleneck: bool = False,
    stem: Literal['imagenet', 'cifar'] = 'imagenet',
    shortcut: Shortcut = 'B',
    version: ResNetVersion = 'v1',
) -> Stack:
    """Stages of residual blocks; the arguments are the fields of `models.resnet.ResNet`."""
    n_in, imagenet = features[0], stem == 'imagenet'
    layers = [*_conv_norm('conv1', n_in, 7, 2)] if imagenet else [*_conv_norm('conv1', n_in, 3)]
    if imagenet:
        layers.append(_pool('pool1', 3, 2, 1))
    for i, (n_blocks, n_features) in enumerate(zip(blocks, features, strict=True)):
        for j in range(n_blocks):
            stride = 2 if i and not j else 1
            name = f'conv{i + 2}_{j + 1}'
            layers += _block(name, n_in, n_features, stride, shortcut, bottleneck, version)
            n_in = 4 * n_features if bottleneck else n_features
    last = _pool('pool5', 7, 1) if imagenet else _pool('pool', 8, 1)
    return (*layers, last, Layer('fc', 'dense', 1000 if imagenet else 10))


def cifar_resnet(depth: int, shortcut: Shortcut = 'A') -> Stack:
    """The narrow ResNets of 6 n + 2 layers on 32 x 32 x 3.

    Args:
      depth: 20, 32, 44, 56, 110, ...
      shortcut: As in `resnet`.

    Raises:
      ValueError: `depth` is not 6 n + 2.

    References:
      He, Zhang, Ren & Sun 2016, section 4.2.
    """
    check_cifar_depth(depth)
    return residual(((depth - 2) // 6,) * 3, (16, 32, 64), False, 'cifar', shortcut)


def check_cifar_depth(depth: int) -> None:
    """Raise a ValueError unless the depth is 6 n + 2."""
    if depth < 8 or depth % 6 != 2:
        raise ValueError(f'depth is {depth}; expected 6 n + 2: 20, 32, 44, 56, 110, ...')
