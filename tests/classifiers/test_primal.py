"""The large-scale SVM finds what liblinear finds, and its gap is what it says."""

import numpy as np
import pytest
from sklearn import svm as sklearn_svm

from lecture4.classifiers import primal, svm

RNG = np.random.default_rng(0)
LABELS = RNG.integers(3, size=200).astype(np.int32)
X = (RNG.standard_normal((200, 12)) + 0.8 * np.eye(12)[LABELS]).astype(np.float32)


@pytest.mark.parametrize('penalty', [0.01, 1.0])
def test_it_is_liblinear_s_minimum(penalty):
    found = primal.fit(X, LABELS, n_classes=3, penalty=penalty, tolerance=1e-6)
    assert found.converged.all()
    peer = sklearn_svm.LinearSVC(
        C=penalty, loss='squared_hinge', intercept_scaling=1.0, tol=1e-10, max_iter=1_000_000
    ).fit(X.astype(float), LABELS)
    np.testing.assert_allclose(found.weights, peer.coef_.T, atol=2e-3)
    np.testing.assert_allclose(found.bias, peer.intercept_, atol=2e-3)
    inner = svm.fit(X, LABELS, n_classes=3, penalty=penalty, tolerance=1e-5)
    np.testing.assert_allclose(found.objective, inner.objective, rtol=2e-5)
    assert (primal.predict(found, X) == peer.predict(X)).mean() > 0.99


def test_the_gap_bounds_how_far_the_objective_is():
    best = primal.fit(X, LABELS, n_classes=3, penalty=0.1, tolerance=1e-7).objective
    for steps in (1, 3, 6):
        found = primal.fit(X, LABELS, n_classes=3, penalty=0.1, max_iterations=steps)
        excess = (found.objective - best) / found.objective
        assert (excess > 0).all() and (excess <= found.gap + 1e-6).all()
        assert (found.iterations <= steps).all()
    assert (found.gap < 1).all() and not primal.fit(
        X, LABELS, n_classes=3, penalty=0.1, max_iterations=1, tolerance=1e-9
    ).converged.any()


def test_errors():
    with pytest.raises(ValueError, match='no sample of class 3'):
        primal.fit(X, LABELS, n_classes=4)
    with pytest.raises(TypeError, match='labels of type'):
        primal.fit(X, LABELS.astype(np.float32), n_classes=3)
