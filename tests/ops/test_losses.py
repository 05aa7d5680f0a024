import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from lecture4.ops import losses


def test_squared_error_sums_over_all_but_the_first_axis():
    x, y = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    expected = ((x - y) ** 2).reshape(3, -1).sum(1)
    np.testing.assert_allclose(losses.squared_error(x, y), expected, rtol=1e-6)


def test_bernoulli_is_scipys(x64):
    rng = np.random.default_rng(0)
    logits, x = rng.normal(size=(4, 6)), rng.integers(2, size=(4, 6))
    expected = -stats.bernoulli.logpmf(x, 1 / (1 + np.exp(-logits))).sum(1)
    np.testing.assert_allclose(losses.bernoulli_nll(logits, x.astype(float)), expected, rtol=1e-12)


def test_bernoulli_of_gray_levels_is_at_least_their_entropy(x64):
    x = np.array([[0.2, 0.7, 0.5]])
    entropy = -(x * np.log(x) + (1 - x) * np.log(1 - x)).sum()
    assert losses.bernoulli_nll(np.log(x / (1 - x)), x)[0] == pytest.approx(entropy, rel=1e-12)
    assert losses.bernoulli_nll(np.log(x / (1 - x)) + 0.1, x)[0] > entropy


def test_bernoulli_is_finite_and_exact_at_any_logit():
    logits = np.array([[-1e38, -200, -88, -20, 0, 20, 88, 200, 1e38]], np.float32)
    for label in (0.0, 1.0):
        x = np.full_like(logits, label)
        each, slope = jax.vmap(
            jax.value_and_grad(lambda a, b: losses.bernoulli_nll(a[None], b[None])[0])
        )(logits[0], x[0])
        exact = np.logaddexp(0, (1 - 2 * label) * logits[0].astype(float))
        np.testing.assert_allclose(each, exact, rtol=1e-6, atol=1e-37)
        with np.errstate(over='ignore'):
            expected = 1 / (1 + np.exp(-logits[0].astype(float))) - label
        np.testing.assert_allclose(slope, expected, atol=1e-7)


@pytest.mark.parametrize('shape', [(), (3,), (1, 3), (4, 1), (4, 3)])
def test_gaussian_is_scipys_for_every_shape_of_log_std(x64, shape):
    rng = np.random.default_rng(1)
    x, mean, log_std = rng.normal(size=(4, 3)), rng.normal(size=(4, 3)), rng.normal(size=shape)
    expected = -stats.norm.logpdf(x, mean, np.broadcast_to(np.exp(log_std), x.shape)).sum(1)
    np.testing.assert_allclose(losses.gaussian_nll(x, mean, log_std), expected, rtol=1e-12)


def test_categorical_is_a_log_softmax(x64):
    rng = np.random.default_rng(2)
    logits, labels = rng.normal(size=(4, 2, 5)) * 300, rng.integers(5, size=(4, 2))
    log_p = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    expected = -np.take_along_axis(log_p, labels[..., None], -1)[..., 0].sum(1)
    np.testing.assert_allclose(losses.categorical_nll(logits, labels), expected, rtol=1e-12)


def test_traced_and_known_values_agree():
    x, logits = np.full((2, 3), 0.25, np.float32), np.ones((2, 3), np.float32)
    known = losses.bernoulli_nll(logits, x)
    np.testing.assert_allclose(jax.jit(losses.bernoulli_nll)(logits, x), known, rtol=1e-6)


@pytest.mark.parametrize(
    'value, message',
    [(1.5, r'\[0, 1.5\].*rescale'), (-0.25, r'\[-0.25, 0\]'), (np.nan, 'NaN in 1')],
)
def test_pixels_outside_the_unit_interval_are_refused(value, message):
    x = np.zeros((2, 3), np.float32)
    x[1, 1] = value
    with pytest.raises(ValueError, match=message):
        losses.check_unit_interval(x)
    with pytest.raises(ValueError, match=message):
        losses.bernoulli_nll(np.zeros_like(x), x)


def test_bytes_are_refused_as_probabilities():
    with pytest.raises(TypeError, match='x has dtype uint8'):
        losses.check_unit_interval(np.zeros((2, 3), np.uint8))


def test_errors_name_the_shapes():
    x = jnp.zeros((2, 3))
    with pytest.raises(ValueError, match=r'x \(2, 3\) and y \(2, 4\)'):
        losses.squared_error(x, jnp.zeros((2, 4)))
    with pytest.raises(ValueError, match=r'log_std of shape \(2,\)'):
        losses.gaussian_nll(x, x, jnp.zeros(2))
    with pytest.raises(ValueError, match=r'labels \(3,\)'):
        losses.categorical_nll(x, jnp.zeros(3, int))
    with pytest.raises(ValueError, match='labels from 0 to 3; 3 classes'):
        losses.categorical_nll(x, jnp.array([0, 3]))
    with pytest.raises(TypeError, match='expected an integer dtype'):
        losses.categorical_nll(x, jnp.zeros(2))
