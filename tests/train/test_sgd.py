"""Momentum, schedules and averages against recursions written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lecture4.train import sgd


@pytest.mark.parametrize('convention', ['torch', 'caffe'])
def test_momentum_follows_its_recursion_when_the_rate_changes(convention):
    rates, gradients = [1.0, 1.0, 0.1, 0.1, 0.1], [1.0, -2.0, 0.5, 3.0, 1.0]
    rate_fn = lambda step: jnp.array(rates)[step]  # noqa: E731
    optimizer = sgd.momentum(rate_fn, 0.9, convention)

    def body(carry, g):
        w, memory = carry
        update, memory = optimizer.update(g, memory)
        w = optax.apply_updates(w, update)
        return (w, memory), w

    start = jnp.float32(2.0)
    _, found = jax.lax.scan(body, (start, optimizer.init(start)), jnp.array(gradients))
    w, v, expected = 2.0, 0.0, []
    for rate, g in zip(rates, gradients, strict=True):
        if convention == 'torch':
            v = 0.9 * v + g
            w = w - rate * v
        else:
            v = 0.9 * v + rate * g
            w = w - v
        expected.append(w)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_schedules():
    at = sgd.schedule('drops', 0.4, 100, drops=(0.5, 0.75))
    np.testing.assert_allclose(
        [at(n) for n in (0, 49, 50, 74, 75, 99)], [0.4, 0.4, 0.04, 0.04, 0.004, 0.004], rtol=1e-5
    )
    at = sgd.schedule('staircase', 1.0, 80, every=1 / 8, factor=0.96)
    np.testing.assert_allclose([at(n) for n in range(80)], 0.96 ** (np.arange(80) // 10), rtol=1e-5)
    at = sgd.schedule('polynomial', 2.0, 100, power=0.5)
    np.testing.assert_allclose([at(0), at(75), at(100)], [2.0, 1.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(sgd.schedule('drops', 0.3, 10)(9), 0.3)


def test_the_average_is_the_mean_of_all_since_it_began():
    values = np.random.default_rng(0).standard_normal((7, 3)).astype(np.float32)
    step = jax.jit(sgd.averaged)
    mean = {'w': jnp.zeros(3)}
    for n, value in enumerate(values):
        mean = step(mean, {'w': value}, n - 2)  # the first two only start it
    np.testing.assert_allclose(mean['w'], values[2:].mean(0), rtol=1e-5)


def test_mistakes():
    with pytest.raises(ValueError, match="convention 'nesterov'; 'torch' or 'caffe'"):
        sgd.momentum(0.1, 0.9, 'nesterov')
    with pytest.raises(ValueError, match="schedule 'cosine'; drops, staircase or polynomial"):
        sgd.schedule('cosine', 0.1, 10)
