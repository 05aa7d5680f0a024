"""What the linear classifiers share: the fitted form, its scores, and the algebra they are solved in.

A weight vector that minimises |w|^2 / 2 plus a loss of X w lies in the span of the samples, so it can be
held as w itself [d] or as coefficients p over the samples [n], w = X'p. `weight_space` and `sample_space`
offer the same operations in either form; taking the smaller one bounds every factorisation by min(n, d)
(Woodbury's identity). The second form needs inner products alone, hence the `fit_gram` functions.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import core, lax


class Fit(NamedTuple):
    """A linear classifier of c classes with the certificate of its solution.

    Shapes  weights [d, c]; bias [c]; the others [c] where every class is a problem of its own (svm),
            scalars where the classes are solved together (softmax). A `fit_gram` gives weights [n, c],
            to be multiplied with inner products with its n samples.
    Units   objective is the primal one; gap is relative, (primal - dual) / primal, and therefore bounds
            how far, relatively, the objective lies above the minimum. converged: gap <= tolerance.
    """

    weights: jax.Array
    bias: jax.Array
    gap: jax.Array
    objective: jax.Array
    iterations: jax.Array
    converged: jax.Array


def scores(fit, features):
    """Scores x'w + b of every class.

    Shapes  features [m, d], or inner products [m, n] for a fit by `fit_gram`. Returns [m, c].
    Errors  ValueError where the width of the features is not that of the fit.
    """
    if features.shape[-1] != fit.weights.shape[-2]:
        raise ValueError(
            f'features of {features.shape[-1]} dimensions do not meet weights of '
            f'{fit.weights.shape[-2]}; score features of the kind that were fitted'
        )
    return jnp.matmul(features, fit.weights, precision='highest') + fit.bias[..., None, :]


def predict(fit, features):
    """Class of the largest score (the first in a tie), int32 [m]. Shapes and errors as in `scores`."""
    return jnp.argmax(scores(fit, features), axis=-1).astype(jnp.int32)


class Space(NamedTuple):
    """Weights in one of their two forms; X [n, d] are the samples.

    margins(p) -> X w [n]; noise(p) -> size of its rounding error [n]; adjoint(a [n]) -> the form of X'a;
    dot(p, o) -> inner product of weights. All four also take one column per class, [., c], dot summing over them.
    factor(q [n]) -> what the next two need, q >= 0;
    solve(factor, h [n], r) -> dp, dr with dr = q (h - X dp) [n] and dp = X'dr + r, r in the weights' form;
    divide(factor, r) -> dp alone for h = 0, without the corrections that solve makes against rounding.
    """

    margins: Callable[[Any], Any]
    noise: Callable[[Any], Any]
    adjoint: Callable[[Any], Any]
    dot: Callable[[Any, Any], Any]
    factor: Callable[[Any], Any]
    solve: Callable[[Any, Any, Any], Any]
    divide: Callable[[Any, Any], Any]


def weight_space(features):
    """The form p = w, with factorisations of size d: (I + X'qX) dp = X'q h + r."""

    def factor(q):
        return q, _cholesky(features.T @ (q[:, None] * features), ridge=features.shape[1] ** 0.5)

    def solve(factors, h, r):
        q, cholesky = factors
        dp = _cholesky_solve(cholesky, (q * h) @ features + r)
        dr = q * (h - features @ dp)
        # Large q turn the rounding of X dp into a large error of X'dr. What dr itself says of the
        # residual is small and accurate, so correcting by it twice regains the lost digits.
        for _ in range(2):
            step = _cholesky_solve(cholesky, dr @ features + r - dp)
            dp, dr = dp + step, dr - q * (features @ step)
        return dp, dr

    return Space(
        margins=lambda p: features @ p,
        noise=_noise(features),
        adjoint=lambda a: features.T @ a,
        dot=lambda p, other: jnp.sum(p * other),
        factor=factor,
        solve=solve,
        divide=lambda factors, r: _cholesky_solve(factors[1], r),
    )


def sample_space(gram):
    """The form w = X'p, with factorisations of size n: (I + q K) dr = q (h - K r), K = XX' [n, n]."""

    # Written as dr = sqrt(q) u the system is symmetric, (I + sqrt(q) K sqrt(q)) u = sqrt(q) (h - K r),
    # with no eigenvalue below 1, and samples of q = 0 stay at an exact zero.
    # Inner products carry the rounding of the largest features, which can make the matrix indefinite:
    # hence a larger ridge than above, of which the one correction in solve takes most back.
    def factor(q):
        root = jnp.sqrt(q)
        return root, _cholesky(root[:, None] * gram * root[None, :], ridge=4.0 * gram.shape[0])

    def solve(factors, h, r):
        root, cholesky = factors
        target = root * (h - gram @ r)
        u = _cholesky_solve(cholesky, target)
        u = u + _cholesky_solve(cholesky, target - u - root * (gram @ (root * u)))
        return root * u + r, root * u

    def divide(factors, r):
        root, cholesky = factors
        return r - root * _cholesky_solve(cholesky, root * (gram @ r))

    return Space(
        margins=lambda p: gram @ p,
        noise=_noise(gram),
        adjoint=lambda a: a,
        dot=lambda p, other: jnp.sum(p * (gram @ other)),
        factor=factor,
        solve=solve,
        divide=divide,
    )


def _noise(matrix):
    """Rounding error of matrix @ p: unit roundoff times |matrix| |p|, met when errors do not cancel."""
    unit, magnitude = jnp.finfo(matrix.dtype).eps / 2, jnp.abs(matrix)
    return lambda p: unit * (magnitude @ jnp.abs(p))


def choose_space(features):
    """The smaller of the two forms, by static shape."""
    n, d = features.shape
    return weight_space(features) if d <= n else sample_space(features @ features.T)


def _cholesky(matrix, ridge):
    """Cholesky factor of I + matrix, the diagonal raised by `ridge` roundings so that it does not break down.

    The ridge is relative to the diagonal: the factorisation is indifferent to the scales of rows.
    """
    ridge = jnp.finfo(matrix.dtype).eps * ridge
    matrix = matrix + jnp.diag(1 + ridge * (1 + jnp.diagonal(matrix)))
    return lax.linalg.cholesky(matrix, symmetrize_input=False)


def _cholesky_solve(cholesky, g):
    column = lax.linalg.triangular_solve(cholesky, g[:, None], left_side=True, lower=True)
    column = lax.linalg.triangular_solve(
        cholesky, column, left_side=True, lower=True, transpose_a=True
    )
    return column[:, 0]


def is_known(array):
    """Whether values can be looked at: True outside jit, vmap and grad."""
    return not isinstance(array, core.Tracer)


def check(matrix, labels, n_classes, penalty, sample_weight, *, name):
    """Refuse what cannot be fitted; returns upper [n] = penalty * sample_weight in the matrix's dtype.

    Errors  TypeError where the matrix is not floating, of 32 bits or more, or the labels are not integers;
            ValueError where shapes disagree or there are fewer than two classes; and, for values that are known
            (not traced), where labels leave 0 .. n_classes - 1, a class has no sample of positive weight, the
            penalty is not positive or a weight is negative.
    """
    dtype = jnp.result_type(matrix)
    if not jnp.issubdtype(dtype, jnp.floating) or dtype.itemsize < 4:
        raise TypeError(f'{name} of type {dtype}; convert them to float32 or float64')
    if not jnp.issubdtype(jnp.result_type(labels), jnp.integer):
        raise TypeError(f'labels of type {jnp.result_type(labels)}; class indices are integers')
    if matrix.ndim != 2 or (name == 'gram' and matrix.shape[0] != matrix.shape[1]):
        wanted = '[n, n]' if name == 'gram' else '[n, d]'
        raise ValueError(f'{name} of shape {matrix.shape}; wanted {wanted}')
    n = matrix.shape[0]
    if labels.shape != (n,):
        raise ValueError(f'labels of shape {labels.shape} for {n} samples; wanted ({n},)')
    if n_classes < 2:
        raise ValueError(f'n_classes={n_classes}; a classifier tells two classes apart or more')
    if jnp.ndim(penalty) != 0:
        raise ValueError(f'penalty of shape {jnp.shape(penalty)}; vmap over several penalties')
    if sample_weight is not None and sample_weight.shape != (n,):
        raise ValueError(
            f'sample_weight of shape {sample_weight.shape} for {n} samples; wanted ({n},)'
        )
    if is_known(penalty) and not penalty > 0:
        raise ValueError(f'penalty={penalty}; C must be positive')
    weight_is_known = sample_weight is None or is_known(sample_weight)
    if sample_weight is not None and weight_is_known and not np.all(np.asarray(sample_weight) >= 0):
        raise ValueError('sample_weight has a negative or undefined entry; leave out with zero')
    if is_known(labels) and weight_is_known:
        check_labels(labels, n_classes, sample_weight)
    upper = jnp.full((n,), jnp.asarray(penalty, matrix.dtype))
    return upper if sample_weight is None else upper * sample_weight.astype(matrix.dtype)


def check_labels(labels, n_classes, sample_weight=None):
    """ValueError unless known labels lie in 0 .. n_classes - 1 and every class has a weighted sample."""
    labels = np.asarray(labels)
    if labels.size and not (labels.min() >= 0 and labels.max() < n_classes):
        raise ValueError(
            f'labels from {labels.min()} to {labels.max()} with n_classes={n_classes}; '
            f'number the classes 0 to {n_classes - 1}'
        )
    kept = labels if sample_weight is None else labels[np.asarray(sample_weight) > 0]
    missing = np.setdiff1d(np.arange(n_classes), kept)
    if missing.size:
        raise ValueError(
            f'no sample of class {", ".join(map(str, missing))} among {kept.size} labels; '
            f'every class of {n_classes} needs one'
        )
