"""Training in phases, against Adam by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lecture4 import train
from lecture4.ops.reduce import Reduce


def quadratic(i):
    """A loss that pulls parameter i, and no other, towards the batch."""

    def loss(params, batch, key):
        del key
        return (params[i] - batch) ** 2 / 2, {}

    return loss


def both(params, batch, key):
    return quadratic(0)(params, batch, key)[0] + params[1] ** 2 / 2, {}


def schedule(count):
    return 0.1 / (1 + count)


def test_each_phase_has_its_loss_rate_and_new_moments():
    """Three phases, of two, two and two steps."""
    rates = (optax.constant_schedule(0.1), optax.constant_schedule(0.1), schedule)
    task = train.phases(
        lambda key, batch: (jnp.float32(1.0), jnp.float32(2.0)),
        [quadratic(0), quadratic(1), both],
        [optax.adam(rate) for rate in rates],
        boundaries=(2, 4),
    )
    state = task.init(jax.random.key(0), jnp.float32(0.0))
    step = jax.jit(task.step, static_argnums=3)
    expected = [1.0, 2.0]
    for phase, count in itertools.product(range(3), range(2)):
        batch = jnp.float32(0.5 * count)
        if count == 0:
            m, v = np.zeros(2), np.zeros(2)
        g = np.zeros(2)
        if phase in (0, 1):
            g[phase] = expected[phase] - float(batch)
        else:
            g[:] = expected[0] - float(batch), expected[1]
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        update = m / (1 - 0.9 ** (count + 1)) / (np.sqrt(v / (1 - 0.999 ** (count + 1))) + 1e-8)
        rate = 0.1 if phase < 2 else 0.1 / (1 + count)
        expected = [p - rate * u for p, u in zip(expected, update, strict=True)]
        state, metrics = step(state, batch, jax.random.key(0), Reduce())
        np.testing.assert_allclose(state.params, expected, rtol=1e-5)
    assert np.isfinite(metrics['loss']) and int(state.step) == 6


def test_boundaries_that_do_not_fit_the_losses_are_refused():
    with pytest.raises(ValueError, match='2 losses, 2 optimizers and 0 boundaries'):
        train.phases(lambda key, batch: None, [both, both], optax.adam(0.1), boundaries=())
