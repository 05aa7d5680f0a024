"""Arrays in a user's `jax.shard_map`, whose types contain the mesh axes along which they vary.

A loop inside `shard_map` needs a carry of the same type before and after an iteration. A carry that starts from zeros
is the same on every device, but not after an iteration with that device's data: JAX refuses the loop ("carry types
differ"). Casting the start to the type of the data is all that is needed; outside `shard_map`, and with
`check_vma=False`, these functions do nothing.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax import lax

Tree = TypeVar('Tree')


def vary_together(*trees: Any) -> tuple[Any, ...]:
    """The pytrees with every leaf marked as varying along every axis along which any leaf varies.

    For the arguments of a function with loops: data is split over the devices, a dictionary often
    is not. `None` stays `None`.
    """
    return tuple(_cast(tree, _axes(trees)) for tree in trees)


def vary_like(tree: Tree, reference: Any) -> Tree:
    """The pytree with every leaf marked as varying along the axes of the arrays in `reference`.

    For the initial carry of a loop whose body combines it with `reference`.
    """
    return _cast(tree, _axes(reference))


def vary_as_returned(function: Callable[..., Tree], carry: Tree, *args: Any) -> Tree:
    """The carry, marked as varying wherever the result of `function(carry, *args)` varies.

    For the initial carry of a loop whose body calls functions of the user, which may close over unknown data.
    `function` is traced once more, inside `shard_map` only.

    Args:
      function: (carry, *args) -> next carry.
      carry: Initial carry.
      *args: Arrays, or their shapes.
    """
    while jax.sharding.get_abstract_mesh().manual_axes:
        returned = jax.eval_shape(function, carry, *args)
        cast = jax.tree.map(lambda leaf, new: _cast(leaf, _axes_of_leaf(new)), carry, returned)
        before, after = (list(map(_axes_of_leaf, jax.tree.leaves(c))) for c in (carry, cast))
        carry = cast
        if before == after:  # a leaf may vary because another one was just cast
            break
    return carry


def _axes(tree):
    return frozenset().union(*map(_axes_of_leaf, jax.tree.leaves(tree)))


def _axes_of_leaf(leaf):
    aval: Any = leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jax.typeof(leaf)
    if hasattr(aval, 'vma'):  # JAX before 0.10
        return aval.vma
    mat = getattr(aval, 'mat', None) or getattr(aval, 'manual_axis_type', None)
    return getattr(mat, 'varying', frozenset())


def _cast(tree, axes):
    def cast(leaf):
        missing = tuple(sorted(axes - _axes_of_leaf(leaf), key=str))
        return lax.pcast(leaf, missing, to='varying') if missing else leaf

    return jax.tree.map(cast, tree)
