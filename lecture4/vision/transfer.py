"""Weights of a file as the start of a network that tells other classes apart."""

import jax

from lecture4.vision import pretrained, torch_files
from lecture4.vision.torch_files import WeightsError


def load(network, path, *, new_head: bool = False):
    """Variables of the network from a .pth or .safetensors file, for as many classes as it has.

    new_head  leaves the layers that end in the classes (the classifier, and GoogLeNet's auxiliary ones) to
              be started anew: their leaves are None.
    Errors    WeightsError as pretrained.load; where the file has another number of classes and
              new_head is not asked for, with the mend.
    """
    state = torch_files.read(path)
    *_, last = pretrained.tensors(network, pretrained.library(state))  # the classifier's bias
    n_classes = state[last.theirs].shape[0] if last.theirs in state else network.n_classes
    if n_classes != network.n_classes and not new_head:
        raise WeightsError(
            f'{path} tells {n_classes} classes, this task has {network.n_classes}; ask for a new head (new_head) to '
            'keep the other layers'
        )
    variables = pretrained.from_torch(network.clone(n_classes=n_classes), state)
    if not new_head:
        return variables
    one, two = (pretrained.shapes(network.clone(n_classes=n)) for n in (1, 2))
    return jax.tree.map(
        lambda value, a, b: value if a.shape == b.shape else None, variables, one, two
    )


def filled(variables, fresh):
    """The variables of `load`, with the leaves of `fresh` where they are None."""
    return jax.tree.map(
        lambda value, new: new if value is None else value,
        variables,
        fresh,
        is_leaf=lambda leaf: leaf is None,
    )
