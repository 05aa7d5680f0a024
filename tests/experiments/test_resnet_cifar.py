"""The recipe of section 4.2: rates by the step and by the training error, parts of the test set, mistakes told."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.convnets import resnet_cifar as job


@pytest.fixture
def rates(monkeypatch):
    """A function from shares of right answers, one a step, to the learning rates of these steps."""

    def run(config, shares):
        seen = iter(shares)
        monkeypatch.setattr(
            job.train_step,
            'train_step',
            lambda net, opt, v, m, *rest: (
                v,
                m,
                {'loss': jnp.zeros(()), 'accuracy': jnp.float32(next(seen))},
            ),
        )
        task, deep = job.build(config), config.depth >= config.warm_up_depth
        state = job.State({}, (), jnp.ones(()), jnp.bool(deep), jnp.int32(0))
        found, batch = [], {'classes': np.zeros(10)}
        for _ in shares:
            state, metrics = task.step(state, batch, jax.random.key(0))
            found.append(float(metrics['rate']))
        return found

    return run


def test_the_rate_is_divided_at_half_and_at_three_quarters(rates):
    found = rates(job.Config(steps=8), [0.5] * 8)
    np.testing.assert_allclose(found, [0.1] * 4 + [0.01] * 2 + [0.001] * 2, rtol=1e-5)
    assert job.Config().steps // 2 == 32_000 and job.Config().steps * 3 // 4 == 48_000


def test_deep_networks_warm_up_until_the_error_is_below_80_percent(rates):
    shares = [0.1] * 3 + [0.5] * 40 + [0.0] * 3
    found = rates(job.Config(depth=110), shares)
    assert rates(job.Config(depth=56), shares[:5]) == pytest.approx([0.1] * 5)
    error, below = 0.9, None
    for n, share in enumerate(shares):
        error += (1 if n == 0 else 0.01) * (1 - share - error)
        below = n if below is None and error < 0.8 else below
    assert below is not None and 3 < below < 43
    np.testing.assert_allclose(found[: below + 1], 0.01, rtol=1e-5)
    np.testing.assert_allclose(found[below + 1 :], 0.1, rtol=1e-5)  # for good, whatever comes


def test_the_test_set_in_parts_counts_every_picture_once(monkeypatch):
    monkeypatch.setattr(job, 'TESTED', 4)
    parts = job.in_parts(np.arange(10.0).reshape(10, 1), np.arange(10))
    assert parts['x'].shape == (3, 4, 1)
    there = parts['labels'].ravel() >= 0
    np.testing.assert_array_equal(parts['x'].ravel()[there], np.arange(10))
    # Right are the even ones.
    answer = lambda config, state, x, scale: jax.nn.one_hot(x[:, 0].astype(int) // 2 * 2, 10)  # noqa: E731
    monkeypatch.setattr(job, 'probabilities', answer)
    found = job.build(job.Config()).evaluate(None, parts | {'scale': None})
    assert float(found['error']) == 50


def test_impossible_settings_are_told():
    for wrong, told in (
        ({'depth': 21}, '6 n'),
        ({'held_out': 1.0}, 'below 1'),
        ({'padding': -1}, 'at least 0'),
    ):
        with pytest.raises(ValueError, match=told):
            job.Config(**wrong)
