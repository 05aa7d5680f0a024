"""Weights of a file as initialization of a network with other classes."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from lecture4.vision.weights import pretrained, torch_format
from lecture4.vision.weights.pretrained import Variables
from lecture4.vision.weights.state_dict import WeightsError
from lecture4.vision.weights.tensor_specs import tensor_specs


def load(
    network: nn.Module,
    source: str | pathlib.Path | Variables,
    *,
    new_head: bool = False,
    image_shape: tuple[int, ...] = (224, 224, 3),
) -> dict[str, Any]:
    """Variables of the network from a .pth or .safetensors file, or from variables of the same kind of network.

    Args:
      network: A network with the number of classes of the task.
      source: The file, or variables of a network of the same kind, with any number of classes.
      new_head: Whether to leave out the output layers (the classifier, and GoogLeNet's auxiliary ones): their leaves
        are None, which `train.supervised` initializes. The file need not have them.
      image_shape: (h, w, c) of the network's input, needed if the source is variables: dense layers depend on it.

    Raises:
      WeightsError: As in `pretrained.load`; or the source has another number of classes, or no classifier, and
        `new_head` is False.
    """
    if isinstance(source, Mapping):
        return _from_variables(network, source, new_head, image_shape)
    state = torch_format.read(source)
    head = _head(network)
    if new_head:
        return pretrained.from_torch(network, state, without=head)
    _check_classes(source, pretrained.n_classes(network, state), network)
    library, named = pretrained.match_names(network, state)
    missing = {spec.path for spec in tensor_specs(network, library) if spec.name not in named}
    if missing == head:
        raise WeightsError(f'{source} has no classifier; use --new_head to initialize one')
    return pretrained.from_torch(network, state)


def _from_variables(network, given, new_head, image_shape):
    """The same variables, all names and shapes checked."""
    expected = _shapes(network, image_shape)
    given = {_path(key): leaf for key, leaf in jax.tree_util.tree_leaves_with_path(given)}
    head = _head(network, image_shape)
    for what, names in (('lacks', set(expected) - set(given)), ('has', set(given) - set(expected))):
        if names := sorted('/'.join(name) for name in names):
            raise WeightsError(
                f'the run of --init {what} {names[0]}, unlike this network; give the same --network (and '
                'its options) as in that run'
            )
    if not new_head:
        bias = min(head, key=lambda path: len(expected[path]))
        _check_classes('the run of --init', given[bias].shape[-1], network)
    tree = {}
    for path, shape in expected.items():
        node = tree
        for name in path[:-1]:
            node = node.setdefault(name, {})
        if new_head and path in head:
            node[path[-1]] = None
            continue
        if given[path].shape != shape:
            raise WeightsError(
                f'{"/".join(path)} of the run of --init has shape {given[path].shape}, expected {shape}; give '
                'the same --network and the same size of images as in that run'
            )
        node[path[-1]] = jnp.asarray(given[path])
    return tree


def _check_classes(source, n_classes, network):
    if n_classes != network.n_classes:
        raise WeightsError(
            f'{source} has {n_classes} classes, this task has {network.n_classes}; use --new_head to '
            'keep all layers except the classifier'
        )


def _shapes(network, image_shape):
    """Shape of every variable by path."""
    tree = pretrained.abstract_variables(network, image_shape)
    return {_path(key): leaf.shape for key, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _path(keys):
    return tuple(key.key for key in keys)


def _head(network, image_shape=(224, 224, 3)):
    """Paths of the variables whose shapes depend on the number of classes."""
    expected = _shapes(network, image_shape)
    other = _shapes(network.clone(n_classes=network.n_classes + 1), image_shape)
    return {path for path, shape in expected.items() if shape != other[path]}


def load_unchanged(
    network: nn.Module,
    source: str | pathlib.Path | Variables,
    *,
    image_shape: tuple[int, ...] = (224, 224, 3),
) -> tuple[nn.Module, dict[str, Any]]:
    """The network with the source's number of classes, and its variables, all from the source.

    Args:
      network: A network with any number of classes.
      source: As in `load`.
      image_shape: As in `load`.

    Raises:
      WeightsError: As in `load`.
    """
    if isinstance(source, Mapping):
        head = _head(network, image_shape)
        leaves = {_path(key): leaf for key, leaf in jax.tree_util.tree_leaves_with_path(source)}
        n_classes = next((leaves[path].shape[-1] for path in head if path in leaves), 1)
        network = network.clone(n_classes=n_classes)
        return network, _from_variables(network, source, False, image_shape)
    state = torch_format.read(source)
    network = network.clone(n_classes=pretrained.n_classes(network, state))
    return network, pretrained.from_torch(network, state)
