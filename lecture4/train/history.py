"""Measurements of the states of a run during training, as arrays: for animations and curves of a report."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lecture4.ops.reduce import Reduce
from lecture4.train.task import Metrics, PyTree, Task


class Recorded(NamedTuple):
    """The state of a task with a history.

    Attributes:
      step: Number of steps taken, int32.
      state: The task's own state.
      history: Pytree of arrays [num, ...]; entry i is measured at step i * (steps // num), entry 0 before the first
        step. Zeros for steps not yet reached.
    """

    step: jax.Array
    state: PyTree
    history: PyTree


def record(task: Task, measure: Callable[[PyTree], PyTree], *, steps: int, num: int) -> Task:
    """A task whose state also holds `measure` of its state at `num` equally spaced steps of the run.

    The history is a part of the state: it is saved and resumed with it, and measured inside the compiled step.

    Args:
      task: Any task.
      measure: The task's state -> pytree of arrays of fixed shapes.
      steps: Number of steps of the whole run.
      num: Number of entries; at most `steps` of them are filled.

    Returns:
      A Task over `Recorded`.

    Raises:
      ValueError: `steps` or `num` below 1.
    """
    if steps < 1 or num < 1:
        raise ValueError(f'expected steps {steps} and num {num} of at least 1')
    every = max(steps // num, 1)

    def init(key, batch):
        state = task.init(key, batch)
        shapes = jax.eval_shape(measure, state)
        history = jax.tree.map(lambda leaf: jnp.zeros((num, *leaf.shape), leaf.dtype), shapes)
        return Recorded(jnp.int32(0), state, history)

    def step(
        recorded: Recorded, batch: PyTree, key: jax.Array, reduce: Reduce
    ) -> tuple[Recorded, Metrics]:
        n, state, history = recorded

        def write(history):
            return jax.tree.map(
                lambda kept, new: kept.at[n // every].set(new, mode='drop'), history, measure(state)
            )

        history = jax.lax.cond(n % every == 0, write, lambda history: history, history)
        state, metrics = task.step(state, batch, key, reduce)
        return Recorded(n + 1, state, history), metrics

    return _over_states(task, init, step)


def entries(recorded: Recorded, steps: int) -> list[tuple[int, PyTree]]:
    """The filled entries of `record`'s history with the number of steps before each, as NumPy arrays.

    Args:
      recorded: The state after the run.
      steps: Steps of the whole run.
    """
    num = len(jax.tree.leaves(recorded.history)[0])
    taken = range(0, steps, max(steps // num, 1))[:num]
    history = jax.tree.map(np.asarray, recorded.history)
    return [(n, jax.tree.map(lambda a, i=i: a[i], history)) for i, n in enumerate(taken)]


def record_metrics(task: Task, keys: Sequence[str], steps: int) -> Task:
    """A task whose state also holds some of its metrics at every step.

    Args:
      task: Any task.
      keys: Names of the metrics to record.
      steps: Steps of the whole run.

    Returns:
      A Task over `Recorded`, whose history is [keys, steps].
    """

    def init(key, batch):
        return Recorded(jnp.int32(0), task.init(key, batch), jnp.zeros((len(keys), steps)))

    def step(
        recorded: Recorded, batch: PyTree, key: jax.Array, reduce: Reduce
    ) -> tuple[Recorded, Metrics]:
        n, state, history = recorded
        state, metrics = task.step(state, batch, key, reduce)
        history = history.at[:, n].set(jnp.stack([metrics[name] for name in keys]))
        return Recorded(n + 1, state, history), metrics

    return _over_states(task, init, step)


def _over_states(task: Task, init, step) -> Task:
    """The Task of `init` and `step` over `Recorded`, with the task's own `evaluate` and `start`."""

    def evaluate(recorded: Recorded, evaluation: PyTree) -> Metrics:
        assert task.evaluate is not None
        return task.evaluate(recorded.state, evaluation)

    def start(recorded: Recorded) -> Recorded:
        assert task.start is not None
        return recorded._replace(state=task.start(recorded.state))

    return Task(
        init,
        step,
        None if task.evaluate is None else evaluate,
        None if task.start is None else start,
    )
