"""Scores and classes, and the two forms of the weights against numpy's dense algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.classifiers import linear


def make_fit(weights, bias):
    nothing = jnp.zeros(())
    return linear.Fit(jnp.asarray(weights), jnp.asarray(bias), *(nothing,) * 4)


def test_scores_and_classes():
    fitted = make_fit(
        np.array([[1.0, 0.0, 2.0], [0.0, 1.0, -1.0]], np.float32), np.float32([0, 0.5, 0])
    )
    x = jnp.asarray([[1.0, 3.0], [2.0, 0.0], [0.0, -1.0]])
    np.testing.assert_array_equal(
        linear.scores(fitted, x), [[1, 3.5, -1], [2, 0.5, 4], [0, -0.5, 1]]
    )
    classes = linear.predict(fitted, x)
    assert classes.tolist() == [1, 2, 2] and classes.dtype == jnp.int32
    assert linear.predict(fitted, x[:0]).shape == (0,)
    tie = make_fit(np.zeros((2, 3), np.float32), np.float32([0, 1, 1]))
    assert linear.predict(tie, x).tolist() == [1, 1, 1]
    with pytest.raises(
        ValueError, match='features of dimension 3 do not match weights of dimension 2'
    ):
        linear.scores(fitted, x.T)


def test_a_fit_of_several_problems_scores_each():
    rng = np.random.default_rng(0)
    weights, bias = rng.standard_normal((4, 5, 3)), rng.standard_normal((4, 3))
    x = jnp.asarray(rng.standard_normal((6, 5)), jnp.float32)
    several = make_fit(weights.astype(np.float32), bias.astype(np.float32))
    result = jax.vmap(linear.scores, (linear.Fit(0, 0, None, None, None, None), None))(several, x)
    np.testing.assert_allclose(result, x @ weights + bias[:, None, :], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('form', ['weights', 'samples'])
def test_space_solves_its_equations(form, x64):
    """(I + X'qX) dp = X'q h + r and dr = q (h - X dp), X'p standing for w in the second form."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((12, 7))
    q = rng.uniform(0, 3, 12)
    q[4] = 0
    h, r = rng.standard_normal(12), rng.standard_normal(12)
    if form == 'weights':
        space, r, to_weights = linear.weight_space(jnp.asarray(x)), r[:7], lambda p: p
    else:
        space, to_weights = linear.sample_space(jnp.asarray(x @ x.T)), lambda p: x.T @ p
    system = np.eye(7) + x.T @ (q[:, None] * x)
    expected = np.linalg.solve(system, x.T @ (q * h) + to_weights(r))
    factors = space.factor(jnp.asarray(q))
    dp, dr = space.solve(factors, jnp.asarray(h), jnp.asarray(r))
    np.testing.assert_allclose(to_weights(dp), expected, atol=1e-12)
    np.testing.assert_allclose(dr, q * (h - x @ expected), atol=1e-12)
    assert dr[4] == 0
    alone = space.precondition(factors, jnp.asarray(r))
    np.testing.assert_allclose(
        to_weights(alone), np.linalg.solve(system, to_weights(r)), atol=1e-12
    )
    # The linear maps of either form, for one weight vector and for several.
    for shape in ((), (3,)):
        a, b = rng.standard_normal((2, 12, *shape))
        p, o = space.adjoint(jnp.asarray(a)), space.adjoint(jnp.asarray(b))
        np.testing.assert_allclose(to_weights(p), x.T @ a, atol=1e-12)
        np.testing.assert_allclose(space.margins(p), x @ (x.T @ a), atol=1e-11)
        assert space.dot(p, o) == pytest.approx(((x.T @ a) * (x.T @ b)).sum())


@pytest.mark.cases(2)
# The weight form holds q in one d x d matrix: samples 1e6 times smaller are below its rounding.
@pytest.mark.parametrize(
    'form, large', [('weights', 1e3), ('samples', 1e3), ('samples', 1e6), ('samples', 1e10)]
)
def test_space_is_accurate_in_float32_for_large_weights(form, large):
    """Weights q from 1e-6 to large, as at samples on the margin: dp and X'dr + r agree."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal((20, 6)).astype(np.float32)
    q = np.where(np.arange(20) < 4, large, 1e-6).astype(np.float32)
    h = rng.standard_normal(20).astype(np.float32)
    if form == 'weights':
        space, to_weights = linear.weight_space(jnp.asarray(x)), lambda p: p
        r = np.zeros(6, np.float32)
    else:
        space, to_weights = linear.sample_space(jnp.asarray(x @ x.T)), lambda p: x.T @ p
        r = np.zeros(20, np.float32)
    dp, dr = space.solve(space.factor(jnp.asarray(q)), jnp.asarray(h), jnp.asarray(r))
    x64, q64 = x.astype(np.float64), q.astype(np.float64)
    expected = np.linalg.solve(np.eye(6) + x64.T @ (q64[:, None] * x64), x64.T @ (q64 * h))
    size = np.abs(expected).max()
    np.testing.assert_allclose(to_weights(dp), expected, atol=2e-3 * size)
    np.testing.assert_allclose(x.T @ dr, to_weights(dp), atol=2e-3 * size)


def test_rounding_error_has_the_right_size():
    rng = np.random.default_rng(3)
    x = (rng.standard_normal((50, 400)) * np.geomspace(1e-3, 1e3, 400)).astype(np.float32)
    p = rng.standard_normal(400).astype(np.float32)
    space = linear.weight_space(jnp.asarray(x))
    error = abs(np.asarray(space.margins(p), np.float64) - x.astype(np.float64) @ p)
    estimate = np.asarray(space.rounding_error(jnp.asarray(p)))
    assert (error <= estimate).mean() > 0.9 and (error <= 3 * estimate).all()
    assert estimate.max() < 1e-5 * abs(x * p).sum(1).max()


def test_the_smaller_form_is_chosen():
    for shape, size in (((9, 4), 4), ((4, 9), 4), ((5, 5), 5)):
        space = linear.choose_space(jnp.zeros(shape))
        assert space.adjoint(jnp.zeros(shape[0])).shape == (size,)


def test_concrete_and_traced():
    assert linear.is_concrete(jnp.ones(2)) and linear.is_concrete(3)
    seen = []
    jax.jit(lambda v: seen.append(linear.is_concrete(v)) or v)(1.0)
    assert seen == [False]


def test_inputs_give_each_sample_its_bound():
    x, y = jnp.zeros((3, 2)), jnp.asarray([0, 1, 0])
    plain = linear.check_inputs(x, y, 2, 0.5, None, name='features')[2]
    np.testing.assert_array_equal(plain, [0.5, 0.5, 0.5])
    weighted = linear.check_inputs(x, y, 2, 0.5, jnp.asarray([2.0, 1.0, 0.0]), name='features')[2]
    np.testing.assert_array_equal(weighted, [1, 0.5, 0])
    assert weighted.dtype == x.dtype
    # Under jit values cannot be checked; shapes can.
    traced = jax.jit(lambda y, c: linear.check_inputs(x, y, 2, c, None, name='features')[2])
    np.testing.assert_array_equal(traced(y - 5, -1.0), [-1, -1, -1])
    with pytest.raises(ValueError, match=r'labels of shape \(2,\) for 3 samples'):
        traced(y[:2], 1.0)
