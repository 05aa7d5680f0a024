"""Arrays in a user's `jax.shard_map`, whose types say along which mesh axes they differ.

A loop in there wants its carry to have the same type before and after an iteration. A carry that
starts from zeros is the same on every device, and after one iteration with that device's data it
is not: JAX refuses the loop ("carry types differ"). Casting the start to the type of the data is
all that is needed; outside `shard_map`, and with `check_vma=False`, these functions do nothing.
"""

from typing import Any, TypeVar

import jax
from jax import lax

Tree = TypeVar('Tree')


def vary_together(*trees: Any) -> tuple[Any, ...]:
    """The pytrees, every leaf marked as varying along every axis along which one of them varies.

    For the arguments of a function with loops: data is split over the devices, a dictionary often
    is not. `None` stays `None`.
    """
    return tuple(_cast(tree, _axes(trees)) for tree in trees)


def vary_like(tree: Tree, reference: Any) -> Tree:
    """The pytree, every leaf marked as varying along the axes of the arrays in `reference`.

    For the first carry of a loop whose body mixes it with `reference`.
    """
    return _cast(tree, _axes(reference))


def _axes(tree):
    return frozenset().union(*map(_axes_of_leaf, jax.tree.leaves(tree)))


def _axes_of_leaf(leaf):
    aval: Any = jax.typeof(leaf)
    if hasattr(aval, 'vma'):  # JAX before 0.10
        return aval.vma
    return getattr(getattr(aval, 'mat', None), 'varying', frozenset())


def _cast(tree, axes):
    def cast(leaf):
        missing = tuple(sorted(axes - _axes_of_leaf(leaf), key=str))
        return lax.pcast(leaf, missing, to='varying') if missing else leaf

    return jax.tree.map(cast, tree)
