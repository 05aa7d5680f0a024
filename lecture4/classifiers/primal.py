"""The linear SVM of `svm` for training sets whose factorisations would be too large.

    min_{w, b}  |w|^2 / 2 + b^2 / 2 + C sum_i max(0, 1 - y_i (w'x_i + b))^2        for every class,

y_i = 1 in the class, -1 in all others: the objective of `svm` with its squared hinge and bias_scale
1. Each pass costs two products with the features, shared by all classes, and nothing is ever formed
of size d^2 or n^2, so tens of thousands of samples of thousands of features are a matter of seconds.
"""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize

from lecture4.classifiers.linear import Fit, check, predict, scores

__all__ = ['Fit', 'fit', 'predict', 'scores']


def fit(features, labels, *, n_classes, penalty=1.0, tolerance=1e-3, max_iterations=300):
    """Fit one squared hinge machine per class, all at once, by L-BFGS.

    The certificate comes with the gradient g: a_i = 2 C max(0, 1 - y_i f_i) is a feasible point of
    the dual, and its objective lies |g|^2 / 2 below the primal one, exactly.

    Shapes  features [n, d] float; labels [n] integers; penalty (C) a number. Returns a Fit with
            weights [d, c], bias [c] and per class gap, objective, converged; iterations of all.
    Domain  Runs on the host from one device call to the next: not under jit. Features of one scale:
            standardise them, or the number of iterations grows with the square of their ratio.
    Errors  as svm.fit.
    Source  Fan et al. 2008 (objective); Liu & Nocedal 1989 (L-BFGS), by scipy.
    """
    check(features, labels, n_classes, penalty, None, name='features')
    features, labels = jnp.asarray(features), jnp.asarray(labels, jnp.int32)
    d = features.shape[1]
    signs = jnp.where(labels[:, None] == jnp.arange(n_classes)[None, :], 1, -1)
    signs = signs.astype(features.dtype)

    @jax.jit
    def measure(features, signs, weights, bias):
        """Objective [c] and gradients [d, c], [c]."""
        with jax.default_matmul_precision('highest'):
            short = jnp.maximum(1 - signs * (features @ weights + bias[None, :]), 0)
            pull = 2 * penalty * signs * short
            value = penalty * jnp.sum(short * short, axis=0)
            value += 0.5 * (jnp.sum(weights * weights, axis=0) + bias * bias)
            return value, weights - features.T @ pull, bias - jnp.sum(pull, axis=0)

    def split(flat):
        both = jnp.asarray(flat, features.dtype).reshape(d + 1, n_classes)
        return both[:-1], both[-1]

    def objective(flat):
        value, slope, bias_slope = measure(features, signs, *split(flat))
        slope = np.concatenate([np.asarray(slope, float).ravel(), np.asarray(bias_slope, float)])
        state['gap'] = 0.5 * (slope.reshape(d + 1, n_classes) ** 2).sum(0) / np.asarray(value)
        return float(np.asarray(value, float).sum()), slope

    def enough(flat):
        del flat
        state['iterations'] += 1
        if (state['gap'] <= tolerance).all():
            raise StopIteration

    state = {'gap': np.full(n_classes, np.inf), 'iterations': 0}
    options = {'maxiter': max_iterations, 'maxcor': 20, 'ftol': 0.0, 'gtol': 0.0}
    start = np.zeros((d + 1) * n_classes)
    found = optimize.minimize(
        objective, start, jac=True, method='L-BFGS-B', callback=enough, options=options
    ).x
    weights, bias = split(found)
    value, slope, bias_slope = measure(features, signs, weights, bias)
    gap = 0.5 * (jnp.sum(slope * slope, axis=0) + bias_slope * bias_slope) / value
    iterations = jnp.full(n_classes, state['iterations'], jnp.int32)
    return Fit(weights, bias, gap, value, iterations, gap <= tolerance)
