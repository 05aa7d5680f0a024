"""Fits against LIBLINEAR (scikit-learn's LinearSVC) and exact quadratic programs; certificates hold."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import lsq_linear, nnls
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.svm import LinearSVC

from lecture4.classifiers import svm

LOSSES = ('squared_hinge', 'hinge')


def blobs(n=60, d=5, c=3, seed=0, spread=1.5):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % c
    return rng.standard_normal((n, d)) + spread * rng.standard_normal((c, d))[labels], labels


def digits(n=400):
    x, labels = load_digits(return_X_y=True)
    return x[:n] / 16, labels[:n]


def objective(weights, bias, x, labels, C, loss, bias_scale=1.0, sample_weight=None):
    """What LIBLINEAR minimizes, per class, in float64; the bias is the weight of a feature bias_scale."""
    weights, bias, x = (np.asarray(v, np.float64) for v in (weights, bias, x))
    signs = np.where(labels[:, None] == np.arange(len(bias))[None, :], 1, -1)
    slack = np.maximum(1 - signs * (x @ weights + bias), 0)
    losses = slack if loss == 'hinge' else slack**2
    upper = C * (np.ones(len(x)) if sample_weight is None else sample_weight)
    regularized = (weights**2).sum(0) + (bias / bias_scale) ** 2
    return 0.5 * regularized + upper @ losses


def bracket(x, labels, C, loss, n_classes):
    """The minimum per class lies between (lower, upper): an active set method on the dual.

    Any feasible dual point bounds it from below, any weights from above, so nothing here is trusted.
    """
    extended = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    bounds = []
    for j in range(n_classes):
        z = np.where(labels == j, 1, -1)[:, None] * extended
        gram = z @ z.T
        # As small as the factorisation of inner products up to their trace can bear.
        ridge = max(1e-9, 1e-13 * np.trace(gram)) if loss == 'hinge' else 0.5 / C
        root = np.linalg.cholesky(gram + ridge * np.eye(len(x)))
        target = np.linalg.solve(root, np.ones(len(x)))
        if loss == 'hinge':
            options = {'bounds': (0, C), 'method': 'bvls', 'tol': 1e-14, 'max_iter': 10000}
            alpha = np.clip(lsq_linear(root.T, target, **options).x, 0, C)
        else:
            alpha = nnls(root.T, target)[0]
        w = z.T @ alpha
        slack = np.maximum(1 - z @ w, 0)
        lower = alpha.sum() - 0.5 * w @ w
        upper = 0.5 * w @ w + C * (slack if loss == 'hinge' else slack**2).sum()
        bounds.append((lower if loss == 'hinge' else lower - (alpha**2).sum() / C / 4, upper))
    return np.array(bounds).T


@functools.cache
def compiled(name):
    fit = getattr(svm, name)
    static = ('n_classes', 'loss', 'max_iterations')
    assert {*static} <= {*inspect.signature(fit).parameters}
    return jax.jit(fit, static_argnames=static)


def fit(x, labels, name='fit', dtype=jnp.float32, **options):
    """A fit under jit, its fields as numpy arrays."""
    options = {'n_classes': int(labels.max()) + 1, **options}
    for key in ('C', 'bias_scale', 'sample_weight'):
        if options.get(key) is not None:
            options[key] = jnp.asarray(options[key], dtype)
    fitted = compiled(name)(jnp.asarray(x, dtype), jnp.asarray(labels, jnp.int32), **options)
    return svm.Fit(*map(np.asarray, fitted))


def liblinear(x, labels, C, loss, *, dual, tol=1e-8, bias_scale=1.0, sample_weight=None):
    """LinearSVC's objective per class."""
    model = LinearSVC(
        C=C, loss=loss, dual=dual, tol=tol, intercept_scaling=bias_scale, max_iter=3000000
    ).fit(x, labels, sample_weight)
    weights, bias = model.coef_.T, model.intercept_
    if len(bias) == 1:  # two classes: the weights of the second
        weights, bias = weights * [-1, 1], bias * [-1, 1]
    return objective(weights, bias, x, labels, C, loss, bias_scale, sample_weight)


