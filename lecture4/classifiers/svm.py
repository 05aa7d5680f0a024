"""Linear support vector machine, one class against the rest, solved to a certified duality gap.

Per class, with y = 1 for its samples and -1 for the others and x extended by the constant bias_scale,

    min_w  |w|^2 / 2 + C sum_i s_i loss(1 - y_i w'x_i),    loss(u) = max(u, 0) or max(u, 0)^2.

This is the objective of LIBLINEAR and of scikit-learn's LinearSVC(intercept_scaling=bias_scale): the bias is
regularized, as the weight of a feature. The dual, over 0 <= a (<= C s for the plain hinge), is solved by a
primal-dual interior point method; the primal weights are iterated too, so that their accuracy does not suffer from
cancellation in X'a.

When to use it: for the plain hinge loss, for features of very different scales, for few samples, and where a
tight certificate is needed. For the squared hinge loss on many samples or many problems at once (values of C,
folds) `newton` is faster; for class probabilities use `softmax`.
"""

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int, Real, Shaped

from lecture4.classifiers.linear import (
    Fit,
    check_inputs,
    choose_space,
    predict,
    sample_space,
    scores,
    weight_space,
)
from lecture4.ops.varying import vary_together

__all__ = ['Fit', 'fit', 'fit_gram', 'predict', 'scores']

LOSSES = ('squared_hinge', 'hinge')
# Relative changes of scale tried on the weights when they are certified. Near a hard margin an error of 1e-5 in
# a margin costs C * 1e-5 of hinge loss but only 2e-5 of |w|^2, so scaling w up a little is worth it.
RESCALINGS = (
    0.0,
    *(sign * 10.0**-k for k in (2, 2.5, 3, 3.5, 4, 4.5, 5, 5.5, 6) for sign in (1, -1)),
)
PATIENCE = (
    8  # number of iterations without a gap below 0.7 of the best after which the solver gives up
)
# Size of the largest intermediate array: bounds the number of classes solved at the same time.
MAX_ELEMENTS = 2**26


def fit(
    features: Float[Array | np.ndarray, 'n d'],
    labels: Int[Array | np.ndarray, ' n'],
    *,
    n_classes: int,
    C: Real[ArrayLike, ''] = 1.0,
    loss: Literal['squared_hinge', 'hinge'] = 'squared_hinge',
    bias_scale: Real[ArrayLike, ''] = 1.0,
    sample_weight: Shaped[Array | np.ndarray, ' n'] | None = None,
    tolerance: Real[ArrayLike, ''] = 1e-4,
    max_iterations: Int[ArrayLike, ''] = 60,
) -> Fit:
    """Fit one linear SVM per class against the rest.

    Compiled once per shapes, dtype, `n_classes` and `loss`; vmaps over features, labels, C and sample_weight.
    Takes 10 to 25 iterations, each with one Cholesky factorization of size min(n, d + 1) per class.

    Two classes give two mirrored SVMs. Float32 reaches 1e-4 on features of equal scale; if columns differ by 1e6 and
    C is large it may stop early: then `converged` is False, and the objective is often better than its gap;
    standardize the features, or pass them in float64. With d >= n the inner products are formed, which float32
    resolves to 1e-7 of the largest column only.

    Args:
      features: Features, float32 or float64.
      labels: Class indices.
      n_classes: Number of classes, at least 2.
      C: Weight of the losses, positive.
      loss: 'squared_hinge' or 'hinge'.
      bias_scale: Constant by which x is extended.
      sample_weight: Nonnegative factors of C; 0 leaves the sample out, with the same solution as without it.
      tolerance: Tolerance of the relative duality gap.
      max_iterations: Largest number of interior point iterations.

    Returns:
      Fit with weights [d, c], bias [c] and per class gap, objective, iterations, converged [c].

    Raises:
      TypeError: Features are not floating-point or labels are not integers.
      ValueError: Shapes disagree, the loss is unknown, or concrete values are out of their domain (see
        linear.check_inputs).

    References:
      Fan et al. 2008 (objective); Mehrotra 1992 (predictor-corrector).
    """
    features, labels, upper = check_inputs(
        features, labels, n_classes, C, sample_weight, name='features'
    )
    _check_loss(loss)
    scale = jnp.asarray(bias_scale, features.dtype)
    return _fit(
        features, labels, upper, scale, tolerance, max_iterations, n_classes=n_classes, loss=loss
    )


