"""From a Task and its Data to compiled programs: jit over a mesh, or pmap; one step or several.

The batch is divided over the mesh's axis 'data'. With a second axis 'model' (`train.sharding`), arrays of the state are
divided over it where the task's `model_axes` name them; all others, and all results, are the same on every device.
"""

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lecture4.ops.reduce import Reduce
from lecture4.train import executable, gradients
from lecture4.train.config import UsageError
from lecture4.train.distributed import processes
from lecture4.train.sharding import AXIS, MODEL, state_shardings
from lecture4.train.task import Data, PyTree, Task

LOG = logging.getLogger(__name__)

# On CPUs XLA copies the parameters that the backward pass multiplies by, in every step of the loop, unless
# its copy insertion looks at where each value is last read; then donated parameters are updated in place.
CPU_OPTIONS = {'xla_cpu_copy_insertion_use_region_analysis': True}


class BoundTask(NamedTuple):
    """A task with its data and its seed, as the loop runs it: one variant or a stack of them.

    Attributes:
      init: (key, device_arrays, batch) -> state.
      step: (state, device_arrays, batch, key, n, reduce) -> (state, metrics).
      evaluate: (state, evaluation) -> metrics, or None.
      batch: n -> pytree of numpy arrays whose axis `batch_axis` is the batch axis.
      device_arrays: See `Data`.
      evaluation: See `Data`.
      key: The run's key, or one key per variant.
      batch_axis: Axis of the batch in what `batch` returns.
      local_batch: (n, start, stop) -> rows start .. stop - 1 of batch n, or None to slice them.
      start: state -> state, applied to a new state; or None.
      model_axes: See `Task`.
    """

    init: Callable[..., PyTree]
    step: Callable[..., tuple[PyTree, dict[str, jax.Array]]]
    evaluate: Callable[[PyTree, PyTree], dict[str, jax.Array]] | None
    batch: Callable[[int], PyTree]
    device_arrays: PyTree
    evaluation: PyTree
    key: jax.Array
    batch_axis: int = 0
    local_batch: Callable[[int, int, int], PyTree] | None = None
    start: Callable[[PyTree], PyTree] | None = None
    model_axes: Mapping[str, int] = {}


def bind(
    task: Task, data: Data, seed: Any, *, accumulate: int = 1, remat: bool = False
) -> BoundTask:
    """Tie a task to its data. All randomness comes from (seed, step): no key is carried.

    Args:
      task: The task.
      data: Its data.
      seed: Seed of the run, an integer.
      accumulate: See `gradients.Options`; for tasks of `optimize` and `supervised`, and those made of them.
      remat: See `gradients.Options`; for tasks of `supervised`.
    """

    def init(key, device_arrays, batch):
        prepare_key, init_key = jax.random.split(jax.random.fold_in(key, 0))
        return task.init(init_key, data.prepare(device_arrays, batch, prepare_key))

    def step(state, device_arrays, batch, key, n, reduce):
        prepare_key, step_key = jax.random.split(jax.random.fold_in(key, n + 1))
        # Each device prepares its own examples.
        batch = data.prepare(device_arrays, batch, reduce.fold_in(prepare_key))
        with gradients.computed(accumulate, remat):
            return task.step(state, batch, step_key, reduce)

    return BoundTask(
        init,
        step,
        task.evaluate,
        data.batch,
        data.device_arrays,
        data.evaluation,
        jax.random.key(seed),
        local_batch=data.local_batch,
        start=task.start,
        model_axes=task.model_axes,
    )


class Compiled(NamedTuple):
    """Compiled forms of a bound task.

    Attributes:
      init: () -> state.
      run_steps: (state, n, n_steps) -> (state, metrics): steps n .. n + n_steps - 1 in one call;
        metrics have a leading axis n_steps. The state passed in is donated.
      evaluate: (state) -> metrics, or None.
      abstract_state: The state's shapes and shardings, for restoring.
    """

    init: Callable[[], PyTree]
    run_steps: Callable[[PyTree, int, int], tuple[PyTree, dict[str, jax.Array]]]
    evaluate: Callable[[PyTree], dict[str, jax.Array]] | None
    abstract_state: PyTree


def check_divisible(batch_size: int, n_devices: int):
    """Raise a ValueError, with the two nearest sizes, if the devices do not divide the batch size."""
    if batch_size % n_devices:
        lower = batch_size // n_devices * n_devices
        nearest = f'{lower} or {lower + n_devices}' if lower else f'{n_devices}'
        raise ValueError(
            f'batch_size {batch_size} is not divisible by {n_devices} devices; use {nearest}'
        )


