"""Weights of a file as initialization: all of them, or all but the layers that end in the classes."""

import pathlib

import jax
import numpy as np
import pytest

from lecture4.vision.models import googlenet, resnet
from lecture4.vision.weights import pretrained, torch_format, transfer
from lecture4.vision.weights.torch_format import WeightsError

RNG = np.random.default_rng(0)


def random_state(network, monkeypatch):
    """A random state dict of the network in the place of a file's."""
    shapes = pretrained.abstract_variables(network)
    variables = jax.tree.map(lambda leaf: RNG.random(leaf.shape, np.float32), shapes)
    state = pretrained.to_torch(network, variables)
    monkeypatch.setattr(torch_format, 'read', lambda path: state)
    return variables


def leaves(tree):
    named = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda leaf: leaf is None)
    return {'/'.join(key.key for key in path): leaf for path, leaf in named}


def test_new_head_leaves_out_what_ends_in_the_classes(monkeypatch):
    network = googlenet.GoogLeNet(n_classes=4, version='torchvision', auxiliary=True)
    new = {
        f'params/{part}classifier/{leaf}'
        for part in ('', 'auxiliary_4a/', 'auxiliary_4d/')
        for leaf in ('kernel', 'bias')
    }
    expected = leaves(random_state(network.clone(n_classes=6), monkeypatch))
    with pytest.raises(
        WeightsError, match=r'w\.pth has 6 classes, this task has 4; use --new_head'
    ):
        transfer.load(network, pathlib.Path('w.pth'))
    loaded = transfer.load(network, 'w.pth', new_head=True)
    assert {name for name, leaf in leaves(loaded).items() if leaf is None} == new
    for name, leaf in leaves(loaded).items():
        if name not in new:
            np.testing.assert_array_equal(leaf, expected[name])


def test_an_equal_number_of_classes_keeps_the_head_by_default(monkeypatch):
    network = resnet.imagenet(18, n_classes=3)
    random_state(network, monkeypatch)
    assert leaves(transfer.load(network, 'w.pth'))['params/fc/bias'] is not None
    assert leaves(transfer.load(network, 'w.pth', new_head=True))['params/fc/bias'] is None


def test_a_backbone_without_classifier_needs_a_new_head(monkeypatch):
    network = resnet.imagenet(18, n_classes=3)
    variables = random_state(network, monkeypatch)
    state = torch_format.read('w.pth')
    backbone = {f'module.{k}': v for k, v in state.items() if not k.startswith('fc.')}
    monkeypatch.setattr(torch_format, 'read', lambda path: backbone)
    with pytest.raises(WeightsError, match=r'w\.pth has no classifier; use --new_head'):
        transfer.load(network, 'w.pth')
    loaded = leaves(transfer.load(network, 'w.pth', new_head=True))
    head = {'params/fc/kernel', 'params/fc/bias'}
    assert {name for name, leaf in loaded.items() if leaf is None} == head
    for name, value in leaves(variables).items():
        if name not in head:
            np.testing.assert_array_equal(loaded[name], value)


def test_weights_of_another_network_are_refused_by_tensor(monkeypatch):
    random_state(resnet.imagenet(18, n_classes=3), monkeypatch)
    with pytest.raises(WeightsError, match=r'lacks layer1\.2\.conv1\.weight.*another network'):
        transfer.load(resnet.imagenet(34, n_classes=3), 'w.pth')
    with pytest.raises(WeightsError, match='has no weights for ResNet'):
        transfer.load(resnet.cifar(20), 'w.pth')
