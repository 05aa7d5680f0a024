"""The small network's experiment: what each network is trained on, and what is measured of it."""

import jax
import numpy as np
import pytest

from experiments.convnets import small_network as job
from lecture4.data import batches
from lecture4.ops.reduce import Reduce
from lecture4.train import cli
from lecture4.train.config import UsageError
from lecture4.train.experiment import from_module

EXPERIMENT = from_module(job)


@pytest.fixture(scope='module')
def made():
    fields = {'steps': 3, 'batch_size': 20, 'num_filters': (2,), 'margin': 1, 'num_eval': 9}
    config = job.Config(max_translation=1, minority_fraction=0.05, **fields)
    return config, job.data(config)


def test_imbalanced_set_has_few_rare_examples_balanced_batches_as_many(made):
    _, data = made
    labels = data.device_arrays[1]
    drawn = {name: [] for name in ('max', 'imbalanced', 'balanced')}
    for n in range(60):
        for name, own in drawn.items():
            own.append(labels[data.batch(n)[name]])
    counts = {name: np.bincount(np.concatenate(v), minlength=10) for name, v in drawn.items()}
    assert counts['max'].min() > 90  # of 120
    assert counts['imbalanced'][:5].min() > 200 and counts['imbalanced'][5:].max() < 20
    assert np.ptp(counts['balanced']) < 10  # an epoch or less


def test_minority_classes_keep_a_fraction_and_at_least_one():
    labels = np.repeat([0, 1, 2, 3], [40, 30, 40, 7])
    rows = batches.subsample_minority(labels, 0.1, 0)
    np.testing.assert_array_equal(np.bincount(labels[rows], minlength=4), [40, 30, 4, 1])


@pytest.mark.parametrize('wrong', [False, True])
def test_manual_backprop_trains_the_same_network_by_its_own_rules(made, wrong, monkeypatch):
    config, data = made
    if wrong:
        correct = job.cnn.manual_value_and_grad

        def scaled(*given):
            value, grads = correct(*given)
            return value, jax.tree.map(lambda leaf: 1.01 * leaf, grads)

        monkeypatch.setattr(job.cnn, 'manual_value_and_grad', scaled)
    task, key = job.build(config, data.spec), jax.random.key(0)
    batch = [data.prepare(data.device_arrays, data.batch(n), key) for n in range(3)]
    state, metrics = task.init(key, batch[0]), {}
    step = jax.jit(lambda state, batch: task.step(state, batch, key, Reduce()))
    for n in range(3):
        state, metrics = step(state, batch[n])
    np.testing.assert_allclose(state.history[0, 2], metrics['loss/max'])
    curves = np.asarray(state.history)
    assert np.allclose(curves[0], curves[1], rtol=1e-5) != wrong
    others = [metrics[f'loss/{name}'] for name in ('none', 'subsample', 'mean', 'max', 'balanced')]
    assert len({float(value) for value in others}) == 5


def test_predict_gives_a_class_for_each_image(made):
    config, data = made
    task, key = job.build(config, data.spec), jax.random.key(0)
    state = task.init(key, data.prepare(data.device_arrays, data.batch(0), key))
    predicted = job.apply(config, data.spec)['predict'](state, data.evaluation[0])
    assert predicted.shape == (9,) and set(np.asarray(predicted)) <= set(range(10))


@pytest.mark.parametrize(
    'argv, message',
    [
        (['--max_translation', '4'], '--max_translation is 4; expected at most --margin 3'),
        (['--num_filters', '0'], r'--num_filters \(entry 1\) is 0; it has to be at least 1'),
        (['--minority_fraction', '0'], '--minority_fraction is 0.0; it has to be above 0'),
        (
            ['--kernel_size', '15'],
            'network none: conv1: a window of 15 does not fit axis 0 of .* 14 x 14',
        ),
        (
            ['--num_filters', '4', '4', '4', '4'],
            'network subsample: conv3: a window of 3 does not fit axis 0 of the input 2 x 2',
        ),
        (['--source', 'photos'], 'photos has no labels'),
    ],
)
def test_mistakes_are_one_line(argv, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        config = cli.parse(EXPERIMENT, ['--workdir', str(tmp_path / 'run'), *argv])
        cli.run(EXPERIMENT, config)
    assert not (tmp_path / 'run').exists()
