"""What a batch of signals says about a dictionary: its codes' second moments, summed over devices.

Every learner's step begins here. At fixed codes the objective of a dictionary D is, but for a
constant, 0.5 tr(D'D A) - tr(D'B) with A = mean(a a') and B = mean(x a'): all a learner needs to know
of the signals, however many there were and wherever they lay.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lecture4.ops.reduce import Reduce
from lecture4.sparse import solvers
from lecture4.sparse.objective import L1, check, check_positive, objective, product


class Statistics(NamedTuple):
    """Means over the global batch, the same on every device; x and losses are this device's part."""

    A: jax.Array  # [k, k] mean(a a')
    B: jax.Array  # [d, k] mean(x a')
    share: jax.Array  # [k] of signals that use each atom
    metrics: dict[str, jax.Array]  # objective, reconstruction, density: scalars
    n_signals: int  # on all devices
    x: jax.Array  # [n, d]
    losses: jax.Array  # [n]


def collect(x, D, weight, *, penalty=L1, n_inner=8, reduce=Reduce()):
    """Codes of a batch by n_inner iterations, and what they say.

    No converged solver: that changes what is learned by less than the batches differ.

    Shapes  x [n, d] float; D [d, k]; weight scalar, [k] or [n, 1]. Metrics, per signal, of the codes
            before the atoms move: objective, reconstruction (its first term), density.
    Devices Means are over the devices of `reduce`.
    Errors  TypeError for integers; ValueError where sizes disagree, the batch is empty, or the
            weight is not positive.
    """
    check_positive(weight)
    x, D, weight = check(x, D, weight)
    n = x.shape[0]
    if n == 0:
        raise ValueError('the batch has no signals; a step wants at least one')
    a = solvers.approximate(x, D, weight, penalty=penalty, n_iterations=n_inner)
    residual = x - product(a, D.T)
    losses = objective(residual, a, weight, penalty)
    A, B, share, value, error = reduce.mean(
        (
            product(a.T, a) / n,
            product(x.T, a) / n,
            jnp.mean((a != 0).astype(x.dtype), axis=0),
            jnp.mean(losses),
            0.5 * jnp.mean(jnp.sum(residual * residual, axis=1)),
        )
    )
    metrics = {'objective': value, 'reconstruction': error, 'density': jnp.mean(share)}
    return Statistics(A, B, share, metrics, n * reduce.num_devices, x, losses)