def compile_task(
    bound: BoundTask, mesh: Mesh, parallel: str = 'jit', load_compiled: str = ''
) -> Compiled:
    """Compile for the devices of a mesh with axis 'data' and perhaps axis 'model'.

    Checkpoints of one form or mesh restore into any other. Where the
    mesh spans several processes, each makes the rows of its own devices, and only jit works.

    Args:
      bound: What to compile.
      mesh: Devices.
      parallel: 'jit' shards the batch over the mesh and leaves the collectives to the compiler, and the padding of a
        batch that is not divisible by the devices, see `jit_steps`; 'pmap' runs the same step on each device's part
        and averages inside it, through `Reduce`.
      load_compiled: File of `train.executable`, loaded for calls of its number of steps in place of compiling.

    Raises:
      ValueError: The batch size is not divisible by the number of devices under pmap; an unknown `parallel`.
      UsageError: pmap with an axis 'model' or a compiled program; that program is another one; or as in
        `state_shardings`.
    """
    first = bound.batch(0)
    batch_size = num_examples(bound, first)
    if parallel == 'pmap':
        check_divisible(batch_size, mesh.size)
        if MODEL in mesh.shape or load_compiled:
            option = '--load_compiled' if load_compiled else '--model_parallel'
            raise UsageError(f'{option} needs --parallel jit')
    steps_loaded = executable.check(load_compiled, mesh) if load_compiled else 0
    state_shapes = abstract_state(bound, mesh, first)
    replicated = NamedSharding(mesh, PartitionSpec())
    device_arrays = replicate(bound.device_arrays, replicated)
    evaluation = replicate(bound.evaluation, replicated)
    key = replicate(bound.key, replicated)

    if parallel == 'jit':
        run = jit_steps(bound, mesh, state_shapes)
    elif parallel == 'pmap':
        run = _pmapped(steps_of(bound), mesh, bound.batch_axis + 1)
    else:
        raise ValueError(f"parallel: expected 'jit' or 'pmap', got {parallel!r}")

    several = any(device.process_index != jax.process_index() for device in mesh.devices.flat)
    sharding = batch_sharding(bound, mesh, batch_size)
    divided = batch_size % mesh.shape[AXIS] == 0

    def place(n, n_steps):
        steps = np.arange(n, n + n_steps, dtype=np.int32)
        if several and divided and bound.local_batch is not None:
            local = _local_rows(bound.local_batch, first, n, n_steps, sharding)
            return local, replicate(steps, replicated)
        rows = [bound.batch(i) for i in range(n, n + n_steps)]
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
        if parallel == 'pmap':  # the batch is divided among the devices where pmap is called
            return stacked, steps
        return replicate(stacked, sharding), replicate(steps, replicated)

    programs = {}

    def call(state, n, n_steps):
        batches, steps = place(n, n_steps)
        given = (state, device_arrays, batches, key, steps)
        is_loaded = n_steps == steps_loaded
        if not several and not is_loaded:
            return run(*given)
        if n_steps not in programs:
            lowered = run.lower(*given)  # pyright: ignore[reportFunctionMemberAccess]
            if is_loaded:
                programs[n_steps] = executable.load(load_compiled, lowered, mesh)
                LOG.info('loaded the compiled program of %s', load_compiled)
            else:
                programs[n_steps] = lowered.compile()
            if several:  # Gloo waits 30 s for a peer, and compile times differ by more
                processes.all_gather('compiled')
        return programs[n_steps](*given)

    shardings = jax.tree.map(lambda leaf: leaf.sharding, state_shapes)
    init = jax.jit(bound.init, out_shardings=shardings if MODEL in mesh.shape else replicated)

    def init_state():
        state = init(key, device_arrays, replicate(first, replicated))
        if bound.start is None:
            return state
        return jax.tree.map(replicate, bound.start(state), shardings)

    def evaluate_with(run):
        return lambda state: run(state, evaluation)

    evaluate = bound.evaluate and evaluate_with(jax.jit(bound.evaluate, out_shardings=replicated))
    return Compiled(init_state, call, evaluate, state_shapes)


def steps_of(bound: BoundTask) -> Callable[..., tuple[PyTree, dict[str, jax.Array]]]:
    """Several steps of a bound task as one function.

    Returns:
      (state, device_arrays, batches, key, steps, *, reduce) -> (state, metrics): a scan over the leading
      axis of `batches` and `steps`, the numbers of the steps.
    """

    def run_steps(state, device_arrays, batches, key, steps, *, reduce=Reduce()):
        def body(state, inputs):
            batch, n = inputs
            return bound.step(state, device_arrays, batch, key, n, reduce)

        return jax.lax.scan(body, state, (batches, steps))

    return run_steps


