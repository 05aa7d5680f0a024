"""One step, compiled three ways, gives one set of numbers."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lecture4 import train
from lecture4.ops.reduce import Reduce
from lecture4.train.step import bind, check_divisible, compile_task, jit_steps
from tests.train import toy

CONFIG = toy.Config(batch_size=16)


def mesh(n):
    return Mesh(np.array(jax.devices()[:n]), ('data',))


def program(config=CONFIG, optimizer=None):
    task = toy.build(config, train.Spec((8,)))
    if optimizer is not None:
        init, loss = _parts(config)
        task = train.optimize(init, loss, optimizer)
    return bind(task, toy.data(config), config.seed)


def _parts(config):
    def init(key, batch):
        return jax.random.normal(key, (8, config.hidden))

    def loss(params, batch, key):
        del key
        return jnp.square(batch @ params @ params.T - batch).sum(1).mean(), {}

    return init, loss


def gradient(n_devices, parallel):
    """The gradient itself: what one step of plain SGD with rate 1 subtracts."""
    compiled = compile_task(program(optimizer=optax.sgd(1.0)), mesh(n_devices), parallel)
    before = np.asarray(compiled.init().params)
    state, _ = compiled.run_steps(compiled.init(), 0, 1)
    return before - np.asarray(state.params)


def exact_gradient():
    init, loss = _parts(CONFIG)
    bound = program(optimizer=optax.sgd(1.0))
    params = init(jax.random.split(jax.random.fold_in(bound.key, 0))[1], None)
    batch = jnp.asarray(bound.device_arrays)[bound.batch(0)['rows']]
    return np.asarray(jax.grad(lambda p: loss(p, batch, None)[0])(params))


@pytest.mark.parametrize('parallel', ['jit', 'pmap'])
@pytest.mark.parametrize('n_devices', [1, 4])
def test_gradients_are_equal_however_compiled(n_devices, parallel):
    # Under pmap a pmean on the loss inside the gradient leaves each device its own gradient, and
    # a psum would multiply it by the number of devices: Adam hides both, so compare gradients.
    expected = exact_gradient()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(
        gradient(n_devices, parallel) / scale, expected / scale, rtol=0, atol=1e-6
    )


@pytest.mark.parametrize('parallel', ['jit', 'pmap'])
def test_shard_map_traps_stay_where_they_are(parallel):
    """The two idioms, each wrong in the other's place: why `Task.step` takes a Reduce."""
    x = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    w = jnp.ones(3)
    true = 2 * x.T @ (x @ np.ones(3, np.float32)) / 8

    def on_loss(w, x):
        return jax.grad(lambda w: jax.lax.pmean(jnp.square(x @ w).mean(), 'data'))(w)

    def on_gradient(w, x):
        return jax.lax.pmean(jax.grad(lambda w: jnp.square(x @ w).mean())(w), 'data')

    if parallel == 'pmap':

        def run(f):
            mapped = jax.pmap(f, 'data', in_axes=(None, 0), devices=jax.devices()[:4])
            return mapped(w, x.reshape(4, 2, 3))[0]

        correct, wrong = run(on_gradient), run(on_loss)
    else:
        p = jax.sharding.PartitionSpec

        def run(f):
            mapped = jax.shard_map(f, mesh=mesh(4), in_specs=(p(), p('data')), out_specs=p())
            return jax.jit(mapped)(w, x)

        correct, wrong = run(on_loss), run(on_gradient)
    np.testing.assert_allclose(correct, true, rtol=1e-5)
    assert np.abs(np.asarray(wrong) - true).max() > 0.1 * np.abs(true).max()


def test_training_is_equal_however_compiled():
    ends = []
    for n_devices, parallel in ((1, 'jit'), (4, 'jit'), (4, 'pmap')):
        compiled = compile_task(program(), mesh(n_devices), parallel)
        state = compiled.init()
        for n in range(0, 20, 5):
            state, metrics = compiled.run_steps(state, n, 5)
        ends.append((np.asarray(state.params), np.asarray(metrics['loss'])))
    for params, loss in ends[1:]:
        np.testing.assert_allclose(params, ends[0][0], atol=1e-5)
        np.testing.assert_allclose(loss, ends[0][1], rtol=1e-5)


