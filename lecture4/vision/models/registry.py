"""All image networks by name, and the receptive fields of their units."""

import difflib
import functools
from typing import Any

from flax import linen as nn

from lecture4.ops import receptive_field
from lecture4.vision import layer_specs
from lecture4.vision.models.alexnet import AlexNet, AlexNetV2
from lecture4.vision.models.googlenet import GoogLeNet
from lecture4.vision.models.resnet import ResNet, cifar, imagenet, small
from lecture4.vision.models.vgg import VGG
from lecture4.vision.models.zfnet import ZFNet

_with = functools.partial
_SHORTCUTS: tuple[layer_specs.Shortcut, ...] = ('A', 'C')  # shortcuts other than B

# Callables that take n_classes, dtype, ... and make the network.
NETWORKS = {
    'alexnet': AlexNet,
    'alexnet_v2': AlexNetV2,
    'zfnet': ZFNet,
    **{f'vgg_{name}': _with(VGG, name) for name in ('a', 'a_lrn', 'b', 'c', 'd', 'e')},
    **{f'vgg_{name}_bn': _with(VGG, name, batch_norm=True) for name in ('a', 'b', 'd', 'e')},
    'googlenet': GoogLeNet,
    'googlenet_auxiliary': _with(GoogLeNet, auxiliary=True),
    'googlenet_torchvision': _with(GoogLeNet, version='torchvision'),
    **{f'resnet_{n}': _with(imagenet, n) for n in (18, 34, 50, 101, 152)},
    **{
        f'resnet_{n}_{s.lower()}': _with(imagenet, n, s)
        for n in (18, 34, 50, 101, 152)
        for s in _SHORTCUTS
    },
    **{f'resnet_{n}_v1_5': _with(imagenet, n, version='v1.5') for n in (50, 101, 152)},
    **{f'plain_{n}': _with(imagenet, n, None) for n in (18, 34)},
    **{f'cifar_resnet_{n}': _with(cifar, n) for n in (8, 14, 20, 32, 44, 56, 110)},
    'cifar_resnet_1202': _with(cifar, 1202, scan_blocks=True),
    'small': small,
    **{f'cifar_plain_{n}': _with(cifar, n, None) for n in (8, 14, 20, 32, 44, 56, 110)},
}


def create(name: str, n_classes: int, **options: Any) -> nn.Module:
    """The network with a name.

    Args:
      name: A key of NETWORKS.
      n_classes: Number of classes.
      **options: Fields of the network's class.

    Raises:
      ValueError: The name is unknown; the message has the closest one and all others.
    """
    if name not in NETWORKS:
        closest = difflib.get_close_matches(name, NETWORKS, 1)
        hint = f'did you mean {closest[0]}? ' if closest else ''
        raise ValueError(f'unknown network {name}; {hint}expected one of {", ".join(NETWORKS)}')
    return NETWORKS[name](n_classes=n_classes, **options)


def layer_stack(network: nn.Module) -> receptive_field.Stack:
    """The network as a stack of layers for `receptive_field.summarize`, with the paper's number of classes.

    Raises:
      TypeError: The module is not one of these networks.
    """
    match network:
        case AlexNet():
            return layer_specs.alexnet(network.groups)
        case AlexNetV2():
            return layer_specs.alexnet_v2()
        case ZFNet():
            return layer_specs.zfnet()
        case VGG():
            configuration = network.configuration.removesuffix('_lrn')
            return layer_specs.vgg(configuration, network.batch_norm)
        case GoogLeNet():
            return layer_specs.googlenet(network.version)
        case ResNet():
            return layer_specs.residual(
                network.blocks,
                network.features,
                network.bottleneck,
                network.stem,
                network.shortcut,
                network.version,
            )
    raise TypeError(f'{type(network).__name__} is not an image network of lecture4.vision')


def receptive_field_of(
    network: nn.Module, layer: str, image_shape: tuple[int, int, int]
) -> receptive_field.LayerSummary:
    """Receptive field of the units of a named activation: a row of `receptive_field.summarize`.

    Args:
      network: One of these networks.
      layer: Name of an activation. Units after the last feature maps (fc6, pool5 of GoogLeNet) have the whole image
        as receptive field.
      image_shape: (h, w, c), any size that the network takes.

    Raises:
      KeyError: The network has no layer of this name.
      TypeError: As in `layer_stack`.
    """
    name = {'norm1_1': 'conv1_1'}.get(
        layer, layer
    )  # norm of A-LRN, which the stack of A does not list
    h, w, _ = image_shape
    stack, outer = layer_stack(network), name.partition('/')[0]
    whole_image = receptive_field.LayerSummary(
        layer, 'dense', image_shape, (1,), 0, 0, (h, w), (0, 0), ((h - 1) / 2, (w - 1) / 2)
    )
    if name.startswith(('fc', 'auxiliary')):
        return whole_image
    names = [part.name.partition('/')[0] for part in stack]
    if outer not in names:
        if name in ('pool', 'pool5'):
            return whole_image
        raise KeyError(f'{layer!r} is not a layer of {type(network).__name__}')
    last = len(names) - names[::-1].index(outer)
    if last >= len(stack) - 1:  # a mean over the whole feature map
        return whole_image
    rows = {row.name: row for row in receptive_field.summarize(stack[:last], image_shape)}
    if name != outer and name not in rows:
        raise KeyError(f'{layer!r} is not a layer of {type(network).__name__}')
    return rows[name] if name in rows else list(rows.values())[-1]
