"""Softmax regression against scikit-learn's LogisticRegression and its own gradient; certificates hold."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from lecture4.classifiers import softmax as regression


def blobs(n=60, d=5, c=3, seed=0, spread=1.5):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % c
    return rng.standard_normal((n, d)) + spread * rng.standard_normal((c, d))[labels], labels


def objective(weights, bias, x, labels, C, bias_scale=None, sample_weight=None):
    """The objective and its gradient in float64; bias [c] as it is added to the scores."""
    weights, bias, x = (np.asarray(v, np.float64) for v in (weights, bias, x))
    upper = C * (np.ones(len(x)) if sample_weight is None else sample_weight)
    logits = x @ weights + bias
    value = 0.5 * (weights**2).sum() - upper @ log_softmax(logits, 1)[np.arange(len(x)), labels]
    residual = upper[:, None] * (softmax(logits, 1) - np.eye(len(bias))[labels])
    slope = weights + x.T @ residual, residual.sum(0)
    if bias_scale:
        value += 0.5 * (bias**2).sum() / bias_scale**2
        slope = slope[0], bias_scale * residual.sum(0) + bias / bias_scale
    return value, slope


@functools.cache
def compiled(name):
    fit = getattr(regression, name)
    static = ('n_classes', 'max_iterations', 'max_cg_steps')
    assert {*static} <= {*inspect.signature(fit).parameters}
    return jax.jit(fit, static_argnames=static)


def fit(x, labels, name='fit', dtype=jnp.float32, **options):
    """A fit under jit, its fields as numpy arrays."""
    options = {'n_classes': int(labels.max()) + 1, **options}
    for key in ('C', 'bias_scale', 'sample_weight'):
        if options.get(key) is not None:
            options[key] = jnp.asarray(options[key], dtype)
    fitted = compiled(name)(jnp.asarray(x, dtype), jnp.asarray(labels, jnp.int32), **options)
    return regression.Fit(*map(np.asarray, fitted))


def peer(x, labels, C, bias_scale=None, sample_weight=None):
    """LogisticRegression's weights [d, c] and bias [c]; a bias_scale becomes a feature of its own."""
    if bias_scale is not None:
        x = np.concatenate([x, np.full((len(x), 1), bias_scale)], 1)
    model = LogisticRegression(
        C=C,
        tol=1e-10,
        max_iter=1000,
        solver='newton-cholesky',
        fit_intercept=bias_scale is None,
    ).fit(x, labels, sample_weight)
    if bias_scale is None:
        return model.coef_.T, model.intercept_
    return model.coef_.T[:-1], bias_scale * model.coef_.T[-1]


# Agreement with an independent solver


@pytest.mark.cases(1)
@pytest.mark.parametrize('bias_scale', [None, 2.0])
@pytest.mark.parametrize('C', [0.01, 10.0])
def test_objective_is_that_of_scikit_learn_on_digits(bias_scale, C):
    x, labels = load_digits(return_X_y=True)
    x, labels = (x[:400] / 16).astype(np.float32), labels[:400]
    fitted = fit(x, labels, C=C, bias_scale=bias_scale)
    ours, _ = objective(fitted.weights, fitted.bias, x, labels, C, bias_scale)
    weights, bias = peer(x.astype(np.float64), labels, C, bias_scale)
    theirs, _ = objective(weights, bias, x, labels, C, bias_scale)
    assert fitted.converged and fitted.weights.dtype == np.float32
    assert ours == pytest.approx(theirs, rel=1e-4) and ours > theirs * (1 - 1e-9)
    assert fitted.objective == pytest.approx(ours, rel=1e-5)


@pytest.mark.cases(1)
@pytest.mark.parametrize('dtype', ['float32', 'float64'])
def test_objective_is_that_of_scikit_learn_on_ill_scaled_features(dtype, x64):
    """Features a million times apart."""
    x, labels = blobs(n=80, d=7, spread=0.7)
    x = (x * np.geomspace(1e-3, 1e3, 7)).astype(np.float32).astype(np.float64)
    for C in (1e-3, 1.0):
        fitted = fit(x, labels, C=C, dtype=dtype)
        ours, _ = objective(fitted.weights, fitted.bias, x, labels, C)
        theirs, slope = objective(*peer(x, labels, C), x, labels, C)
        assert np.abs(slope[0]).max() < 1e-2  # the reference is a minimum
        assert ours == pytest.approx(theirs, rel=1e-4)
        assert fitted.gap * ours >= (ours - theirs) * (1 - 1e-3) - 1e-9 * ours
        if dtype == 'float64':
            assert fitted.converged