def jit_steps(bound: BoundTask, mesh: Mesh, state: PyTree = None):
    """`steps_of` a bound task under jit: the program of a run, which `train.compile` also compiles for absent devices.

    A batch that is not divisible by the number of devices arrives whole on each of them and is divided inside the
    program, where the compiler pads the parts to equal sizes and masks the padding: the results are those of the whole
    batch.

    Args:
      bound: What to compile.
      mesh: Devices.
      state: `abstract_state` of the task, for a mesh with axis 'model'; by default of batch 0.
    """
    out_shardings: Any = NamedSharding(mesh, PartitionSpec())
    if MODEL in mesh.shape:
        state = abstract_state(bound, mesh, bound.batch(0)) if state is None else state
        out_shardings = (jax.tree.map(lambda leaf: leaf.sharding, state), out_shardings)
    uneven = NamedSharding(mesh, _batch_spec(bound))
    run = steps_of(bound)

    def run_steps(state, device_arrays, batches, key, steps):
        def divide(leaf):
            if leaf.shape[bound.batch_axis + 1] % mesh.shape[AXIS] == 0:
                return leaf  # it is already divided
            return jax.lax.with_sharding_constraint(leaf, uneven)

        divided = jax.tree.map(divide, batches)
        return run(state, device_arrays, divided, key, steps, reduce=Reduce(mesh=mesh))

    return jax.jit(
        run_steps,
        donate_argnums=0,
        out_shardings=out_shardings,
        compiler_options=CPU_OPTIONS if mesh.devices.flat[0].platform == 'cpu' else None,
    )


def num_examples(bound: BoundTask, batch: PyTree) -> int:
    """Number of examples of a batch, which is the whole set where a step is one over all of it."""
    return jax.tree.leaves(batch)[0].shape[bound.batch_axis]


def batch_sharding(bound: BoundTask, mesh: Mesh, batch_size: int) -> NamedSharding:
    """Sharding of stacked batches [steps, ...] on arrival: divided among the devices, or whole on each."""
    divided = batch_size % mesh.shape[AXIS] == 0
    return NamedSharding(mesh, _batch_spec(bound) if divided else PartitionSpec())


def _batch_spec(bound: BoundTask) -> PartitionSpec:
    return PartitionSpec(*[None] * (bound.batch_axis + 1), AXIS)


def abstract_state(
    bound: BoundTask, mesh: Mesh, first: PyTree, *, is_replicated: bool = False
) -> PyTree:
    """Shapes and shardings of a bound task's state, for restoring.

    Args:
      bound: The task.
      mesh: Devices.
      first: Batch 0.
      is_replicated: Every device holds the whole state, also on a mesh with axis 'model'.
    """
    shapes = jax.eval_shape(bound.init, bound.key, bound.device_arrays, first)
    if is_replicated or MODEL not in mesh.shape:
        whole = NamedSharding(mesh, PartitionSpec())
        shardings = jax.tree.map(lambda leaf: whole, shapes)
    else:
        shardings = state_shardings(shapes, mesh, bound.model_axes)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        shardings,
    )


def replicate(tree: PyTree, sharding: NamedSharding) -> PyTree:
    """Arrays that every process holds whole, laid out over the devices of all processes."""
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def place(leaf):
        if jnp.issubdtype(getattr(leaf, 'dtype', np.float32), jax.dtypes.prng_key):
            bits = place(jax.random.key_data(leaf))
            wrap = functools.partial(jax.random.wrap_key_data, impl=jax.random.key_impl(leaf))
            return jax.jit(wrap, out_shardings=sharding)(bits)
        whole = np.asarray(leaf)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(place, tree)


def _local_rows(local_batch, first, n: int, n_steps: int, sharding: NamedSharding) -> PyTree:
    """Batches of the steps n ..; each process makes only the rows of its own devices."""
    leaf = jax.tree.leaves(first)[0]
    slices = sharding.addressable_devices_indices_map((n_steps, *leaf.shape)).values()
    spans = sorted({(index[1].start or 0, index[1].stop or len(leaf)) for index in slices if index})
    start, stop = spans[0][0], spans[-1][1]  # contiguous rows: a process's devices are adjacent
    rows = [local_batch(i, start, stop) for i in range(n, n + n_steps)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
    return jax.tree.map(
        lambda mine, whole: jax.make_array_from_process_local_data(
            sharding, mine, (n_steps, *whole.shape)
        ),
        stacked,
        first,
    )


def _pmapped(run_steps: Callable[..., Any], mesh: Mesh, axis: int):
    """`run_steps` under pmap: state, device arrays and key broadcast, the batch axis split."""

    def split(leaf):
        shape = leaf.shape
        return leaf.reshape(*shape[:axis], mesh.size, shape[axis] // mesh.size, *shape[axis + 1 :])

    mapped = jax.pmap(
        functools.partial(run_steps, reduce=Reduce(AXIS)),
        axis_name=AXIS,
        in_axes=(None, None, axis, None, None),
        out_axes=None,
        devices=list(mesh.devices.flat),
    )

    def run(state, device_arrays, batches, key, steps):
        return mapped(state, device_arrays, jax.tree.map(split, batches), key, jnp.asarray(steps))

    return run
