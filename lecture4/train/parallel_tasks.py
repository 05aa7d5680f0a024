"""Several tasks trained in parallel, as one task."""

from collections.abc import Callable, Mapping

import jax

from lecture4.train.task import Metrics, PyTree, Task


def parallel(
    tasks: Mapping[str, Task],
    evaluate: Callable[[PyTree, PyTree], Metrics] | None = None,
    *,
    split_keys: bool = False,
) -> Task:
    """Several tasks trained in parallel on the same batches.

    Args:
      tasks: Name -> Task. If a batch is a dict with an entry of that name, the task's batch is this entry; otherwise
        it is the whole batch.
      evaluate: ({name: state}, evaluation) -> metrics; by default each task's own `evaluate`.
      split_keys: Whether each task gets different random keys; by default all get the same keys, so that
        variants of one model start from the same parameters and see the same noise.

    Returns:
      A Task whose state is {name: state}, its metrics `metric/name`.
    """

    def named_keys(key):
        keys = jax.random.split(key, len(tasks)) if split_keys else [key] * len(tasks)
        return dict(zip(tasks, keys, strict=True))

    def part(batch, name):
        return batch[name] if isinstance(batch, Mapping) and name in batch else batch

    def init(key, batch):
        keys = named_keys(key)
        return {name: task.init(keys[name], part(batch, name)) for name, task in tasks.items()}

    def step(state, batch, key, reduce):
        states, metrics, keys = {}, {}, named_keys(key)
        for name, task in tasks.items():
            states[name], values = task.step(state[name], part(batch, name), keys[name], reduce)
            metrics |= {f'{metric}/{name}': value for metric, value in values.items()}
        return states, metrics

    def evaluate_all(state, evaluation):
        metrics = {}
        for name, task in tasks.items():
            if task.evaluate is not None:
                values = task.evaluate(state[name], part(evaluation, name))
                metrics |= {f'{metric}/{name}': value for metric, value in values.items()}
        return metrics

    def start(state):
        return {
            name: state[name] if task.start is None else task.start(state[name])
            for name, task in tasks.items()
        }

    any_start = any(task.start is not None for task in tasks.values())
    return Task(init, step, evaluate or evaluate_all, start if any_start else None)
