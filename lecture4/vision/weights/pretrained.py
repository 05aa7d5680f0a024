"""Weights of torchvision's and timm's networks as our variables, and back.

    network = resnet.imagenet(50, version='v1.5')
    variables = pretrained.load(network, 'resnet50.safetensors')

What exists there: alexnet (our OneTower), vgg11 to vgg19 with and without batch norm (A, B, D, E),
googlenet (version 'torchvision'), resnet18 to resnet152 (v1.5 from 50 on); timm has all but alexnet and
googlenet, the residual ones under torchvision's names. Pictures have to be prepared as the weights want
them: see `preparation`.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lecture4.vision.layer_specs import INCEPTION
from lecture4.vision.models.alexnet import OneTower
from lecture4.vision.models.googlenet import GoogLeNet
from lecture4.vision.models.resnet import ResNet
from lecture4.vision.models.vgg import VGG
from lecture4.vision.weights import torch_format
from lecture4.vision.weights.torch_format import WeightsError

Library = Literal['torchvision', 'timm']


class Preparation(NamedTuple):
    """How pictures are made ready: shorter side, central crop, then (x - mean) / deviation of [0, 1] RGB."""

    resize: int
    crop: int
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]
    antialias: bool


def preparation(network) -> Preparation:
    """What torchvision's first weights of the network want of a picture, bilinearly resized.

    GoogLeNet's were trained on pixels in [-1, 1]: torchvision converts inside the network. Later weights
    (torchvision's V2, most of timm's) keep the colours but differ in side, crop and interpolation: what
    they are published with tells.
    """
    if isinstance(network, GoogLeNet):
        return Preparation(256, 224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), True)
    return Preparation(256, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), True)


class Tensor(NamedTuple):
    """One tensor in both places.

    theirs  its name in the state dict; ours  its path in the variables
    kind    'conv' OIHW and HWIO; 'dense' OI and 1 x 1 IO or IO; 'vector' the same in both
    """

    theirs: str
    ours: tuple[str, ...]
    kind: str


def load(network, path, like=None):
    """Variables of the network from a file: shapes and names are all checked.

    like    variables whose shapes are wanted; None: those of the network on 224 x 224 pictures.
    Errors  WeightsError as torch_files.read and from_torch.
    """
    return from_torch(network, read(path), like)


def read(path) -> dict[str, np.ndarray]:
    """The state dict in a file, without a first word that all names share.

    DataParallel ('module.') and classes that hold a network ('backbone.') put it there.
    Errors  as torch_files.read.
    """
    state = torch_format.read(path)
    first = next(iter(state)).partition('.')[0] + '.'
    if not all(name.startswith(first) for name in state):
        return state
    return {name.removeprefix(first): value for name, value in state.items()}


def n_classes(network, state) -> int:
    """How many classes the network of a state dict tells apart; the network's own where that is not said."""
    *_, bias = tensors(network, library(state))
    return state[bias.theirs].shape[0] if bias.theirs in state else network.n_classes


def from_torch(network, state: dict[str, np.ndarray], like=None):
    """Variables {'params', 'batch_stats'} in float32 from a state dict.

    Errors  WeightsError naming every tensor that is missing, not of this network, or of another
            shape; and for a network that has no counterpart.
    """
    wanted = list(tensors(network, library(state)))
    state = {name: value for name, value in state.items() if not _ignored(network, name)}
    names = {tensor.theirs for tensor in wanted}
    _refuse('lacks', sorted(names - set(state)))
    _refuse('has, which this network has not,', sorted(set(state) - names))
    like = shapes(network) if like is None else like
    flat = {}
    for tensor in wanted:
        shape, value = _at(like, tensor.ours).shape, np.asarray(state[tensor.theirs])
        theirs = _their_shape(tensor, shape)
        if value.shape != theirs:
            raise WeightsError(
                f'{tensor.theirs} has shape {value.shape}, this network wants {theirs}; these are '
                'weights of another network, or of another number of classes'
            )
        flat[tensor.ours] = jnp.asarray(_to_ours(tensor, value, shape), jnp.float32)
    return _nested(flat)


