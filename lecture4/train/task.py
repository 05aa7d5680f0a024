"""What an experiment passes to the loop: a Task (pure functions), its Data (pure batches), its Spec."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lecture4.data import batches
from lecture4.ops.reduce import Reduce

PyTree = Any
Metrics = dict[str, jax.Array]


class Task(NamedTuple):
    """The computation of an experiment; everything that iterates has this form.

    Attributes:
      init: (key, batch) -> state, a pytree of arrays.
      step: (state, batch, key, reduce) -> (state, metrics), metrics a dict of scalars. `reduce` combines gradients,
        metrics and other statistics over devices: under jit it does nothing, since a mean over the batch is already a
          mean over all devices; under pmap `reduce.mean` averages gradients, never the loss inside the gradient,
          which would leave
        each device its own gradient.
      evaluate: (state, evaluation) -> metrics, or None.
      start: state -> state, applied once to a new state outside any compiled program; for
        parameters that come from a file. None leaves the state as initialized.
      model_axes: {pattern: axis}: arrays of the state whose path ('params/fc6/kernel', 'opt_state/0/mu/fc6/kernel')
        matches the regular expression are divided along the axis by `--model_parallel`; the first match decides. A
        negative axis counts from the last.
    """

    init: Callable[[jax.Array, PyTree], PyTree]
    step: Callable[[PyTree, PyTree, jax.Array, Reduce], tuple[PyTree, Metrics]]
    evaluate: Callable[[PyTree, PyTree], Metrics] | None = None
    start: Callable[[PyTree], PyTree] | None = None
    model_axes: Mapping[str, int] = {}


@dataclasses.dataclass(frozen=True)
class Spec:
    """What a model has to know about the data before it is initialized.

    Attributes:
      shape: Shape of one example as input of the model.
      class_names: Names of the classes, if there are any.
      constants: Arrays and other values that are determined by the data and used by the model: a whitening, channel
        means, a vocabulary, initial parameters.
    """

    shape: tuple[int, ...] = ()
    class_names: tuple[str, ...] = ()
    constants: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)


def frozen(task: Task) -> Task:
    """The task with steps that do not train: for a network that is only evaluated and reported.

    Args:
      task: A Task over `State`; its loss is recorded as 0.
    """

    def step(
        state: PyTree, batch: PyTree, key: jax.Array, reduce: Reduce
    ) -> tuple[PyTree, Metrics]:
        del batch, key, reduce
        return state._replace(step=state.step + 1), {'loss': jnp.zeros(())}

    return task._replace(step=step)


def use_batch(device_arrays: PyTree, batch: PyTree, key: jax.Array) -> PyTree:
    """The batch unchanged: the `prepare` of data that needs no preparation."""
    del device_arrays, key
    return batch


@dataclasses.dataclass(frozen=True)
class Data:
    """The batches of an experiment; batch n is a pure function of (seed, n).

    Attributes:
      batch: n -> pytree of numpy arrays with a leading batch axis, made on the host.
      device_arrays: Pytree of arrays that every device keeps for the whole run.
      prepare: (device_arrays, batch, key) -> the batch that `Task.step` receives, called inside the compiled step: a
        gather from the device arrays, an augmentation.
      evaluation: Pytree that `Task.evaluate` receives.
      spec: What the model has to know about the data.
      report_data: Further data for the experiment's report: labeled sets, images to show.
      local_batch: (n, start, stop) -> rows start .. stop - 1 of batch n, for batches that are
        expensive to make: each process then makes only its own rows. With None the whole batch is made and sliced.
      rows: Pytree of arrays [n, ...] on the host that `--stage encode` encodes; None takes the
        device arrays.
    """

    batch: Callable[[int], PyTree]
    device_arrays: PyTree = ()
    prepare: Callable[[PyTree, PyTree, jax.Array], PyTree] = use_batch
    evaluation: PyTree = None
    spec: Spec = Spec()
    report_data: Any = None
    local_batch: Callable[[int, int, int], PyTree] | None = None
    rows: PyTree = None


def gather(device_arrays: PyTree, rows: PyTree, key: jax.Array) -> PyTree:
    """The batch's rows of every device array: the `prepare` of data sets that fit on the device."""
    del key
    return jax.tree.map(lambda array: array[rows], device_arrays)


def gather_each(device_arrays: PyTree, rows: Any, key: jax.Array) -> dict[str, PyTree]:
    """A batch for each of several tasks, see `parallel`: `gather` of the rows under each name."""
    return {name: gather(device_arrays, indices, key) for name, indices in rows.items()}