# Agreement with independent solvers


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    'loss, dual', [('squared_hinge', False), ('squared_hinge', True), ('hinge', True)]
)
@pytest.mark.parametrize('C', [0.01, 1.0])
def test_objective_is_that_of_liblinear_on_digits(loss, dual, C):
    x, labels = digits()
    x = x.astype(np.float32)
    fitted = fit(x, labels, loss=loss, C=C)
    ours = objective(fitted.weights, fitted.bias, x, labels, C, loss)
    theirs = liblinear(x.astype(np.float64), labels, C, loss, dual=dual)
    assert fitted.converged.all() and fitted.weights.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    np.testing.assert_allclose(fitted.objective, ours, rtol=1e-4)


@pytest.mark.cases(1)
@pytest.mark.parametrize('loss', LOSSES)
def test_objective_is_that_of_liblinear_on_ill_scaled_features(loss, x64):
    """Features a million times apart. LIBLINEAR itself needs columns of one scale; whatever it reaches
    bounds the minimum from above, and a float64 quadratic program bounds it from both sides."""
    x, labels = blobs(n=50, d=7)
    x = x * np.geomspace(1e-3, 1e3, 7)
    for C in (1e-3, 1.0):
        fitted = fit(x, labels, loss=loss, C=C, dtype=jnp.float64)
        ours = objective(fitted.weights, fitted.bias, x, labels, C, loss)
        lower, upper = bracket(x, labels, C, loss, 3)
        assert fitted.converged.all()
        assert (ours <= upper * (1 + 1e-4)).all() and (ours >= lower * (1 - 1e-9)).all()
        assert (upper - lower < 1e-3 * upper).all()
        if loss == 'squared_hinge':
            theirs = liblinear(x, labels, C, loss, dual=False)
            np.testing.assert_allclose(ours, theirs, rtol=1e-4)


@pytest.mark.cases(1)
@pytest.mark.parametrize('loss', LOSSES)
@pytest.mark.parametrize('C', [1e-3, 1.0])
def test_ill_scaled_features_in_float32(loss, C):
    x, labels = blobs(n=50, d=7)
    x = (x * np.geomspace(1e-3, 1e3, 7)).astype(np.float32)
    fitted = fit(x, labels, loss=loss, C=C)
    ours = objective(fitted.weights, fitted.bias, x, labels, C, loss)
    lower, upper = bracket(x.astype(np.float64), labels, C, loss, 3)
    assert (ours <= upper * (1 + 1e-4)).all()
    assert (fitted.gap * ours >= (ours - upper) * (1 - 1e-3)).all()
    assert (ours >= lower * (1 - 1e-9)).all()


def test_measurements_in_different_units():
    """Cell nuclei: columns from 1e-3 to 1e3, as they were measured."""
    x, labels = load_breast_cancer(return_X_y=True)
    x = x.astype(np.float32)
    for C in (1e-4, 1e-2):
        fitted = fit(x, labels, C=C)
        ours = objective(fitted.weights, fitted.bias, x, labels, C, 'squared_hinge')
        theirs = liblinear(x.astype(float), labels, C, 'squared_hinge', dual=False, tol=1e-10)
        np.testing.assert_allclose(ours, theirs, rtol=1e-4)


@pytest.mark.cases(1)
@pytest.mark.parametrize('loss', LOSSES)
@pytest.mark.parametrize('bias_scale', [0.1, 10.0])
def test_bias_scale_is_the_intercept_scaling_of_liblinear(loss, bias_scale):
    x, labels = blobs()
    x = x.astype(np.float32) + 2
    fitted = fit(x, labels, loss=loss, bias_scale=bias_scale)
    ours = objective(fitted.weights, fitted.bias, x, labels, 1.0, loss, bias_scale)
    theirs = liblinear(x.astype(np.float64), labels, 1.0, loss, dual=True, bias_scale=bias_scale)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    assert (fit(x, labels, loss=loss, bias_scale=0.0).bias == 0).all()


# Certificates