def fit_gram(
    gram: Float[Array | np.ndarray, 'n n'],
    labels: Int[Array | np.ndarray, ' n'],
    *,
    n_classes: int,
    C: Real[ArrayLike, ''] = 1.0,
    loss: Literal['squared_hinge', 'hinge'] = 'squared_hinge',
    bias_scale: Real[ArrayLike, ''] = 1.0,
    sample_weight: Shaped[Array | np.ndarray, ' n'] | None = None,
    tolerance: Real[ArrayLike, ''] = 1e-4,
    max_iterations: Int[ArrayLike, ''] = 60,
) -> Fit:
    """The same SVMs from only the inner products of the samples.

    The other arguments and the errors are those of `fit`. `gram` does not include the constant feature.

    Returns:
      Fit with weights [n, c]; a new sample is scored by its inner products with the n samples,
      `scores(fit, cross)`, cross [m, n].
    """
    gram, labels, upper = check_inputs(gram, labels, n_classes, C, sample_weight, name='gram')
    _check_loss(loss)
    scale = jnp.asarray(bias_scale, gram.dtype)
    return _fit_gram(
        gram, labels, upper, scale, tolerance, max_iterations, n_classes=n_classes, loss=loss
    )


@functools.partial(jax.jit, static_argnames=('n_classes', 'loss'))
def _fit(features, labels, upper, bias_scale, tolerance, max_iterations, *, n_classes, loss):
    features, labels, upper, bias_scale = vary_together(features, labels, upper, bias_scale)
    with jax.default_matmul_precision('highest'):
        n = features.shape[0]
        constant = jnp.broadcast_to(bias_scale, (n, 1))
        extended = jnp.concatenate([features, constant], axis=1)
        in_weights = extended.shape[1] <= n
        space = choose_space(extended)

        def solve_class(signs):
            solution = _solve(space, signs, upper, loss, tolerance, max_iterations)
            weights = solution.p if in_weights else solution.p @ extended
            # Certified again, because the returned weights are rounded.
            objective, gap, rescaling = _certify(
                weight_space(extended), signs, upper, weights, solution.alpha, loss
            )
            return (1 + rescaling) * weights, objective, gap, solution.iteration

        size = extended.size if in_weights else n * n
        weights, objective, gap, iterations = _over_classes(
            solve_class, labels, n_classes, features.dtype, size
        )
        bias = weights[:, -1] * bias_scale
        gap, converged = _relative(gap, objective, tolerance)
    return Fit(weights[:, :-1].T, bias, gap, objective, iterations, converged)


@functools.partial(jax.jit, static_argnames=('n_classes', 'loss'))
def _fit_gram(gram, labels, upper, bias_scale, tolerance, max_iterations, *, n_classes, loss):
    gram, labels, upper, bias_scale = vary_together(gram, labels, upper, bias_scale)
    with jax.default_matmul_precision('highest'):
        constant = bias_scale**2
        space = sample_space(gram + constant)

        def solve_class(signs):
            solution = _solve(space, signs, upper, loss, tolerance, max_iterations)
            return solution.p, solution.objective, solution.gap, solution.iteration

        weights, objective, gap, iterations = _over_classes(
            solve_class, labels, n_classes, gram.dtype, gram.size
        )
        bias = constant * jnp.sum(weights, axis=1)
        gap, converged = _relative(gap, objective, tolerance)
    return Fit(weights.T, bias, gap, objective, iterations, converged)


def _check_loss(loss):
    if loss not in LOSSES:
        raise ValueError(f'loss={loss!r}; expected one of {", ".join(LOSSES)}')


