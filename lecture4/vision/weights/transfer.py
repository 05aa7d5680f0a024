"""Weights of a file as the start of a network that tells other classes apart."""

import jax

from lecture4.vision.weights import pretrained
from lecture4.vision.weights.torch_format import WeightsError


def load(network, path, *, new_head: bool = False):
    """Variables of the network from a .pth or .safetensors file, for as many classes as it has.

    new_head  leaves the layers that end in the classes (the classifier, and GoogLeNet's auxiliary ones) to
              be started anew: their leaves are None.
    Errors    WeightsError as pretrained.load; where the file has another number of classes and
              new_head is not asked for, with the mend.
    """
    state = pretrained.read(path)
    n_classes = pretrained.n_classes(network, state)
    if n_classes != network.n_classes and not new_head:
        raise WeightsError(
            f'{path} tells {n_classes} classes, this task has {network.n_classes}; ask for a new head (new_head) to '
            'keep the other layers'
        )
    there = network.clone(n_classes=n_classes)
    like = pretrained.shapes(there)
    variables = pretrained.from_torch(there, state, like)
    if not new_head:
        return variables
    more = pretrained.shapes(network.clone(n_classes=n_classes + 1))
    return jax.tree.map(
        lambda value, a, b: value if a.shape == b.shape else None, variables, like, more
    )


def filled(variables, fresh):
    """The variables of `load`, with the leaves of `fresh` where they are None."""
    return jax.tree.map(
        lambda value, new: new if value is None else value,
        variables,
        fresh,
        is_leaf=lambda leaf: leaf is None,
    )
