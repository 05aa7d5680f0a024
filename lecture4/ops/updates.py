"""One step of an optax optimizer: from gradients to new parameters."""

from typing import Any

import jax
import optax
from jaxtyping import PyTree


def apply_gradients(
    optimizer: optax.GradientTransformation,
    grads: PyTree,
    opt_state: PyTree,
    params: PyTree,
    **extra_args: Any,
) -> tuple[PyTree, PyTree]:
    """Update the optimizer's state and the parameters with one gradient.

    Optax mixes integers and floats (Adam's bias correction raises a float to an integer count), which strict dtype
    promotion refuses; the update alone runs under standard promotion. Parameters keep their dtypes.

    Args:
      optimizer: An optax gradient transformation.
      grads: Gradient of the loss, a tree of the structure of `params`.
      opt_state: State from `optimizer.init(params)` or from the previous step.
      params: Parameters at which `grads` was taken.
      **extra_args: Further arguments of the transformation, such as `value`, `grad` and `value_fn` of `optax.lbfgs`.

    Returns:
      The new parameters and the new state of the optimizer.
    """
    with jax.numpy_dtype_promotion('standard'):
        updates, opt_state = optimizer.update(grads, opt_state, params, **extra_args)
    return optax.apply_updates(params, updates), opt_state
