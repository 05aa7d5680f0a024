"""Softmax (multinomial logistic) regression, solved to a certified duality gap.

With one weight vector w_j and bias b_j per class and z_ij = w_j'x_i + b_j,

    min_{W, b}  sum_j |w_j|^2 / 2 + C sum_i s_i (log sum_j exp z_ij - z_i,label(i)).

This is the objective of scikit-learn's LogisticRegression on three classes or more: the bias is free. (On two
classes scikit-learn fits one weight vector, w = w_1 - w_0, whose |w|^2 / 2 counts twice as much as here.)
With a bias_scale the bias is instead the regularized weight of a constant feature, exactly as in `svm`, so that
the two classifiers can be compared.

Newton's method: the direction by conjugate gradients, preconditioned by the Hessian's diagonal blocks, one per
class, factorized in min(n, d) dimensions; the step size is the best of a geometric sequence.

When to use it: if class probabilities are needed, or a certified optimum under jit and vmap (values of C, folds); for
a single fit on the host, scikit-learn's LogisticRegression does the same.
"""

import functools
from typing import Any, NamedTuple

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

STEP_SIZES = tuple(2.0**-k for k in range(16))
PATIENCE = 8  # number of Newton steps without a gap below 0.7 of the lowest after which the solver gives up


def fit(
    features: Float[Array | np.ndarray, 'n d'],
    labels: Int[Array | np.ndarray, ' n'],
    *,
    n_classes: int,
    C: Real[ArrayLike, ''] = 1.0,
    bias_scale: Real[ArrayLike, ''] | None = None,
    sample_weight: Shaped[Array | np.ndarray, ' n'] | None = None,
    tolerance: Real[ArrayLike, ''] = 1e-4,
    max_iterations: Int[ArrayLike, ''] = 60,
    max_cg_steps: Int[ArrayLike, ''] = 400,
) -> Fit:
    """Fit one weight vector per class under the softmax likelihood.

    Compiled once per shapes, dtype and `n_classes`; vmaps over features, labels, C and sample_weight. Takes 5 to 20
    Newton steps, each with c Cholesky factorizations of size min(n, d + 1) and at most `max_cg_steps` products with
    the features.

    Without a sample of a class its free bias would diverge to minus infinity: under jit, where this cannot be
    refused, `converged` is False.

    Args:
      features: Features, float32 or float64.
      labels: Class indices.
      n_classes: Number of classes, at least 2.
      C: Weight of the losses, positive.
      bias_scale: None for a free bias, or the constant feature >= 0 whose regularized weight is the bias.
      sample_weight: Nonnegative factors of C; 0 leaves a sample out.
      tolerance: Tolerance of the relative duality gap.
      max_iterations: Largest number of Newton steps.
      max_cg_steps: Largest number of conjugate gradient steps in one Newton step.

    Returns:
      Fit with weights [d, c], bias [c] (its mean over classes is zero where it is free) and scalar gap,
      objective, iterations, converged.

    Raises:
      TypeError: Features are not floating-point or labels are not integers.
      ValueError: Shapes disagree, or concrete values are out of their domain (see linear.check_inputs).

    References:
      Boehning 1992 (Newton for the multinomial); Nash & Sofer 1990 (truncated Newton).
    """
    features, labels, upper = check_inputs(
        features, labels, n_classes, C, sample_weight, name='features'
    )
    scale = None if bias_scale is None else jnp.asarray(bias_scale, features.dtype)
    return _fit_features(
        features, labels, upper, scale, tolerance, max_iterations, max_cg_steps, n_classes=n_classes
    )


def fit_gram(
    gram: Float[Array | np.ndarray, 'n n'],
    labels: Int[Array | np.ndarray, ' n'],
    *,
    n_classes: int,
    C: Real[ArrayLike, ''] = 1.0,
    bias_scale: Real[ArrayLike, ''] | None = None,
    sample_weight: Shaped[Array | np.ndarray, ' n'] | None = None,
    tolerance: Real[ArrayLike, ''] = 1e-4,
    max_iterations: Int[ArrayLike, ''] = 60,
    max_cg_steps: Int[ArrayLike, ''] = 400,
) -> Fit:
    """The same regression from only the inner products of the samples.

    The other arguments and the errors are those of `fit`. `gram` does not include a constant feature.

    Returns:
      Fit with weights [n, c]; a new sample is scored by its inner products with the n samples,
      `scores(fit, cross)`, cross [m, n].
    """
    gram, labels, upper = check_inputs(gram, labels, n_classes, C, sample_weight, name='gram')
    scale = None if bias_scale is None else jnp.asarray(bias_scale, gram.dtype)
    return _fit_gram(
        gram, labels, upper, scale, tolerance, max_iterations, max_cg_steps, n_classes=n_classes
    )


