"""The small network's experiment: what each network is trained on, and what is measured of it."""

import jax
import numpy as np
import pytest

from experiments.convnets import small_network as job
from lecture4.train import cli
from lecture4.train.config import UsageError
from lecture4.train.experiment import Experiment

EXPERIMENT = Experiment(job.Config, job.data, job.build, job.report, job.PRESETS, job.SWEEPS)


@pytest.fixture(scope='module')
def made():
    config = job.Config(
        steps=3, batch_size=20, channels=(2,), margin=1, shift=1, rare=0.05, tested=9
    )
    return config, job.data(config)


def test_the_unbalanced_set_has_few_of_the_second_half_and_balanced_batches_make_up_for_it(made):
    _, data = made
    drawn = {name: [] for name in data.batch(0)}
    for n in range(60):
        for name, rows in data.batch(n).items():
            drawn[name].append(data.resident['labels'][rows])
    counts = {name: np.bincount(np.concatenate(v), minlength=10) for name, v in drawn.items()}
    assert counts['all'].min() > 90  # of 120
    assert counts['unbalanced'][:5].min() > 200 and counts['unbalanced'][5:].max() < 20
    assert np.ptp(counts['balanced']) < 10  # an epoch or less
    labels = data.resident['labels']
    seen = {
        int(row)
        for n in range(60)
        for name in ('unbalanced', 'balanced')
        for row in data.batch(n)[name]
    }
    kept = np.bincount(labels[sorted(seen)], minlength=10)
    whole = np.bincount(labels, minlength=10)
    assert (kept[:5] > 0.7 * whole[:5]).all() and (kept[5:] == np.round(0.05 * whole[5:])).all()


def test_thinned_keeps_a_share_of_each_rare_class_and_at_least_one():
    labels = np.repeat([0, 1, 2, 3], [40, 30, 40, 7])
    found = np.bincount(labels[job.thinned(labels, 4, 0.1, 0)], minlength=4)
    np.testing.assert_array_equal(found, [40, 30, 4, 1])


@pytest.mark.parametrize('wrong', [False, True])
def test_the_network_by_hand_learns_as_the_other_and_by_its_own_rules(made, wrong, monkeypatch):
    config, data = made
    if wrong:
        right = job.small_network.gradients_by_hand
        spoiled = lambda *given: jax.tree.map(lambda leaf: 1.01 * leaf, right(*given))  # noqa: E731
        monkeypatch.setattr(job.small_network, 'gradients_by_hand', spoiled)
    task, key = job.build(config), jax.random.key(0)
    batch = [data.prepare(data.resident, data.batch(n), key) for n in range(3)]
    state = task.init(key, batch[0])
    step = jax.jit(task.step)
    for n in range(3):
        state, metrics = step(state, batch[n], key)
    np.testing.assert_allclose(state.curves[0, 2], metrics['loss_max'])
    by_jax, by_hand = (
        jax.tree.leaves(state.networks['max']),
        jax.tree.leaves(state.networks['by_hand']),
    )
    same = [np.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(by_jax, by_hand, strict=True)]
    assert all(same) != wrong
    assert np.allclose(state.curves[0], state.curves[1], rtol=1e-5) != wrong
    others = [metrics[f'loss_{name}'] for name in ('none', 'subsample', 'mean', 'max', 'balanced')]
    assert len({float(value) for value in others}) == 5


def test_shifts_of_features_that_a_shift_leaves_alone_and_of_pixels():
    rng = np.random.default_rng(0)
    x = np.pad(rng.random((6, 3, 3, 1)).astype(np.float32), ((0, 0), (2, 2), (2, 2), (0, 0)))
    labels = np.arange(6) % 2
    largest = lambda x: (x.reshape(6, -1).argmax(1) % 2, x.max((1, 2)))  # noqa: E731
    moved, right = job.shifts(largest, x, labels, 2)
    np.testing.assert_allclose(moved, 0, atol=1e-7)
    assert right.shape == (3,) and right[0] == np.mean(largest(x)[0] == labels)
    moved, _ = job.shifts(lambda x: (x[:, 0, 0, 0], x), x, labels, 2)
    assert moved[0] == 0 and 0 < moved[1] < moved[2]


@pytest.mark.parametrize(
    'argv, told',
    [
        (['--shift', '4'], '--shift is 4; it has to be between 0 and --margin, which is 3'),
        (['--channels', '0'], '--channels is .* one number or more, each at least 1'),
        (['--rare', '0'], '--rare is 0.0; it has to be above 0'),
        (
            ['--kernel', '15'],
            'network none: conv1: a window of 15 does not fit axis 0 of .* 14 x 14',
        ),
        (
            ['--channels', '4', '4', '4', '4'],
            'network subsample: conv3: a window of 3 does not fit axis 0 of the input 2 x 2',
        ),
        (['--source', 'photos'], "photos has no split 'test'"),
    ],
)
def test_mistakes_are_one_line(argv, told, tmp_path):
    with pytest.raises(UsageError, match=told):
        config = cli.parse(EXPERIMENT, ['--workdir', str(tmp_path / 'run'), *argv])
        cli.run(EXPERIMENT, config)
    assert not (tmp_path / 'run').exists()
