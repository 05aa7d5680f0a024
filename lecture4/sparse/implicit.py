"""Gradients of codes: with respect to signals, dictionary and weight, whatever solver found them.

Where a code is not zero the objective is smooth and its slope vanishes,
    D'(D a - x) + weight phi'(a) = 0 on the support;
where it is zero it stays zero under small changes. So the derivative of the codes is that of a
linear system on the support, and no iteration of the solver need be remembered: memory is that of
the codes, and the gradient is as exact as they are. That is what learning a dictionary for a task,
or choosing a weight by validation, wants.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lecture4.sparse import solvers
from lecture4.sparse.objective import L1, check, check_positive, product


def codes(x, D, weight, *, solver=solvers.encode, penalty=L1, **options) -> Any:
    """The solver's codes, differentiable (in reverse) with respect to x, D and weight.

    Shapes  x [n, d], D [d, k], weight scalar, [k], [n, 1] or [n, k]. Returns [n, k].
    Domain  options are the solver's own, Python values; ask for a small tolerance: the gradient is
            that of the minimum, taken at the codes found. A solver has to end with the support of
            the minimum, as encode does: atoms that are about to leave make the system singular. At
            a minimum whose support is about to change (|d_j'r| = weight_j and a_j = 0: chance has
            none) this is one of the one-sided derivatives. Atoms of one support that depend on each
            other leave the codes undetermined: then the gradient is that of the codes of least norm.
            A signal that is NaN has no part in the others' gradients, nor in those of D and weight.
    Cost    backwards, conjugate gradients on the support, to rounding: of the order of as many
            products with D as the fullest support has atoms, all signals at once.
    Errors  as the solver.
    Source  Mairal, Bach & Ponce 2012 (task-driven dictionaries), proposition 1.
    """
    check_positive(weight)
    x, D, broadcast = check(x, D, weight)
    return _codes((solver, penalty, tuple(sorted(options.items()))), x, D, broadcast)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _codes(static, x, D, weight):
    solver, penalty, options = static
    return solver(x, D, weight, penalty=penalty, **dict(options)).codes


def _forward(static, x, D, weight):
    a = _codes(static, x, D, weight)
    return a, (a, x, D, weight)


def _backward(static, residuals, cotangent):
    _, penalty, _ = static
    a, x, D, weight = residuals
    alive = jnp.all(jnp.isfinite(a), axis=1, keepdims=True)
    a, x = jnp.where(alive, a, 0), jnp.where(alive, x, 0)
    support = a != 0
    slope = jax.grad(lambda v: jnp.sum(penalty.value(v)))
    inside = jnp.where(support, a, 1)
    first, second = jax.jvp(slope, (inside,), (jnp.ones_like(a),))
    first, second = jnp.where(support, first, 0), jnp.where(support, second, 0)

    def curvature(v):
        return jnp.where(support, product(product(v, D.T), D) + weight * second * v, 0)

    v = _conjugate_gradients(curvature, jnp.where(support & alive, cotangent, 0), D.shape[1])
    residual, seen = x - product(a, D.T), product(v, D.T)
    by_weight = -v * first
    return (
        jnp.where(alive, seen, jnp.nan),
        product(residual.T, v) - product(seen.T, a),
        _sum_to(by_weight, weight.shape),
    )


_codes.defvjp(_forward, _backward)


def _conjugate_gradients(apply, b, most):
    """Solves apply(v) = b for every row by itself, to rounding, in at most 2 `most` steps."""
    eps = jnp.finfo(b.dtype).eps
    enough = (eps * eps) * jnp.sum(b * b, axis=1, keepdims=True)

    def unfinished(state):
        n, _, _, _, energy = state
        return (n < 2 * most) & jnp.any(energy > enough)

    def step(state: Any):
        n, v, rest, direction, energy = state
        image = apply(direction)
        curve = jnp.sum(direction * image, axis=1, keepdims=True)
        going = (energy > enough) & (curve > 0)
        rate = jnp.where(going, energy / jnp.where(going, curve, 1), 0)
        v, rest = v + rate * direction, rest - rate * image
        new = jnp.where(going, jnp.sum(rest * rest, axis=1, keepdims=True), 0)
        turn = jnp.where(going, new / jnp.where(going, energy, 1), 0)
        return n + 1, v, rest, rest + turn * direction, new

    energy = jnp.sum(b * b, axis=1, keepdims=True)
    start = (jnp.zeros((), jnp.int32), jnp.zeros_like(b), b, b, energy)
    return lax.while_loop(unfinished, step, start)[1]


def _sum_to(v, shape):
    """The sum of v [n, k] over the axes along which a weight of that shape was broadcast."""
    axes = tuple(
        i for i, (have, want) in enumerate(zip(v.shape, shape, strict=True)) if want < have
    )
    return jnp.sum(v, axis=axes, keepdims=True)
