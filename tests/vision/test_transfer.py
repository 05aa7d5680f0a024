"""Weights taken over whole, or all but the layers that end in the classes."""

import pathlib

import jax
import numpy as np
import pytest

from lecture4.vision.models import googlenet, resnet
from lecture4.vision.weights import pretrained, torch_format, transfer
from lecture4.vision.weights.torch_format import WeightsError

RNG = np.random.default_rng(0)


def random_state(network, monkeypatch):
    """A state dict of the network with random numbers, handed out in the place of a file's."""
    shapes = pretrained.shapes(network)
    variables = jax.tree.map(lambda leaf: RNG.random(leaf.shape, np.float32), shapes)
    state = pretrained.to_torch(network, variables)
    monkeypatch.setattr(torch_format, 'read', lambda path: state)
    return variables


def leaves(tree):
    named = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda leaf: leaf is None)
    return {'/'.join(key.key for key in path): leaf for path, leaf in named}


def test_a_new_head_is_all_that_ends_in_the_classes(monkeypatch):
    network = googlenet.GoogLeNet(n_classes=4, version='torchvision', auxiliary=True)
    new = {
        f'params/{part}classifier/{leaf}'
        for part in ('', 'auxiliary_4a/', 'auxiliary_4d/')
        for leaf in ('kernel', 'bias')
    }
    given = leaves(random_state(network.clone(n_classes=6), monkeypatch))
    with pytest.raises(
        WeightsError, match=r'w\.pth tells 6 classes, this task has 4; ask for a new'
    ):
        transfer.load(network, pathlib.Path('w.pth'))
    taken = transfer.load(network, 'w.pth', new_head=True)
    assert {name for name, leaf in leaves(taken).items() if leaf is None} == new
    fresh = jax.tree.map(lambda leaf: np.zeros(leaf.shape), pretrained.shapes(network))
    filled = leaves(transfer.filled(taken, fresh))
    for name, leaf in filled.items():
        assert leaf.shape == leaves(fresh)[name].shape
        np.testing.assert_array_equal(leaf, 0 if name in new else given[name])


def test_the_same_number_of_classes_keeps_the_head_unless_a_new_one_is_asked_for(monkeypatch):
    network = resnet.imagenet(18, n_classes=3)
    random_state(network, monkeypatch)
    assert leaves(transfer.load(network, 'w.pth'))['params/fc/bias'] is not None
    assert leaves(transfer.load(network, 'w.pth', new_head=True))['params/fc/bias'] is None


def test_weights_of_another_network_are_refused_with_a_tensor_s_name(monkeypatch):
    random_state(resnet.imagenet(18, n_classes=3), monkeypatch)
    with pytest.raises(WeightsError, match=r'lacks layer1\.2\.bn1\.bias.*another network'):
        transfer.load(resnet.imagenet(34, n_classes=3), 'w.pth')
    with pytest.raises(WeightsError, match='has no weights for ResNet'):
        transfer.load(resnet.cifar(20), 'w.pth')