@pytest.mark.cases(1)
@pytest.mark.parametrize(('loss', 'shape'), [('squared_hinge', (40, 6)), ('hinge', (30, 50))])
@pytest.mark.parametrize('max_iterations', [1, 4, 60])
def test_gap_bounds_the_distance_to_the_minimum(loss, shape, max_iterations):
    x, labels = blobs(*shape)
    x = x.astype(np.float32)
    for C in (0.05, 5.0):
        fitted = fit(x, labels, loss=loss, C=C, max_iterations=max_iterations)
        reached = objective(fitted.weights, fitted.bias, x, labels, C, loss)
        lower, upper = bracket(x.astype(np.float64), labels, C, loss, 3)
        assert (upper - lower <= 1e-6 * upper).all()  # the reference is a minimum
        assert (reached >= lower).all()
        # (The reference's own width is all that is granted.)
        assert (fitted.gap * reached >= (reached - upper) * (1 - 1e-5)).all()
        assert ((fitted.gap <= 1e-4) == fitted.converged).all()
        if max_iterations == 60:
            assert fitted.converged.all()
        if max_iterations == 1:
            assert not fitted.converged.any() and (fitted.iterations == 1).all()


def test_tolerance_is_reached():
    x, labels = blobs()
    loose, usual = (fit(x, labels, tolerance=t) for t in (1e-1, 1e-4))
    assert (loose.gap <= 1e-1).all() and loose.converged.all()
    assert loose.iterations.sum() < usual.iterations.sum()
    impossible = fit(x, labels, tolerance=0.0)
    assert not impossible.converged.any() and (impossible.iterations < 60).all()


def test_tight_tolerance_in_float64(x64):
    x, labels = blobs()
    for loss in LOSSES:
        fitted = fit(x, labels, loss=loss, tolerance=1e-9, dtype=jnp.float64)
        lower, upper = bracket(x, labels, 1.0, loss, 3)
        assert fitted.converged.all()
        np.testing.assert_allclose(fitted.objective, 0.5 * (lower + upper), rtol=1e-6)


@pytest.mark.parametrize('loss', LOSSES)
@pytest.mark.parametrize('C', [1e-6, 1e6])
def test_extreme_values_of_C(loss, C):
    """From nothing learned to a hard margin (the classes are separable)."""
    x, labels = blobs(spread=6)
    x = x.astype(np.float32)
    fitted = fit(x, labels, loss=loss, C=C)
    assert np.isfinite(fitted.weights).all() and fitted.converged.all()
    assert (svm.predict(fitted, jnp.asarray(x)) == labels).mean() > (0.99 if C > 1 else 0.3)
    if C < 1:  # w = sum alpha y x, and no alpha exceeds 2 C times its slack at w = 0
        most = 2 * C * np.linalg.norm(x, axis=1).sum()
        assert (np.linalg.norm(fitted.weights, axis=0) <= most).all()


def test_uninformative_features():
    labels = np.arange(12) % 3
    for x in (np.zeros((12, 4)), np.ones((12, 4))):
        fitted = fit(x, labels, C=0.5)
        lower, upper = bracket(x, labels, 0.5, 'squared_hinge', 3)
        np.testing.assert_allclose(fitted.objective, 0.5 * (lower + upper), rtol=1e-4)
        assert fitted.converged.all()


def test_nan_is_not_converged():
    x, labels = blobs()
    x[3, 1] = np.nan
    assert not fit(x, labels).converged.any()


# Forms of the same problem


@pytest.mark.cases(1)
@pytest.mark.parametrize(('loss', 'shape'), [('hinge', (40, 6)), ('squared_hinge', (20, 50))])
def test_fit_gram_is_fit(loss, shape, x64):
    x, labels = blobs(*shape)
    new = np.random.default_rng(9).standard_normal((8, shape[1]))
    options = {'loss': loss, 'bias_scale': 2.0, 'tolerance': 1e-10, 'dtype': jnp.float64}
    one = fit(x, labels, **options)
    two = fit(x @ x.T, labels, 'fit_gram', **options)
    np.testing.assert_allclose(two.objective, one.objective, rtol=1e-9)
    np.testing.assert_allclose(svm.scores(two, new @ x.T), svm.scores(one, new), atol=2e-4)
    np.testing.assert_allclose(x.T @ two.weights, one.weights, atol=2e-4)
    np.testing.assert_allclose(two.bias, one.bias, atol=2e-4)


