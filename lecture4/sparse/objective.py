"""The sparse coding objective, its penalties, and what certifies an answer.

0.5 ||x - D a||^2 + sum_j weight_j phi(a_j) over codes a, for signals x [n, d] and a dictionary
D [d, k] with atoms in columns, ||d_j||^2 <= C. The lecture writes ||x - D a||^2 + lambda phi(a),
without the half: its minimisers are those of weight = lambda / 2, its values twice ours.

A weight is a scalar, per atom [k], per signal [n, 1] or both [n, k], positive, and may be traced.
Everything here is computed at precision 'highest': it certifies what a solver did at any.
"""

import jax
import jax.numpy as jnp
import numpy as np

from lecture4.ops.prox import require_floating
from lecture4.sparse.penalties import L1 as L1
from lecture4.sparse.penalties import LOG as LOG
from lecture4.sparse.penalties import NONNEGATIVE as NONNEGATIVE
from lecture4.sparse.penalties import Penalty as Penalty
from lecture4.sparse.penalties import elastic_net as elastic_net
from lecture4.sparse.penalties import gap_of_residual as gap_of_residual


def loss(x, D, a, weight, penalty=L1):
    """0.5 ||x - D a||^2 + sum_j weight_j phi(a_j), per signal.

    Shapes  x [n, d], D [d, k], a [n, k], weight broadcastable to [n, k]. Returns [n].
    Errors  TypeError for integers and 16 bits; ValueError where sizes disagree, naming both.
    Source  Olshausen & Field 1996; Lee et al. 2006, where weight is sigma^2 beta.
    """
    x, D, weight = check(x, D, weight)
    residual = x - product(check_codes(a, x, D), D.T)
    return objective(residual, a, weight, penalty)


def duality_gap(x, D, a, weight):
    """How far, at most, the L1 objective of a lies above the minimum.

    The dual point is the residual r scaled by the best feasible s: |d_j' s r| <= weight_j. With
    c = D' r the gap is
        0.5 (1 - s)^2 ||r||^2 + sum_j (weight_j |a_j| - s a_j c_j),
    a sum of terms that are not negative: float32 has nothing to cancel, and it reaches 0.

    Shapes  x [n, d], D [d, k], a [n, k], weight broadcastable to [n, k]. Returns [n], >= 0.
    Domain  weight > 0: for an atom of weight 0 no multiple of r is feasible, the bound is useless.
    Errors  as loss.
    Source  Kim et al. 2007, An interior-point method for large-scale l1-regularized least squares,
            section III; the form is ours.
    """
    x, D, weight = check(x, D, weight)
    residual = x - product(check_codes(a, x, D), D.T)
    return gap_of_residual(residual, product(residual, D), a, weight)


def stationarity(x, D, a, weight, penalty=L1, step=1.0):
    """||a - prox(a - step grad, step weight)|| / step: 0 exactly where a proximal step stays.

    For L1 that is a minimiser at any step. For a penalty that is not convex use the solver's step,
    at most 1 / lipschitz(D): a longer one may leap out of a local minimum.

    Shapes  x [n, d], D [d, k], a [n, k], weight broadcastable to [n, k], step scalar. Returns [n].
    Errors  as loss.
    """
    x, D, weight = check(x, D, weight)
    residual = x - product(check_codes(a, x, D), D.T)
    return proximal_residual(product(residual, D), a, weight, penalty, jnp.asarray(step, x.dtype))


def max_weight(x, D):
    """max_j |d_j' x|: from this weight on the L1 codes of a signal are exactly 0.

    Shapes  x [n, d], D [d, k]. Returns [n].
    Errors  as loss.
    """
    x, D, _ = check(x, D, 1.0)
    return jnp.max(jnp.abs(product(x, D)), axis=1, initial=0)


def objective(residual, a, weight, penalty):
    """The loss of codes a whose residual x - D a is known; [n]."""
    return 0.5 * jnp.sum(residual * residual, axis=1) + jnp.sum(weight * penalty.value(a), axis=1)


def proximal_residual(correlation, a, weight, penalty, step):
    """Stationarity from correlation = residual @ D [n, k]."""
    moved = penalty.prox(a + step * correlation, step * jnp.broadcast_to(weight, a.shape))
    return jnp.linalg.norm(a - moved, axis=1) / step


def product(a, b):
    """A matrix product at full precision, whatever the accelerator's default."""
    return jnp.matmul(a, b, precision='highest')


def rough_product(a, b):
    """A product of factors rounded to bfloat16, summed in their own type: for early iterations."""
    narrow = (v.astype(jnp.bfloat16) for v in (a, b))
    return jnp.matmul(*narrow, preferred_element_type=a.dtype)


def check(x, D, weight):
    """x, D and the weight as an array of two axes ([1, 1], [1, k], [n, 1] or [n, k]), verified."""
    x, D = require_floating('x', x), require_floating('D', D)
    if x.ndim != 2 or D.ndim != 2 or x.shape[1] != D.shape[0]:
        raise ValueError(
            f'signals x {x.shape} and dictionary D {D.shape} do not fit: x is [n, d] and D [d, k] '
            f'with atoms in columns' + _hint(x, D)
        )
    if x.dtype != D.dtype:
        raise TypeError(f'x is {x.dtype} and D is {D.dtype}; convert one to the dtype of the other')
    if x.dtype.itemsize < 4:
        raise TypeError(f'x and D are {x.dtype}, in which nothing is certified; give float32')
    n, k = x.shape[0], D.shape[1]
    weight = jnp.asarray(weight, x.dtype)
    shape = (1, 1, *weight.shape)[weight.ndim :]
    if weight.ndim > 2 or shape[0] not in (1, n) or shape[1] not in (1, k):
        mend = '; a weight per signal is [n, 1]' if weight.shape == (n,) else ''
        raise ValueError(
            f'weight of shape {weight.shape} does not broadcast to the codes [{n}, {k}]; '
            f'give a scalar, [{k}] per atom, or [{n}, 1] per signal' + mend
        )
    return x, D, weight.reshape(shape)


def check_positive(weight):
    """ValueError for a weight of 0 or less, or infinite; on a device or traced its solver marks it."""
    if isinstance(weight, jax.Array):
        return
    weight = np.asarray(weight)
    if not np.all(weight > 0):
        raise ValueError(
            f'weight {weight.min()} must be positive; codes without a penalty are least '
            f'squares, jnp.linalg.lstsq(D, x.T)'
        )
    if np.isinf(weight).any():
        raise ValueError('weight inf must be finite; from max_weight(x, D) on all codes are 0')


def check_codes(a, x, D):
    """The codes, verified to be [n, k]."""
    a = require_floating('codes', a)
    if a.shape != (x.shape[0], D.shape[1]):
        raise ValueError(
            f'codes have shape {a.shape}; signals {x.shape} and dictionary {D.shape} want '
            f'[{x.shape[0]}, {D.shape[1]}]'
        )
    return a


def _hint(x, D):
    if x.ndim == 1:
        return '; give a single signal as x[None]'
    if x.ndim == 2 and D.ndim == 2 and x.shape[1] == D.shape[1]:
        return '; D looks transposed, give D.T'
    return ''