def _over_classes(solve_class, labels, n_classes, dtype, size):
    classes = jnp.arange(n_classes, dtype=labels.dtype)
    signs = jnp.where(labels[None, :] == classes[:, None], 1, -1).astype(dtype)
    batch = max(1, min(n_classes, MAX_ELEMENTS // size))
    if batch == n_classes:
        return jax.vmap(solve_class)(signs)
    return lax.map(solve_class, signs, batch_size=batch)


def _relative(gap, objective, tolerance):
    gap = gap / jnp.maximum(objective, jnp.finfo(gap.dtype).tiny)
    return gap, gap <= tolerance


class _State(NamedTuple):
    """Interior point and the best certified pair so far (p, alpha, objective, gap: absolute)."""

    interior: tuple  # p, alpha, surplus, mu = C - alpha, slack of the iteration
    p: jax.Array
    alpha: jax.Array
    objective: jax.Array
    gap: jax.Array
    lowest_gap: jax.Array  # gap of the iterates themselves: it starts far above that of w = 0
    stalled: jax.Array  # iterations without progress
    iteration: jax.Array


def _certify(space, signs, upper, p, alpha, loss, rescalings=RESCALINGS):
    """Primal objective and duality gap of p (best rescaled) and a feasible alpha; returns them and the rescaling.

    The gap is a sum of terms that are each nonnegative, |w - X'(ya)|^2 / 2 and the Fenchel-Young gap of every
    sample: the difference of two nearly equal objectives would leave no digits in float32.
    """
    margins, rounding = signs * space.margins(p), space.rounding_error(p)
    mismatch = p - space.adjoint(signs * alpha)
    squares = space.dot(mismatch, mismatch), space.dot(mismatch, p), space.dot(p, p)
    positive_upper = jnp.where(upper > 0, upper, 1)

    def at(rescaling):
        m = (1 + rescaling) * margins
        slack, surplus = jnp.maximum(1 - m + rounding, 0), jnp.maximum(m - 1 + rounding, 0)
        distance = squares[0] + 2 * rescaling * squares[1] + rescaling**2 * squares[2]
        if loss == 'hinge':
            losses = upper * slack
            gaps = (upper - alpha) * slack + alpha * surplus
        else:
            losses = upper * slack**2
            gaps = (alpha - 2 * upper * slack) ** 2 / (4 * positive_upper) + alpha * surplus
        objective = (1 + rescaling) ** 2 * squares[2] / 2 + jnp.sum(losses)
        return objective, jnp.maximum(distance, 0) / 2 + jnp.sum(gaps)

    candidates = jnp.asarray(np.asarray(rescalings), p.dtype)
    objectives, gaps = jax.vmap(at)(candidates)
    best = jnp.argmin(gaps)
    return objectives[best], gaps[best], candidates[best]


def _solve(space, signs, upper, loss, tolerance, max_iterations):
    """Mehrotra's predictor-corrector on one class; returns the best certified state."""
    hinge = loss == 'hinge'
    used = upper > 0
    positive_upper = jnp.where(used, upper, 1)
    n_used = jnp.maximum(jnp.sum(used), 1).astype(signs.dtype)
    smallest = jnp.finfo(signs.dtype).tiny * 1e8
    # margins + slack - surplus = 1; alpha * surplus -> 0; hinge: mu * slack -> 0 with mu = C - alpha;
    # squared hinge: slack = alpha / 2C, so that mu and slack need no separate variables.
    curvature = jnp.zeros_like(positive_upper) if hinge else 0.5 / positive_upper

    def mean_product(alpha, surplus, mu, slack):
        products = alpha * surplus + mu * slack if hinge else alpha * surplus
        return jnp.sum(jnp.where(used, products, 0)) / (n_used * (2 if hinge else 1))

    def newton_direction(interior, factors, constants, target, second_order):
        """Newton's direction to products equal to target, less the second-order terms."""
        _, alpha, surplus, mu, slack = interior
        mismatch, residual = constants
        r_alpha = target - alpha * surplus - second_order[0]
        h = residual + r_alpha / alpha
        r_mu = target - mu * slack - second_order[1] if hinge else 0
        if hinge:
            h = h - r_mu / mu
        dp, dr = space.solve(factors, signs * jnp.where(used, h, 0), mismatch)
        d_alpha = signs * dr
        d_surplus = (r_alpha - surplus * d_alpha) / alpha
        if not hinge:
            return dp, d_alpha, d_surplus, jnp.zeros_like(mu), jnp.zeros_like(slack)
        return dp, d_alpha, d_surplus, -d_alpha, (r_mu + slack * d_alpha) / mu

    def step_size(interior, step):
        """Longest step, up to 1, that keeps all variables positive, with a margin."""
        ratios = [
            jnp.min(jnp.where(used & (d < 0), v / jnp.where(d < 0, -d, 1), jnp.inf))
            for v, d in zip(interior[1:], step[1:], strict=True)
        ]
        return jnp.minimum(1, 0.995 * jnp.min(jnp.stack(ratios)))

    def advance(interior):
        p, alpha, surplus, mu, slack = interior
        mismatch = space.adjoint(jnp.where(used, signs * alpha, 0)) - p
        current_slack = slack if hinge else curvature * alpha
        residual = 1 - signs * space.margins(p) - current_slack + surplus
        theta = surplus / alpha + (slack / mu if hinge else curvature)
        factors = space.factor(jnp.where(used, 1 / theta, 0))
        system = interior, factors, (mismatch, residual)
        zeros = jnp.zeros_like(alpha)
        affine = newton_direction(*system, jnp.zeros_like(n_used), (zeros, zeros))
        t = step_size(interior, affine)
        predicted = [v + t * d for v, d in zip(interior, affine, strict=True)]
        product = mean_product(*interior[1:])
        centering = (mean_product(*predicted[1:]) / jnp.maximum(product, smallest)) ** 3
        _, d_alpha, d_surplus, d_room, d_slack = affine
        step = newton_direction(
            *system, centering * product, (d_alpha * d_surplus, d_room * d_slack)
        )
        t = step_size(interior, step)
        p, *others = (v + t * d for v, d in zip(interior, step, strict=True))
        return (p, *(jnp.maximum(v, smallest) for v in others))

    def body(state):
        interior = advance(state.interior)
        p, alpha = interior[0], jnp.where(used, interior[1], 0)
        if hinge:
            alpha = jnp.minimum(alpha, upper)
        objective, gap, rescaling = _certify(space, signs, upper, p, alpha, loss)
        better = gap < state.gap  # False for NaN, so that a breakdown keeps the last good point
        return _State(
            interior=interior,
            p=jnp.where(better, (1 + rescaling) * p, state.p),
            alpha=jnp.where(better, alpha, state.alpha),
            objective=jnp.where(better, objective, state.objective),
            gap=jnp.where(better, gap, state.gap),
            lowest_gap=jnp.fmin(gap, state.lowest_gap),
            stalled=jnp.where(gap < 0.7 * state.lowest_gap, 0, state.stalled + 1),
            iteration=state.iteration + 1,
        )

    def unfinished(state):
        # Half the tolerance: the final rounding of the weights must not invalidate the certificate.
        above = ~(state.gap <= 0.5 * tolerance * state.objective)
        return above & (state.stalled < PATIENCE) & (state.iteration < max_iterations)

    zero = space.adjoint(jnp.zeros_like(signs))
    ones = jnp.ones_like(signs)
    total = jnp.sum(upper)
    start = _State(
        interior=(zero, positive_upper / 2, ones, positive_upper / 2, 2 * ones),
        p=zero,
        alpha=jnp.zeros_like(signs),
        objective=total,
        gap=total,  # gap at w = 0, alpha = 0
        lowest_gap=jnp.full_like(total, jnp.inf),
        stalled=jnp.int32(0),
        iteration=jnp.int32(0),
    )
    (start,) = vary_together(start)
    return lax.while_loop(unfinished, body, start)
