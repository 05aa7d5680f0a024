"""All image networks by name, and what a unit of any of them sees."""

import difflib
import functools

from flax import linen as nn

from lecture4.ops import receptive_field
from lecture4.vision import layer_specs
from lecture4.vision.models.alexnet import AlexNet, OneTower
from lecture4.vision.models.googlenet import GoogLeNet
from lecture4.vision.models.resnet import ResNet, cifar, imagenet
from lecture4.vision.models.vgg import VGG
from lecture4.vision.models.zfnet import ZFNet

_with = functools.partial
OTHER: tuple[layer_specs.Shortcut, ...] = ('A', 'C')  # shortcuts than B

# What takes n_classes, dtype, ... and makes the network.
NETWORKS = {
    'alexnet': AlexNet,
    'one_tower': OneTower,
    'zfnet': ZFNet,
    **{f'vgg_{letter}': _with(VGG, letter) for letter in ('a', 'a_lrn', 'b', 'c', 'd', 'e')},
    **{f'vgg_{letter}_bn': _with(VGG, letter, batch_norm=True) for letter in ('a', 'b', 'd', 'e')},
    'googlenet': GoogLeNet,
    'googlenet_auxiliary': _with(GoogLeNet, auxiliary=True),
    'googlenet_torchvision': _with(GoogLeNet, version='torchvision'),
    **{f'resnet_{n}': _with(imagenet, n) for n in (18, 34, 50, 101, 152)},
    **{
        f'resnet_{n}_{s.lower()}': _with(imagenet, n, s)
        for n in (18, 34, 50, 101, 152)
        for s in OTHER
    },
    **{f'resnet_{n}_v1_5': _with(imagenet, n, version='v1.5') for n in (50, 101, 152)},
    **{f'plain_{n}': _with(imagenet, n, None) for n in (18, 34)},
    **{f'cifar_resnet_{n}': _with(cifar, n) for n in (8, 14, 20, 32, 44, 56, 110)},
    **{f'cifar_plain_{n}': _with(cifar, n, None) for n in (8, 14, 20, 32, 44, 56, 110)},
}


def named(name: str, n_classes: int, **options) -> nn.Module:
    """The network of that name; options as its class has them.

    Errors  ValueError for an unknown name, with the nearest one and all.
    """
    if name not in NETWORKS:
        near = difflib.get_close_matches(name, NETWORKS, 1)
        hint = f'did you mean {near[0]}? ' if near else ''
        raise ValueError(f'network {name} is unknown; {hint}there are {", ".join(NETWORKS)}')
    return NETWORKS[name](n_classes=n_classes, **options)


def layout(network) -> receptive_field.Stack:
    """The network as a stack of layers for `receptive_field.summarize`, its classes not counted.

    Errors  TypeError for a module that is none of ours.
    """
    match network:
        case AlexNet():
            return layer_specs.alexnet(network.groups)
        case OneTower():
            return layer_specs.one_tower()
        case ZFNet():
            return layer_specs.zfnet()
        case VGG():
            return layer_specs.vgg(network.letter.removesuffix('_lrn'), network.batch_norm)
        case GoogLeNet():
            return layer_specs.googlenet(network.version)
        case ResNet():
            return layer_specs.residual(
                network.blocks, network.units, network.bottleneck, network.stem, network.shortcut,
                network.version,
            )  # fmt: skip
    raise TypeError(f'{type(network).__name__} is no image network of lecture4.vision')


def field(network, layer: str, shape) -> receptive_field.LayerSummary:
    """What the units of a named activation see: a row of `receptive_field.summarize`, with `box(place)`.

    layer   name of an activation. Those behind the maps (fc6, pool5 of GoogLeNet) see all.
    shape   (h, w, c) of the picture, of any size that the network takes.
    Errors  KeyError for a name that the network has not; TypeError as `layout`.
    """
    name = {'norm1_1': 'conv1_1'}.get(layer, layer)  # A-LRN's, which is no layer of the layout
    h, w, _ = shape
    stack, outer = layout(network), name.partition('/')[0]
    whole = receptive_field.LayerSummary(
        layer, 'dense', shape, (1,), 0, 0, (h, w), (0, 0), ((h - 1) / 2, (w - 1) / 2)
    )
    if name.startswith(('fc', 'auxiliary')):
        return whole
    names = [part.name.partition('/')[0] for part in stack]
    if outer not in names:
        if name in ('pool', 'pool5'):
            return whole
        raise KeyError(f'{layer!r} is no layer of {type(network).__name__}')
    last = len(names) - names[::-1].index(outer)
    if last >= len(stack) - 1:  # a mean over the whole map
        return whole
    rows = {row.name: row for row in receptive_field.summarize(stack[:last], shape)}
    if name != outer and name not in rows:
        raise KeyError(f'{layer!r} is no layer of {type(network).__name__}')
    return rows[name] if name in rows else list(rows.values())[-1]
