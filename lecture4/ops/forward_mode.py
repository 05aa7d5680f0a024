"""Results of loops that cannot be differentiated in reverse, with an error that says what to use instead."""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

Tree = TypeVar('Tree')

_forward_only = Primitive('forward_only')


def forward_only(tree: Tree, message: str) -> Tree:
    """The pytree itself; `jax.grad` and `jax.vjp` through it raise `message`, forward-mode derivatives pass.

    JAX cannot transpose a `lax.while_loop`, and its own error names no alternative.

    Args:
      tree: Arrays; those that are not floating are left alone.
      message: What cannot be differentiated, and what can.

    Raises:
      TypeError: While a gradient in reverse mode is traced.
    """

    def mark(leaf: Any) -> Any:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        return _forward_only.bind(leaf, message=message)

    return jax.tree.map(mark, tree)


def _transpose(cotangent, operand, *, message):
    raise TypeError(message)


_forward_only.def_impl(lambda x, *, message: x)
_forward_only.def_abstract_eval(lambda x, *, message: x)
ad.deflinear2(_forward_only, _transpose)
batching.defvectorized(_forward_only)
mlir.register_lowering(_forward_only, lambda context, x, *, message: [x])
