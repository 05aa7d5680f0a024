"""Shared parts of the linear classifiers: the fitted form, its scores, and the linear algebra.

A weight vector that minimizes |w|^2 / 2 plus a loss of X w lies in the span of the samples, so it
can be stored as w itself [d] or as coefficients p over the samples [n], w = X'p. `weight_space` and
`sample_space` offer the same operations in either form; taking the smaller one bounds every
factorization by min(n, d) (Woodbury's identity). The second form needs only inner products, hence the `fit_gram`
functions.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import core, lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Int32, Real, Shaped


class Fit(NamedTuple):
    """A linear classifier of c classes with the certificate of its solution.

    The last four are [c] where every class is a separate problem (svm, newton) and scalars where the classes are
    solved together (softmax).

    Attributes:
      weights: [d, c]; [n, c] from a `fit_gram`, to be multiplied with inner products with its n samples.
      bias: [c].
      gap: Relative duality gap, (primal - dual) / primal: bounds the relative excess of the objective over the minimum.
      objective: Primal objective.
      iterations: Number of iterations, int32.
      converged: bool, gap <= tolerance.
    """

    weights: Float[Array, '*problems p c']
    bias: Float[Array, '*problems c']
    gap: Float[Array, '...']
    objective: Float[Array, '...']
    iterations: Int[Array, '...']
    converged: Bool[Array, '...']


def scores(fit: Fit, features: Float[Array | np.ndarray, 'm p']) -> Float[Array, '*problems m c']:
    """Scores x'w + b of every class.

    Args:
      fit: Fit with weights [*problems, p, c].
      features: [m, d], or inner products [m, n] for a fit by `fit_gram`.

    Returns:
      [*problems, m, c].

    Raises:
      ValueError: The number of features differs from that of the fit.
    """
    features = jnp.asarray(features)
    if features.shape[-1] != fit.weights.shape[-2]:
        raise ValueError(
            f'features of dimension {features.shape[-1]} do not match weights of dimension '
            f'{fit.weights.shape[-2]}; use the features that the classifier was fitted on'
        )
    return jnp.matmul(features, fit.weights, precision='highest') + fit.bias[..., None, :]


def predict(fit: Fit, features: Float[Array | np.ndarray, 'm p']) -> Int32[Array, '*problems m']:
    """Predicted class: the one with the largest score, the first in a tie.

    Args:
      fit: As in `scores`.
      features: As in `scores`.

    Returns:
      int32 [*problems, m].

    Raises:
      ValueError: As in `scores`.
    """
    return jnp.argmax(scores(fit, features), axis=-1).astype(jnp.int32)


class Space(NamedTuple):
    """Weights in one of their two forms; X [n, d] are the samples.

    Attributes:
      margins: p -> X w [n].
      rounding_error: p -> size of the rounding error of X w [n].
      adjoint: a [n] -> the form of X'a.
      dot: (p, o) -> inner product of two weight vectors. This one and the three above also take one
        column per class, [., c]; `dot` then sums over them.
      factor: q [n] >= 0 -> factorization for the next two.
      solve: (factor, h [n], r) -> dp, dr with dr = q (h - X dp) [n] and dp = X'dr + r, r in the
        weights' form.
      precondition: (factor, r) -> only dp for h = 0, without the corrections of rounding in `solve`.
    """

    margins: Callable[[Any], Any]
    rounding_error: Callable[[Any], Any]
    adjoint: Callable[[Any], Any]
    dot: Callable[[Any, Any], Any]
    factor: Callable[[Any], Any]
    solve: Callable[[Any, Any, Any], Any]
    precondition: Callable[[Any, Any], Any]


def weight_space(features: Float[Array, 'n d']) -> Space:
    """The form p = w, with factorizations of size d: (I + X'qX) dp = X'q h + r."""

    def factor(q):
        return q, _cholesky(features.T @ (q[:, None] * features), ridge=features.shape[1] ** 0.5)

    def solve(factors, h, r):
        q, cholesky = factors
        dp = _cholesky_solve(cholesky, (q * h) @ features + r)
        dr = q * (h - features @ dp)
        # Large q turn the rounding of X dp into a large error of X'dr. The residual computed from
        # dr itself is small and accurate, so correcting by it twice regains the lost digits.
        for _ in range(2):
            step = _cholesky_solve(cholesky, dr @ features + r - dp)
            dp, dr = dp + step, dr - q * (features @ step)
        return dp, dr

    return Space(
        margins=lambda p: features @ p,
        rounding_error=_rounding_error(features),
        adjoint=lambda a: features.T @ a,
        dot=lambda p, other: jnp.sum(p * other),
        factor=factor,
        solve=solve,
        precondition=lambda factors, r: _cholesky_solve(factors[1], r),
    )


def sample_space(gram: Float[Array, 'n n']) -> Space:
    """The form w = X'p, with factorizations of size n: (I + q K) dr = q (h - K r), K = XX' [n, n]."""

    # Written as dr = sqrt(q) u the system is symmetric, (I + sqrt(q) K sqrt(q)) u = sqrt(q) (h - K r),
    # with no eigenvalue below 1, and samples of q = 0 stay at an exact zero.
    # Inner products carry the rounding of the largest features, which can make the matrix indefinite:
    # hence a larger ridge than above, most of which the correction in solve undoes.
    def factor(q):
        root = jnp.sqrt(q)
        return root, _cholesky(root[:, None] * gram * root[None, :], ridge=4.0 * gram.shape[0])

    def solve(factors, h, r):
        root, cholesky = factors
        target = root * (h - gram @ r)
        u = _cholesky_solve(cholesky, target)
        u = u + _cholesky_solve(cholesky, target - u - root * (gram @ (root * u)))
        return root * u + r, root * u

    def precondition(factors, r):
        root, cholesky = factors
        return r - root * _cholesky_solve(cholesky, root * (gram @ r))

    return Space(
        margins=lambda p: gram @ p,
        rounding_error=_rounding_error(gram),
        adjoint=lambda a: a,
        dot=lambda p, other: jnp.sum(p * (gram @ other)),
        factor=factor,
        solve=solve,
        precondition=precondition,
    )


def _rounding_error(matrix):
    """Rounding error of matrix @ p: unit roundoff times |matrix| |p|, reached when errors do not cancel."""
    unit, magnitude = jnp.finfo(matrix.dtype).eps / 2, jnp.abs(matrix)
    return lambda p: unit * (magnitude @ jnp.abs(p))


def choose_space(features: Float[Array, 'n d']) -> Space:
    """The smaller of the two forms, by static shape."""
    n, d = features.shape
    return weight_space(features) if d <= n else sample_space(features @ features.T)


def _cholesky(matrix, ridge):
    """Cholesky factor of I + matrix, with `ridge` roundings added to the diagonal so that it does not break down.

    The ridge is relative to the diagonal: the factorization is invariant to the scales of rows.
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


def is_concrete(array: Any) -> bool:
    """Whether the values are available: True outside jit, vmap and grad."""
    return not isinstance(array, core.Tracer)


def check_inputs(
    matrix: Shaped[Array | np.ndarray, '...'],
    labels: Shaped[Array | np.ndarray, '...'],
    n_classes: int,
    C: Real[ArrayLike, '...'],
    sample_weight: Shaped[Array | np.ndarray, '...'] | None,
    *,
    name: str,
) -> tuple[Array, Array, Array]:
    """Check the arrays of a fit, and return them.

    Args:
      matrix: Features [n, d], or inner products [n, n] where `name` is 'gram'.
      labels: Class indices [n].
      n_classes: Number of classes, at least 2.
      C: Weight of the losses, a positive scalar.
      sample_weight: Weights [n], or None for weights of 1.
      name: Name of the matrix in messages: 'features' or 'gram'.

    Returns:
      (matrix, labels, C * sample_weight [n] in the matrix's dtype).

    Raises:
      TypeError: The matrix is not floating, of 32 bits or more, or the labels are not integers.
      ValueError: Shapes disagree or there are fewer than two classes; and, for concrete (not traced) values, labels
        lie outside 0 .. n_classes - 1, a class has no sample of positive weight, C is not positive or a weight is
        negative.
    """
    dtype = jnp.result_type(matrix)
    if not jnp.issubdtype(dtype, jnp.floating) or dtype.itemsize < 4:
        raise TypeError(f'{name} of dtype {dtype}; convert them to float32 or float64')
    if not jnp.issubdtype(jnp.result_type(labels), jnp.integer):
        raise TypeError(f'labels of dtype {jnp.result_type(labels)}; class indices are integers')
    if np.ndim(matrix) != 2 or (name == 'gram' and matrix.shape[0] != matrix.shape[1]):
        expected = '[n, n]' if name == 'gram' else '[n, d]'
        raise ValueError(f'{name} of shape {np.shape(matrix)}; expected {expected}')
    n = matrix.shape[0]
    if np.shape(labels) != (n,):
        raise ValueError(f'labels of shape {np.shape(labels)} for {n} samples; expected ({n},)')
    if n_classes < 2:
        raise ValueError(f'n_classes={n_classes}; a classifier needs at least two classes')
    if jnp.ndim(C) != 0:
        raise ValueError(
            f'C of shape {jnp.shape(C)}; expected a scalar, vmap over several values of C'
        )
    if sample_weight is not None and np.shape(sample_weight) != (n,):
        raise ValueError(
            f'sample_weight of shape {np.shape(sample_weight)} for {n} samples; expected ({n},)'
        )
    if is_concrete(C) and not np.asarray(C) > 0:
        raise ValueError(f'C={C}; expected a positive number')
    weight_is_concrete = is_concrete(sample_weight)
    known_weight = 1 if sample_weight is None or not weight_is_concrete else sample_weight
    if not np.all(np.asarray(known_weight) >= 0):
        raise ValueError(
            'sample_weight has a negative or undefined entry; use 0 to leave a sample out'
        )
    if is_concrete(labels) and weight_is_concrete:
        check_labels(labels, n_classes, sample_weight)
    matrix = jnp.asarray(matrix)
    upper = jnp.full((n,), jnp.asarray(C, matrix.dtype))
    if sample_weight is not None:
        upper = upper * jnp.asarray(sample_weight).astype(matrix.dtype)
    return matrix, jnp.asarray(labels), upper


def check_labels(
    labels: Int[Array | np.ndarray, ' n'],
    n_classes: int,
    sample_weight: Real[Array | np.ndarray, ' n'] | None = None,
) -> None:
    """Check that labels are class indices and every class has a sample.

    Args:
      labels: Concrete integers [n].
      n_classes: Number of classes.
      sample_weight: [n]; samples of weight 0 do not count.

    Raises:
      ValueError: A label is not in 0 .. n_classes - 1, or a class has no sample of positive weight.
    """
    labels = np.asarray(labels)
    if labels.size and not (labels.min() >= 0 and labels.max() < n_classes):
        raise ValueError(
            f'labels from {labels.min()} to {labels.max()} with n_classes={n_classes}; '
            f'number the classes 0 to {n_classes - 1}'
        )
    weighted = labels if sample_weight is None else labels[np.asarray(sample_weight) > 0]
    missing = np.setdiff1d(np.arange(n_classes), weighted)
    if missing.size:
        raise ValueError(
            f'no sample of class {", ".join(map(str, missing))} among {weighted.size} labels; '
            f'every one of the {n_classes} classes needs at least one'
        )
