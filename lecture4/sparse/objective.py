"""The sparse coding objective, and certificates of codes.

0.5 ||x - D a||^2 + sum_j weight_j phi(a_j) over codes a, for signals x [n, d] and a dictionary
D [d, k] with atoms in columns, ||d_j||^2 <= C. The lecture writes ||x - D a||^2 + lambda phi(a),
without the half: its minimizers are those of weight = lambda / 2, and its values are twice those here.

A penalty weight is a scalar, per atom [k], per signal [n, 1] or both [n, k], positive, and may be
traced. Everything here is computed at precision 'highest': codes computed at any precision are certified.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Num, Real

from lecture4.ops.prox import require_floating
from lecture4.sparse.penalties import L1 as L1
from lecture4.sparse.penalties import LOG as LOG
from lecture4.sparse.penalties import NONNEGATIVE as NONNEGATIVE
from lecture4.sparse.penalties import Penalty as Penalty
from lecture4.sparse.penalties import elastic_net as elastic_net
from lecture4.sparse.penalties import l1_gap


def loss(
    x: Float[Array | np.ndarray, 'n d'],
    D: Float[Array | np.ndarray, 'd k'],
    a: Float[Array | np.ndarray, 'n k'],
    penalty_weight: Real[ArrayLike, '...'],
    penalty: Penalty = L1,
) -> Float[Array, ' n']:
    """0.5 ||x - D a||^2 + sum_j weight_j phi(a_j), per signal.

    Args:
      x: Signals.
      D: Dictionary, atoms in columns.
      a: Codes.
      penalty_weight: Broadcastable to [n, k].
      penalty: The penalty phi.

    Raises:
      TypeError: An input is an array of integers or 16-bit floats.
      ValueError: The sizes disagree.

    References:
      Olshausen & Field 1996; Lee et al. 2006, where the weight is sigma^2 beta.
    """
    x, D, weight = check_inputs(x, D, penalty_weight)
    a = check_codes(a, x, D)
    return objective_of_residual(x - product(a, D.T), a, weight, penalty)


def duality_gap(
    x: Float[Array | np.ndarray, 'n d'],
    D: Float[Array | np.ndarray, 'd k'],
    a: Float[Array | np.ndarray, 'n k'],
    l1_penalty: Real[ArrayLike, '...'],
) -> Float[Array, ' n']:
    """Upper bound of the distance of a's L1 objective from the minimum.

    The dual point is the residual r scaled by the best feasible s: |d_j' s r| <= weight_j. With
    c = D' r the gap is
        0.5 (1 - s)^2 ||r||^2 + sum_j (weight_j |a_j| - s a_j c_j),
    a sum of nonnegative terms: without cancellation in float32 it reaches 0.

    Args:
      x: Signals.
      D: Dictionary, atoms in columns.
      a: Codes.
      l1_penalty: Broadcastable to [n, k], positive: for an atom of weight 0 no multiple of r is
        feasible, and the bound is useless.

    Returns:
      Nonnegative, in the unit of the objective.

    Raises:
      TypeError: As in `loss`.
      ValueError: As in `loss`.

    References:
      Kim et al. 2007, An interior-point method for large-scale l1-regularized least squares,
      section III; the form is ours.
    """
    x, D, weight = check_inputs(x, D, l1_penalty)
    a = check_codes(a, x, D)
    residual = x - product(a, D.T)
    return l1_gap(residual, product(residual, D), a, weight)


def stationarity(
    x: Float[Array | np.ndarray, 'n d'],
    D: Float[Array | np.ndarray, 'd k'],
    a: Float[Array | np.ndarray, 'n k'],
    penalty_weight: Real[ArrayLike, '...'],
    penalty: Penalty = L1,
    step_size: Real[ArrayLike, ''] = 1.0,
) -> Float[Array, ' n']:
    """||a - prox(a - step_size grad, step_size weight)|| / step_size: 0 at fixed points of the proximal step.

    For L1 these are the minimizers, at any step size. For a penalty that is not convex use the solver's step size, at
    most 1 / lipschitz(D): a longer step may leave the neighborhood of a local minimum.

    Args:
      x: Signals.
      D: Dictionary, atoms in columns.
      a: Codes.
      penalty_weight: Broadcastable to [n, k].
      penalty: The penalty phi.
      step_size: Positive.

    Raises:
      TypeError: As in `loss`.
      ValueError: As in `loss`.
    """
    x, D, weight = check_inputs(x, D, penalty_weight)
    a = check_codes(a, x, D)
    correlation = product(x - product(a, D.T), D)
    return proximal_residual(correlation, a, weight, penalty, jnp.asarray(step_size, x.dtype))


def max_l1_penalty(
    x: Float[Array | np.ndarray, 'n d'], D: Float[Array | np.ndarray, 'd k']
) -> Float[Array, ' n']:
    """max_j |d_j' x|: at this penalty and above, the L1 codes of a signal are exactly 0.

    Raises:
      TypeError: As in `loss`.
      ValueError: As in `loss`.
    """
    x, D, _ = check_inputs(x, D, 1.0)
    return jnp.max(jnp.abs(product(x, D)), axis=1, initial=0)


def objective_of_residual(
    residual: Float[Array, 'n d'],
    a: Float[Array, 'n k'],
    weight: Float[Array, '_ _'],
    penalty: Penalty,
) -> Float[Array, ' n']:
    """The loss of codes a whose residual x - D a is known; weight [1 or n, 1 or k]."""
    return 0.5 * jnp.sum(residual * residual, axis=1) + jnp.sum(weight * penalty.value(a), axis=1)


def proximal_residual(
    correlation: Float[Array, 'n k'],
    a: Float[Array, 'n k'],
    weight: Float[Array, '_ _'],
    penalty: Penalty,
    step_size: Real[ArrayLike, ''],
) -> Float[Array, ' n']:
    """Stationarity from correlation = residual @ D; weight [1 or n, 1 or k]."""
    scaled = step_size * jnp.broadcast_to(weight, a.shape)
    moved = penalty.prox(a + step_size * correlation, scaled)
    return jnp.linalg.norm(a - moved, axis=1) / step_size


def product(a: Num[ArrayLike, '*batch n d'], b: Num[ArrayLike, 'd k']) -> Num[Array, '*batch n k']:
    """A matrix product at full precision, independent of the accelerator's default."""
    return jnp.matmul(a, b, precision='highest')


