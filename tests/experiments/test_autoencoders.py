"""The autoencoders' experiments: what they train on, and what they measure."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.autoencoders import family, ica, sparse_kl
from lecture4 import train
from lecture4.ops.reduce import Reduce


def test_codes_that_are_the_labels_are_accurate_and_noise_is_not():
    config = family.Config(num_labels=(100, 400), num_trials=2, Cs=(1.0,), noise_std=0.0)
    data = family.data(config)
    few, many = family.accuracies(config, 'pixels', jnp.asarray, data)
    assert many['accuracy'].mean() == many['noisy_accuracy'].mean() > few['accuracy'].mean() > 0.7
    blind = family.accuracies(config, 'none', lambda x: np.zeros((len(x), 2), np.float32), data)
    assert blind[-1]['accuracy'].mean() < 0.2


def test_patches_of_ica_are_white_and_kurtosis_knows_a_laplace_variable():
    config = ica.Config(batch_size=3000, patch_size=4, latent_dim=15)
    data = ica.data(config)
    white = data.report_data
    assert white.shape == (3000, 15)  # the mean is removed
    np.testing.assert_allclose(white.T @ white / len(white), np.eye(15), atol=1e-8)
    flat = np.asarray(data.device_arrays, float).reshape(3000, 16)
    np.testing.assert_allclose(flat @ data.spec.constants['axes'], white, atol=1e-4)
    rng = np.random.default_rng(0)
    samples = np.stack([rng.normal(size=200_000), rng.laplace(size=200_000)], 1)
    np.testing.assert_allclose(ica.kurtosis(samples), [3, 6], rtol=0.05)


@pytest.mark.parametrize('module', [ica, sparse_kl])
def test_losses_of_the_whole_set_refuse_pmap(module):
    config = module.Config(batch_size=50)
    shape = (config.patch_size, config.patch_size, 1)
    shape = shape if module is ica else (config.patch_size**2,)
    task, x = module.build(config, train.Spec(shape)), jnp.zeros((50, *shape))
    state = jax.eval_shape(task.init, jax.random.key(0), x)
    with pytest.raises(ValueError, match='use --parallel jit'):
        jax.eval_shape(lambda s: task.step(s, x, jax.random.key(0), Reduce('data')), state)
