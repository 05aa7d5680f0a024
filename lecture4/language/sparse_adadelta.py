"""Adadelta for a table of which a step uses few rows, at the cost of these rows, equal to the dense rule.

A row whose gradient is zero is unchanged under Adadelta, and its two running means only decay by rho per step. So a
row that is used again after k steps is updated with rho^k at that time, and not accessed in between. A batch of 50
sentences uses about 600 of 19,000 words: the dense rule would read and write all of them.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, ScalarLike


class LazyTable(NamedTuple):
    """A table under lazy Adadelta.

    Attributes:
      table: The rows.
      means: Running means of squared gradients and of squared updates, at each row's last step.
      last_step: Number of the last step that used the row.
    """

    table: Float[Array, 'v d']
    means: Float[Array, 'v 2 d']
    last_step: Int[Array, ' v']


def init(table: Float[ArrayLike, 'v d']) -> LazyTable:
    """The state before the first step, with means of zero."""
    table = jnp.asarray(table)
    v, d = table.shape
    return LazyTable(table, jnp.zeros((v, 2, d), table.dtype), jnp.zeros(v, jnp.int32))


def update(
    state: LazyTable,
    rows: Int[ArrayLike, ' r'],
    grads: Float[Array, 'r d'],
    count: ScalarLike,
    *,
    learning_rate: ScalarLike = 1.0,
    rho: ScalarLike = 0.95,
    eps: ScalarLike = 1e-6,
) -> LazyTable:
    """One step of Adadelta on the rows that were used.

    Args:
      state: The table.
      rows: Rows that are used; a row may occur twice only if its gradients are zero (such as the padding).
      grads: Gradients of these rows.
      count: Number of the step, an int32 scalar: 1 for the first, and increasing from call to call.
      learning_rate: Factor on the update.
      rho: Decay rate of the running means, 0 < rho < 1.
      eps: Constant added under the roots, positive.

    References:
      Zeiler 2012, algorithm 1; the lazy form is ours.
    """
    dtype = state.table.dtype
    rho, eps = jnp.asarray(rho, dtype), jnp.asarray(eps, dtype)
    missed = (count - 1 - state.last_step[rows]).astype(dtype)
    means = state.means[rows] * (rho**missed)[:, None, None]
    square_grad = rho * means[:, 0] + (1 - rho) * grads * grads
    step = jnp.sqrt(means[:, 1] + eps) / jnp.sqrt(square_grad + eps) * grads
    square_step = rho * means[:, 1] + (1 - rho) * step * step
    return LazyTable(
        state.table.at[rows].add(-jnp.asarray(learning_rate, dtype) * step),
        state.means.at[rows].set(jnp.stack([square_grad, square_step], 1)),
        state.last_step.at[rows].set(count),
    )