def bfloat16_product(a: Float[Array, 'n d'], b: Float[Array, 'd k']) -> Float[Array, 'n k']:
    """A product of factors rounded to bfloat16, summed in their own dtype: for early iterations."""
    narrow = (v.astype(jnp.bfloat16) for v in (a, b))
    return jnp.matmul(*narrow, preferred_element_type=a.dtype)


def check_inputs(
    x: Float[ArrayLike, 'n d'],
    D: Float[ArrayLike, 'd k'],
    penalty_weight: Real[ArrayLike, '...'],
) -> tuple[Float[Array, 'n d'], Float[Array, 'd k'], Float[Array, '_ _']]:
    """Check x, D and the weight; returns arrays, the weight with two axes: [1, 1], [1, k], [n, 1] or [n, k].

    Raises:
      TypeError: Inputs are integers or 16-bit floats, or x and D are of different dtypes.
      ValueError: The sizes disagree.
    """
    x, D = require_floating('x', x), require_floating('D', D)
    if x.ndim != 2 or D.ndim != 2 or x.shape[1] != D.shape[0]:
        raise ValueError(
            f'signals x {x.shape} and dictionary D {D.shape} do not match; expected x [n, d] and '
            f'D [d, k] with atoms in columns' + _hint(x, D)
        )
    if x.dtype != D.dtype:
        raise TypeError(f'x is {x.dtype} and D is {D.dtype}; convert one to the dtype of the other')
    if x.dtype.itemsize < 4:
        raise TypeError(
            f'x and D are {x.dtype}, too coarse to certify codes; convert them to float32'
        )
    n, k = x.shape[0], D.shape[1]
    weight = jnp.asarray(penalty_weight, x.dtype)
    shape = (1, 1, *weight.shape)[weight.ndim :]
    if weight.ndim > 2 or shape[0] not in (1, n) or shape[1] not in (1, k):
        hint = '; a weight per signal is [n, 1]' if weight.shape == (n,) else ''
        raise ValueError(
            f'penalty weight of shape {weight.shape} does not broadcast to the codes [{n}, {k}]; '
            f'expected a scalar, [{k}] per atom, or [{n}, 1] per signal' + hint
        )
    return x, D, weight.reshape(shape)


def check_penalty_weight(weight: Any) -> None:
    """Check a penalty weight on the host; for traced weights a solver marks signals as not converged.

    Raises:
      ValueError: A weight of 0 or less, or infinite, that is a Python number or a NumPy array.
    """
    if isinstance(weight, jax.Array):
        return
    weight = np.asarray(weight)
    if not np.all(weight > 0):
        raise ValueError(
            f'penalty weight {weight.min()}; expected a positive number. Codes without a penalty '
            f'are least squares, jnp.linalg.lstsq(D, x.T)'
        )
    if np.isinf(weight).any():
        raise ValueError(
            'penalty weight inf; expected a finite number. At max_l1_penalty(x, D) and above all codes '
            'are 0'
        )


def check_codes(
    a: Float[ArrayLike, 'n k'], x: Float[Array, 'n d'], D: Float[Array, 'd k']
) -> Float[Array, 'n k']:
    """Check codes; returns them as an array.

    Raises:
      TypeError: An input is an integer array.
      ValueError: Another shape than [n, k].
    """
    a = require_floating('codes', a)
    if a.shape != (x.shape[0], D.shape[1]):
        raise ValueError(
            f'codes of shape {a.shape} for signals {x.shape} and dictionary {D.shape}; expected '
            f'[{x.shape[0]}, {D.shape[1]}]'
        )
    return a


def _hint(x, D):
    if x.ndim == 1:
        return '; pass a single signal as x[None]'
    if x.ndim == 2 and D.ndim == 2 and x.shape[1] == D.shape[1]:
        return '; D seems to be transposed, pass D.T'
    return ''
