"""Sufficient statistics of a batch for a dictionary: second moments of its codes, over all devices.

Every learner's step starts here. At fixed codes the objective of a dictionary D is, up to a
constant, 0.5 tr(D'D A) - tr(D'B) with A = mean(a a') and B = mean(x a'): this is all that a learner needs of the
signals, for any number of signals and devices.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Real

from lecture4.ops.reduce import Reduce
from lecture4.sparse import solvers
from lecture4.sparse.objective import (
    L1,
    check_inputs,
    check_penalty_weight,
    objective_of_residual,
    product,
)
from lecture4.sparse.penalties import Penalty


class Statistics(NamedTuple):
    """Means over the global batch, the same on every device; x and losses are this device's part.

    Attributes:
      A: [k, k] mean(a a').
      B: [d, k] mean(x a').
      usage: [k] fraction of signals that use each atom.
      metrics: objective, reconstruction, density: scalars.
      n_signals: Number of signals on all devices.
      x: [n, d] signals.
      losses: [n] losses.
    """

    A: Float[Array, 'k k']
    B: Float[Array, 'd k']
    usage: Float[Array, ' k']
    metrics: dict[str, Float[Array, '']]
    n_signals: int
    x: Float[Array, 'n d']
    losses: Float[Array, ' n']


def collect(
    x: Float[Array | np.ndarray, 'n d'],
    D: Float[Array | np.ndarray, 'd k'],
    penalty_weight: Real[ArrayLike, '...'],
    *,
    penalty: Penalty = L1,
    n_iterations: int = 8,
    reduce: Reduce = Reduce(),
) -> Statistics:
    """Codes of a batch by a fixed number of iterations, and their statistics.

    The solver need not converge: the effect on what is learned is smaller than the differences between batches.

    Args:
      x: Signals, at least one.
      D: Dictionary, atoms in columns.
      penalty_weight: Scalar, [k] or [n, 1], positive.
      penalty: Penalty on the codes.
      n_iterations: Number of iterations of solvers.approximate.
      reduce: Reduction over devices.

    Returns:
      Statistics; its metrics are per signal, of the codes before the atoms change: objective,
      reconstruction (its first term), density (fraction of codes that are not zero).

    Raises:
      TypeError: An input is an integer array.
      ValueError: The sizes disagree, the batch is empty, or the penalty weight is not positive.
    """
    check_penalty_weight(penalty_weight)
    x, D, weight = check_inputs(x, D, penalty_weight)
    n = x.shape[0]
    if n == 0:
        raise ValueError('the batch has no signals; expected at least one')
    a = solvers.approximate(x, D, weight, penalty=penalty, n_iterations=n_iterations)
    residual = x - product(a, D.T)
    losses = objective_of_residual(residual, a, weight, penalty)
    A, B, usage, value, error = reduce.mean(
        (
            product(a.T, a) / n,
            product(x.T, a) / n,
            jnp.mean((a != 0).astype(x.dtype), axis=0),
            jnp.mean(losses),
            0.5 * jnp.mean(jnp.sum(residual * residual, axis=1)),
        )
    )
    metrics = {'objective': value, 'reconstruction': error, 'density': jnp.mean(usage)}
    return Statistics(A, B, usage, metrics, n * reduce.num_devices, x, losses)


def held_out_metrics(solution: solvers.Solution) -> dict[str, Float[Array, '']]:
    """Objective and density of the codes of held-out signals, means over signals.

    Args:
      solution: Solution of a converged solver: unlike in `Statistics.metrics`, no iterations are missing.
    """
    density = jnp.mean(solution.codes != 0, dtype=solution.codes.dtype)
    return {'objective': jnp.mean(solution.objective), 'density': density}
