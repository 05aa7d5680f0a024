"""The recipe of section 4.2: learning rates by the step and by the training error, every test image counted once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.convnets import resnet_cifar as job
from lecture4 import train
from lecture4.ops.reduce import Reduce

SPEC = train.Spec((8, 8, 3), tuple('0123456789'), {'normalization': None})


@pytest.fixture
def rates(monkeypatch):
    """A function from accuracies, one per step, to the learning rates of these steps."""

    def run(config, accuracies):
        values = iter(accuracies)

        def supervised(network, optimizer, loss):
            del network, loss

            def init(key, batch):
                params = {'w': jnp.zeros(2)}
                return train.State(jnp.int32(0), params, optimizer.init(params), {'network': {}})

            def step(state, batch, key, reduce):
                metrics = {'loss': jnp.zeros(()), 'accuracy': jnp.float32(next(values))}
                return state._replace(step=state.step + 1), metrics

            return train.Task(init, step)

        monkeypatch.setattr(job.train, 'supervised', supervised)
        task = job.build(config, SPEC)
        state, result = task.init(jax.random.key(0), None), []
        with jax.numpy_dtype_promotion('standard'):
            for _ in accuracies:
                state, metrics = task.step(state, None, jax.random.key(0), Reduce())
                result.append(float(metrics['learning_rate']))
        return result

    return run


def test_learning_rate_drops_at_half_and_three_quarters(rates):
    result = rates(job.Config(steps=8), [0.5] * 8)
    np.testing.assert_allclose(result, [0.1] * 4 + [0.01] * 2 + [0.001] * 2, rtol=1e-5)
    assert job.Config().steps // 2 == 32_000 and job.Config().steps * 3 // 4 == 48_000


def test_deep_networks_warm_up_until_the_error_is_below_80_percent(rates):
    accuracies = [0.1] * 3 + [0.5] * 40 + [0.0] * 3
    result = rates(job.Config(depth=110), accuracies)
    assert rates(job.Config(depth=56), accuracies[:5]) == pytest.approx([0.1] * 5)
    error, below = 0.9, None
    for n, accuracy in enumerate(accuracies):
        error += (1 if n == 0 else 0.01) * (1 - accuracy - error)
        below = n if below is None and error < 0.8 else below
    assert below is not None and 3 < below < 43
    np.testing.assert_allclose(result[: below + 1], 0.01, rtol=1e-5)
    np.testing.assert_allclose(result[below + 1 :], 0.1, rtol=1e-5)  # for good, whatever follows


@pytest.fixture(scope='module')
def smoke():
    """Config, data and initial state of the smoke preset."""
    config = job.Config(**job.PRESETS['smoke'])
    data, key = job.data(config), jax.random.key(0)
    task = job.build(config, data.spec)
    batch = data.prepare(data.device_arrays, data.batch(0), key)
    return config, data, jax.jit(task.init)(key, batch)


def test_predict_takes_images_as_they_are_stored(smoke):
    config, data, state = smoke
    images = data.report_data.test_images[:5]
    with jax.numpy_dtype_promotion('standard'):
        probs = jax.jit(job.apply(config, data.spec)['predict'])(state, images)
    assert probs.shape == (5, 10)
    np.testing.assert_allclose(probs.sum(1), 1, rtol=1e-5)


def test_every_test_image_counts_once(monkeypatch):
    def predict(config, spec, state, x):  # correct on even numbers
        return jax.nn.one_hot(x[:, 0].astype(int) // 2 * 2, 10)

    monkeypatch.setattr(job, 'predict', predict)
    arrays = {'images': np.arange(10.0).reshape(10, 1), 'labels': np.arange(10)}
    chunks = job.batches.chunks(arrays, 4)
    assert chunks['images'].shape == (3, 4, 1)
    np.testing.assert_array_equal(chunks['images'][chunks['mask']].ravel(), np.arange(10))
    task = job.build(job.Config(depth=8), SPEC)
    assert task.evaluate is not None
    assert float(task.evaluate(None, chunks)['test_error']) == 0.5


@pytest.mark.parametrize(
    'fields, message',
    [({'depth': 21}, '6 n'), ({'held_out': 1.0}, 'below 1'), ({'padding': -1}, 'at least 0')],
)
def test_values_outside_their_domains_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        job.Config(**fields)
