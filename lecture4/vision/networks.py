"""The networks of this room by name, for command lines."""

import difflib
import functools

from flax import linen as nn

from lecture4.vision import alexnet, googlenet, resnet, vgg, zfnet

_part = functools.partial
NETWORKS = {
    'alexnet': alexnet.AlexNet,
    'one_tower': alexnet.OneTower,
    'zfnet': zfnet.ZFNet,
    **{f'vgg_{letter}': _part(vgg.VGG, letter) for letter in ('a', 'a_lrn', 'b', 'c', 'd', 'e')},
    **{f'vgg_{letter}_bn': _part(vgg.VGG, letter, batch_norm=True) for letter in 'abde'},
    'googlenet': googlenet.GoogLeNet,
    'googlenet_auxiliary': _part(googlenet.GoogLeNet, auxiliary=True),
    'googlenet_torchvision': _part(googlenet.GoogLeNet, version='torchvision'),
    **{f'resnet_{n}': _part(resnet.imagenet, n) for n in (18, 34, 50, 101, 152)},
    **{f'resnet_{n}_v1_5': _part(resnet.imagenet, n, version='v1.5') for n in (50, 101, 152)},
    **{f'plain_{n}': _part(resnet.imagenet, n, None) for n in (18, 34)},
    **{f'cifar_resnet_{n}': _part(resnet.cifar, n) for n in (8, 14, 20, 32, 44, 56, 110)},
    **{f'cifar_plain_{n}': _part(resnet.cifar, n, None) for n in (8, 14, 20, 32, 44, 56, 110)},
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