@functools.partial(jax.jit, static_argnames='n_classes')
def _fit_features(
    features, labels, upper, bias_scale, tolerance, max_iterations, max_cg_steps, *, n_classes
):
    features, labels, upper, bias_scale = vary_together(features, labels, upper, bias_scale)
    with jax.default_matmul_precision('highest'):
        n = features.shape[0]
        free, extended = bias_scale is None, features
        if not free:
            constant = jnp.broadcast_to(bias_scale, (n, 1))
            extended = jnp.concatenate([features, constant], axis=1)
        onehot = jax.nn.one_hot(labels, n_classes, dtype=features.dtype)
        solution = _solve(
            choose_space(extended), onehot, upper, free, tolerance, max_iterations, max_cg_steps
        )
        weights, bias = solution.p, solution.bias
        if extended.shape[1] > n:
            weights = extended.T @ weights
        # Certified again, because the returned weights are rounded.
        objective, gap = _certify(
            weight_space(extended), onehot, upper, weights, bias, solution.dual, free
        )
        if not free:
            weights, bias = weights[:-1], weights[-1] * bias_scale
    return _fit(weights, bias, objective, gap, solution.iteration, tolerance)


@functools.partial(jax.jit, static_argnames='n_classes')
def _fit_gram(
    gram, labels, upper, bias_scale, tolerance, max_iterations, max_cg_steps, *, n_classes
):
    gram, labels, upper, bias_scale = vary_together(gram, labels, upper, bias_scale)
    with jax.default_matmul_precision('highest'):
        free = bias_scale is None
        constant = (jnp.asarray(0, gram.dtype) if free else bias_scale) ** 2
        onehot = jax.nn.one_hot(labels, n_classes, dtype=gram.dtype)
        solution = _solve(
            sample_space(gram + constant),
            onehot,
            upper,
            free,
            tolerance,
            max_iterations,
            max_cg_steps,
        )
        bias = solution.bias if free else constant * jnp.sum(solution.p, axis=0)
    return _fit(solution.p, bias, solution.objective, solution.gap, solution.iteration, tolerance)


def _fit(weights, bias, objective, gap, iterations, tolerance):
    gap = gap / jnp.maximum(objective, jnp.finfo(gap.dtype).tiny)
    return Fit(weights, bias, gap, objective, iterations, gap <= tolerance)


class _State(NamedTuple):
    """The current iterate of Newton's method, and the best certified point so far (gap, objective: absolute)."""

    iterate: tuple  # p [., c], bias [c], dual [n, c] of the iteration
    p: jax.Array
    bias: jax.Array
    dual: jax.Array
    objective: jax.Array
    gap: jax.Array
    lowest_gap: jax.Array
    stalled: jax.Array  # iterations without progress
    iteration: jax.Array


# Probabilities are stored with a zero in the label's place. The label's probability is 1 minus their sum, and the
# gradient needs only that sum: computed from the label's probability it would be lost to rounding on every
# well-fitted sample.


def _own(logits, onehot):
    """The label's logit of every sample, [n, 1].

    By index: jaxlib 0.10.2 computes logits - sum(onehot * logits) wrongly on the CPU where onehot is broadcast
    over a vmapped axis and there are many samples, as in jax-ml/jax#39103.
    """
    return jnp.take_along_axis(logits, jnp.argmax(onehot, axis=1, keepdims=True), axis=1)


def _likelihood(logits, onehot):
    """Loss [n] and the other classes' probabilities [n, c], both to full relative accuracy."""
    excess = logits - _own(logits, onehot)
    excess = jnp.where(onehot > 0, -jnp.inf, excess)
    top = jnp.maximum(jnp.max(excess, axis=1, keepdims=True), 0)
    terms = jnp.exp(excess - top)
    total = jnp.sum(terms, axis=1, keepdims=True)
    loss = jnp.where(top > 0, top + jnp.log(jnp.exp(-top) + total), jnp.log1p(total))
    return loss[:, 0], terms / (jnp.exp(-top) + total)


