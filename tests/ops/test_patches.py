import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.feature_extraction.image import extract_patches_2d

from lecture4.ops import linalg, patches
from tests.gradients import check_grads

SHAPES = [((7, 9, 2), 3, 2), ((6, 6, 1), 6, 1), ((8, 5, 3), 2, 3), ((5, 5, 1), 1, 1)]


def images(shape, n=2):
    return jax.random.normal(jax.random.key(0), (n, *shape))


def test_extract_agrees_with_scikit_learn():
    x = images((7, 9, 2), 1)
    got = patches.extract(x, 3)
    expected = extract_patches_2d(np.asarray(x[0]), (3, 3)).reshape(5, 7, 18)
    np.testing.assert_array_equal(got[0], expected)


def test_extract_with_a_stride():
    x = jnp.arange(30, dtype=jnp.uint8).reshape(1, 5, 6, 1)
    got = patches.extract(x, 2, 3)
    assert got.shape == (1, 2, 2, 4)
    assert got.dtype == jnp.uint8
    np.testing.assert_array_equal(got[0, 1, 1], [21, 22, 27, 28])


@pytest.mark.cases(1)
@pytest.mark.parametrize(('shape', 'size', 'stride'), SHAPES)
def test_reassemble_is_the_adjoint(x64, shape, size, stride):
    x = images(shape)
    y = jax.random.normal(jax.random.key(1), patches.extract(x, size, stride).shape)
    left = jnp.vdot(patches.extract(x, size, stride), y)
    right = jnp.vdot(x, patches.reassemble(y, shape, size, stride))
    np.testing.assert_allclose(left, right, rtol=1e-12)


@pytest.mark.cases(1)
@pytest.mark.parametrize(('shape', 'size', 'stride'), SHAPES)
def test_average_undoes_extract_where_patches_cover(shape, size, stride):
    x = images(shape)
    back = jax.jit(
        lambda x: patches.average(patches.extract(x, size, stride), shape, size, stride)
    )(x)
    covered = np.asarray(patches.counts(shape, size, stride) > 0)[None, :, :, None]
    np.testing.assert_allclose(back, np.where(covered, x, 0), rtol=1e-5, atol=1e-6)
    if stride == 1:
        assert covered.all()


def test_counts_are_those_of_ones():
    ones = jnp.ones((1, 7, 9, 1))
    total = patches.reassemble(patches.extract(ones, 3, 2), (7, 9, 1), 3, 2)
    np.testing.assert_array_equal(patches.counts((7, 9, 1), 3, 2), total[0, :, :, 0])


def test_contrast_has_zero_mean_and_unit_variance():
    x = 5 * images((20,), 30) + 3
    y = patches.normalize_contrast(x, 0.0)
    np.testing.assert_allclose(jnp.mean(y, 1), 0, atol=1e-6)
    np.testing.assert_allclose(jnp.std(y, 1), 1, rtol=1e-5)
    expected = jnp.std(x, 1) / jnp.sqrt(jnp.var(x, 1) + 4.0)
    np.testing.assert_allclose(jnp.std(patches.normalize_contrast(x, 2.0), 1), expected, rtol=1e-5)


def test_contrast_of_flat_signals_is_zero_with_finite_gradient():
    flat = jnp.full((2, 5), 0.25)
    for epsilon in (0.0, 0.1):
        run = functools.partial(patches.normalize_contrast, contrast_epsilon=epsilon)
        np.testing.assert_array_equal(jax.jit(run)(flat), 0)
        slope = jax.jit(jax.grad(lambda x, run=run: run(x)[0, 0]))(flat)
        assert np.all(np.isfinite(slope))


def test_gradients(x64):
    x = images((4, 5, 1))
    check_grads(lambda x: patches.extract(x, 2, 1), (x,), order=1)
    y = patches.extract(x, 2, 1)
    check_grads(lambda y: patches.average(y, (4, 5, 1), 2, 1), (y,), order=1)
    check_grads(lambda y: patches.normalize_contrast(y, 0.1), (y,), order=1)


def test_errors_name_the_shapes():
    with pytest.raises(ValueError, match=r'c = 1.*\(4, 4\)'):
        patches.extract(jnp.ones((4, 4)), 2)
    with pytest.raises(ValueError, match='4 x 3 pixels hold no patch of 5'):
        patches.extract(jnp.ones((1, 4, 3, 1)), 5)
    with pytest.raises(ValueError, match='stride 0'):
        patches.extract(jnp.ones((1, 4, 3, 1)), 2, 0)
    with pytest.raises(ValueError, match=r'\(1, 2, 2, 4\).*\[n, 3, 2, 4\]'):
        patches.reassemble(jnp.ones((1, 2, 2, 4)), (4, 3, 1), 2)
    with pytest.raises(TypeError, match='uint8'):
        patches.average(jnp.ones((1, 2, 2, 4), jnp.uint8), (3, 3, 1), 2)


def test_whitening_leaves_held_out_patches_out():
    x = jax.random.normal(jax.random.key(0), (400, 6)) * jnp.arange(1.0, 7.0)[None]
    whitened, whitening = patches.whiten(x, 0.0, 0.0, num_held_out=100)
    assert whitened.shape == (400, 6)
    normalized = patches.normalize_contrast(x, 0.0)
    expected = linalg.zca(normalized[100:], 0.0)
    np.testing.assert_allclose(whitening.matrix, expected.matrix, rtol=1e-6)
    np.testing.assert_allclose(whitened, linalg.apply(expected, normalized), rtol=1e-5, atol=1e-5)
