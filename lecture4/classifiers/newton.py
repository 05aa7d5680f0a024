"""The linear SVM of `svm` with the squared hinge loss, where many problems share one set of features.

    min_w  |w|^2 / 2 + sum_i u_i max(0, 1 - y_i w'x_i)^2        for every column of (y, u),

y_i = 1 or -1, u_i = C s_i, x extended by a constant. One problem for every class, C and fold is a
column; an iteration costs two products with the features for all of them, and no matrix of size d^2 or n^2 is formed.
So tens of thousands of samples with thousands of features take seconds, and so does cross-validation on a thousand.
`svm` uses factorizations instead: it is for the plain hinge loss, for features of very different scales, and for few
samples.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float, Int, Int32, Real, Shaped

from lecture4.classifiers.linear import Fit, check_inputs, predict, scores
from lecture4.ops.varying import vary_like, vary_together

__all__ = [
    'Fit',
    'Form',
    'Minimum',
    'fit',
    'fit_gram',
    'minimize',
    'one_vs_rest',
    'predict',
    'sample_form',
    'scores',
    'weight_form',
]

MAX_CG_STEPS = 60  # conjugate gradient steps of one Newton step
LINE_SEARCH_STEPS = 8


class Form(NamedTuple):
    """The form of the weights: w itself, or coefficients p of the samples, w = X'p; one column per problem.

    Attributes:
      margins: p -> X w [n, m].
      adjoint: a [n, m] -> the form of X'a.
      dot: (p, other, margins of other) -> w'w_other [m].
    """

    margins: Callable[[Any], Any]
    adjoint: Callable[[Any], Any]
    dot: Callable[[Any, Any, Any], Any]


class Minimum(NamedTuple):
    """Result of `minimize` for m problems.

    Attributes:
      p: Weights in their form, [., m].
      objective: [m].
      gap: [m] relative duality gap.
      iterations: int32 [m], number of Newton steps.
    """

    p: Float[Array, 'p m']
    objective: Float[Array, ' m']
    gap: Float[Array, ' m']
    iterations: Int32[Array, ' m']


def weight_form(features: Float[Array | np.ndarray, 'n d']) -> Form:
    """The weights themselves, [d, m]."""
    return Form(
        margins=lambda p: features @ p,
        adjoint=lambda a: features.T @ a,
        dot=lambda p, other, margins: jnp.sum(p * other, axis=0),
    )


def sample_form(gram: Float[Array | np.ndarray, 'n n']) -> Form:
    """Weights as coefficients of the samples, [n, m]; needs only the inner products of the samples."""
    return Form(
        margins=lambda p: gram @ p,
        adjoint=lambda a: a,
        dot=lambda p, other, margins: jnp.sum(p * margins, axis=0),
    )


def minimize(
    form: Form,
    signs: Float[Array, 'n m'],
    upper: Float[Array, 'n m'],
    init: Float[Array, 'p m'] | None = None,
    *,
    tolerance: Real[ArrayLike, ''] = 1e-4,
    max_iterations: Int[ArrayLike, ''] = 50,
) -> Minimum:
    """Newton's method with conjugate gradients for its linear systems and an exact line search.

    The gradient g is its own certificate: a_i = 2 u_i max(0, 1 - y_i w'x_i) is a feasible point of the
    dual, and its objective lies |g|^2 / 2 below the primal one, exactly.

    Args:
      form: Form of the weights, `weight_form` or `sample_form`.
      signs: y, 1 and -1.
      upper: u >= 0; 0 leaves the sample out of this problem.
      init: Initial weights in their form; None takes zeros.
      tolerance: Tolerance of the relative duality gap. A problem that does not reach it in float32 returns a
        larger `gap`.
      max_iterations: Largest number of Newton steps.

    Returns:
      Minimum. Traceable; `fit` and `fit_gram` compile it.

    References:
      Keerthi & DeCoste 2005 (finite Newton); Fan et al. 2008 (objective).
    """
    with jax.default_matmul_precision('highest'):

        def evaluate(p):
            f = form.margins(p)
            violation = jnp.maximum(1 - signs * f, 0)
            gradient = p - form.adjoint(2 * upper * signs * violation)
            gradient_margins = form.margins(gradient)
            objective = form.dot(p, p, f) / 2 + jnp.sum(upper * violation * violation, axis=0)
            gap = jnp.maximum(form.dot(gradient, gradient, gradient_margins), 0) / 2
            relative = gap / jnp.maximum(objective, jnp.finfo(objective.dtype).tiny)
            return f, violation, gradient, gradient_margins, objective, relative

        def body(state):
            p, (f, violation, gradient, gradient_margins, _, gap), iterations = state
            active = gap > tolerance
            # The closer to the minimum, the more an accurate step pays off: quadratic convergence.
            accuracy = jnp.clip(jnp.sqrt(gap), 0.03, 0.3)
            curvature = jnp.where(violation > 0, 2 * upper, 0)
            d, d_margins = _newton_step(
                form, curvature, gradient, gradient_margins, jnp.where(active, accuracy, jnp.inf)
            )
            t = _line_search(form, signs, upper, p, f, d, d_margins)
            p = jnp.where(active[None, :], p + t[None, :] * d, p)
            return p, evaluate(p), iterations + active.astype(jnp.int32)

        def unfinished(state):
            _, (*_, gap), iterations = state
            return jnp.any((gap > tolerance) & (iterations < max_iterations))

        zero = form.adjoint(jnp.zeros_like(upper))
        start = vary_like(zero if init is None else init, (zero, signs, upper))
        values = evaluate(start)
        iterations = jnp.zeros(signs.shape[1], jnp.int32)
        p, (*_, objective, gap), iterations = lax.while_loop(
            unfinished, body, vary_together(start, values, iterations)
        )
        return Minimum(p, objective, gap, iterations)


def _newton_step(form, curvature, gradient, gradient_margins, accuracy):
    """Step d and X d with (I + X'qX) d = -gradient, up to a residual of `accuracy` times it."""

    def body(state):
        d, d_margins, r, r_margins, z, z_margins, norm, i = state
        Az = z + form.adjoint(curvature * z_margins)
        energy = form.dot(z, z, z_margins) + jnp.sum(curvature * z_margins**2, axis=0)
        alpha = jnp.where(energy > 0, norm / jnp.where(energy > 0, energy, 1), 0)[None, :]
        d, d_margins = d + alpha * z, d_margins + alpha * z_margins
        r = r - alpha * Az
        r_margins = form.margins(r)
        new_norm = jnp.maximum(form.dot(r, r, r_margins), 0)
        beta = jnp.where(norm > 0, new_norm / jnp.where(norm > 0, norm, 1), 0)[None, :]
        z, z_margins = r + beta * z, r_margins + beta * z_margins
        return d, d_margins, r, r_margins, z, z_margins, new_norm, i + 1

    norm = jnp.maximum(form.dot(gradient, gradient, gradient_margins), 0)
    limit = accuracy**2 * norm
    zeros = jnp.zeros_like(gradient), jnp.zeros_like(gradient_margins)
    residual = -gradient, -gradient_margins
    start = (*zeros, *residual, *residual, norm, vary_like(jnp.int32(0), norm))
    d, d_margins, *_ = lax.while_loop(
        lambda state: jnp.any(state[-2] > limit) & (state[-1] < MAX_CG_STEPS), body, start
    )
    return d, d_margins


def _line_search(form, signs, upper, p, f, d, d_margins):
    """The t >= 0 that minimizes the objective at p + t d, by Newton's method on its derivative within a bracket."""
    along, square = form.dot(d, p, f), form.dot(d, d, d_margins)

    def body(_, state):
        t, low, high = state
        violation = jnp.maximum(1 - signs * (f + t[None, :] * d_margins), 0)
        slope = along + t * square - jnp.sum(2 * upper * signs * d_margins * violation, axis=0)
        second = square + jnp.sum(jnp.where(violation > 0, 2 * upper * d_margins**2, 0), axis=0)
        low, high = jnp.where(slope < 0, t, low), jnp.where(slope < 0, high, t)
        proposed = t - slope / jnp.where(second > 0, second, 1)
        halved = jnp.where(high < jnp.inf, (low + high) / 2, 2 * t)
        return jnp.where((proposed > low) & (proposed < high), proposed, halved), low, high

    one = jnp.ones_like(along)
    start = (one, jnp.zeros_like(one), jnp.full_like(one, jnp.inf))
    return lax.fori_loop(0, LINE_SEARCH_STEPS, body, start)[0]


def fit(
    features: Float[Array | np.ndarray, 'n d'],
    labels: Int[Array | np.ndarray, ' n'],
    *,
    n_classes: int,
    C: Real[ArrayLike, ''] = 1.0,
    sample_weight: Shaped[Array | np.ndarray, ' n'] | None = None,
    tolerance: Real[ArrayLike, ''] = 1e-3,
    max_iterations: Int[ArrayLike, ''] = 50,
) -> Fit:
    """Fit one squared hinge SVM per class against the rest; the bias is the weight of a constant feature.

    Args:
      features: Features of equal scale: standardize them, or the number of steps grows with the ratio of scales.
      labels: Class indices.
      n_classes: Number of classes, at least 2.
      C: Weight of the losses, positive.
      sample_weight: Nonnegative factors of C; 0 leaves a sample out.
      tolerance: Tolerance of the relative duality gap.
      max_iterations: Largest number of Newton steps.

    Returns:
      Fit with weights [d, c], bias [c] and per class gap, objective, iterations, converged [c].

    Raises:
      TypeError: As in svm.fit.
      ValueError: As in svm.fit.
    """
    features, labels, upper = check_inputs(
        features, labels, n_classes, C, sample_weight, name='features'
    )
    return _fit(features, labels, upper, tolerance, max_iterations, n_classes=n_classes)


def fit_gram(
    gram: Float[Array | np.ndarray, 'n n'],
    labels: Int[Array | np.ndarray, ' n'],
    *,
    n_classes: int,
    C: Real[ArrayLike, ''] = 1.0,
    sample_weight: Shaped[Array | np.ndarray, ' n'] | None = None,
    tolerance: Real[ArrayLike, ''] = 1e-3,
    max_iterations: Int[ArrayLike, ''] = 50,
) -> Fit:
    """The same SVMs from only the inner products of the samples.

    The other arguments and the errors are those of `fit`. `gram` does not include the constant feature.

    Returns:
      Fit with weights [n, c]; a new sample is scored by its inner products with the n samples,
      `scores(fit, cross)`, cross [m, n].
    """
    gram, labels, upper = check_inputs(gram, labels, n_classes, C, sample_weight, name='gram')
    return _fit_gram(gram, labels, upper, tolerance, max_iterations, n_classes=n_classes)


@functools.partial(jax.jit, static_argnames='n_classes')
def _fit(features, labels, upper, tolerance, max_iterations, *, n_classes):
    features, labels, upper = vary_together(features, labels, upper)
    constant = jnp.ones((len(features), 1), features.dtype)
    extended = jnp.concatenate([features, constant], axis=1)
    form = weight_form(extended)
    p, objective, gap, iterations = _minimize_each(
        form, labels, upper, tolerance, max_iterations, n_classes
    )
    return Fit(p[:-1], p[-1], gap, objective, iterations, gap <= tolerance)


@functools.partial(jax.jit, static_argnames='n_classes')
def _fit_gram(gram, labels, upper, tolerance, max_iterations, *, n_classes):
    gram, labels, upper = vary_together(gram, labels, upper)
    form = sample_form(gram + 1)
    p, objective, gap, iterations = _minimize_each(
        form, labels, upper, tolerance, max_iterations, n_classes
    )
    return Fit(p, jnp.sum(p, axis=0), gap, objective, iterations, gap <= tolerance)


def _minimize_each(form, labels, upper, tolerance, max_iterations, n_classes):
    signs = one_vs_rest(labels, n_classes, upper.dtype)
    upper = jnp.broadcast_to(upper[:, None], signs.shape)
    return minimize(form, signs, upper, tolerance=tolerance, max_iterations=max_iterations)


def one_vs_rest(
    labels: Int[Array | np.ndarray, ' n'], n_classes: int, dtype: DTypeLike
) -> Float[Array, 'n c']:
    """Signs [n, c]: 1 where a sample belongs to the class, -1 elsewhere."""
    is_class = jnp.asarray(labels)[:, None] == jnp.arange(n_classes)[None, :]
    return jnp.where(is_class, 1, -1).astype(dtype)