def test_free_bias_is_that_of_scikit_learn_centered(x64):
    x, labels = blobs(spread=0.7)
    x = x + 5
    fitted = fit(x, labels, tolerance=1e-11, dtype=jnp.float64)
    weights, bias = peer(x, labels, 1.0)
    np.testing.assert_allclose(fitted.weights, weights, atol=1e-5)
    np.testing.assert_allclose(fitted.bias, bias - bias.mean(), atol=1e-4)
    assert abs(fitted.bias.mean()) < 1e-12


def test_two_classes_have_half_the_norm_of_scikit_learn():
    x, labels = blobs(c=2, spread=0.7)
    fitted = fit(x, labels, C=0.5)
    model = LogisticRegression(C=1.0, tol=1e-10).fit(x, labels)
    np.testing.assert_allclose(
        fitted.weights[:, 1] - fitted.weights[:, 0], model.coef_[0], atol=1e-2
    )
    np.testing.assert_allclose(fitted.weights[:, 0], -fitted.weights[:, 1], atol=1e-3)
    w = model.coef_[0]
    logits = x @ w + model.intercept_[0]
    theirs = 0.5 * w @ w + np.logaddexp(0, np.where(labels == 1, -logits, logits)).sum()
    assert fitted.objective == pytest.approx(theirs / 2, rel=1e-4)


# Certificates


@pytest.mark.cases(1)
@pytest.mark.parametrize(('bias_scale', 'shape'), [(None, (40, 6)), (1.0, (30, 50))])
@pytest.mark.parametrize('max_iterations', [1, 3, 60])
def test_gap_bounds_the_distance_to_the_minimum(bias_scale, shape, max_iterations):
    x, labels = blobs(*shape, spread=0.7)
    x = x.astype(np.float32)
    for C in (0.05, 20.0):
        fitted = fit(x, labels, C=C, bias_scale=bias_scale, max_iterations=max_iterations)
        reached, _ = objective(fitted.weights, fitted.bias, x, labels, C, bias_scale)
        weights, bias = peer(x.astype(np.float64), labels, C, bias_scale)
        best, slope = objective(weights, bias, x, labels, C, bias_scale)
        assert max(abs(v).max() for v in slope) < 1e-5  # the reference is a minimum
        assert fitted.gap * reached >= (reached - best) * (1 - 1e-4) - 1e-9 * best
        assert fitted.converged == (fitted.gap <= 1e-4)
        if max_iterations == 60:
            assert fitted.converged
        if max_iterations == 1:
            assert fitted.iterations == 1 and not fitted.converged


def test_gradient_vanishes_at_a_tight_tolerance(x64):
    """|gradient|^2 / 2 bounds the distance to the minimum where all is regularized: no solver needed."""
    x, labels = blobs()
    for tolerance in (1e-4, 1e-8):
        fitted = fit(x, labels, bias_scale=1.5, tolerance=tolerance, dtype=jnp.float64)
        value, slope = objective(fitted.weights, fitted.bias, x, labels, 1.0, 1.5)
        assert fitted.converged and fitted.objective == pytest.approx(value, rel=1e-12)
    assert 0.5 * sum((v**2).sum() for v in slope) < 1e-8 * value


def test_tolerance_is_reached():
    x, labels = blobs()
    loose, usual = (fit(x, labels, tolerance=t) for t in (1e-1, 1e-4))
    assert loose.gap <= 1e-1 and loose.converged and loose.iterations < usual.iterations
    impossible = fit(x, labels, tolerance=0.0)
    assert not impossible.converged and impossible.iterations < 60


@pytest.mark.parametrize('C', [1e-6, 1e5])
def test_extreme_values_of_C(C):
    x, labels = blobs(spread=6)
    fitted = fit(x, labels, C=C)
    assert np.isfinite(fitted.weights).all() and fitted.converged
    if C > 1:
        assert (regression.predict(fitted, jnp.asarray(x, jnp.float32)) == labels).all()
    else:
        assert abs(fitted.weights).max() < 1e-3


def test_uninformative_features_give_the_frequencies():
    labels = np.array([0] * 6 + [1] * 3 + [2])
    fitted = fit(np.zeros((10, 4)), labels)
    np.testing.assert_allclose(softmax(fitted.bias), [0.6, 0.3, 0.1], atol=3e-3)
    assert fitted.converged and (fitted.weights == 0).all()


def test_nan_and_a_missing_class_are_not_converged():
    x, labels = blobs()
    x[3, 1] = np.nan
    assert not fit(x, labels).converged
    # Under jit the labels cannot be checked; a class without samples has no minimum.
    x, labels = blobs()
    assert not fit(x, labels, n_classes=4).converged


# Forms of the same problem


