"""From a Task and its Data to compiled programs: jit over a mesh, or pmap; one step or several."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lecture4.train.distributed import processes
from lecture4.train.task import Data, PyTree, Task

AXIS = 'data'


class Program(NamedTuple):
    """A task with its data and its seed bound: what the loop runs, one variant or a stack of them.

    init        (key, resident, batch) -> state
    step        (state, resident, batch, key, n, *, axis_name=None) -> (state, metrics)
    evaluate    (state, evaluation) -> metrics, or None
    batch       n -> numpy pytree, whose axis `batch_axis` is the batch
    key         the run's key, or one key a variant
    part        (n, start, stop) -> rows start .. stop - 1 of batch n, or None to cut them out
    """

    init: Callable[..., PyTree]
    step: Callable[..., tuple[PyTree, dict[str, jax.Array]]]
    evaluate: Callable[[PyTree, PyTree], dict[str, jax.Array]] | None
    batch: Callable[[int], PyTree]
    resident: PyTree
    evaluation: PyTree
    key: jax.Array
    batch_axis: int = 0
    part: Callable[[int, int, int], PyTree] | None = None


def bind(task: Task, data: Data, seed) -> Program:
    """Tie a task to its data. All randomness comes from (seed, step): nothing is carried."""

    def init(key, resident, batch):
        prepare_key, init_key = jax.random.split(jax.random.fold_in(key, 0))
        return task.init(init_key, data.prepare(resident, batch, prepare_key))

    def step(state, resident, batch, key, n, *, axis_name=None):
        prepare_key, step_key = jax.random.split(jax.random.fold_in(key, n + 1))
        if axis_name is not None:  # each device prepares its own examples
            prepare_key = jax.random.fold_in(prepare_key, jax.lax.axis_index(axis_name))
        batch = data.prepare(resident, batch, prepare_key)
        return task.step(state, batch, step_key, axis_name=axis_name)

    key = jax.random.key(seed)
    return Program(
        init,
        step,
        task.evaluate,
        data.batch,
        data.resident,
        data.evaluation,
        key,
        part=data.part,
    )


class Compiled(NamedTuple):
    """Compiled forms of a program.

    init      () -> state
    advance   (state, n, n_steps) -> (state, metrics): steps n .. n + n_steps - 1 in one call;
              metrics have a leading axis n_steps. The state passed in is donated.
    evaluate  (state) -> metrics, or None
    like      the state's shapes and shardings, for restoring
    """

    init: Callable[[], PyTree]
    advance: Callable[[PyTree, int, int], tuple[PyTree, dict[str, jax.Array]]]
    evaluate: Callable[[PyTree], dict[str, jax.Array]] | None
    like: PyTree


def check_divisible(batch_size: int, n_devices: int):
    """ValueError where the devices do not divide the batch, with the two nearest sizes that do."""
    if batch_size % n_devices:
        lower = batch_size // n_devices * n_devices
        nearest = f'{lower} or {lower + n_devices}' if lower else f'{n_devices}'
        raise ValueError(
            f'batch_size {batch_size} is not divisible by {n_devices} devices; use {nearest}'
        )


def compile_program(program: Program, mesh: Mesh, parallel: str = 'jit') -> Compiled:
    """Compile for the devices of a one-dimensional mesh with axis 'data'.

    parallel='jit' shards the batch over the mesh and leaves the collectives to the compiler;
    'pmap' runs the same step on each device's share and averages inside it, through `axis_name`.
    The state is replicated either way, so a checkpoint of one restores into the other. Where the
    mesh spans several processes, each makes the rows of its own devices, and jit it has to be.
    """
    first = program.batch(0)
    check_divisible(jax.tree.leaves(first)[0].shape[program.batch_axis], mesh.size)
    replicated = NamedSharding(mesh, PartitionSpec())
    # axis 0 of the stacked batches counts the steps of one call
    batch_spec = PartitionSpec(*[None] * (program.batch_axis + 1), AXIS)
    resident = spread(program.resident, replicated)
    evaluation = spread(program.evaluation, replicated)
    key = spread(program.key, replicated)

    def advance(state, resident, batches, key, steps, *, axis_name=None):
        def body(state, inputs):
            batch, n = inputs
            return program.step(state, resident, batch, key, n, axis_name=axis_name)

        return jax.lax.scan(body, state, (batches, steps))

    if parallel == 'jit':
        run = jax.jit(advance, donate_argnums=0, out_shardings=replicated)
    elif parallel == 'pmap':
        run = _pmapped(advance, mesh, program.batch_axis + 1)
    else:
        raise ValueError(f"parallel is 'jit' or 'pmap', not {parallel!r}")

    several = any(device.process_index != jax.process_index() for device in mesh.devices.flat)
    sharding = NamedSharding(mesh, batch_spec)

    def place(n, n_steps):
        steps = np.arange(n, n + n_steps, dtype=np.int32)
        if several and program.part is not None:
            return _own_rows(program.part, first, n, n_steps, sharding), spread(steps, replicated)
        rows = [program.batch(i) for i in range(n, n + n_steps)]
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
        if parallel == 'pmap':  # the devices' shares are cut out where pmap is called
            return stacked, steps
        return spread(stacked, sharding), spread(steps, replicated)

    programs = {}

    def call(state, n, n_steps):
        batches, steps = place(n, n_steps)
        given = (state, resident, batches, key, steps)
        if not several:
            return run(*given)
        if n_steps not in programs:
            # Gloo waits 30 s for a peer, and processes may compile for longer apart: all meet first.
            programs[n_steps] = run.lower(*given).compile()  # pyright: ignore[reportFunctionMemberAccess]
            processes.all_gather('compiled')
        return programs[n_steps](*given)

    init = jax.jit(program.init, out_shardings=replicated)
    evaluate = None
    if program.evaluate is not None:
        measured = jax.jit(program.evaluate, out_shardings=replicated)
        evaluate = lambda state: measured(state, evaluation)  # noqa: E731
    return Compiled(
        init=lambda: init(key, resident, spread(first, replicated)),
        advance=call,
        evaluate=evaluate,
        like=like(program, mesh, first),
    )


def like(program: Program, mesh: Mesh, first: PyTree) -> PyTree:
    """Shapes and shardings of a program's state, for restoring; `first` is batch 0."""
    shapes = jax.eval_shape(program.init, program.key, program.resident, first)
    replicated = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated), shapes
    )


