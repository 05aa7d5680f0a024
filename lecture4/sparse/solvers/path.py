"""A regularization path: the codes of the same signals for many penalty weights."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Real

from lecture4.ops.varying import vary_like
from lecture4.sparse.objective import check_inputs, check_penalty_weight, max_l1_penalty
from lecture4.sparse.solvers.automatic import encode, platform_of, split_options
from lecture4.sparse.solvers.solution import Solution


def weights_from_max(
    x: Float[Array | np.ndarray, 'n d'],
    D: Float[Array | np.ndarray, 'd k'],
    n_weights: int,
    *,
    min_fraction: float = 0.01,
) -> Float[Array, ' {n_weights}']:
    """Logarithmically spaced penalty weights, descending from max |D'x|, where all codes are 0.

    Args:
      x: Signals.
      D: Dictionary, atoms in columns.
      n_weights: Number of weights, at least 1.
      min_fraction: Smallest weight, as a fraction of the largest, in (0, 1).

    Returns:
      Weights in descending order, the same for all signals.
    """
    largest = jnp.max(max_l1_penalty(x, D), initial=0)
    return largest * jnp.geomspace(1, min_fraction, n_weights, dtype=largest.dtype)


def path(
    x: Float[Array | np.ndarray, 'n d'],
    D: Float[Array | np.ndarray, 'd k'],
    penalty_weights: Real[Array | np.ndarray, '...'],
    **options: Any,
) -> Solution:
    """The Solution for every penalty weight, each started from the codes of the previous one.

    Descending weights are fast, since a few codes enter at a time. A vmap over weights gives the same result more
    slowly: every weight starts from zero, and waits for the smallest.

    Args:
      x: Signals.
      D: Dictionary, atoms in columns.
      penalty_weights: Weights [p].
      **options: Options of encode.

    Returns:
      A Solution whose arrays have a leading axis of length p.

    Raises:
      TypeError: As in encode.
      ValueError: As in encode, and for penalty weights that do not have one axis.
    """
    platform = options.pop('platform', None) or platform_of(x, D)
    check_penalty_weight(penalty_weights)
    x, D, _ = check_inputs(x, D, 1.0)
    weights = jnp.asarray(penalty_weights, x.dtype)
    if weights.ndim != 1:
        raise ValueError(
            f'penalty weights of shape {weights.shape}; expected [p], one for each step of the path'
        )
    static, traced = split_options(options | {'platform': platform})
    return _path(x, D, weights, traced, static=static)


@functools.partial(jax.jit, static_argnames='static')
def _path(x, D, weights, traced, *, static):
    def next_weight(codes, weight):
        solution = encode(x, D, weight, init=codes, **dict(static), **traced)
        # A signal that is not finite remains marked, and starts from zero at the next weight.
        return jnp.where(jnp.isfinite(solution.codes), solution.codes, 0), solution

    start = vary_like(jnp.zeros((x.shape[0], D.shape[1]), x.dtype), (x, D, weights))
    return lax.scan(next_weight, start, weights)[1]
