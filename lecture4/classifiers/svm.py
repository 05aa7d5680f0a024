"""Linear support vector machine, one class against the rest, solved to a certified duality gap.

Per class, with y = 1 for its samples and -1 for the others and x extended by the constant bias_scale,

    min_w  |w|^2 / 2 + C sum_i s_i loss(1 - y_i w'x_i),    loss(u) = max(u, 0) or max(u, 0)^2.

This is the objective of LIBLINEAR and of scikit-learn's LinearSVC(intercept_scaling=bias_scale): the bias is
regularised, as the weight of a feature. The dual, over 0 <= a (<= C s for the plain hinge), is solved by a
primal-dual interior point method; the primal weights are iterated with it, so that their digits do not
depend on cancellation in X'a.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lecture4.classifiers.linear import (
    Fit,
    check,
    choose_space,
    predict,
    sample_space,
    scores,
    weight_space,
)

__all__ = ['Fit', 'fit', 'fit_gram', 'predict', 'scores']

LOSSES = ('squared_hinge', 'hinge')
# Scales tried on the weights when they are certified. Near a hard margin an error of 1e-5 in a margin costs
# C * 1e-5 of hinge loss but only 2e-5 of |w|^2, so stretching w a little is worth it.
STRETCHES = (
    0.0,
    *(sign * 10.0**-k for k in (2, 2.5, 3, 3.5, 4, 4.5, 5, 5.5, 6) for sign in (1, -1)),
)
PATIENCE = 8  # iterations without a gap below 0.7 of the best before the solver gives up
ELEMENTS = (
    2**26
)  # of the largest intermediate array: bounds how many classes are solved side by side


def fit(
    features,
    labels,
    *,
    n_classes,
    penalty=1.0,
    loss='squared_hinge',
    bias_scale=1.0,
    sample_weight=None,
    tolerance=1e-4,
    max_iterations=60,
):
    """Fit one linear machine per class against the rest.

    Shapes  features [n, d] float; labels [n] integers; penalty (C) scalar; sample_weight [n]. Returns a Fit with
            weights [d, c], bias [c] and per class gap, objective, iterations, converged [c].
    Domain  C > 0, weights >= 0 (0: the sample is left out, with the same solution as without it); tolerance on the
            relative duality gap. Vmaps over features, labels, penalty and sample_weight.
    Cost    10 to 25 iterations, each one Cholesky factorisation of size min(n, d + 1) per class.
    Notes   Two classes give two mirrored machines. Float32 reaches 1e-4 on features of one scale; where columns
            differ by 1e6 and C is large it may stop short, says so in `converged`, and the objective is then
            often better than its gap; standardise the features, or give them in float64. With d >= n the
            inner products are formed, which float32 resolves to 1e-7 of the largest column only.
    Errors  ValueError, TypeError for shapes, types and known values out of their domain.
    Source  Fan et al. 2008 (objective); Mehrotra 1992 (predictor-corrector).
    """
    upper = check(features, labels, n_classes, penalty, sample_weight, name='features')
    _check_loss(loss)
    with jax.default_matmul_precision('highest'):
        n = features.shape[0]
        constant = jnp.broadcast_to(jnp.asarray(bias_scale, features.dtype), (n, 1))
        extended = jnp.concatenate([features, constant], axis=1)
        in_weights = extended.shape[1] <= n
        space = choose_space(extended)

        def solve_class(signs):
            result = _solve(space, signs, upper, loss, tolerance, max_iterations)
            weights = result.p if in_weights else result.p @ extended
            # Certified anew: the weights that are handed out are these, rounded.
            objective, gap, stretch = _certify(
                weight_space(extended), signs, upper, weights, result.alpha, loss
            )
            return (1 + stretch) * weights, objective, gap, result.iteration

        size = extended.size if in_weights else n * n
        outcome = _over_classes(solve_class, labels, n_classes, features.dtype, size)
        weights, objective, gap, iterations = outcome
        bias = weights[:, -1] * jnp.asarray(bias_scale, features.dtype)
        gap, converged = _relative(gap, objective, tolerance)
    return Fit(weights[:, :-1].T, bias, gap, objective, iterations, converged)


def fit_gram(
    gram,
    labels,
    *,
    n_classes,
    penalty=1.0,
    loss='squared_hinge',
    bias_scale=1.0,
    sample_weight=None,
    tolerance=1e-4,
    max_iterations=60,
):
    """The same machine where the samples are known by their inner products.

    Shapes  gram [n, n], without the constant feature. Returns a Fit with weights [n, c]; a new sample is scored by
            its inner products with the n samples, `scores(fit, cross)`, cross [m, n].
    Domain, errors and the other arguments as in `fit`.
    """
    upper = check(gram, labels, n_classes, penalty, sample_weight, name='gram')
    _check_loss(loss)
    with jax.default_matmul_precision('highest'):
        constant = jnp.asarray(bias_scale, gram.dtype) ** 2
        space = sample_space(gram + constant)

        def solve_class(signs):
            result = _solve(space, signs, upper, loss, tolerance, max_iterations)
            return result.p, result.objective, result.gap, result.iteration

        outcome = _over_classes(solve_class, labels, n_classes, gram.dtype, gram.size)
        weights, objective, gap, iterations = outcome
        bias = constant * jnp.sum(weights, axis=1)
        gap, converged = _relative(gap, objective, tolerance)
    return Fit(weights.T, bias, gap, objective, iterations, converged)


def _check_loss(loss):
    if loss not in LOSSES:
        raise ValueError(f'loss={loss!r}; one of {", ".join(LOSSES)}')


def _over_classes(solve_class, labels, n_classes, dtype, size):
    classes = jnp.arange(n_classes, dtype=labels.dtype)
    signs = jnp.where(labels[None, :] == classes[:, None], 1, -1).astype(dtype)
    batch = max(1, min(n_classes, ELEMENTS // size))
    if batch == n_classes:
        return jax.vmap(solve_class)(signs)
    return lax.map(solve_class, signs, batch_size=batch)


def _relative(gap, objective, tolerance):
    gap = gap / jnp.maximum(objective, jnp.finfo(gap.dtype).tiny)
    return gap, gap <= tolerance


class _State(NamedTuple):
    """Interior point and the best certified pair so far (p, alpha, objective, gap: absolute)."""

    inner: tuple  # p, alpha, surplus, room, slack of the iteration
    p: jax.Array
    alpha: jax.Array
    objective: jax.Array
    gap: jax.Array
    lowest: jax.Array  # gap of the iterates themselves: it starts far above that of w = 0
    since: jax.Array
    iteration: jax.Array


def _certify(space, signs, upper, p, alpha, loss, stretches=STRETCHES):
    """Primal objective and duality gap of p (best stretched) and a feasible alpha; returns them and the stretch.

    The gap is a sum of terms that are each nonnegative, |w - X'(ya)|^2 / 2 and the Fenchel-Young gap of every
    sample: the difference of two nearly equal objectives would leave no digits in float32.
    """
    margins, noise = signs * space.margins(p), space.noise(p)
    mismatch = p - space.adjoint(signs * alpha)
    squares = space.dot(mismatch, mismatch), space.dot(mismatch, p), space.dot(p, p)
    kept = jnp.where(upper > 0, upper, 1)

    def at(stretch):
        m = (1 + stretch) * margins
        slack, surplus = jnp.maximum(1 - m + noise, 0), jnp.maximum(m - 1 + noise, 0)
        distance = squares[0] + 2 * stretch * squares[1] + stretch**2 * squares[2]
        if loss == 'hinge':
            losses = upper * slack
            gaps = (upper - alpha) * slack + alpha * surplus
        else:
            losses = upper * slack**2
            gaps = (alpha - 2 * upper * slack) ** 2 / (4 * kept) + alpha * surplus
        objective = (1 + stretch) ** 2 * squares[2] / 2 + jnp.sum(losses)
        return objective, jnp.maximum(distance, 0) / 2 + jnp.sum(gaps)

    stretches = jnp.asarray(np.asarray(stretches), p.dtype)
    objectives, gaps = jax.vmap(at)(stretches)
    best = jnp.argmin(gaps)
    return objectives[best], gaps[best], stretches[best]


def _solve(space, signs, upper, loss, tolerance, max_iterations):
    """Mehrotra's predictor-corrector on one class; returns the best certified state."""
    hinge = loss == 'hinge'
    keep = upper > 0
    kept = jnp.where(keep, upper, 1)
    n_kept = jnp.maximum(jnp.sum(keep), 1).astype(signs.dtype)
    floor = jnp.finfo(signs.dtype).tiny * 1e8
    # margins + slack - surplus = 1; alpha * surplus -> 0; hinge: room = C - alpha, room * slack -> 0;
    # squared hinge: slack = alpha / 2C, so that room and slack need no variables of their own.
    curvature = jnp.zeros_like(kept) if hinge else 0.5 / kept

    def mean_product(alpha, surplus, room, slack):
        products = alpha * surplus + room * slack if hinge else alpha * surplus
        return jnp.sum(jnp.where(keep, products, 0)) / (n_kept * (2 if hinge else 1))

    def direction(inner, factors, constants, target, bend):
        """Newton's direction to products equal to target, less the second-order terms in bend."""
        _, alpha, surplus, room, slack = inner
        mismatch, residual = constants
        r_alpha = target - alpha * surplus - bend[0]
        h = residual + r_alpha / alpha
        if hinge:
            r_room = target - room * slack - bend[1]
            h = h - r_room / room
        dp, dr = space.solve(factors, signs * jnp.where(keep, h, 0), mismatch)
        d_alpha = signs * dr
        d_surplus = (r_alpha - surplus * d_alpha) / alpha
        if not hinge:
            return dp, d_alpha, d_surplus, jnp.zeros_like(room), jnp.zeros_like(slack)
        return dp, d_alpha, d_surplus, -d_alpha, (r_room + slack * d_alpha) / room

    def length(inner, step):
        """Longest step, up to 1, that keeps all variables positive, with a margin."""
        ratios = [
            jnp.min(jnp.where(keep & (d < 0), v / jnp.where(d < 0, -d, 1), jnp.inf))
            for v, d in zip(inner[1:], step[1:], strict=True)
        ]
        return jnp.minimum(1, 0.995 * jnp.min(jnp.stack(ratios)))

    def advance(inner):
        p, alpha, surplus, room, slack = inner
        mismatch = space.adjoint(jnp.where(keep, signs * alpha, 0)) - p
        held = slack if hinge else curvature * alpha
        residual = 1 - signs * space.margins(p) - held + surplus
        theta = surplus / alpha + (slack / room if hinge else curvature)
        factors = space.factor(jnp.where(keep, 1 / theta, 0))
        aim = direction, inner, factors, (mismatch, residual)
        none = jnp.zeros_like(alpha)
        affine = aim[0](*aim[1:], jnp.zeros_like(n_kept), (none, none))
        t = length(inner, affine)
        moved = [v + t * d for v, d in zip(inner, affine, strict=True)]
        product = mean_product(*inner[1:])
        centring = (mean_product(*moved[1:]) / jnp.maximum(product, floor)) ** 3
        _, d_alpha, d_surplus, d_room, d_slack = affine
        step = aim[0](*aim[1:], centring * product, (d_alpha * d_surplus, d_room * d_slack))
        t = length(inner, step)
        p, *others = (v + t * d for v, d in zip(inner, step, strict=True))
        return (p, *(jnp.maximum(v, floor) for v in others))

    def body(state):
        inner = advance(state.inner)
        p, alpha = inner[0], jnp.where(keep, inner[1], 0)
        if hinge:
            alpha = jnp.minimum(alpha, upper)
        objective, gap, stretch = _certify(space, signs, upper, p, alpha, loss)
        better = gap < state.gap  # False for NaN, so that a breakdown keeps the last good point
        return _State(
            inner=inner,
            p=jnp.where(better, (1 + stretch) * p, state.p),
            alpha=jnp.where(better, alpha, state.alpha),
            objective=jnp.where(better, objective, state.objective),
            gap=jnp.where(better, gap, state.gap),
            lowest=jnp.fmin(gap, state.lowest),
            since=jnp.where(gap < 0.7 * state.lowest, 0, state.since + 1),
            iteration=state.iteration + 1,
        )

    def unfinished(state):
        # Half the tolerance: the last rounding of the weights must not undo what is certified here.
        short = ~(state.gap <= 0.5 * tolerance * state.objective)
        return short & (state.since < PATIENCE) & (state.iteration < max_iterations)

    zero = space.adjoint(jnp.zeros_like(signs))
    ones = jnp.ones_like(signs)
    total = jnp.sum(upper)
    start = _State(
        inner=(zero, kept / 2, ones, kept / 2, 2 * ones),
        p=zero,
        alpha=jnp.zeros_like(signs),
        objective=total,
        gap=total,  # of w = 0, alpha = 0
        lowest=jnp.full_like(total, jnp.inf),
        since=jnp.int32(0),
        iteration=jnp.int32(0),
    )
    return lax.while_loop(unfinished, body, start)
