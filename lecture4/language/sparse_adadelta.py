"""Adadelta of a table of which a step uses few rows, at the cost of those rows, with the numbers of the dense rule.

A row whose gradient is zero does not move under Adadelta, and its two running means only shrink by rho a step. So a row
that comes back after k steps is brought up to date with rho^k, and until then nobody touches it. A batch of 50
sentences uses about 600 of 19,000 words: the dense rule would read and write all of them.
"""

from typing import NamedTuple

import jax.numpy as jnp


class Rows(NamedTuple):
    """A table under lazy Adadelta.

    table   [v, d].
    means   [v, 2, d], the running means of squared gradients and of squared updates, as of step `seen`.
    seen    int32 [v], the number of the last step that used the row.
    """

    table: jnp.ndarray
    means: jnp.ndarray
    seen: jnp.ndarray


def init(table) -> Rows:
    """Nothing learned yet: means of zero.  Shapes: table [v, d] float."""
    v, d = table.shape
    return Rows(table, jnp.zeros((v, 2, d), table.dtype), jnp.zeros(v, jnp.int32))


def update(state: Rows, rows, grads, count, *, learning_rate=1.0, rho=0.95, eps=1e-6) -> Rows:
    """One step of Adadelta on the rows that were used.

    A row may come twice in `rows` only if its gradients are zero there (the padding does).
    Shapes  rows int [r], grads [r, d]; count int32 scalar, the number of the step, 1 for the first.
    Domain  0 < rho < 1, eps > 0, count larger than at every call before.
    Source  Zeiler 2012, algorithm 1; the lazy form is ours.
    """
    dtype = state.table.dtype
    rho, eps = jnp.asarray(rho, dtype), jnp.asarray(eps, dtype)
    missed = (count - 1 - state.seen[rows]).astype(dtype)
    means = state.means[rows] * (rho**missed)[:, None, None]
    square_grad = rho * means[:, 0] + (1 - rho) * grads * grads
    step = jnp.sqrt(means[:, 1] + eps) / jnp.sqrt(square_grad + eps) * grads
    square_step = rho * means[:, 1] + (1 - rho) * step * step
    return Rows(
        state.table.at[rows].add(-jnp.asarray(learning_rate, dtype) * step),
        state.means.at[rows].set(jnp.stack([square_grad, square_step], 1)),
        state.seen.at[rows].set(count),
    )
