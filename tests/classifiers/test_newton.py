"""The large-scale SVM has the minimum of LIBLINEAR, and its gap bounds the excess."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import svm as sklearn_svm

from lecture4.classifiers import newton, svm

RNG = np.random.default_rng(0)
LABELS = RNG.integers(3, size=200).astype(np.int32)
X = (RNG.standard_normal((200, 12)) + 0.8 * np.eye(12)[LABELS]).astype(np.float32)


@pytest.mark.parametrize('C', [0.01, 1.0])
def test_minimum_is_that_of_liblinear(C):
    fitted = newton.fit(X, LABELS, n_classes=3, C=C, tolerance=1e-6)
    assert fitted.converged.all()
    peer = sklearn_svm.LinearSVC(
        C=C, loss='squared_hinge', intercept_scaling=1.0, tol=1e-10, max_iter=1_000_000
    ).fit(X.astype(float), LABELS)
    np.testing.assert_allclose(fitted.weights, peer.coef_.T, atol=2e-3)
    np.testing.assert_allclose(fitted.bias, peer.intercept_, atol=2e-3)
    inner = svm.fit(X, LABELS, n_classes=3, C=C, tolerance=1e-5)
    np.testing.assert_allclose(fitted.objective, inner.objective, rtol=2e-5)
    assert (newton.predict(fitted, X) == peer.predict(X)).mean() > 0.99


def test_the_gap_bounds_how_far_the_objective_is():
    best = newton.fit(X, LABELS, n_classes=3, C=0.1, tolerance=1e-7).objective
    for steps in (0, 1, 2):
        fitted = newton.fit(X, LABELS, n_classes=3, C=0.1, tolerance=1e-9, max_iterations=steps)
        excess = (fitted.objective - best) / fitted.objective
        assert (excess > 0).all() and (excess <= fitted.gap + 1e-6).all()
        assert (fitted.iterations == steps).all() and not fitted.converged.any()


@pytest.mark.parametrize('C', [0.1, 100.0])
def test_inner_products_give_the_same_classifier(C):
    """More features than samples, separable classes: a large C makes a hard margin."""
    rng = np.random.default_rng(1)
    x, new = rng.standard_normal((2, 30, 40)).astype(np.float32) / 6
    labels = np.arange(30, dtype=np.int32) % 3
    fitted = newton.fit(x, labels, n_classes=3, C=C, tolerance=1e-5)
    inner = newton.fit_gram(jnp.asarray(x @ x.T), labels, n_classes=3, C=C, tolerance=1e-5)
    assert fitted.converged.all() and inner.converged.all()
    np.testing.assert_allclose(inner.objective, fitted.objective, rtol=2e-5)
    np.testing.assert_allclose(
        newton.scores(inner, new @ x.T), newton.scores(fitted, new), atol=0.02
    )
    np.testing.assert_allclose(
        fitted.objective,
        svm.fit(x, labels, n_classes=3, C=C, tolerance=1e-5).objective,
        rtol=3e-5,
    )


def test_a_sample_of_weight_zero_has_no_influence():
    out = np.arange(200) % 5 == 0
    weight = jnp.asarray(np.where(out, 0, 1), jnp.float32)
    weighted = newton.fit(X, LABELS, n_classes=3, sample_weight=weight, tolerance=1e-6)
    subset = newton.fit(X[~out], LABELS[~out], n_classes=3, tolerance=1e-6)
    np.testing.assert_allclose(weighted.weights, subset.weights, atol=1e-3)
    gram = jnp.asarray(X @ X.T)
    inner = newton.fit_gram(gram, LABELS, n_classes=3, sample_weight=weight)
    assert (np.asarray(inner.weights)[out] == 0).all()


def test_columns_are_independent_problems():
    """Problems solved together, warm or cold, end where each one ends alone."""
    form = newton.sample_form(jnp.asarray(X @ X.T) + 1)
    signs = newton.one_vs_rest(LABELS, 3, jnp.float32)
    upper = jnp.asarray(np.random.default_rng(2).random((200, 3)), jnp.float32)
    together = newton.minimize(form, signs, upper, tolerance=1e-5)
    for j in range(3):
        alone = newton.minimize(form, signs[:, j : j + 1], upper[:, j : j + 1], tolerance=1e-5)
        np.testing.assert_allclose(together.objective[j], alone.objective[0], rtol=2e-5)
    warm = newton.minimize(form, signs, 1.1 * upper, together.p, tolerance=1e-5)
    cold = newton.minimize(form, signs, 1.1 * upper, tolerance=1e-5)
    np.testing.assert_allclose(warm.objective, cold.objective, rtol=2e-5)
    assert (warm.iterations <= cold.iterations).all()
    assert warm.iterations.sum() < cold.iterations.sum()


def test_errors():
    with pytest.raises(ValueError, match='no sample of class 3'):
        newton.fit(X, LABELS, n_classes=4)
    with pytest.raises(TypeError, match='labels of dtype'):
        newton.fit(X, LABELS.astype(np.float32), n_classes=3)