def test_a_batch_divided_unevenly_is_the_same_batch():
    """16 examples on 3 devices, which hold 6, 6 and 4 of them; and on more devices than examples."""
    for n_devices, batch_size, largest_part in ((3, 16, 6), (4, 2, 1)):
        bound = program(dataclasses.replace(CONFIG, batch_size=batch_size))
        ends = []
        for n in (1, n_devices):
            compiled = compile_task(bound, mesh(n))
            state, metrics = compiled.run_steps(compiled.init(), 0, 5)
            ends.append((np.asarray(state.params), np.asarray(metrics['loss'])))
        np.testing.assert_allclose(ends[1][0], ends[0][0], atol=1e-5)
        np.testing.assert_allclose(ends[1][1], ends[0][1], rtol=1e-5)

        steps = np.zeros(1, np.int32)
        batch = jax.tree.map(lambda leaf: leaf[None], bound.batch(0))
        given = (state, bound.device_arrays, batch, bound.key, steps)
        given = jax.device_put(given, NamedSharding(mesh(n_devices), PartitionSpec()))
        text = jit_steps(bound, mesh(n_devices)).lower(*given).compile().as_text()
        shapes = set(re.findall(r'f32\[(\d+),8\]', text))
        assert str(largest_part) in shapes and str(batch_size) not in shapes


def test_several_steps_a_call_are_the_same_steps():
    compiled = compile_task(program(dataclasses.replace(CONFIG, noise=0.3)), mesh(1))
    one, many = compiled.init(), compiled.init()
    for n in range(6):
        one, _ = compiled.run_steps(one, n, 1)
    many, metrics = compiled.run_steps(many, 0, 6)
    assert metrics['loss'].shape == (6,)
    np.testing.assert_allclose(one.params, many.params, atol=1e-6)


def test_on_a_cpu_parameters_are_updated_in_place():
    """The decoder's weights, which the backward pass multiplies by, would be copied in every step."""

    def init(key, batch):
        encoder, decoder = jax.random.split(key)
        return jax.random.normal(encoder, (8, 5)), jax.random.normal(decoder, (5, 8))

    def loss(params, batch, key):
        encoder, decoder = params
        return jnp.square(jnp.tanh(batch @ encoder) @ decoder - batch).sum(1).mean(), {}

    task = train.optimize(init, loss, optax.adam(1e-3))
    bound = bind(task, toy.data(CONFIG), CONFIG.seed)
    steps = np.arange(2, dtype=np.int32)
    batches = jax.tree.map(lambda *leaves: np.stack(leaves), bound.batch(0), bound.batch(1))
    state = jax.eval_shape(bound.init, bound.key, bound.device_arrays, bound.batch(0))
    lowered = jit_steps(bound, mesh(1)).lower(state, bound.device_arrays, batches, bound.key, steps)
    text = lowered.compile().as_text()
    assert re.search(r' = f32\[5,8\]', text)
    assert not re.search(r' = f32\[5,8\]\S* copy\(', text)


def test_devices_draw_their_own_noise_under_pmap():
    """Were all devices to use one key, the noise of their parts would repeat."""
    drawn = {}

    def init(key, batch):
        return jnp.zeros(())

    def loss(params, batch, key):
        noise = jax.random.normal(key, (batch.shape[0],))
        return params * 0, {'mean': noise.mean()}

    for n_devices in (1, 4):
        task = train.optimize(init, loss, optax.sgd(1.0))
        bound = bind(task, toy.data(CONFIG), 0)
        compiled = compile_task(bound, mesh(n_devices), 'pmap')
        _, metrics = compiled.run_steps(compiled.init(), 0, 64)
        drawn[n_devices] = np.std(np.asarray(metrics['mean']))
    # 16 numbers either way: 4 devices with one key between them would have 4 and twice the standard deviation
    assert drawn[4] < 1.5 * drawn[1]


def test_no_recompilation_from_call_to_call():
    traces = []
    bound = program()

    def step(*args, **kwargs):
        traces.append(1)
        return bound.step(*args, **kwargs)

    compiled = compile_task(bound._replace(step=step), mesh(1))
    state = compiled.init()
    for n in range(5):
        state, _ = compiled.run_steps(state, n, 1)
    assert len(traces) == 1


def test_a_batch_that_the_devices_do_not_divide():
    with pytest.raises(ValueError, match='130 is not divisible by 4 devices; use 128 or 132'):
        check_divisible(130, 4)
    with pytest.raises(ValueError, match='use 4'):
        check_divisible(3, 4)


def test_the_initialization_and_every_step_have_keys_of_their_own():
    """Also the keys that prepare batches: no noise is used twice."""
    data = train.Data(lambda n: None, prepare=lambda arrays, batch, key: jax.random.key_data(key))

    def init(key, prepared):
        return jax.random.key_data(key), prepared

    def step(state, prepared, key, reduce):
        return state, {'own': jax.random.key_data(key), 'prepared': prepared}

    bound = bind(train.Task(init, step), data, 0)
    keys = [*bound.init(bound.key, (), None)]
    for n in range(4):
        keys += bound.step((), (), None, bound.key, n, Reduce())[1].values()
    assert len({tuple(np.asarray(key).tolist()) for key in keys}) == 2 + 2 * 4