@pytest.mark.cases(1)
@pytest.mark.parametrize(('bias_scale', 'shape'), [(2.0, (40, 6)), (None, (20, 50))])
def test_fit_gram_is_fit(bias_scale, shape, x64):
    x, labels = blobs(*shape, spread=0.7)
    new = np.random.default_rng(9).standard_normal((8, shape[1]))
    options = {'bias_scale': bias_scale, 'tolerance': 1e-10, 'dtype': jnp.float64}
    one = fit(x, labels, **options)
    two = fit(x @ x.T, labels, 'fit_gram', **options)
    np.testing.assert_allclose(two.objective, one.objective, rtol=1e-9)
    np.testing.assert_allclose(
        regression.scores(two, new @ x.T), regression.scores(one, new), atol=2e-4
    )
    np.testing.assert_allclose(x.T @ two.weights, one.weights, atol=2e-4)


@pytest.mark.cases(1)
@pytest.mark.parametrize('name', ['fit', 'fit_gram'])
def test_weight_zero_leaves_out_and_two_counts_twice(name, x64):
    x, labels = blobs(40, 4, spread=0.7)
    rng = np.random.default_rng(1)
    weight = rng.integers(0, 3, 40).astype(float)
    x_bad = np.where(weight[:, None] == 0, 100 * rng.standard_normal(x.shape), x)
    rows = np.repeat(np.arange(40), weight.astype(int))
    given = (lambda v: v) if name == 'fit' else (lambda v: v @ v.T)
    options = {'tolerance': 1e-9, 'dtype': jnp.float64}
    whole = fit(given(x_bad), labels, name, sample_weight=weight, **options)
    part = fit(given(x[rows]), labels[rows], name, **options)
    np.testing.assert_allclose(whole.objective, part.objective, rtol=1e-8)
    np.testing.assert_allclose(whole.bias, part.bias, atol=1e-3)
    if name == 'fit':
        np.testing.assert_allclose(whole.weights, part.weights, atol=1e-3)
    else:
        assert (whole.weights[weight == 0] == 0).all()


def test_sample_weights_are_those_of_scikit_learn():
    x, labels = blobs(spread=0.7)
    weight = np.random.default_rng(2).uniform(0.1, 3, 60)
    fitted = fit(x, labels, sample_weight=weight)
    theirs, _ = objective(
        *peer(x, labels, 1.0, sample_weight=weight), x, labels, 1.0, sample_weight=weight
    )
    assert fitted.objective == pytest.approx(theirs, rel=1e-4)


# Composition


def test_vmap_over_C_is_a_loop():
    x, labels = blobs(spread=0.7)
    one = functools.partial(
        regression.fit, jnp.asarray(x, jnp.float32), jnp.asarray(labels), n_classes=3
    )
    Cs = jnp.asarray([1e-3, 1.0, 1e3])
    together = jax.jit(jax.vmap(lambda c: one(C=c)))(Cs)
    assert together.converged.all()
    for i, C in enumerate(Cs):
        alone = fit(x, labels, C=C)
        np.testing.assert_allclose(together.objective[i], alone.objective, rtol=2e-4)
        np.testing.assert_allclose(together.weights[i], alone.weights, atol=2e-2)


def test_one_trace_serves_every_C():
    x, labels = (jnp.asarray(v) for v in blobs())
    x, traces = x.astype(jnp.float32), []

    @jax.jit
    def bias(x, labels, C, weight):
        traces.append(1)
        fitted = regression.fit(x, labels, n_classes=3, C=C, sample_weight=weight)
        return fitted.bias

    weight = jnp.ones(60)
    first = bias(x, labels, 0.1, weight)
    assert (bias(x, labels, 10.0, weight) != first).all() and len(traces) == 1


@pytest.mark.parametrize('name', ['fit', 'fit_gram'])
def test_errors_are_those_of_the_svm(name):
    """The checks are shared (see test_svm); here that both functions make them."""
    run = functools.partial(getattr(regression, name), n_classes=3)
    x, y = jnp.asarray(blobs()[0], jnp.float32), jnp.asarray(blobs()[1])
    x = x @ x.T if name == 'fit_gram' else x
    kind = 'gram' if name == 'fit_gram' else 'features'
    with pytest.raises(TypeError, match=f'{kind} of dtype int32; convert'):
        run(x.astype(int), y)
    with pytest.raises(ValueError, match=r'labels of shape \(59,\) for 60 samples'):
        run(x, y[1:])
    with pytest.raises(ValueError, match='C=0; expected a positive number'):
        run(x, y, C=0)
    with pytest.raises(ValueError, match='negative or undefined entry'):
        run(x, y, sample_weight=-jnp.ones(60))
    with pytest.raises(ValueError, match='no sample of class 3 among 60 labels'):
        getattr(regression, name)(x, y, n_classes=4)