def spread(tree: PyTree, sharding: NamedSharding) -> PyTree:
    """Arrays that every process holds whole, laid out over the devices of all processes."""
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def place(leaf):
        if jnp.issubdtype(getattr(leaf, 'dtype', np.float32), jax.dtypes.prng_key):
            data = place(jax.random.key_data(leaf))
            wrap = lambda bits: jax.random.wrap_key_data(bits, impl=jax.random.key_impl(leaf))  # noqa: E731
            return jax.jit(wrap, out_shardings=sharding)(data)
        whole = np.asarray(leaf)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(place, tree)


def _own_rows(part, first, n: int, n_steps: int, sharding: NamedSharding) -> PyTree:
    """Steps n .. of the batch, each process making no rows but its own devices'."""
    leaf = jax.tree.leaves(first)[0]
    own = sharding.addressable_devices_indices_map((n_steps, *leaf.shape)).values()
    spans = sorted({(index[1].start or 0, index[1].stop or len(leaf)) for index in own if index})
    start, stop = spans[0][0], spans[-1][1]  # one run of rows: a process's devices are neighbours
    rows = [part(i, start, stop) for i in range(n, n + n_steps)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
    return jax.tree.map(
        lambda mine, whole: jax.make_array_from_process_local_data(
            sharding, mine, (n_steps, *whole.shape)
        ),
        stacked,
        first,
    )


def _pmapped(advance: Callable[..., Any], mesh: Mesh, axis: int):
    """`advance` under pmap: state, resident arrays and key broadcast, the batch axis split."""

    def split(leaf):
        shape = leaf.shape
        return leaf.reshape(*shape[:axis], mesh.size, shape[axis] // mesh.size, *shape[axis + 1 :])

    mapped = jax.pmap(
        functools.partial(advance, axis_name=AXIS),
        axis_name=AXIS,
        in_axes=(None, None, axis, None, None),
        out_axes=None,
        devices=list(mesh.devices.flat),
    )

    def run(state, resident, batches, key, steps):
        return mapped(state, resident, jax.tree.map(split, batches), key, jnp.asarray(steps))

    return run
