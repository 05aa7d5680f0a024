"""Features are what their definition says, and do not depend on how the images are tiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.features import self_taught
from lecture4.ops import linalg, patches

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=(5, 12, 10, 1)).astype(np.float32)
WHITENING = linalg.Affine(
    jnp.asarray(RNG.normal(size=16), jnp.float32),
    jnp.asarray(RNG.normal(size=(16, 16)), jnp.float32),
)
W = jnp.asarray(RNG.normal(size=(16, 3)), jnp.float32)
SETTINGS = {'size': 4, 'stride': 2, 'floor': 0.05, 'whitening': WHITENING}


def encoder(x):
    return jnp.tanh(x @ W)


def by_hand(image, regions, reduce):
    rows, cols = 5, 4  # of 4 x 4 patches at stride 2 in 12 x 10
    responses = np.zeros((rows, cols, 6))
    for i in range(rows):
        for j in range(cols):
            patch = image[2 * i : 2 * i + 4, 2 * j : 2 * j + 4, 0].reshape(-1).astype(float)
            patch = (patch - patch.mean()) / np.sqrt(patch.var() + 0.05**2)
            a = np.tanh((patch - np.asarray(WHITENING.mean)) @ WHITENING.matrix @ W)
            responses[i, j] = np.concatenate([np.maximum(a, 0), np.maximum(-a, 0)])
    if regions == 1:
        return reduce(responses, axis=(0, 1))
    halves = [responses[a:b, c:d] for a, b in ((0, 2), (2, 5)) for c, d in ((0, 2), (2, 4))]
    return np.concatenate([reduce(half, axis=(0, 1)) for half in halves])


@pytest.mark.parametrize('regions, reduce', [(1, 'mean'), (2, 'mean'), (2, 'max'), (2, 'sum')])
@pytest.mark.parametrize('tile', [1, 2, 16])
def test_features_are_their_definition(regions, reduce, tile):
    found = self_taught.encode_images(
        jnp.asarray(IMAGES), encoder, regions=regions, reduce=reduce, tile=tile, **SETTINGS
    )
    pool = {'mean': np.mean, 'max': np.max, 'sum': np.sum}[reduce]
    expected = np.stack([by_hand(image, regions, pool) for image in IMAGES])
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_no_images():
    empty = jnp.zeros((0, 12, 10, 1))
    assert self_taught.encode_images(empty, encoder, **SETTINGS).shape == (0, 6)


def test_sparse_encoder_gives_the_solver_s_codes():
    D = W / jnp.linalg.norm(W, axis=0)[None, :]
    x = jnp.asarray(RNG.normal(size=(7, 16)), jnp.float32)
    codes = self_taught.sparse_encoder(D, 0.3, tolerance=1e-6)(x)
    gradient = (x - codes @ D.T) @ D  # optimality: |D'r| <= weight, equal where a is not zero
    assert np.abs(gradient).max() <= 0.3 + 1e-3
    used = np.asarray(codes) != 0
    assert used.any() and not used.all()
    np.testing.assert_allclose(
        np.asarray(gradient)[used], 0.3 * np.sign(np.asarray(codes)[used]), atol=2e-3
    )


def test_rectify_keeps_all():
    a = jnp.asarray(RNG.normal(size=(4, 5)), jnp.float32)
    r = self_taught.rectify(a)
    assert (r >= 0).all() and r.shape == (4, 10)
    np.testing.assert_array_equal(r[:, :5] - r[:, 5:], a)


def test_translation_by_the_stride_moves_nothing_but_the_border():
    """A periodic picture shifted by its period has the same pooled features."""
    wave = np.sin(np.arange(24) * 2 * np.pi / 4).astype(np.float32)
    picture = np.tile(wave, (12, 1))[None, :, :, None]
    here = self_taught.encode_images(jnp.asarray(picture[:, :, :12]), encoder, **SETTINGS)
    there = self_taught.encode_images(jnp.asarray(picture[:, :, 8:20]), encoder, **SETTINGS)
    np.testing.assert_allclose(here, there, atol=1e-5)


def test_raw_beside_codes_has_equal_energy():
    both = self_taught.with_raw(
        jnp.asarray(RNG.normal(size=(9, 4)) * 100, jnp.float32),
        jnp.asarray(RNG.normal(size=(9, 6)), jnp.float32),
    )
    energy = jnp.mean(jnp.sum(both**2, axis=1))
    np.testing.assert_allclose(energy, 2, rtol=1e-5)
    np.testing.assert_allclose(jnp.mean(jnp.sum(both[:, :4] ** 2, axis=1)), 1, rtol=1e-5)


def test_regions_that_do_not_fit():
    with pytest.raises(ValueError, match='use 1 to 4 regions'):
        self_taught.encode_images(jnp.asarray(IMAGES), encoder, regions=5, **SETTINGS)
    with pytest.raises(ValueError, match="'mean', 'sum' or 'max'"):
        self_taught.pool_regions(jnp.zeros((1, 2, 2, 1)), 1, 'median')


def test_one_trace_for_any_weight():
    traces = []

    @jax.jit
    def features(images, weight):
        traces.append(1)
        encode = lambda x: jnp.maximum(x @ W - weight, 0)  # noqa: E731
        return self_taught.encode_images(images, encode, **SETTINGS)

    features(jnp.asarray(IMAGES), 0.1)
    features(jnp.asarray(IMAGES), 0.2)
    assert len(traces) == 1


def test_preprocessing_is_shared_with_the_dictionary():
    x = jnp.asarray(RNG.uniform(size=(6, 16)), jnp.float32)
    expected = linalg.apply(WHITENING, patches.normalize_contrast(x, 0.05))
    np.testing.assert_array_equal(self_taught.preprocess(x, 0.05, WHITENING), expected)


def test_threshold_encoder_is_one_proximal_step():
    """Of L1 codes from zero, with step 1."""
    x = jnp.asarray(RNG.normal(size=(6, 16)), jnp.float32)
    found = self_taught.threshold_encoder(W, 0.5)(x)
    inner = np.asarray(x) @ np.asarray(W)
    np.testing.assert_allclose(found, np.sign(inner) * np.maximum(abs(inner) - 0.5, 0), atol=1e-5)


def test_standardised_features():
    learned = RNG.normal(size=(500, 4)) * [1, 2, 3, 0] + 7
    other = RNG.normal(size=(3, 4))
    x, y = self_taught.standardise(jnp.asarray(learned), jnp.asarray(other), floor=0.0)
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(x.std(0), [1, 1, 1, 0], atol=1e-4)
    want = (other - learned.mean(0)) / np.where(learned.std(0) > 0, learned.std(0), 1)
    np.testing.assert_allclose(y[:, :3], want[:, :3], rtol=1e-4, atol=1e-5)
    (damped,) = self_taught.standardise(jnp.asarray(learned), floor=1.0)
    variance = learned.var(0)
    expected = variance / (variance + variance.mean())
    np.testing.assert_allclose(damped.var(0), expected, rtol=1e-4, atol=1e-6)
