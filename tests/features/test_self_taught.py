"""Features are what their definition says, and do not depend on how the images are tiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.svm import LinearSVC

from lecture4.features import self_taught
from lecture4.ops import linalg, patches

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=(5, 12, 10, 1)).astype(np.float32)
WHITENING = linalg.Affine(
    jnp.asarray(RNG.normal(size=16), jnp.float32),
    jnp.asarray(RNG.normal(size=(16, 16)), jnp.float32),
)
W = jnp.asarray(RNG.normal(size=(16, 3)), jnp.float32)
SETTINGS = {'patch_size': 4, 'stride': 2, 'contrast_epsilon': 0.05, 'whitening': WHITENING}


def encoder(x):
    return jnp.tanh(x @ W)


def by_definition(image, pooling_grid, pool):
    rows, cols = 5, 4  # of 4 x 4 patches at stride 2 in 12 x 10
    responses = np.zeros((rows, cols, 6))
    for i in range(rows):
        for j in range(cols):
            patch = image[2 * i : 2 * i + 4, 2 * j : 2 * j + 4, 0].reshape(-1).astype(float)
            patch = (patch - patch.mean()) / np.sqrt(patch.var() + 0.05**2)
            a = np.tanh((patch - np.asarray(WHITENING.mean)) @ WHITENING.matrix @ W)
            responses[i, j] = np.concatenate([np.maximum(a, 0), np.maximum(-a, 0)])
    if pooling_grid == 1:
        return pool(responses, axis=(0, 1))
    halves = [responses[a:b, c:d] for a, b in ((0, 2), (2, 5)) for c, d in ((0, 2), (2, 4))]
    return np.concatenate([pool(half, axis=(0, 1)) for half in halves])


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    'pooling_grid, pooling', [(1, 'mean'), (2, 'mean'), (2, 'max'), (2, 'sum')]
)
@pytest.mark.parametrize('tile', [1, 2, 16])
def test_features_are_their_definition(pooling_grid, pooling, tile):
    features = self_taught.encode_images(
        jnp.asarray(IMAGES),
        encoder,
        pooling_grid=pooling_grid,
        pooling=pooling,
        tile=tile,
        **SETTINGS,
    )
    pool = {'mean': np.mean, 'max': np.max, 'sum': np.sum}[pooling]
    expected = np.stack([by_definition(image, pooling_grid, pool) for image in IMAGES])
    np.testing.assert_allclose(features, expected, atol=2e-5)


def test_no_images():
    empty = jnp.zeros((0, 12, 10, 1))
    assert self_taught.encode_images(empty, encoder, **SETTINGS).shape == (0, 6)


def test_sparse_encoder_gives_the_codes_of_the_solver():
    D = W / jnp.linalg.norm(W, axis=0)[None, :]
    x = jnp.asarray(RNG.normal(size=(7, 16)), jnp.float32)
    codes = self_taught.sparse_encoder(D, 0.3, tolerance=1e-6)(x)
    gradient = (x - codes @ D.T) @ D  # optimality: |D'r| <= l1_penalty, equal where a is not zero
    assert np.abs(gradient).max() <= 0.3 + 1e-3
    used = np.asarray(codes) != 0
    assert used.any() and not used.all()
    np.testing.assert_allclose(
        np.asarray(gradient)[used], 0.3 * np.sign(np.asarray(codes)[used]), atol=2e-3
    )


def test_rectify_loses_nothing():
    a = jnp.asarray(RNG.normal(size=(4, 5)), jnp.float32)
    r = self_taught.rectify(a)
    assert (r >= 0).all() and r.shape == (4, 10)
    np.testing.assert_array_equal(r[:, :5] - r[:, 5:], a)


def test_translation_by_the_stride_changes_only_the_border():
    """A periodic image translated by its period has the same pooled features."""
    wave = np.sin(np.arange(24) * 2 * np.pi / 4).astype(np.float32)
    image = np.tile(wave, (12, 1))[None, :, :, None]
    original = self_taught.encode_images(jnp.asarray(image[:, :, :12]), encoder, **SETTINGS)
    translated = self_taught.encode_images(jnp.asarray(image[:, :, 8:20]), encoder, **SETTINGS)
    np.testing.assert_allclose(original, translated, atol=1e-5)


def test_raw_values_and_codes_have_equal_energy():
    both = self_taught.with_raw(
        jnp.asarray(RNG.normal(size=(9, 4)) * 100, jnp.float32),
        jnp.asarray(RNG.normal(size=(9, 6)), jnp.float32),
    )
    energy = jnp.mean(jnp.sum(both**2, axis=1))
    np.testing.assert_allclose(energy, 2, rtol=1e-5)
    np.testing.assert_allclose(jnp.mean(jnp.sum(both[:, :4] ** 2, axis=1)), 1, rtol=1e-5)


def test_pooling_grids_that_do_not_fit():
    with pytest.raises(ValueError, match='pooling_grid=5 does not fit 5 x 4 responses; use 1 to 4'):
        self_taught.encode_images(jnp.asarray(IMAGES), encoder, pooling_grid=5, **SETTINGS)
    with pytest.raises(ValueError, match="expected 'mean', 'sum' or 'max'"):
        self_taught.pool_responses(jnp.zeros((1, 2, 2, 1)), 1, 'median')


def test_one_trace_for_any_threshold():
    traces = []

    @jax.jit
    def encode_all(images, threshold):
        traces.append(1)

        def encode(x):
            return jnp.maximum(x @ W - threshold, 0)

        return self_taught.encode_images(images, encode, **SETTINGS)

    encode_all(jnp.asarray(IMAGES), 0.1)
    encode_all(jnp.asarray(IMAGES), 0.2)
    assert len(traces) == 1


def test_preprocessing_is_shared_with_the_dictionary():
    x = jnp.asarray(RNG.uniform(size=(6, 16)), jnp.float32)
    expected = linalg.apply(WHITENING, patches.normalize_contrast(x, 0.05))
    np.testing.assert_array_equal(self_taught.preprocess(x, 0.05, WHITENING), expected)


def test_threshold_encoder_is_one_proximal_step():
    """Of L1 codes from zero, with step 1."""
    x = jnp.asarray(RNG.normal(size=(6, 16)), jnp.float32)
    features = self_taught.threshold_encoder(W, 0.5)(x)
    inner = np.asarray(x) @ np.asarray(W)
    np.testing.assert_allclose(
        features, np.sign(inner) * np.maximum(abs(inner) - 0.5, 0), atol=1e-5
    )


def test_standardized_features():
    learned = RNG.normal(size=(500, 4)) * [1, 2, 3, 0] + 7
    other = RNG.normal(size=(3, 4))
    x, y = self_taught.standardize(jnp.asarray(learned), jnp.asarray(other), variance_epsilon=0.0)
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(x.std(0), [1, 1, 1, 0], atol=1e-4)
    expected = (other - learned.mean(0)) / np.where(learned.std(0) > 0, learned.std(0), 1)
    np.testing.assert_allclose(y[:, :3], expected[:, :3], rtol=1e-4, atol=1e-5)
    (damped,) = self_taught.standardize(jnp.asarray(learned), variance_epsilon=1.0)
    variance = learned.var(0)
    expected = variance / (variance + variance.mean())
    np.testing.assert_allclose(damped.var(0), expected, rtol=1e-4, atol=1e-6)


def test_whole_images_are_single_signals():
    images = jnp.asarray(IMAGES[:, :4, :4])
    responses = self_taught.image_features(
        images, encoder, WHITENING, patch_size=0, contrast_epsilon=0.05
    )
    signals = self_taught.preprocess(images.reshape(5, 16), 0.05, WHITENING)
    np.testing.assert_array_equal(responses, encoder(signals))
    assert self_taught.signal_shape((12, 10, 3), 0) == (12, 10, 3)


def test_patch_features_are_those_of_encode_images():
    options = {name: value for name, value in SETTINGS.items() if name != 'whitening'}
    features = self_taught.image_features(
        jnp.asarray(IMAGES), encoder, WHITENING, pooling_grid=2, **options
    )
    expected = self_taught.encode_images(jnp.asarray(IMAGES), encoder, pooling_grid=2, **SETTINGS)
    np.testing.assert_array_equal(features, expected)
    assert self_taught.signal_shape((12, 10, 3), 4) == (4, 4, 3)


def test_accuracy_with_all_labels_is_that_of_a_linear_svm():
    rng = np.random.default_rng(4)
    labels = np.arange(60) % 3
    x = 100 * (rng.normal(size=(60, 5)) + 1.5 * np.eye(3, 5)[labels]) + 7
    x = x.astype(np.float32)
    accuracy = self_taught.full_data_accuracy(x[:40], x[40:], labels[:40], labels[40:], C=1.0)
    std = np.sqrt(x[:40].var(0) + 0.01 * x[:40].var(0).mean())
    z = (x - x[:40].mean(0)) / std
    peer = LinearSVC(C=1.0, dual=True, tol=1e-8, max_iter=1_000_000).fit(z[:40], labels[:40])
    assert accuracy == pytest.approx(peer.score(z[40:], labels[40:]), abs=1 / 20 + 1e-6)
    assert accuracy > 0.6


@pytest.mark.parametrize('loss', ['hinge', 'softmax'])
def test_accuracy_with_all_labels_by_another_loss(loss):
    rng = np.random.default_rng(5)
    labels = np.arange(30) % 3
    x = (rng.normal(size=(30, 4)) + 6 * np.eye(3, 4)[labels]).astype(np.float32)
    options = {'C': 1.0, 'loss': loss}
    assert self_taught.full_data_accuracy(x, x, labels, labels, **options) == 1
    assert self_taught.full_data_accuracy(x, x, labels, (labels + 1) % 3, **options) == 0
