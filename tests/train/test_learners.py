"""Tasks made of losses, networks, learners and phases, against updates written out by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lecture4 import train
from lecture4.ops import onednn
from lecture4.ops.reduce import Reduce
from lecture4.train import gradients
from lecture4.train.config import UsageError
from lecture4.vision.models import googlenet, resnet, vgg

X = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
KEY = jax.random.key(0)


def init(key, batch):
    return {'w': jnp.ones(batch.shape[1])}


def loss(params, batch, key):
    del key
    return jnp.square(batch @ params['w'] - 1).mean(), {}


def gradient(w, x):
    return 2 * x.T @ (x @ w - 1) / len(x)


class Network(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.Dense(6)(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.5)(x)
        return nn.Dense(2)(nn.Dropout(0.5, deterministic=not train)(x))


def network_loss(outputs, batch):
    return jnp.square(outputs - batch['y']).mean(), {}


BATCH = {'x': X, 'y': X[:, :2] ** 2}


def run(task, steps=3, batch=X):
    state = task.init(KEY, batch)
    for n in range(steps):
        state, metrics = task.step(state, batch, jax.random.fold_in(KEY, n), Reduce())
    return state, metrics


@pytest.mark.parametrize('accumulate', [1, 2, 4])
def test_accumulated_gradients_are_those_of_the_whole_batch(accumulate):
    task = train.optimize(init, loss, optax.sgd(0.1))
    with gradients.computed(accumulate):
        state, metrics = run(task, 1)
    w = np.ones(4, np.float32)
    np.testing.assert_allclose(state.params['w'], w - 0.1 * gradient(w, X), rtol=1e-5)
    np.testing.assert_allclose(metrics['loss'], np.square(X @ w - 1).mean(), rtol=1e-5)
    assert int(state.step) == 1


def test_parts_that_do_not_divide_the_batch_are_refused():
    task = train.optimize(init, loss, optax.sgd(0.1))
    message = 'accumulate 3: expected a divisor of the 16 examples of a device'
    with gradients.computed(3), pytest.raises(UsageError, match=message):
        run(task, 1)


@pytest.mark.parametrize(
    'name', ['resnet', 'scanned', 'vgg_bn', pytest.param('googlenet', marks=pytest.mark.slow)]
)
def test_rematerialized_networks_take_the_same_steps(name):
    network = {
        'resnet': resnet.ResNet((2, 2), (4, 8), stem='cifar'),
        'scanned': resnet.ResNet((3, 2), (4, 8), stem='cifar', scan_blocks=True),
        'googlenet': googlenet.GoogLeNet(10, 'torchvision'),
        'vgg_bn': vgg.VGG('a', 10, batch_norm=True, features_only=True),
    }[name]
    images = {'images': jax.random.normal(KEY, (2, 32, 32, 3))}

    def network_loss(outputs, batch):
        return jnp.square(outputs[0]).mean(), {}

    task = train.supervised(network, optax.sgd(0.1), network_loss)
    state = jax.jit(task.init)(KEY, images)
    assert jax.tree.structure(state.params) == jax.tree.structure(
        jax.eval_shape(network.clone(remat=True).init, KEY, images['images'])['params']
    )
    states, convolutions = [], []
    for remat in (False, True):

        def step(state, batch, key, remat=remat):
            with gradients.computed(remat=remat):
                return task.step(state, batch, key, Reduce())

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(onednn, 'installed', lambda: False)  # its calls are not counted below
            run = jax.jit(step).lower(state, images, KEY)
        convolutions.append(run.as_text().count('stablehlo.convolution'))
        states.append(run.compile()(state, images, KEY)[0])
    assert convolutions[1] > convolutions[0]  # those of the backward pass
    for ours, theirs in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_steps_that_cannot_save_memory_are_refused():
    task = train.optimize(init, loss, optax.sgd(0.1))
    with (
        pytest.raises(UsageError, match='--remat: only image classifiers'),
        gradients.computed(remat=True),
    ):
        run(task, 1)
    learner = train.from_learner(lambda key, batch: 0, lambda *args, reduce: (0, {}))
    with pytest.raises(UsageError, match='--accumulate: this experiment'), gradients.computed(2):
        run(learner, 1)


def test_batch_statistics_follow_the_batches():
    task = train.supervised(Network(), optax.sgd(0.0), network_loss, inputs='x')
    state, _ = run(task, 1, BATCH)
    kernel = state.params['Dense_0']['kernel']
    mean = state.model_state['network']['batch_stats']['BatchNorm_0']['mean']
    np.testing.assert_allclose(mean, 0.5 * (X @ kernel).mean(0), rtol=1e-4, atol=1e-6)
    assert train.variables(state)['params'] is state.params


def test_polyak_average_is_the_mean_from_its_first_step_on():
    averaged = train.supervised(Network(), optax.sgd(0.1), network_loss, inputs='x', polyak_start=2)
    state, kernels = averaged.init(KEY, BATCH), []
    for n in range(6):
        state, _ = averaged.step(state, BATCH, jax.random.fold_in(KEY, n), Reduce())
        kernels.append(state.params['Dense_1']['kernel'])
    mean = train.variables(state)['params']['Dense_1']['kernel']
    np.testing.assert_allclose(mean, np.mean(kernels[2:], axis=0), rtol=1e-5)


def test_projection_holds_after_every_update():
    def project(params):
        return jax.tree.map(lambda leaf: jnp.clip(leaf, -0.01, 0.01), params)

    task = train.supervised(Network(), optax.sgd(0.1), network_loss, inputs='x', project=project)
    state, _ = run(task, 2, BATCH)
    assert max(float(abs(leaf).max()) for leaf in jax.tree.leaves(state.params)) <= 0.01


def test_training_starts_from_given_variables():
    network = Network()
    given = network.init(jax.random.key(7), X)
    task = train.supervised(
        network, optax.adam(0.1), network_loss, inputs='x', initial=given, polyak_start=0
    )
    assert task.start is not None
    state = task.start(task.init(KEY, BATCH))
    for tree in (train.variables(state), {'params': state.params, **state.model_state['network']}):
        for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(given), strict=True):
            np.testing.assert_array_equal(a, b)


def test_entries_none_of_given_variables_keep_the_initial_ones():
    network = Network()
    given = network.init(jax.random.key(7), X)
    kernels, tree = jax.tree.flatten(given)
    partial = jax.tree.unflatten(tree, [None, *kernels[1:]])
    task = train.supervised(network, optax.sgd(0.1), network_loss, inputs='x', initial=partial)
    assert task.start is not None
    state = task.init(KEY, BATCH)
    own = jax.tree.leaves(train.variables(state))
    result = jax.tree.leaves(train.variables(task.start(state)))
    for a, b in zip(result, [own[0], *kernels[1:]], strict=True):
        np.testing.assert_array_equal(a, b)


def test_recorded_metrics_are_those_of_every_step():
    task = train.record_metrics(train.optimize(init, loss, optax.sgd(0.01)), ('loss',), 3)
    state, expected = jax.jit(task.init)(KEY, X), []
    step = jax.jit(lambda state: task.step(state, X, KEY, Reduce()))
    for _ in range(3):
        state, metrics = step(state)
        expected.append(float(metrics['loss']))
    np.testing.assert_array_equal(state.history, [np.float32(expected)])
    assert len(set(expected)) == 3 and int(state.step) == int(state.state.step) == 3


def test_frozen_tasks_count_steps_and_nothing_else():
    task = train.frozen(train.optimize(init, loss, optax.sgd(0.01)))
    before = task.init(KEY, X)
    after, metrics = task.step(before, X, KEY, Reduce())
    assert int(after.step) == 1 and float(metrics['loss']) == 0
    jax.tree.map(np.testing.assert_array_equal, after.params, before.params)


def test_phases_follow_one_another_with_new_optimizer_states():
    def doubled(params, batch, key):
        value, metrics = loss(params, batch, key)
        return 2 * value, metrics

    optimizer = optax.sgd(0.01, momentum=0.9)
    task = train.phases(init, (loss, doubled), optimizer, (2,))
    state, _ = run(task, 4)
    w, v = np.ones(4), np.zeros(4)
    for n in range(4):
        if n == 2:
            v = np.zeros(4)
        v = 0.9 * v + (2 if n >= 2 else 1) * gradient(w, X)
        w = w - 0.01 * v
    np.testing.assert_allclose(state.params['w'], w, rtol=1e-4)


def test_phases_need_one_boundary_fewer_than_losses():
    with pytest.raises(ValueError, match='2 losses, 2 optimizers and 2 boundaries'):
        train.phases(init, (loss, loss), optax.sgd(0.1), (1, 2))


def test_tasks_in_parallel_are_the_tasks_alone():
    def task(rate):
        return train.optimize(
            init, loss, optax.adam(rate), lambda params, x: {'norm': params['w'][0]}
        )

    both = train.parallel({'slow': task(0.01), 'fast': task(0.1)})
    state, metrics = run(both)
    assert set(metrics) == {'loss/slow', 'loss/fast'} and both.evaluate is not None
    for name, rate in (('slow', 0.01), ('fast', 0.1)):
        alone, own = run(task(rate))
        np.testing.assert_array_equal(state[name].params['w'], alone.params['w'])
        np.testing.assert_array_equal(metrics[f'loss/{name}'], own['loss'])
    assert set(both.evaluate(state, X)) == {'norm/slow', 'norm/fast'}


def test_learner_keeps_its_own_state():
    def step(state, batch, key, *, reduce):
        return state + reduce.mean(batch.mean()), {'loss': state}

    task = train.from_learner(lambda key, batch: jnp.zeros(()), step, lambda s, x: {'loss': s})
    state, _ = run(task, 3)
    np.testing.assert_allclose(state.params, 3 * X.mean(), rtol=1e-5)
    assert int(state.step) == 3 and task.evaluate is not None
    np.testing.assert_allclose(task.evaluate(state, X)['loss'], state.params)


def test_parallel_tasks_have_keys_of_their_own_on_request():
    def init_random(key, batch):
        return {'w': jax.random.normal(key, (3,))}

    task = train.optimize(
        init_random, lambda params, batch, key: (params['w'].sum(), {}), optax.sgd(0.1)
    )
    tasks = {'a': task, 'b': task}
    same = train.parallel(tasks).init(KEY, X)
    own = train.parallel(tasks, split_keys=True).init(KEY, X)
    np.testing.assert_array_equal(same['a'].params['w'], same['b'].params['w'])
    assert (own['a'].params['w'] != own['b'].params['w']).all()
    alone = task.init(jax.random.split(KEY, 2)[1], X)
    np.testing.assert_array_equal(own['b'].params['w'], alone.params['w'])


def test_sources_have_batches_of_their_own():
    sources = {'x': np.arange(10), 'pairs': {'a': np.arange(6), 'b': 10 * np.arange(6)}}
    data = train.sources_in_memory(sources, 4, seed=3)
    batch = data.prepare(data.device_arrays, data.batch(0), KEY)
    assert batch['x'].shape == (4,) and set(batch['pairs']) == {'a', 'b'}
    np.testing.assert_array_equal(batch['pairs']['b'], 10 * batch['pairs']['a'])
    alone = train.in_memory(np.arange(6), 4, seed=4)
    np.testing.assert_array_equal(batch['pairs']['a'], alone.batch(0))


def test_functions_of_parameters_become_functions_of_a_state():
    functions = train.on_params({'double': lambda params, x: params * x, 'add': lambda p, x: p + x})
    state = train.State(jnp.int32(0), 3.0)
    assert functions['double'](state, 2.0) == 6 and functions['add'](state, 2.0) == 5


def test_batches_in_memory_are_augmented_with_the_key():
    x = np.arange(6, dtype=np.float32)[:, None]
    data = train.in_memory(x, 3, seed=0, augment=lambda key, x: x + jax.random.uniform(key))
    rows, key = data.batch(0), jax.random.key(1)
    batch = data.prepare(data.device_arrays, rows, key)
    np.testing.assert_allclose(batch, x[rows] + jax.random.uniform(key))


@pytest.mark.parametrize(
    ('returned', 'match'),
    [
        (jnp.float32(1), r'the loss returned an array of shape \(\); expected \(loss, metrics\)'),
        ((jnp.ones(3), {}), r'a loss of shape \(3,\) and a dict'),
        ((jnp.float32(1), jnp.float32(2)), r'a loss of shape \(\) and a \w+; expected'),
    ],
)
def test_a_loss_without_metrics_is_explained(returned, match):
    task = train.optimize(lambda key, batch: jnp.ones(2), lambda p, b, k: returned, optax.sgd(0.1))
    state = task.init(jax.random.key(0), jnp.ones(2))
    with pytest.raises(TypeError, match=match):
        task.step(state, jnp.ones(2), jax.random.key(0), Reduce())


def test_stacked_variants_train_as_they_would_alone():
    rates = (0.05, 0.2)

    def with_rates(state):
        state.opt_state.hyperparams['learning_rate'] = jnp.array(rates)
        return state

    task = train.optimize(init, loss, optax.inject_hyperparams(optax.sgd)(1.0))
    state, metrics = run(train.stacked(task, ('slow', 'fast'), vary=with_rates))
    for i, (name, rate) in enumerate(zip(('slow', 'fast'), rates, strict=True)):
        alone, own = run(train.optimize(init, loss, optax.sgd(rate)))
        np.testing.assert_allclose(state.params['w'][i], alone.params['w'], rtol=1e-5)
        np.testing.assert_allclose(metrics[f'loss/{name}'], own['loss'], rtol=1e-5)


def test_stacked_variants_get_batches_of_their_own():
    batches = np.stack([X, 2 * X], axis=1)
    task = train.stacked(train.optimize(init, loss, optax.sgd(0.1)), ('a', 'b'), split_batch=True)
    state, _ = run(task, 2, batches)
    for i in range(2):
        alone, _ = run(train.optimize(init, loss, optax.sgd(0.1)), 2, batches[:, i])
        np.testing.assert_allclose(state.params['w'][i], alone.params['w'], rtol=1e-5)


def test_equal_names_of_stacked_variants_are_refused():
    with pytest.raises(ValueError, match='all different'):
        train.stacked(train.optimize(init, loss, optax.sgd(0.1)), ('a', 'a'))


def test_subsets_have_epochs_of_their_own():
    cases, subsets = train.random_subsets(16, (4, 8), num_trials=2, seed=0)
    assert cases == [(4, 0), (4, 1), (8, 0), (8, 1)]
    assert set(subsets[0]) < set(subsets[2]) and len(set(subsets[3])) == 8
    data = train.subsets_in_memory(X, subsets, 4, seed=0)
    rows = np.concatenate([data.batch(n) for n in range(2)])
    assert rows.shape == (8, 4)
    for i, own in enumerate(subsets):
        assert set(rows[:, i]) == set(own)
    batch = data.prepare(data.device_arrays, data.batch(0), KEY)
    np.testing.assert_array_equal(batch[2, 1], X[data.batch(0)[2, 1]])
    with pytest.raises(ValueError, match='at most 16'):
        train.random_subsets(16, (17,), 1, 0)
