"""Penalties of codes, their proximal operators, and the gap that certifies convex ones."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from lecture4.ops.prox import log_threshold, soft_threshold


class Penalty(NamedTuple):
    """phi, elementwise. Solvers are compiled for a penalty: make one object and reuse it.

    Attributes:
      value: a -> phi(a).
      prox: (v, t) -> the proximal operator of t phi at v.
      gap: (residual [n, d], correlation [n, k], a, weight) -> [n], for a convex penalty: an upper bound of the
        distance of a's objective from the minimum. With None solvers use stationarity instead.
    """

    value: Callable[[Any], Any]
    prox: Callable[[Any, Any], Any]
    gap: Callable[[Any, Any, Any, Any], Any] | None = None


def l1_gap(
    residual: Float[Array, 'n d'],
    correlation: Float[Array, 'n k'],
    a: Float[Array, 'n k'],
    weight: Float[Array, '_ _'],
) -> Float[Array, ' n']:
    """objective.duality_gap from the residual and correlation = residual @ D; weight [1 or n, 1 or k]."""
    energy = jnp.sum(residual * residual, axis=1, keepdims=True)
    agreement = jnp.sum(a * correlation, axis=1, keepdims=True)
    # |c_j| / weight_j, also where both are 0.
    load = jnp.where(correlation == 0, 0, jnp.abs(correlation) / weight)
    load = jnp.max(load, axis=1, keepdims=True, initial=0)
    limit = jnp.where(load > 0, 1 / jnp.where(load > 0, load, 1), 1)
    # The dual is greatest at s = r'x / r'r = 1 + a'c / r'r, if that is feasible.
    best = 1 + agreement / jnp.where(energy > 0, energy, 1)
    scale = jnp.clip(best, -limit, limit)
    slack = weight * jnp.abs(a) - scale * a * correlation
    # Rounding of s c_j beyond weight_j must not make the bound smaller.
    gap = 0.5 * (1 - scale) ** 2 * energy + jnp.maximum(slack, 0).sum(axis=1, keepdims=True)
    return gap[:, 0]


def _nonnegative_gap(residual, correlation, a, weight):
    """As l1_gap, but the dual is bounded on one side only: d_j' s r <= weight_j, s >= 0."""
    energy = jnp.sum(residual * residual, axis=1, keepdims=True)
    agreement = jnp.sum(a * correlation, axis=1, keepdims=True)
    load = jnp.where(correlation > 0, correlation / weight, 0)
    load = jnp.max(load, axis=1, keepdims=True, initial=0)
    limit = jnp.where(load > 0, 1 / jnp.where(load > 0, load, 1), jnp.inf)
    best = 1 + agreement / jnp.where(energy > 0, energy, 1)
    scale = jnp.minimum(jnp.maximum(best, 0), limit)
    slack = weight * a - scale * a * correlation
    gap = 0.5 * (1 - scale) ** 2 * energy + jnp.maximum(slack, 0).sum(axis=1, keepdims=True)
    return gap[:, 0]


def _elastic_net_gap(ridge, residual, correlation, a, weight):
    """The residual itself is the dual point, since an elastic net does not bound correlations.

    Fenchel's inequality leaves a square and a product of one sign for each atom.
    """
    inside = jnp.clip(correlation, -weight, weight)
    curvature = ridge * weight
    target = (correlation - inside) / jnp.where(curvature > 0, curvature, 1)
    slack = jnp.maximum(weight * jnp.abs(a) - a * inside, 0)
    return jnp.sum(slack + 0.5 * curvature * (a - target) ** 2, axis=1)


L1 = Penalty(jnp.abs, soft_threshold, l1_gap)
NONNEGATIVE = Penalty(
    lambda a: jnp.where(a < 0, jnp.inf, a),
    lambda v, t: jnp.maximum(v - t, 0),
    _nonnegative_gap,
)
LOG = Penalty(lambda a: jnp.log1p(a * a), log_threshold)


@functools.cache
def elastic_net(ridge: float) -> Penalty:
    """|a| + ridge / 2 a^2: correlated atoms share a code instead of competing for it.

    With weight w the objective gains 0.5 w ridge ||a||^2. The same ridge gives the same object, so
    that a compiled solver is reused.

    Args:
      ridge: Weight of the squared term relative to the l1 norm, a positive Python number.

    Raises:
      ValueError: `ridge` is not positive.

    References:
      Zou & Hastie 2005, eq. 3.
    """
    if not ridge > 0:
        raise ValueError(f'ridge={ridge}; expected a positive number, use L1 without a ridge')
    return Penalty(
        lambda a: jnp.abs(a) + 0.5 * ridge * a * a,
        lambda v, t: soft_threshold(v, t) / (1 + ridge * t),
        functools.partial(_elastic_net_gap, ridge),
    )