@pytest.mark.parametrize('loss', LOSSES)
def test_fit_gram_in_float32(loss):
    x, labels = blobs(40, 6)
    x = x.astype(np.float32)
    fitted = fit(x @ x.T, labels, 'fit_gram', loss=loss)
    lower, upper = bracket(x.astype(np.float64), labels, 1.0, loss, 3)
    reached = objective(x.T.astype(float) @ fitted.weights, fitted.bias, x, labels, 1.0, loss)
    assert fitted.converged.all()
    assert (reached <= upper * (1 + 1e-4)).all() and (reached >= lower * (1 - 1e-6)).all()


@pytest.mark.cases(1)
@pytest.mark.parametrize('loss', LOSSES)
@pytest.mark.parametrize('name', ['fit', 'fit_gram'])
def test_weight_zero_leaves_out_and_two_counts_twice(loss, name, x64):
    x, labels = blobs(40, 4)
    rng = np.random.default_rng(1)
    weight = rng.integers(0, 3, 40).astype(float)
    x_bad = np.where(weight[:, None] == 0, 1e3 * rng.standard_normal(x.shape), x)
    rows = np.repeat(np.arange(40), weight.astype(int))
    given = (lambda v: v) if name == 'fit' else (lambda v: v @ v.T)
    options = {'loss': loss, 'tolerance': 1e-9, 'dtype': jnp.float64}
    whole = fit(given(x_bad), labels, name, sample_weight=weight, **options)
    part = fit(given(x[rows]), labels[rows], name, **options)
    np.testing.assert_allclose(whole.objective, part.objective, rtol=1e-8)
    np.testing.assert_allclose(whole.bias, part.bias, atol=1e-3)
    if name == 'fit':
        np.testing.assert_allclose(whole.weights, part.weights, atol=1e-3)
    else:
        assert (whole.weights[weight == 0] == 0).all()


def test_sample_weights_are_those_of_liblinear():
    x, labels = blobs()
    weight = np.random.default_rng(2).uniform(0.1, 3, 60)
    ours = fit(x, labels, sample_weight=weight)
    theirs = liblinear(x, labels, 1.0, 'squared_hinge', dual=False, sample_weight=weight)
    np.testing.assert_allclose(ours.objective, theirs, rtol=1e-4)


def test_two_classes_are_mirrored():
    x, labels = blobs(c=2)
    fitted = fit(x, labels)
    np.testing.assert_allclose(fitted.weights[:, 0], -fitted.weights[:, 1], atol=1e-4)
    np.testing.assert_allclose(fitted.bias[0], -fitted.bias[1], atol=1e-4)


@pytest.mark.slow
def test_classes_are_solved_in_batches_that_fit_in_memory(monkeypatch):
    x, labels = blobs(60, 5, 5)
    together = fit(x, labels)
    monkeypatch.setattr(svm, 'MAX_ELEMENTS', 800)  # two classes of 60 x 6 at a time
    jax.clear_caches()
    batched = svm.fit(jnp.asarray(x, jnp.float32), jnp.asarray(labels), n_classes=5)
    for field, one, two in zip(together._fields, together, batched, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-4, err_msg=field)


# Composition


def test_vmap_over_C_is_a_loop(x64):
    x, labels = blobs()
    x, y = jnp.asarray(x, jnp.float64), jnp.asarray(labels)
    Cs = jnp.asarray([1e-3, 1.0, 1e3])
    for loss in LOSSES:
        one = functools.partial(svm.fit, x, y, n_classes=3, loss=loss)
        together = jax.jit(jax.vmap(lambda c, one=one: one(C=c)))(Cs)
        assert together.converged.all()
        for i, C in enumerate(Cs):
            alone = fit(x, labels, dtype=jnp.float64, loss=loss, C=C)
            np.testing.assert_allclose(together.objective[i], alone.objective, rtol=1e-9)
            np.testing.assert_array_equal(together.iterations[i], alone.iterations)


