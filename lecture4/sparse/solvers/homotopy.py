"""Codes that coordinate_descent starts from on a CPU: homotopy, by machine code where numba is installed.

As the weight decreases from max |D'x| the codes are piecewise linear: at a step an atom joins the support or leaves it
(Osborne, Presnell & Turlach 2000; Efron et al. 2004, LARS with the lasso modification). There are about as many steps
as non-zero codes, however similar the atoms are, and the codes are exact up to rounding; atoms that depend on the
support are left out. The first program compiles the machine code, for 10 to 40 s; numba's cache keeps it.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Int32

from lecture4.ops import machine_code
from lecture4.ops.varying import vary_like
from lecture4.sparse.solvers.polish import bits_for

TARGET = 'lecture4_homotopy'
MAX_SUPPORT, MAX_STEPS = 512, 8  # largest size of a support, and number of steps over it


def follow_paths(
    correlation: Float[Array, 'n k'],
    gram: Float[Array, 'k k'],
    weight: Float[Array, '_ 1'],
    max_iterations: Int[ArrayLike, ''],
    max_support: int,
    is_nonnegative: bool,
) -> tuple[Float[Array, 'n k'], Int32[Array, ' n']]:
    """Codes at the end of the homotopy path.

    Args:
      correlation: D'x of every signal, float32.
      gram: D'D, float32.
      weight: Penalty weights, one or one for each signal; a signal whose weight is not positive gets zeros.
      max_iterations: Largest number of steps of a signal.
      max_support: Largest number of nonzero codes.
      is_nonnegative: Whether codes are nonnegative.

    Returns:
      (codes, number of steps); zeros where the machine code does not run, and for signals that are not finite.
    """
    size = min(max_support, gram.shape[0], MAX_SUPPORT)
    is_valid = jnp.all(jnp.isfinite(correlation), axis=1, keepdims=True) & (weight > 0)
    correlation = jnp.where(is_valid, correlation, 0)
    weight = jnp.broadcast_to(jnp.where(weight > 0, weight, 1)[:, 0], correlation.shape[:1])
    limit = jnp.reshape(jnp.clip(max_iterations, 0, MAX_STEPS * size), 1).astype(jnp.int32)
    args = vary_like((correlation, gram, weight, limit), (correlation, gram, weight))
    return tuple(_paths.bind(*args, size=size, is_nonnegative=is_nonnegative))


def _zeros(correlation, gram, weight, limit, *, size, is_nonnegative):
    zeros = jnp.zeros_like(correlation), jnp.zeros_like(weight, jnp.int32)
    return vary_like(zeros, correlation)


def _attributes(context, *, size, is_nonnegative):
    from lecture4.sparse.solvers._homotopy_handler import make_handler  # loads numba

    machine_code.register(TARGET, make_handler)
    low = (1 << bits_for(context.avals_in[1].shape[0])) - 1
    return {'options': np.array([size, low, is_nonnegative], np.int64)}


_paths = machine_code.define('homotopy', _zeros, ('size', 'is_nonnegative'), TARGET, _attributes)