def _residual(others, onehot, upper):
    """Upper * (probabilities - onehot): the derivative of the loss by the logits where they are the model's."""
    return upper[:, None] * (others - onehot * jnp.sum(others, axis=1, keepdims=True))


def _divergence(q, p):
    """Q log(q/p) - q + p elementwise, without cancellation near q = p; 0 at q = p = 0."""
    p = jnp.maximum(p, jnp.finfo(p.dtype).tiny)
    e = (q - p) / p
    near = jnp.abs(e) < 0.02
    far = jnp.where(near, 1.0, e)
    exact = (1 + far) * jnp.log(jnp.maximum(1 + far, jnp.finfo(p.dtype).tiny)) - far
    small = jnp.where(near, e, 0.0)
    return p * jnp.where(
        near, small**2 * (1 / 2 - small * (1 / 6 - small * (1 / 12 - small / 20))), exact
    )


def _certify(space, onehot, upper, p, bias, dual, free):
    """Primal objective and duality gap; dual [n, c] are probabilities of the other classes from any source.

    The gap is |W - X'(onehot - q) upper|^2 / 2 plus the divergence of every sample's q from the model's
    probabilities: a sum of nonnegative terms. A free bias requires of the dual sum_i upper_i (q_ij - onehot_ij) = 0
    for every class: q is mixed with the distribution, common to all samples, that satisfies this.
    """
    logits = space.margins(p) + bias[None, :]
    loss, others = _likelihood(logits, onehot)
    residual = _residual(dual, onehot, upper)
    if free:
        imbalance = jnp.sum(residual, axis=0)
        mass = upper @ onehot + imbalance
        fraction = jnp.max(imbalance / jnp.maximum(mass, jnp.finfo(mass.dtype).tiny))
        fraction = jnp.clip(fraction, 0, 1)
        total = jnp.maximum(jnp.sum(upper), jnp.finfo(mass.dtype).tiny)
        added = jnp.maximum(fraction * mass - imbalance, 0) / total
        dual = jnp.where(onehot > 0, 0, (1 - fraction) * dual + added[None, :])
        residual = _residual(dual, onehot, upper)
    mismatch = p + space.adjoint(residual)
    last = _divergence(1 - jnp.sum(dual, axis=1), 1 - jnp.sum(others, axis=1))
    divergence = jnp.sum(_divergence(dual, others), axis=1) + last
    rounding = jnp.sum(jnp.abs(residual) * space.rounding_error(p))
    objective = space.dot(p, p) / 2 + upper @ loss
    gap = jnp.maximum(space.dot(mismatch, mismatch), 0) / 2 + upper @ divergence + rounding
    return objective, gap


