"""Momentum against its recursion written out by hand; schedules at their boundaries."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lecture4.train import optimizers


@pytest.mark.parametrize('convention', ['torch', 'caffe'])
def test_momentum_recursion_when_the_learning_rate_changes(convention):
    rates, gradients = [1.0, 1.0, 0.1, 0.1, 0.1], [1.0, -2.0, 0.5, 3.0, 1.0]
    optimizer = optimizers.sgd(lambda step: jnp.array(rates)[step], 0.9, convention)

    def body(carry, g):
        w, opt_state = carry
        update, opt_state = optimizer.update(g, opt_state)
        w = optax.apply_updates(w, update)
        return (w, opt_state), w

    start = jnp.float32(2.0)
    _, result = jax.lax.scan(body, (start, optimizer.init(start)), jnp.array(gradients))
    w, v, expected = 2.0, 0.0, []
    for rate, g in zip(rates, gradients, strict=True):
        if convention == 'torch':
            v = 0.9 * v + g
            w = w - rate * v
        else:
            v = 0.9 * v + rate * g
            w = w - v
        expected.append(w)
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_schedule_drops_at_fractions_of_the_run():
    at = optimizers.piecewise_constant(0.4, 100, (0.5, 0.75))
    np.testing.assert_allclose(
        [at(n) for n in (0, 49, 50, 74, 75, 99)], [0.4, 0.4, 0.04, 0.04, 0.004, 0.004], rtol=1e-5
    )
    np.testing.assert_allclose(optimizers.piecewise_constant(0.3, 10, ())(9), 0.3)


def test_unknown_convention_is_refused():
    with pytest.raises(ValueError, match="expected 'torch' or 'caffe', got 'nesterov'"):
        optimizers.sgd(0.1, 0.9, 'nesterov')
