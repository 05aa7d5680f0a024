"""Tensors of torchvision's and timm's networks: names in these libraries, paths and layouts here."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from flax import linen as nn
from jaxtyping import Shaped

from lecture4.vision.layer_specs import INCEPTION, VGG_BLOCKS
from lecture4.vision.models.alexnet import AlexNet, AlexNetV2
from lecture4.vision.models.googlenet import GoogLeNet
from lecture4.vision.models.resnet import ResNet
from lecture4.vision.models.vgg import VGG
from lecture4.vision.weights.state_dict import WeightsError

Library = Literal['torchvision', 'timm']
Layout = Literal['conv', 'dense', 'vector', 'map']
Path = tuple[str, ...]

# Height of the feature maps that a flattened dense kernel of so many inputs reads.
_MAP_SIZES = {9216: 6, 2048: 4, 12544: 7, 25088: 7}


class TensorSpec(NamedTuple):
    """One tensor in both libraries.

    Attributes:
      name: Name in the state dict.
      path: Path in the variables.
      layout: 'conv' is OIHW there and HWIO here; 'dense' OI and 1 x 1 IO or IO; 'vector' the same in both;
        'map' is a dense layer on feature maps, which torch flattens channels first, [o, c * h * w], and
        which is kept as [h, w, c, o] (VGG's head) or flattened rows first, [h * w * c, o], here.
    """

    name: str
    path: Path
    layout: Layout

    def torch_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape in the state dict of a variable of a given shape."""
        if self.layout == 'conv':
            return (shape[3], shape[2], shape[0], shape[1])
        if self.layout == 'dense':
            return shape[::-1]
        if self.layout == 'map':
            return (shape[-1], int(np.prod(shape[:-1])))
        return shape

    def from_torch(
        self, value: Shaped[np.ndarray, '...'], shape: tuple[int, ...]
    ) -> Shaped[np.ndarray, '...']:
        """The variable of that shape, a view of the tensor where possible."""
        if self.layout == 'conv':
            return value.transpose(2, 3, 1, 0)
        if self.layout == 'dense':
            return value.T
        if self.layout == 'map':
            h, w, c, o = _map_shape(shape)
            return value.reshape(o, c, h, w).transpose(2, 3, 1, 0).reshape(shape)
        return value

    def to_torch(self, value: Shaped[np.ndarray, '...']) -> Shaped[np.ndarray, '...']:
        """The tensor of a variable, a view of it where possible."""
        if self.layout == 'conv':
            return value.transpose(3, 2, 0, 1)
        if self.layout == 'dense':
            return value.T
        if self.layout == 'map':
            h, w, c, o = _map_shape(value.shape)
            return value.reshape(h, w, c, o).transpose(3, 2, 0, 1).reshape(o, -1)
        return value


def _map_shape(shape):
    """(h, w, c, o) of a 'map' kernel."""
    if len(shape) == 4:
        return shape
    size = _MAP_SIZES[shape[0]]
    return size, size, shape[0] // size**2, shape[1]


def tensor_specs(network: nn.Module, library: Library = 'torchvision') -> list[TensorSpec]:
    """Every tensor of a network in a library, the classifier's bias last.

    Raises:
      WeightsError: The library does not have the network, or only one with the same names and shapes and different
        arithmetic (such as ResNet-50 v1 and v1.5). To convert such weights nevertheless, pass the network that they
        belong to: `network.clone(version='v1.5')` has the same variables.
    """
    match network:
        case AlexNetV2() if library == 'torchvision':
            return list(_alexnet())
        case VGG() if network.configuration in ('a', 'b', 'd', 'e'):
            return list(_vgg(network, library))
        case GoogLeNet(version='torchvision') if library == 'torchvision':
            return list(_googlenet(network))
        case ResNet(bottleneck=True, version='v1', stem='imagenet', shortcut='B'):
            raise WeightsError(
                f"{library}'s ResNets of this depth stride on the 3 x 3 of a bottleneck (version "
                "'v1.5'), this network on the first 1 x 1 ('v1'): the names are the same, the "
                "outputs are not; use version='v1.5' (resnet_50_v1_5, resnet_101_v1_5 or "
                'resnet_152_v1_5 in the registry)'
            )
        case ResNet(stem='imagenet', shortcut='B'):
            return list(_resnet(network))
        case AlexNet():
            hint = '; its alexnet is AlexNetV2 (alexnet_v2), one without groups and normalization'
        case GoogLeNet():
            hint = "; its googlenet is version 'torchvision' (googlenet_torchvision)"
        case _:
            hint = ''
    raise WeightsError(
        f'{library} has no weights for {type(network).__name__} as configured{hint}; torchvision has '
        "some for AlexNetV2, VGG a, b, d and e, GoogLeNet 'torchvision', and ResNets with shortcut B "
        '(v1.5 from 50 layers on), timm for the VGGs and ResNets'
    )


def _conv_bias(name, path, layout: Layout = 'conv'):
    yield TensorSpec(f'{name}.weight', ('params', *path, 'kernel'), layout)
    yield TensorSpec(f'{name}.bias', ('params', *path, 'bias'), 'vector')


def _batch_norm(name, path):
    yield TensorSpec(f'{name}.weight', ('params', *path, 'scale'), 'vector')
    yield TensorSpec(f'{name}.bias', ('params', *path, 'bias'), 'vector')
    yield TensorSpec(f'{name}.running_mean', ('batch_stats', *path, 'mean'), 'vector')
    yield TensorSpec(f'{name}.running_var', ('batch_stats', *path, 'var'), 'vector')


def _conv_norm(conv, norm, path):
    yield TensorSpec(f'{conv}.weight', ('params', *path, 'conv', 'kernel'), 'conv')
    yield from _batch_norm(norm, (*path, 'bn'))


def _alexnet() -> Iterator[TensorSpec]:
    for i, number in enumerate((0, 3, 6, 8, 10), 1):
        yield from _conv_bias(f'features.{number}', (f'conv{i}',))
    yield from _conv_bias('classifier.1', ('fc6',), 'map')
    yield from _conv_bias('classifier.4', ('fc7',), 'dense')
    yield from _conv_bias('classifier.6', ('fc8',), 'dense')


def _vgg(network, library) -> Iterator[TensorSpec]:
    number = 0
    for i, (n_convolutions, _) in enumerate(VGG_BLOCKS[network.configuration], 1):
        for j in range(1, n_convolutions + 1):
            yield from _conv_bias(f'features.{number}', (f'conv{i}_{j}',))
            if network.batch_norm:
                yield from _batch_norm(f'features.{number + 1}', (f'bn{i}_{j}',))
            number += 3 if network.batch_norm else 2
        number += 1  # the pool
    if library == 'timm':  # whose first two are convolutions
        yield from _conv_bias('pre_logits.fc1', ('head', 'fc6'))
        yield from _conv_bias('pre_logits.fc2', ('head', 'fc7'))
        yield from _conv_bias('head.fc', ('head', 'fc8'), 'map')
    else:
        for number, name in ((0, 'fc6'), (3, 'fc7'), (6, 'fc8')):
            yield from _conv_bias(f'classifier.{number}', ('head', name), 'map')


def _googlenet(network) -> Iterator[TensorSpec]:
    for name, path in (('conv1', 'conv1'), ('conv2', 'conv2_reduce'), ('conv3', 'conv2')):
        yield from _conv_norm(f'{name}.conv', f'{name}.bn', (path,))
    branches = {
        'branch1': '1x1',
        'branch2.0': '3x3_reduce',
        'branch2.1': '3x3',
        'branch3.0': '5x5_reduce',
        'branch3.1': '5x5',
        'branch4.1': 'pool_proj',
    }
    for part in INCEPTION:
        for name, path in branches.items():
            prefix = f'inception{part}.{name}'
            yield from _conv_norm(f'{prefix}.conv', f'{prefix}.bn', (f'inception_{part}', path))
    if network.auxiliary:
        for name, part in (('aux1', '4a'), ('aux2', '4d')):
            path = f'auxiliary_{part}'
            yield from _conv_norm(f'{name}.conv.conv', f'{name}.conv.bn', (path, 'conv'))
            yield from _conv_bias(f'{name}.fc1', (path, 'fc'), 'map')
            yield from _conv_bias(f'{name}.fc2', (path, 'classifier'), 'dense')
    yield from _conv_bias('fc', ('classifier',), 'dense')


def _resnet(network) -> Iterator[TensorSpec]:
    yield from _conv_norm('conv1', 'bn1', ('conv1',))
    n_in = 64
    for i, (n_blocks, features) in enumerate(zip(network.blocks, network.features, strict=True)):
        n_out = 4 * features if network.bottleneck else features
        for j in range(n_blocks):
            name, path = f'layer{i + 1}.{j}', f'conv{i + 2}_{j + 1}'
            for k in range(1, 4 if network.bottleneck else 3):
                yield from _conv_norm(f'{name}.conv{k}', f'{name}.bn{k}', (path, f'conv{k}'))
            if (i and not j) or n_in != n_out:
                downsample = (f'{name}.downsample.0', f'{name}.downsample.1')
                yield from _conv_norm(*downsample, (path, 'project'))
            n_in = n_out
    yield from _conv_bias('fc', ('fc',), 'dense')
