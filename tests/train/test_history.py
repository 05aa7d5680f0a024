"""A history is measured at equal distances, before the step, and changes nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lecture4 import train
from lecture4.ops.reduce import Reduce


def line():
    """Gradient descent on x: x = -n after n steps."""
    return train.optimize(
        lambda key, batch: jnp.float32(0),
        lambda x, batch, key: (x, {}),
        optax.sgd(1.0),
        lambda x, evaluation: {'x': x + evaluation},
    )


@pytest.mark.parametrize(
    ('steps', 'num', 'expected'),
    [(6, 3, [0, -2, -4]), (7, 3, [0, -2, -4]), (2, 4, [0, -1, 0, 0])],
)
def test_history_holds_equally_spaced_states(steps, num, expected):
    task = train.record(line(), lambda state: {'x': state.params}, steps=steps, num=num)
    key = jax.random.key(0)
    state = task.init(key, None)
    step = jax.jit(lambda state: task.step(state, None, key, Reduce()))
    for _ in range(steps):
        state, metrics = step(state)
    np.testing.assert_array_equal(state.history['x'], expected)
    assert state.step == steps and state.state.params == -steps and set(metrics) == {'loss'}
    assert train.evaluate(task, state, 0.5) == {'x': 0.5 - steps} and task.start is None


def test_an_empty_history_is_refused():
    with pytest.raises(ValueError, match='num 0 of at least 1'):
        train.record(line(), lambda state: state, steps=3, num=0)
