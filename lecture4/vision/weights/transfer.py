"""Weights of a file as the initialization of a network with other classes."""

import pathlib
from typing import Any

import jax
from flax import linen as nn

from lecture4.vision.weights import pretrained, torch_format
from lecture4.vision.weights.state_dict import WeightsError
from lecture4.vision.weights.tensor_specs import tensor_specs


def load(network: nn.Module, path: str | pathlib.Path, *, new_head: bool = False) -> dict[str, Any]:
    """Variables of the network from a .pth or .safetensors file.

    Args:
      network: With the number of classes of the task.
      path: The file.
      new_head: Leaves out the layers that end in the classes (the classifier, and GoogLeNet's auxiliary
        ones): their leaves are None, which `train.supervised` initializes. The file need not have them.

    Raises:
      WeightsError: As `pretrained.load`; or the file has another number of classes, or no classifier, and
        `new_head` is off.
    """
    state = torch_format.read(path)
    head = _head(network)
    if new_head:
        return pretrained.from_torch(network, state, without=head)
    n_classes = pretrained.n_classes(network, state)
    if n_classes != network.n_classes:
        raise WeightsError(
            f'{path} has {n_classes} classes, this task has {network.n_classes}; set new_head to keep '
            'all layers but the classifier'
        )
    library, named = pretrained.match_names(network, state)
    missing = {spec.path for spec in tensor_specs(network, library) if spec.name not in named}
    if missing == head:
        raise WeightsError(f'{path} has no classifier; set new_head to initialize one')
    return pretrained.from_torch(network, state)


def _head(network):
    """Paths of the variables whose shapes depend on the number of classes."""
    own = pretrained.abstract_variables(network)
    other = pretrained.abstract_variables(network.clone(n_classes=network.n_classes + 1))
    leaves = zip(jax.tree_util.tree_leaves_with_path(own), jax.tree.leaves(other), strict=True)
    return {tuple(key.key for key in path) for (path, a), b in leaves if a.shape != b.shape}


def load_unchanged(
    network: nn.Module, path: str | pathlib.Path
) -> tuple[nn.Module, dict[str, Any]]:
    """The network with the file's number of classes, and its variables, all from the file.

    Args:
      network: With any number of classes.
      path: A .pth or .safetensors file.

    Raises:
      WeightsError: As `pretrained.load`.
    """
    state = torch_format.read(path)
    network = network.clone(n_classes=pretrained.n_classes(network, state))
    return network, pretrained.from_torch(network, state)
