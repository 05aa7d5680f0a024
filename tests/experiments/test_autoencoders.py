"""The autoencoders' experiments: what they train on, and that what they measure is what they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.autoencoders import (
    contractive,
    denoising,
    family,
    ica,
    self_taught_denoising,
    sparse_kl,
    variational,
)
from lecture4.autoencoder import network


def binary(values):
    return set(np.unique(values)) == {0.0, 1.0}


def test_each_protocol_of_binarisation_is_what_its_name_says():
    """Dynamic draws anew at every visit, static once; the test set is one for all seeds."""
    found = {
        name: variational.data(variational.Config(binarisation=name, seed=3))
        for name in ('dynamic', 'static', 'threshold', 'grey')
    }
    grey = found['grey'].resident
    visits = {
        name: [
            np.asarray(data.prepare(data.resident, data.batch(0), jax.random.key(key)))
            for key in (0, 1)
        ]
        for name, data in found.items()
    }
    rows = found['grey'].batch(0)
    for name, (first, second) in visits.items():
        assert (first != second).any() == (name == 'dynamic'), name
        assert binary(first) == (name != 'grey'), name
    np.testing.assert_array_equal(visits['grey'][0], grey[rows])
    np.testing.assert_array_equal(visits['threshold'][0], grey[rows] > 0.5)
    for name in ('dynamic', 'static'):  # ink is drawn where ink is, none where there is none
        assert not visits[name][0][grey[rows] == 0].any() and visits[name][0][grey[rows] == 1].all()
    other = variational.data(variational.Config(binarisation='dynamic', seed=4)).evaluation
    np.testing.assert_array_equal(other, found['dynamic'].evaluation)
    np.testing.assert_array_equal(found['static'].evaluation, found['dynamic'].evaluation)
    assert binary(other)


def test_pictures_denoised_by_nothing_come_back_and_by_their_mean_are_blurred():
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 9, 9, 1)), jnp.float32)
    same = denoising.denoise_images(images, 4, lambda x: x)
    np.testing.assert_allclose(same, images, atol=1e-6)
    flat = denoising.denoise_images(
        images, 3, lambda x: jnp.broadcast_to(x.mean(1, keepdims=True), x.shape)
    )
    # The middle pixel lies in nine patches of three by three, whose means it gets the mean of.
    means = [images[0, r : r + 3, c : c + 3].mean() for r in (2, 3, 4) for c in (2, 3, 4)]
    expected = float(np.mean(means))
    assert float(flat[0, 4, 4, 0]) == pytest.approx(expected, rel=1e-5)


def test_the_best_linear_denoiser_of_an_experiment_is_better_than_the_noise():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(4000, 3)) @ rng.normal(size=(3, 16))).astype(np.float32)
    config = denoising.Config(level=0.5)
    noisy = x + 0.5 * rng.normal(size=x.shape)
    left = float(((denoising.linear_denoiser(config, x)(noisy) - x) ** 2).sum(1).mean())
    # In three directions and the mean noise stays, but for what a prior of finite variance takes.
    assert 0.8 * 3 * 0.25 < left < 1.1 * 4 * 0.25


def test_accuracies_of_codes_that_are_the_labels_are_perfect_and_of_noise_chance():
    config = family.Config(labels=(100, 400), draws=2, penalties=(1.0,), noise=0.0)
    data = family.data(config)
    found = family.accuracies(config, jnp.asarray, data)
    assert set(found) == {'accuracy_100', 'accuracy_400', 'accuracy_noisy'}
    assert found['accuracy_400'] == found['accuracy_noisy'] > found['accuracy_100'] > 0.7
    blind = family.accuracies(config, lambda x: np.zeros((len(x), 2), np.float32), data)
    assert blind['accuracy_400'] < 0.2
    noisy = family.Config(labels=(400,), draws=2, penalties=(1.0,), noise=1.0)
    hit = family.accuracies(noisy, jnp.asarray, data)
    assert hit['accuracy_noisy'] < hit['accuracy_400'] - 0.1


def test_what_is_measured_of_a_contractive_code():
    """Of units so steep that all are saturated, and of one unit that is linear where it is asked."""
    x = jax.random.uniform(jax.random.key(0), (60, 5))
    radii = np.geomspace(0.05, 10, 14).astype(np.float32)
    steep = network.init_autoencoder(jax.random.key(1), (5, 4), tied=True)
    layer = steep.encoder[0]
    steep = steep._replace(encoder=(network.Dense(0 * layer.weight, layer.bias + 9),))
    numbers, singular, ratios = contractive.measured(steep, x, radii)
    assert numbers['saturated'] == 1 and numbers['jacobian'] == 0 and not singular.any()
    np.testing.assert_allclose(ratios, 0, atol=1e-6)
    weight = jnp.zeros((5, 4)).at[2, 1].set(0.01)  # sigmoid is 1/2 + a/4 near 0
    linear = steep._replace(encoder=(network.Dense(weight, 0 * layer.bias),))
    numbers, singular, ratios = contractive.measured(linear, x, radii)
    assert numbers['saturated'] == 0 and numbers['directions'] == 1
    np.testing.assert_allclose(singular, [0.01 / 4, 0, 0, 0], rtol=1e-3, atol=1e-9)
    assert float(numbers['jacobian']) == pytest.approx((0.01 / 4) ** 2, rel=1e-3)
    # A random direction has a component of 1/5 on average, squared, along the one that counts.
    assert 0.2 * 0.01 / 4 < float(numbers['contraction']) < 0.6 * 0.01 / 4


def test_patches_of_ica_are_white_and_its_measures_know_a_laplace_variable():
    config = ica.Config(batch_size=3000, patch=4, width=15)
    data = ica.data(config)
    white = data.extra['white']
    assert white.shape == (3000, 15)  # the mean is gone
    np.testing.assert_allclose(white.T @ white / len(white), np.eye(15), atol=1e-8)
    flat = np.asarray(data.resident, float).reshape(3000, 16)
    np.testing.assert_allclose(flat @ data.extra['axes'], white, atol=1e-4)
    rng = np.random.default_rng(0)
    samples = np.stack([rng.normal(size=200_000), rng.laplace(size=200_000)], 1)
    np.testing.assert_allclose(ica.kurtosis(samples), [3, 6], rtol=0.05)


@pytest.mark.parametrize('module', [ica, sparse_kl])
def test_losses_of_the_whole_set_refuse_to_be_split(module):
    config = module.Config(batch_size=50)
    task = module.build(config)
    x = jnp.zeros((50, config.patch, config.patch, 1) if module is ica else (50, config.patch**2))
    state = jax.eval_shape(task.init, jax.random.key(0), x)
    with pytest.raises(ValueError, match='use --parallel jit'):
        jax.eval_shape(lambda s: task.step(s, x, jax.random.key(0), axis_name='data'), state)


def test_self_taught_features_never_see_what_is_labelled_and_random_ones_never_learn():
    config = self_taught_denoising.Config(steps=3, width=8)
    data = self_taught_denoising.data(config)
    labelled = data.extra['labelled']
    own = {row.tobytes() for row in np.concatenate([data.resident, data.evaluation])}
    for images in (labelled.train_images, labelled.test_images):
        assert not own & {row.tobytes() for row in images.reshape(len(images), -1)}
    assert len(labelled.class_names) == 5 and set(labelled.test_labels) == set(range(5))
    task = self_taught_denoising.build(config)
    before = task.init(jax.random.key(0), jnp.asarray(data.resident[:50]))
    after, _ = jax.jit(task.step)(before, jnp.asarray(data.resident[:50]), jax.random.key(1))
    images = labelled.test_images[:20]
    first, then = (
        self_taught_denoising.features(config, state.params, images) for state in (before, after)
    )
    moved = {name for name in first if not np.array_equal(first[name], then[name])}
    assert moved == {'denoising', 'raw + denoising'}
    assert not np.array_equal(first['random weights'], first['denoising'])
    with pytest.raises(ValueError, match='between 1 and --pool 500'):
        self_taught_denoising.Config(labels=(501,))
