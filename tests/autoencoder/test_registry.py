"""Variants by name have the losses of their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.autoencoder import contractive, deep, denoising, registry

OPTIONS = {'l1_penalty': 0.1, 'k': 2, 'mask_rate': 0.3, 'contraction_penalty': 0.2}


@pytest.fixture(scope='module')
def x():
    return jax.random.uniform(jax.random.key(1), (6, 5))


@pytest.mark.cases(2)
@pytest.mark.parametrize('name', registry.NAMES)
def test_every_named_variant_encodes_and_decodes(name, x):
    variant = registry.by_name(name, 3, **OPTIONS)
    params = variant.init(jax.random.key(0), 5)
    code = variant.encode(params, x)
    assert code.shape == (6, 3) and variant.decode(params, code).shape == x.shape
    assert jnp.shape(variant.loss(params, x, jax.random.key(2))) == ()


def test_unknown_variants_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown variant 'sparse'; expected one of linear, plain"):
        registry.by_name('sparse', 3, **OPTIONS)


def test_regularized_layers_differ_from_the_plain_one_by_their_penalty(x):
    key, plain = jax.random.key(2), registry.regularized('plain', 4)
    params = plain.init(jax.random.key(0), 5)
    layer, sigmoid = params.encoder[0], jax.nn.sigmoid
    base = float(plain.loss(params, x, key))
    assert base == pytest.approx(float(deep.loss(params, x, latent_activation=sigmoid).mean()))
    contraction = 0.3 * float(contractive.layer_penalty(layer, x, sigmoid).mean())
    curvature = contractive.layer_curvature(layer, x, sigmoid, key, std=0.3, n_samples=2).mean()
    expected = {
        'decay': 1e-3 * float((layer.weight**2).sum()),
        'contractive': contraction,
        'curvature': contraction + 0.3 * float(curvature),
    }
    for name, penalty in expected.items():
        value = float(registry.regularized(name, 4).loss(params, x, key))
        assert value - base == pytest.approx(penalty, rel=1e-3, abs=1e-6), name


@pytest.mark.parametrize(
    'name, level', [('gaussian', 0.3), ('salt_and_pepper', 0.25), ('masking', 0.5)]
)
def test_corrupted_layers_reconstruct_the_clean_input(name, level, x):
    variant, key = registry.regularized(name, 4), jax.random.key(2)
    params = variant.init(jax.random.key(0), 5)
    noisy = denoising.corruption(name, level)(key, x)
    assert not np.array_equal(noisy, x)
    logits = deep.decode(params, variant.encode(params, noisy))
    expected = -(x * jax.nn.log_sigmoid(logits) + (1 - x) * jax.nn.log_sigmoid(-logits)).sum(1)
    value = float(variant.loss(params, x, key))
    assert value == pytest.approx(float(expected.mean()), rel=1e-5)