def to_torch(network, variables, of: Library = 'torchvision') -> dict[str, np.ndarray]:
    """The state dict of variables: what from_torch takes, and the load_state_dict of that library's model."""
    return {
        tensor.theirs: _to_theirs(tensor, np.asarray(_at(variables, tensor.ours)))
        for tensor in tensors(network, of)
    }


def library(state) -> Library:
    """Whose names a state dict has; torchvision's where both have the same."""
    theirs = any(name.startswith(('pre_logits.', 'head.')) for name in state)
    return 'timm' if theirs else 'torchvision'


def tensors(network, of: Library = 'torchvision') -> Iterator[Tensor]:
    """Every tensor of a network under its name there, the classifier's bias last.

    Errors  WeightsError for a network that the library does not have.
    """
    if isinstance(network, OneTower) and of == 'torchvision':
        yield from _alexnet()
    elif isinstance(network, VGG) and network.letter in 'abde':
        yield from _vgg(network, of)
    elif isinstance(network, GoogLeNet) and network.version == of == 'torchvision':
        yield from _googlenet(network)
    elif isinstance(network, ResNet) and network.stem == 'imagenet' and network.shortcut == 'B':
        yield from _resnet(network)
    else:
        raise WeightsError(
            f'{of} has no weights for {type(network).__name__} as configured; torchvision has some for '
            "alexnet.OneTower, VGG a, b, d and e, GoogLeNet 'torchvision', and ResNets with shortcut B, "
            'timm for the VGGs and ResNets'
        )


def _biased(theirs, ours, kind='conv'):
    yield Tensor(f'{theirs}.weight', ('params', *ours, 'kernel'), kind)
    yield Tensor(f'{theirs}.bias', ('params', *ours, 'bias'), 'vector')


def _normed(theirs, ours):
    yield Tensor(f'{theirs}.weight', ('params', *ours, 'scale'), 'vector')
    yield Tensor(f'{theirs}.bias', ('params', *ours, 'bias'), 'vector')
    yield Tensor(f'{theirs}.running_mean', ('batch_stats', *ours, 'mean'), 'vector')
    yield Tensor(f'{theirs}.running_var', ('batch_stats', *ours, 'var'), 'vector')


def _conv_norm(conv, norm, ours):
    yield Tensor(f'{conv}.weight', ('params', *ours, 'conv', 'kernel'), 'conv')
    yield from _normed(norm, (*ours, 'bn'))


def _alexnet():
    for i, number in enumerate((0, 3, 6, 8, 10), 1):
        yield from _biased(f'features.{number}', (f'conv{i}',))
    yield from _biased('classifier.1', ('fc6',), 'map')
    yield from _biased('classifier.4', ('fc7',), 'dense')
    yield from _biased('classifier.6', ('fc8',), 'dense')


def _vgg(network, of):
    from lecture4.vision.layer_specs import VGG_BLOCKS

    number = 0
    for i, (n_wide, _) in enumerate(VGG_BLOCKS[network.letter], 1):
        for j in range(1, n_wide + 1):
            yield from _biased(f'features.{number}', (f'conv{i}_{j}',))
            if network.batch_norm:
                yield from _normed(f'features.{number + 1}', (f'bn{i}_{j}',))
            number += 3 if network.batch_norm else 2
        number += 1  # the pool
    if of == 'timm':  # whose first two are convolutions
        yield from _biased('pre_logits.fc1', ('head', 'fc6'))
        yield from _biased('pre_logits.fc2', ('head', 'fc7'))
        yield from _biased('head.fc', ('head', 'fc8'), 'map')
    else:
        for theirs, ours in ((0, 'fc6'), (3, 'fc7'), (6, 'fc8')):
            yield from _biased(f'classifier.{theirs}', ('head', ours), 'map')


