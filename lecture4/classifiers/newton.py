"""The linear SVM of `svm` with its squared hinge, where many machines share one set of features.

    min_w  |w|^2 / 2 + sum_i u_i max(0, 1 - y_i w'x_i)^2        for every column of (y, u),

y_i = 1 or -1, u_i = C s_i, x extended by a constant. One machine for every class, penalty and fold is a
column; a pass costs two products with the features for all of them, and nothing is formed of size d^2
or n^2. So tens of thousands of samples of thousands of features are a matter of seconds, and so is
cross-validation on a thousand. `svm` factorises instead: it is for the plain hinge, for features of very
different scales, and for few samples.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from lecture4.classifiers.linear import Fit, check, predict, scores

__all__ = [
    'Fit',
    'Form',
    'Found',
    'fit',
    'fit_gram',
    'minimise',
    'predict',
    'sample_form',
    'scores',
]

INNER = 60  # conjugate gradient steps for one Newton step, at most
SEARCH = 8  # steps of the line search


class Form(NamedTuple):
    """Weights w as such, or as coefficients p of the samples, w = X'p; one column a machine.

    margins(p) -> X w [n, m]; adjoint(a [n, m]) -> the form of X'a;
    inner(p, other, margins of other) -> w'w_other [m].
    """

    margins: Callable[[Any], Any]
    adjoint: Callable[[Any], Any]
    inner: Callable[[Any, Any, Any], Any]


class Found(NamedTuple):
    """Weights in their form, and per machine [m] objective, relative gap and Newton steps."""

    p: jax.Array
    objective: jax.Array
    gap: jax.Array
    iterations: jax.Array


def weight_form(features):
    """Weights as such, [d, m]."""
    return Form(
        margins=lambda p: features @ p,
        adjoint=lambda a: features.T @ a,
        inner=lambda p, other, margins: jnp.sum(p * other, axis=0),
    )


def sample_form(gram):
    """Weights as coefficients of the samples, [n, m], from the inner products of the samples alone."""
    return Form(
        margins=lambda p: gram @ p,
        adjoint=lambda a: a,
        inner=lambda p, other, margins: jnp.sum(p * margins, axis=0),
    )


def minimise(form, signs, upper, start=None, *, tolerance=1e-4, max_iterations=50):
    """Newton's method, its linear systems solved by conjugate gradients, with an exact line search.

    The gradient g is its own certificate: a_i = 2 u_i max(0, 1 - y_i w'x_i) is a feasible point of the
    dual, and its objective lies |g|^2 / 2 below the primal one, exactly.

    Shapes  signs [n, m] of 1 and -1, upper [n, m] >= 0 (0: this machine does not see the sample);
            start the weights' form [., m], zero if None. Returns Found. Traceable.
    Domain  tolerance on the relative duality gap; a machine that does not reach it in float32 says so.
    Source  Keerthi & DeCoste 2005 (finite Newton); Fan et al. 2008 (objective).
    """
    with jax.default_matmul_precision('highest'):

        def measure(p):
            f = form.margins(p)
            short = jnp.maximum(1 - signs * f, 0)
            slope = p - form.adjoint(2 * upper * signs * short)
            slope_margins = form.margins(slope)
            objective = form.inner(p, p, f) / 2 + jnp.sum(upper * short * short, axis=0)
            gap = jnp.maximum(form.inner(slope, slope, slope_margins), 0) / 2
            relative = gap / jnp.maximum(objective, jnp.finfo(objective.dtype).tiny)
            return f, short, slope, slope_margins, objective, relative

        def body(state):
            p, (f, short, slope, slope_margins, _, gap), iterations = state
            open_ = gap > tolerance
            # The closer to the minimum, the more exactly a step pays: quadratic convergence at the end.
            exactness = jnp.clip(jnp.sqrt(gap), 0.03, 0.3)
            curvature = jnp.where(short > 0, 2 * upper, 0)
            d, d_margins = _newton_step(
                form, curvature, slope, slope_margins, jnp.where(open_, exactness, jnp.inf)
            )
            t = _line_search(form, signs, upper, p, f, d, d_margins)
            p = jnp.where(open_[None, :], p + t[None, :] * d, p)
            return p, measure(p), iterations + open_.astype(jnp.int32)

        def unfinished(state):
            _, (*_, gap), iterations = state
            return jnp.any((gap > tolerance) & (iterations < max_iterations))

        zero = form.adjoint(jnp.zeros_like(upper))
        start = zero if start is None else start
        p, (*_, objective, gap), iterations = lax.while_loop(
            unfinished, body, (start, measure(start), jnp.zeros(signs.shape[1], jnp.int32))
        )
        return Found(p, objective, gap, iterations)


def _newton_step(form, curvature, slope, slope_margins, exactness):
    """Step d and X d with (I + X'qX) d = -slope, up to a residual of `exactness` times it."""

    def body(state):
        d, d_margins, r, r_margins, z, z_margins, norm, i = state
        image = z + form.adjoint(curvature * z_margins)
        energy = form.inner(z, z, z_margins) + jnp.sum(curvature * z_margins**2, axis=0)
        step = jnp.where(energy > 0, norm / jnp.where(energy > 0, energy, 1), 0)[None, :]
        d, d_margins = d + step * z, d_margins + step * z_margins
        r = r - step * image
        r_margins = form.margins(r)
        new = jnp.maximum(form.inner(r, r, r_margins), 0)
        turn = jnp.where(norm > 0, new / jnp.where(norm > 0, norm, 1), 0)[None, :]
        z, z_margins = r + turn * z, r_margins + turn * z_margins
        return d, d_margins, r, r_margins, z, z_margins, new, i + 1

    norm = jnp.maximum(form.inner(slope, slope, slope_margins), 0)
    limit = exactness**2 * norm
    start = (
        jnp.zeros_like(slope), jnp.zeros_like(slope_margins), -slope, -slope_margins,
        -slope, -slope_margins, norm, jnp.int32(0),
    )  # fmt: skip
    d, d_margins, *_ = lax.while_loop(
        lambda state: jnp.any(state[-2] > limit) & (state[-1] < INNER), body, start
    )
    return d, d_margins


def _line_search(form, signs, upper, p, f, d, d_margins):
    """The t >= 0 that minimises the objective at p + t d: Newton on its slope, kept in a bracket."""
    along, square = form.inner(d, p, f), form.inner(d, d, d_margins)

    def body(_, state):
        t, low, high = state
        short = jnp.maximum(1 - signs * (f + t[None, :] * d_margins), 0)
        slope = along + t * square - jnp.sum(2 * upper * signs * d_margins * short, axis=0)
        bend = square + jnp.sum(jnp.where(short > 0, 2 * upper * d_margins**2, 0), axis=0)
        low, high = jnp.where(slope < 0, t, low), jnp.where(slope < 0, high, t)
        proposed = t - slope / jnp.where(bend > 0, bend, 1)
        halved = jnp.where(high < jnp.inf, (low + high) / 2, 2 * t)
        return jnp.where((proposed > low) & (proposed < high), proposed, halved), low, high

    one = jnp.ones_like(along)
    t, *_ = lax.fori_loop(0, SEARCH, body, (one, jnp.zeros_like(one), jnp.full_like(one, jnp.inf)))
    return t


def fit(
    features,
    labels,
    *,
    n_classes,
    penalty=1.0,
    sample_weight=None,
    tolerance=1e-3,
    max_iterations=50,
):
    """Fit one squared hinge machine per class, all at once; bias as a feature of constant 1.

    Shapes  features [n, d] float; labels [n] integers; penalty (C) scalar; sample_weight [n]. Returns a Fit
            with weights [d, c], bias [c] and per class gap, objective, iterations, converged [c].
    Domain  Features of one scale: standardise them, or the number of steps grows with their ratio.
    Errors  as svm.fit.
    """
    upper = check(features, labels, n_classes, penalty, sample_weight, name='features')
    features = jnp.asarray(features)
    constant = jnp.ones((len(features), 1), features.dtype)
    extended = jnp.concatenate([features, constant], axis=1)
    signs = one_against_rest(labels, n_classes, features.dtype)
    p, objective, gap, iterations = minimise(
        weight_form(extended),
        signs,
        jnp.broadcast_to(upper[:, None], signs.shape),
        tolerance=tolerance,
        max_iterations=max_iterations,
    )
    return Fit(p[:-1], p[-1], gap, objective, iterations, gap <= tolerance)


def fit_gram(
    gram,
    labels,
    *,
    n_classes,
    penalty=1.0,
    sample_weight=None,
    tolerance=1e-3,
    max_iterations=50,
):
    """The same machines where the samples are known by their inner products.

    Shapes  gram [n, n], without the constant feature. Returns a Fit with weights [n, c]; a new sample is
            scored by its inner products with the n samples, `scores(fit, cross)`, cross [m, n].
    Domain and errors as in `fit`.
    """
    upper = check(gram, labels, n_classes, penalty, sample_weight, name='gram')
    signs = one_against_rest(labels, n_classes, gram.dtype)
    p, objective, gap, iterations = minimise(
        sample_form(gram + 1),
        signs,
        jnp.broadcast_to(upper[:, None], signs.shape),
        tolerance=tolerance,
        max_iterations=max_iterations,
    )
    return Fit(p, jnp.sum(p, axis=0), gap, objective, iterations, gap <= tolerance)


def one_against_rest(labels, n_classes, dtype):
    """Signs [n, c]: 1 where a sample is of the class, -1 elsewhere."""
    own = jnp.asarray(labels)[:, None] == jnp.arange(n_classes)[None, :]
    return jnp.where(own, 1, -1).astype(dtype)