def _newton_direction(space, onehot, upper, others, gradient, free, max_cg_steps):
    """Conjugate gradients on H D = -gradient; returns D = (dp, d_bias), its logits, and how residuals change.

    H (dp, db) = (dp + X'T, sum T) with T = upper (diag(q) - qq') (X dp + db), rows of q the probabilities.
    """
    own = 1 - jnp.sum(others, axis=1, keepdims=True)

    def logit_hessian(logits):
        excess = logits - _own(logits, onehot)
        mean = jnp.sum(others * excess, axis=1, keepdims=True)
        return _residual(others * (excess - mean), onehot, upper)

    diagonal = others * (1 - others) + onehot * (own * (1 - own))
    blocks = upper[:, None] * diagonal
    factors = jax.vmap(space.factor, in_axes=1)(blocks)
    border: Any = None
    border_margins: Any = None
    schur: Any = None
    if free:
        # Bordered by the bias: A^-1 u and the Schur complement 1'q1 - u'A^-1 u, u = X'q1, come from one solve.
        ones, zero = jnp.ones_like(upper), jnp.zeros_like(gradient[0][:, 0])
        border, rows = jax.vmap(lambda f: space.solve(f, ones, zero))(factors)
        border_margins = space.margins(border.T)
        schur = jnp.maximum(jnp.sum(rows, axis=1), jnp.finfo(ones.dtype).tiny)

    def precondition(residual):
        p = jax.vmap(space.precondition, in_axes=(0, 1), out_axes=1)(factors, residual[0])
        logits = space.margins(p)
        if not free:
            return (p, jnp.zeros_like(residual[1])), logits
        b = (residual[1] - jnp.sum(blocks * logits, axis=0)) / schur
        return (p - border.T * b[None, :], b), logits + (1 - border_margins) * b[None, :]

    def dot(a, b):
        return space.dot(a[0], b[0]) + jnp.sum(a[1] * b[1])

    def add(a, scale, b):
        return jax.tree.map(lambda x, y: x + scale * y, a, b)

    def step(carry):
        solution, residual, direction, rho, k = carry
        (p, b), logits = direction
        product = logit_hessian(logits)
        image = p + space.adjoint(product), jnp.sum(product, axis=0) if free else jnp.zeros_like(b)
        length = rho / (space.dot(p, p) + jnp.sum(product * logits))
        residual = add(residual, -length, image)
        conditioned = precondition(residual)
        new_rho = dot(residual, conditioned[0])
        direction = add(conditioned, new_rho / rho, direction)
        return add(solution, length, carry[2]), residual, direction, new_rho, k + 1

    residual = jax.tree.map(jnp.negative, gradient)
    conditioned = precondition(residual)
    rho = dot(residual, conditioned[0])
    start = jax.tree.map(jnp.zeros_like, conditioned)
    solution, *_ = lax.while_loop(
        lambda carry: (carry[3] > 1e-4 * rho) & (carry[4] < max_cg_steps),
        step,
        vary_together(start, residual, conditioned, rho, jnp.int32(0)),
    )
    direction, logits = solution
    excess = logits - _own(logits, onehot)
    mean = jnp.sum(others * excess, axis=1, keepdims=True)
    return direction, logits, others * (excess - mean)


def _solve(space, onehot, upper, free, tolerance, max_iterations, max_cg_steps):
    """Damped Newton from zero weights; returns the best certified state."""
    step_sizes = jnp.asarray(np.asarray(STEP_SIZES), onehot.dtype)

    def body(state):
        p, bias, dual = state.iterate
        logits = space.margins(p) + bias[None, :]
        _, others = _likelihood(logits, onehot)
        residual = _residual(others, onehot, upper)
        gradient = p + space.adjoint(residual), jnp.sum(residual, axis=0)
        (dp, d_bias), d_logits, change = _newton_direction(
            space, onehot, upper, others, gradient, free, max_cg_steps
        )
        squares = space.dot(p, p), space.dot(p, dp), space.dot(dp, dp)

        def objective_at(t):
            loss, _ = _likelihood(logits + t * d_logits, onehot)
            return (squares[0] + 2 * t * squares[1] + t * t * squares[2]) / 2 + upper @ loss

        values = jax.vmap(objective_at)(step_sizes)
        # The longest step whose value equals the best up to rounding: near convergence rounding would decide otherwise.
        good = values <= jnp.min(values) * (1 + 4 * jnp.finfo(values.dtype).eps)
        t = step_sizes[jnp.argmax(good)]
        # The dual follows on the same line, from where X'(onehot - q) upper = W holds to where Newton's
        # equations make it hold again.
        full = jnp.maximum(others + change, 0)
        full = full / jnp.maximum(jnp.sum(full, axis=1, keepdims=True), 1)
        p, bias, dual = p + t * dp, bias + t * d_bias, dual + t * (full - dual)
        objective, gap = _certify(space, onehot, upper, p, bias, dual, free)
        better = gap < state.gap
        return _State(
            iterate=(p, bias, dual),
            p=jnp.where(better, p, state.p),
            bias=jnp.where(better, bias - jnp.mean(bias), state.bias),
            dual=jnp.where(better, dual, state.dual),
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

    zero = space.adjoint(jnp.zeros_like(onehot))
    bias = jnp.zeros_like(onehot[0])
    # All mass on the label: feasible, and the dual point of zero weights.
    dual = jnp.zeros_like(onehot)
    loss, _ = _likelihood(jnp.zeros_like(onehot), onehot)
    objective = upper @ loss
    start = _State(
        iterate=(zero, bias, dual),
        p=zero,
        bias=bias,
        dual=dual,
        objective=objective,
        gap=objective,
        lowest_gap=jnp.full_like(objective, jnp.inf),
        stalled=jnp.int32(0),
        iteration=jnp.int32(0),
    )
    (start,) = vary_together(start)
    return lax.while_loop(unfinished, body, start)