def test_vmap_over_problems():
    """Training sets, labels and weights of folds: one program."""
    rng = np.random.default_rng(3)
    x = jnp.asarray(rng.standard_normal((4, 30, 5)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 3, (4, 30)))
    weight = jnp.asarray(rng.integers(0, 2, (4, 30)), jnp.float32)

    def one(x, y, w):
        return svm.fit(x, y, n_classes=3, sample_weight=w)

    together = jax.jit(jax.vmap(one))(x, labels, weight)
    for i in range(4):
        used = np.asarray(weight[i]) > 0
        alone = fit(np.asarray(x[i]), np.asarray(labels[i]), sample_weight=np.asarray(weight[i]))
        np.testing.assert_allclose(together.objective[i], alone.objective, rtol=1e-4)
        assert used.any() and not used.all()


def test_one_trace_serves_every_C():
    x, labels = (jnp.asarray(v) for v in blobs())
    x, traces = x.astype(jnp.float32), []

    @jax.jit
    def bias(x, labels, C, weight):
        traces.append(1)
        return svm.fit(x, labels, n_classes=3, C=C, sample_weight=weight).bias

    weight = jnp.ones(60)
    first = bias(x, labels, 0.1, weight)
    assert (bias(x, labels, 10.0, weight) != first).all() and len(traces) == 1


@pytest.mark.cases(1)
@pytest.mark.parametrize('name', ['fit', 'fit_gram'])
def test_errors_name_what_was_passed_and_what_is_expected(name):
    run = functools.partial(getattr(svm, name), n_classes=3)
    x, y = jnp.asarray(blobs()[0], jnp.float32), jnp.asarray(blobs()[1])
    x = x @ x.T if name == 'fit_gram' else x
    kind = 'gram' if name == 'fit_gram' else 'features'
    with pytest.raises(ValueError, match="loss='logistic'; expected one of squared_hinge, hinge"):
        run(x, y, loss='logistic')
    with pytest.raises(TypeError, match=f'{kind} of dtype int32; convert'):
        run(x.astype(int), y)
    with pytest.raises(TypeError, match=f'{kind} of dtype bfloat16; convert'):
        run(x.astype(jnp.bfloat16), y)
    with pytest.raises(TypeError, match=r'labels of dtype float32; class indices are integers'):
        run(x, y.astype(jnp.float32))
    with pytest.raises(ValueError, match=rf'{kind} of shape \(60,\)'):
        run(x[0][:60] if name == 'fit_gram' else x[:, 0], y)
    if name == 'fit_gram':
        with pytest.raises(ValueError, match=r'gram of shape \(60, 59\); expected \[n, n\]'):
            run(x[:, 1:], y)
    with pytest.raises(ValueError, match=r'labels of shape \(59,\) for 60 samples'):
        run(x, y[1:])
    with pytest.raises(ValueError, match=r'n_classes=1; .*two classes'):
        getattr(svm, name)(x, y, n_classes=1)
    with pytest.raises(ValueError, match=r'C of shape \(2,\); expected a scalar'):
        run(x, y, C=jnp.ones(2))
    for C in (0, -1.0, float('nan')):
        with pytest.raises(ValueError, match='expected a positive number'):
            run(x, y, C=C)
    with pytest.raises(ValueError, match=r'sample_weight of shape \(3,\) for 60 samples'):
        run(x, y, sample_weight=jnp.ones(3))
    for bad in (-1.0, np.nan):
        with pytest.raises(ValueError, match='negative or undefined entry'):
            run(x, y, sample_weight=jnp.ones(60).at[4].set(bad))
    with pytest.raises(ValueError, match='labels from 0 to 2 with n_classes=2; number the classes'):
        getattr(svm, name)(x, y, n_classes=2)
    with pytest.raises(ValueError, match='labels from -1 to 1'):
        run(x, y - 1)
    with pytest.raises(ValueError, match='no sample of class 3, 4 among 60 labels'):
        getattr(svm, name)(x, y, n_classes=5)
    with pytest.raises(ValueError, match='no sample of class 1 among 40 labels'):
        run(x, y, sample_weight=jnp.where(y == 1, 0.0, 1.0))
