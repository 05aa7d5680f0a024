"""Parameters and optimizer state divided over the axis 'model': the numbers stay, and each device holds a part."""

import importlib

import jax
import numpy as np
import optax
import pytest

from lecture4 import train
from lecture4.autoencoder import rica
from lecture4.sparse.dictionary import learners
from lecture4.train import cli, experiment
from lecture4.train.config import UsageError
from lecture4.train.sharding import device_mesh
from lecture4.train.step import bind, compile_task
from lecture4.vision.layers import DENSE_MODEL_AXES, FullyConnected
from tests.train import toy

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 12)).astype(np.float32)


def run(task, data, model_parallel, n_devices=4, steps=3):
    mesh = device_mesh(jax.devices()[:n_devices], model_parallel)
    compiled = compile_task(bind(task, data, 0), mesh)
    state = compiled.init()
    for n in range(steps):
        state, metrics = compiled.run_steps(state, n, 1)
    return state, metrics


def dense():
    """The dense layers of VGG, at a small size, with momentum."""
    network = FullyConnected(3, 2, hidden_dim=8, dropout_rate=0.5)
    images, labels = X[:, :8].reshape(64, 2, 2, 2), np.arange(64, dtype=np.int32) % 3
    data = train.in_memory({'images': images, 'labels': labels}, 16, seed=0)

    def loss(outputs, batch):
        losses = optax.softmax_cross_entropy_with_integer_labels(outputs[0], batch['labels'])
        return losses.mean(), {}

    task = train.supervised(network, optax.sgd(0.1, momentum=0.9), loss)
    return task._replace(model_axes=DENSE_MODEL_AXES), data, 4  # fc6 and fc7, with their momenta


def dictionary():
    init, step = learners.make('online', 16, 0.1)
    task = train.from_learner(init, step, model_axes=learners.MODEL_AXES)
    return task, train.in_memory(X, 32, seed=0), 4  # atoms, A, B and usage


def layered():
    """Two layers of local receptive fields."""
    stages = (rica.Stage(3, 4), rica.Stage(3, 4))
    losses = rica.stage_losses(stages, (0.1, 0.1))

    def init(key, batch):
        return rica.init_layers(key, batch, stages, tied=False)

    task = train.phases(init, losses, optax.adam(1e-2), [2])
    images = RNG.normal(size=(32, 12, 12, 1)).astype(np.float32)
    # encoders and decoders of both layers, with both of Adam's means
    return task._replace(model_axes=rica.MODEL_AXES), train.in_memory(images, 8, seed=0), 12


@pytest.mark.cases(2)
@pytest.mark.parametrize('make', [dense, dictionary, layered])
def test_divided_parameters_give_the_same_numbers(make):
    task, data, n_divided = make()
    expected, expected_metrics = run(task, data, 1)
    state, metrics = run(task, data, 2)
    is_divided = [not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state)]
    assert sum(is_divided) >= n_divided
    for leaf, same, divided in zip(
        *map(jax.tree.leaves, (state, expected, is_divided)), strict=True
    ):
        np.testing.assert_allclose(np.asarray(leaf), np.asarray(same), rtol=1e-4, atol=1e-5)
        if divided:
            assert 2 * leaf.addressable_shards[0].data.size == leaf.size
    for name, value in metrics.items():
        np.testing.assert_allclose(value, expected_metrics[name], rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures('no_drawing')
def test_a_run_continues_on_another_number_of_devices(tmp_path):
    """From two devices that divide the dictionary to one that does not, with its report."""
    this = experiment.from_module(
        importlib.import_module('experiments.sparse_coding.natural_image_bases')
    )
    options = ['--preset', 'smoke', '--workdir', str(tmp_path), '--progress', 'none']
    divided = ['--devices', '2', '--model_parallel', '2', '--steps', '2']
    with jax.numpy_dtype_promotion('standard'), jax.numpy_rank_promotion('allow'):
        cli.run(this, cli.parse(this, options + divided))
        cli.run(this, cli.parse(this, [*options, '--devices', '1']))
    assert train.load(tmp_path).state.step == 4


def test_a_model_without_divided_arrays_is_refused():
    task = toy.build(toy.Config(), train.Spec((8,)))
    with pytest.raises(UsageError, match='no array of this model is divided'):
        run(task, toy.data(toy.Config()), 2)


def test_devices_that_do_not_divide_an_array_are_refused():
    init, step = learners.make('online', 15, 0.1)
    task = train.from_learner(init, step, model_axes=learners.MODEL_AXES)
    match = r'does not divide axis \d of params/\w+, which has 15 entries'
    with pytest.raises(UsageError, match=match):
        run(task, train.in_memory(X, 32, seed=0), 2)


def test_devices_that_are_not_a_multiple_are_refused():
    with pytest.raises(UsageError, match='--model_parallel 3 does not divide 4 devices; use 2'):
        device_mesh(jax.devices()[:4], 3)


def test_pmap_divides_no_parameters():
    task, data, _ = dictionary()
    with pytest.raises(UsageError, match='--model_parallel needs --parallel jit'):
        compile_task(bind(task, data, 0), device_mesh(jax.devices()[:4], 2), 'pmap')
