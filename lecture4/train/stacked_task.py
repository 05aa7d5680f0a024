"""Variants of one task in one state, compiled once: other random starts, training sets, learning rates."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from lecture4.data import batches
from lecture4.ops.reduce import Reduce
from lecture4.train.task import Data, Metrics, PyTree, Spec, Task, gather


def stacked(
    task: Task,
    names: Sequence[str],
    *,
    vary: Callable[[PyTree], PyTree] | None = None,
    split_keys: bool = False,
    split_batch: bool = False,
) -> Task:
    """Variants of a task that take turns within each step: the task's program is compiled once.

    `parallel` compiles one program per task. Here the variants have equal programs, and differ in their states, random
    keys or batches.

    Args:
      task: The task.
      names: One name for each variant.
      vary: State with a leading axis [len(names)] -> the same with other values, called once on the initial state: the
        learning rates of `optax.inject_hyperparams`, for example.
      split_keys: Whether each variant gets different random keys, for initialization too.
      split_batch: Whether the second axis of every array of a batch, [b, len(names), ...], is that of the variants;
        otherwise all get the whole batch.

    Returns:
      A Task whose state is the task's with a leading axis, its metrics `metric/name`. It has no `evaluate`.

    Raises:
      ValueError: There is no name, or two are equal.
    """
    n = len(names)
    if not n or len(set(names)) < n:
        raise ValueError(f'got the names {list(names)}; expected at least one, all different')

    def keys_of(key):
        return jax.random.split(key, n) if split_keys else jnp.broadcast_to(key, (n,))

    def init(key: jax.Array, batch: PyTree) -> PyTree:
        own = jax.tree.map(lambda leaf: leaf[:, 0], batch) if split_batch else batch
        states = jax.lax.map(lambda each: task.init(each, own), keys_of(key))
        return states if vary is None else vary(states)

    def step(
        state: PyTree, batch: PyTree, key: jax.Array, reduce: Reduce
    ) -> tuple[PyTree, Metrics]:
        parts = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), batch) if split_batch else None

        def one(variant):
            own_state, own_key, part = variant
            return task.step(own_state, part if split_batch else batch, own_key, reduce)

        state, metrics = jax.lax.map(one, (state, keys_of(key), parts))
        named = {
            f'{metric}/{name}': values[i]
            for metric, values in metrics.items()
            for i, name in enumerate(names)
        }
        return state, named

    return Task(init, step)


def subsets_in_memory(
    arrays: PyTree,
    subsets: Sequence[Int[np.ndarray, '_']],
    batch_size: int,
    *,
    seed: int,
    evaluation: PyTree = None,
    spec: Spec | None = None,
    report_data: Any = None,
) -> Data:
    """Batches [b, len(subsets), ...] whose columns are from one subset of the data each, for `stacked`.

    Each subset has its own epochs, see `batches.indices`.

    Args:
      arrays: Pytree of arrays [n, ...] with the same n; they lie on the device once.
      subsets: Rows of the arrays that each variant is trained on.
      batch_size: Rows per batch of every variant.
      seed: Seed of the order of the rows of the first subset; the next ones have seed + 1, ...
      evaluation: See `Data`.
      spec: See `Data`.
      report_data: See `Data`.
    """

    def batch(n):
        columns = [
            rows[batches.indices(seed + i, n, len(rows), batch_size)]
            for i, rows in enumerate(subsets)
        ]
        return np.stack(columns, axis=1).astype(np.int32)

    return Data(
        batch,
        device_arrays=jax.tree.map(np.asarray, arrays),
        prepare=gather,
        evaluation=evaluation,
        spec=Spec() if spec is None else spec,
        report_data=report_data,
    )


def random_subsets(
    num_rows: int, sizes: Sequence[int], num_trials: int, seed: int
) -> tuple[list[tuple[int, int]], list[Int[np.ndarray, '_']]]:
    """Random subsets of several sizes; those of one trial are nested.

    Args:
      num_rows: Number of rows to choose from.
      sizes: Numbers of rows of the subsets.
      num_trials: Number of subsets of each size.
      seed: Seed of the choice.

    Returns:
      ((size, trial) of each subset, its rows), sizes in ascending order.

    Raises:
      ValueError: A size is larger than `num_rows`.
    """
    if max(sizes) > num_rows:
        raise ValueError(f'expected at most {num_rows} training images, got {max(sizes)}')
    cases = [(n, trial) for n in sorted(set(sizes)) for trial in range(num_trials)]
    orders = [np.random.default_rng((seed, t)).permutation(num_rows) for t in range(num_trials)]
    return cases, [orders[trial][:n] for n, trial in cases]