def _googlenet(network):
    for theirs, ours in (('conv1', 'conv1'), ('conv2', 'conv2_reduce'), ('conv3', 'conv2')):
        yield from _conv_norm(f'{theirs}.conv', f'{theirs}.bn', (ours,))
    branches = {
        'branch1': '1x1', 'branch2.0': '3x3_reduce', 'branch2.1': '3x3', 'branch3.0': '5x5_reduce',
        'branch3.1': '5x5', 'branch4.1': 'pool_proj',
    }  # fmt: skip
    for part in INCEPTION:
        for theirs, ours in branches.items():
            prefix = f'inception{part}.{theirs}'
            yield from _conv_norm(f'{prefix}.conv', f'{prefix}.bn', (f'inception_{part}', ours))
    if network.auxiliary:
        for number, part in (('aux1', '4a'), ('aux2', '4d')):
            ours = f'auxiliary_{part}'
            yield from _conv_norm(f'{number}.conv.conv', f'{number}.conv.bn', (ours, 'conv'))
            yield from _biased(f'{number}.fc1', (ours, 'fc'), 'map')
            yield from _biased(f'{number}.fc2', (ours, 'classifier'), 'dense')
    yield from _biased('fc', ('classifier',), 'dense')


def _resnet(network):
    yield from _conv_norm('conv1', 'bn1', ('conv1',))
    n_in = 64
    for i, (n_blocks, units) in enumerate(zip(network.blocks, network.units, strict=True)):
        n_out = 4 * units if network.bottleneck else units
        for j in range(n_blocks):
            theirs, ours = f'layer{i + 1}.{j}', f'conv{i + 2}_{j + 1}'
            for k in range(1, 4 if network.bottleneck else 3):
                yield from _conv_norm(f'{theirs}.conv{k}', f'{theirs}.bn{k}', (ours, f'conv{k}'))
            if (i and not j) or n_in != n_out:
                project = (f'{theirs}.downsample.0', f'{theirs}.downsample.1')
                yield from _conv_norm(*project, (ours, 'project'))
            n_in = n_out
    yield from _biased('fc', ('fc',), 'dense')


def _ignored(network, name):
    """Counters of steps, and auxiliary classifiers where the network was made without them."""
    auxiliary = isinstance(network, GoogLeNet) and not network.auxiliary
    return name.endswith('num_batches_tracked') or (auxiliary and name.startswith('aux'))


def _refuse(what, names):
    if names:
        more = f' and {len(names) - 5} more' if len(names) > 5 else ''
        raise WeightsError(
            f'the state dict {what} {", ".join(names[:5])}{more}; these are weights of another network'
        )


def shapes(network):
    """Shapes of the network's variables, made for pictures of 224 x 224."""
    x = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    return jax.eval_shape(network.init, jax.random.key(0), x)


def _at(tree, path):
    for name in path:
        tree = tree[name]
    return tree


def _nested(flat):
    tree = {}
    for path, value in flat.items():
        place = tree
        for name in path[:-1]:
            place = place.setdefault(name, {})
        place[path[-1]] = value
    return tree


# A dense layer on maps: torch flattens channels first, [o, c * h * w], we keep [h, w, c, o] (VGG's
# head), or flatten rows first, [h * w * c, o]. How high and wide the maps are is in the shapes.
_SIDES = {9216: 6, 2048: 4}


def _map_sides(shape):
    """(h, w, c, o) of a 'map' kernel from our shape."""
    if len(shape) == 4:
        return shape
    side = _SIDES[shape[0]]
    return side, side, shape[0] // side**2, shape[1]


def _their_shape(tensor, shape):
    if tensor.kind == 'conv':
        return (shape[3], shape[2], shape[0], shape[1])
    if tensor.kind == 'dense':
        return shape[::-1]
    if tensor.kind == 'map':
        return (shape[-1], int(np.prod(shape[:-1])))
    return shape


def _to_ours(tensor, value, shape):
    if tensor.kind == 'conv':
        return value.transpose(2, 3, 1, 0)
    if tensor.kind == 'dense':
        return value.T
    if tensor.kind == 'map':
        h, w, c, o = _map_sides(shape)
        return value.reshape(o, c, h, w).transpose(2, 3, 1, 0).reshape(shape)
    return value


def _to_theirs(tensor, value):
    if tensor.kind == 'conv':
        return value.transpose(3, 2, 0, 1)
    if tensor.kind == 'dense':
        return value.T
    if tensor.kind == 'map':
        h, w, c, o = _map_sides(value.shape)
        return value.reshape(h, w, c, o).transpose(3, 2, 0, 1).reshape(o, -1)
    return value