def in_memory(
    arrays: PyTree,
    batch_size: int,
    *,
    seed: int,
    evaluation: PyTree = None,
    spec: Spec | None = None,
    report_data: Any = None,
    augment: Callable[[jax.Array, PyTree], PyTree] | None = None,
) -> Data:
    """Data whose arrays lie on the device; only row numbers travel at each step.

    Args:
      arrays: Pytree of arrays [n, ...] with the same n.
      batch_size: Rows per batch.
      seed: Seed of the order of the rows.
      evaluation: See `Data`.
      spec: See `Data`; by default the shape of one row, where `arrays` is one array.
      report_data: See `Data`.
      augment: (key, batch) -> batch, applied to every batch inside the compiled step: noise, a random binarization.
        None leaves batches unchanged.

    Raises:
      ValueError: The lengths differ.
    """
    lengths = {len(leaf) for leaf in jax.tree.leaves(arrays)}
    if len(lengths) != 1:
        raise ValueError(f'the arrays of one data set have different lengths: {sorted(lengths)}')
    (n_examples,) = lengths
    if spec is None:
        leaves = jax.tree.leaves(arrays)
        spec = Spec(shape=leaves[0].shape[1:]) if len(leaves) == 1 else Spec()

    def augmented(device_arrays: PyTree, rows: PyTree, key: jax.Array) -> PyTree:
        assert augment is not None
        return augment(key, gather(device_arrays, rows, key))

    return Data(
        batch=lambda n: batches.indices(seed, n, n_examples, batch_size),
        device_arrays=jax.tree.map(np.asarray, arrays),
        prepare=augmented if augment else gather,
        evaluation=evaluation,
        spec=spec,
        report_data=report_data,
    )


def sources_in_memory(
    sources: Mapping[str, PyTree],
    batch_size: int,
    *,
    seed: int,
    spec: Spec | None = None,
    report_data: Any = None,
) -> Data:
    """Several sources, each with separate batches, for tasks that are trained in parallel (`parallel`).

    Args:
      sources: Name -> pytree of arrays [n, ...]; n may differ between sources.
      batch_size: Rows per batch of every source.
      seed: Seed of the order of the rows of the first source; the next ones have seed + 1, ...
      spec: See `Data`.
      report_data: See `Data`.

    Returns:
      Data whose batches are {name: pytree of rows}.
    """
    lengths = {name: len(jax.tree.leaves(arrays)[0]) for name, arrays in sources.items()}

    def batch(n):
        return {
            name: batches.indices(seed + i, n, length, batch_size)
            for i, (name, length) in enumerate(lengths.items())
        }

    def prepare(arrays, rows, key):
        return {name: gather(arrays[name], rows[name], key) for name in arrays}

    return Data(
        batch=batch,
        device_arrays=jax.tree.map(np.asarray, dict(sources)),
        prepare=prepare,
        spec=Spec() if spec is None else spec,
        report_data=report_data,
    )


def full_batch(
    arrays: PyTree, *, evaluation: PyTree = None, spec: Spec | None = None, report_data: Any = None
) -> Data:
    """Data whose batches are all the whole set, in its order: for L-BFGS and batch statistics.

    Args:
      arrays: Pytree of arrays [n, ...] with the same n.
      evaluation: See `Data`.
      spec: See `Data`; by default the shape of one row, where `arrays` is one array.
      report_data: See `Data`.
    """
    n_examples = len(jax.tree.leaves(arrays)[0])
    rows = np.arange(n_examples, dtype=np.int32)
    data = in_memory(
        arrays, n_examples, seed=0, evaluation=evaluation, spec=spec, report_data=report_data
    )
    return dataclasses.replace(data, batch=lambda n: rows)


def evaluate(task: Task, state: PyTree, evaluation: PyTree) -> dict[str, float]:
    """The metrics of `task.evaluate` as plain numbers; empty if the task has no `evaluate`."""
    if task.evaluate is None:
        return {}
    return {name: float(v) for name, v in jax.jit(task.evaluate)(state, evaluation).items()}


def on_params(functions: Mapping[str, Callable[..., Any]]) -> dict[str, Callable]:
    """The functions that `apply` returns, made from functions of parameters: {name: (state, *x) -> outputs}.

    Args:
      functions: Name -> (params, *x) -> outputs.
    """

    def of_state(function):
        return lambda state, *x: function(state.params, *x)

    return {name: of_state(function) for name, function in functions.items()}
