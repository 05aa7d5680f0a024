"""The autoencoder experiments: what they train on, what they measure, what a trained model can do."""

import functools
import importlib
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.autoencoders import denoising, family, ica, sparse_kl, variational
from lecture4 import train
from lecture4.ops.reduce import Reduce
from lecture4.train import cli
from lecture4.train.experiment import from_module

FOLDER = pathlib.Path(denoising.__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob('*.py') if not path.name.startswith('__'))
# What functions take in place of rows of the training set, and outputs of another length than inputs.
INPUTS = {
    ('denoising', 'denoise'): lambda data: data.report_data[1],
    ('predictive', 'features'): lambda data: data.report_data.train_images[:4],
    ('self_taught_denoising', 'encode'): lambda data: data.report_data.test_images[:4],
}


def test_each_protocol_of_binarization_is_what_its_name_says():
    """Dynamic samples at every visit, static once; the test set is one for all seeds."""
    loaded = {
        name: variational.data(variational.Config(binarization=name, seed=3))
        for name in ('dynamic', 'static', 'threshold', 'gray')
    }
    gray, rows = loaded['gray'].device_arrays, loaded['gray'].batch(0)
    visits = {
        name: [
            np.asarray(data.prepare(data.device_arrays, data.batch(0), jax.random.key(key)))
            for key in (0, 1)
        ]
        for name, data in loaded.items()
    }
    for name, (first, second) in visits.items():
        assert (first != second).any() == (name == 'dynamic'), name
        assert (set(np.unique(first)) == {0.0, 1.0}) == (name != 'gray'), name
    np.testing.assert_array_equal(visits['gray'][0], gray[rows])
    np.testing.assert_array_equal(visits['threshold'][0], gray[rows] > 0.5)
    for name in ('dynamic', 'static'):  # pixels of 0 and 1 keep their values
        first = visits[name][0]
        assert not first[gray[rows] == 0].any() and first[gray[rows] == 1].all()
    other = variational.data(variational.Config(binarization='dynamic', seed=4)).evaluation
    np.testing.assert_array_equal(other, loaded['dynamic'].evaluation)
    np.testing.assert_array_equal(loaded['static'].evaluation, other)
    assert set(np.unique(other)) == {0.0, 1.0}


def test_codes_that_are_the_labels_are_accurate_and_noise_is_not():
    config = family.Config(num_labels=(100, 400), num_trials=2, Cs=(1.0,), noise_std=0.0)
    data = family.data(config)
    few, many = family.accuracies(config, 'pixels', jnp.asarray, data)
    assert many['accuracy'].mean() == many['noisy_accuracy'].mean() > few['accuracy'].mean() > 0.7
    blind = family.accuracies(config, 'none', lambda x: np.zeros((len(x), 2), np.float32), data)
    assert blind[-1]['accuracy'].mean() < 0.2
    noisy = family.Config(num_labels=(400,), num_trials=2, Cs=(1.0,), noise_std=1.0)
    (record,) = family.accuracies(noisy, 'pixels', jnp.asarray, data)
    assert record['noisy_accuracy'].mean() < record['accuracy'].mean() - 0.1


def test_patches_of_ica_are_white():
    config = ica.Config(batch_size=3000, patch_size=4, latent_dim=15)
    data = ica.data(config)
    white = data.report_data
    assert white.shape == (3000, 15)  # the mean is removed
    np.testing.assert_allclose(white.T @ white / len(white), np.eye(15), atol=1e-8)
    flat = np.asarray(data.device_arrays, float).reshape(3000, 16)
    np.testing.assert_allclose(flat @ data.spec.constants['axes'], white, atol=1e-4)


@pytest.mark.parametrize('module', [ica, sparse_kl])
def test_losses_of_the_whole_set_refuse_pmap(module):
    config = module.Config(batch_size=50)
    shape = (config.patch_size, config.patch_size, 1)
    shape = shape if module is ica else (config.patch_size**2,)
    task, x = module.build(config, train.Spec(shape)), jnp.zeros((50, *shape))
    state = jax.eval_shape(task.init, jax.random.key(0), x)
    with pytest.raises(ValueError, match='use --parallel jit'):
        jax.eval_shape(lambda s: task.step(s, x, jax.random.key(0), Reduce('data')), state)


def sample_of(function, state, x):
    """As many samples as there are inputs."""
    return function(state, jax.random.key(0), len(x))


@pytest.mark.cases(2)
@pytest.mark.parametrize('name', NAMES)
def test_functions_of_a_model_run_on_raw_inputs(name):
    """Untrained, as initialized; a decoder gets what the encoder of the same model returns."""
    this = from_module(importlib.import_module(f'experiments.autoencoders.{name}'))
    config = cli.parse(this, ['--preset', 'smoke', '--devices', '1'])
    data = this.data(config)
    rows = jax.tree.leaves(data.device_arrays if data.rows is None else data.rows)[0][:12]
    rows = jnp.asarray(rows)
    with jax.numpy_dtype_promotion('standard'), jax.numpy_rank_promotion('allow'):
        batch = jax.tree.map(lambda leaf: jnp.asarray(leaf[:50]), data.device_arrays)
        state = this.build(config, data.spec).init(jax.random.key(0), batch)
        functions = this.apply(config, data.spec)
        for kind, function in functions.items():
            x = INPUTS.get((name, kind), lambda _: rows)(data)
            if kind == 'sample':
                function = functools.partial(sample_of, function)
            if kind == 'decode':
                x = functions['encode'](state, x)
            outputs = function(state, x)
            for leaf in jax.tree.leaves(outputs):
                assert len(leaf) == len(x) and np.isfinite(leaf).all(), kind
            if kind in ('denoise', 'reconstruct', 'score'):
                assert np.size(outputs) == np.size(x), kind
