"""From a Task and its Data to compiled programs: jit over a mesh, or pmap; one step or several."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lecture4.train.task import Data, PyTree, Task

AXIS = 'data'


class Program(NamedTuple):
    """A task with its data and its seed bound: what the loop runs, one variant or a stack of them.

    init        (key, resident, batch) -> state
    step        (state, resident, batch, key, n, *, axis_name=None) -> (state, metrics)
    evaluate    (state, evaluation) -> metrics, or None
    batch       n -> numpy pytree, whose axis `batch_axis` is the batch
    key         the run's key, or one key a variant
    """

    init: Callable[..., PyTree]
    step: Callable[..., tuple[PyTree, dict[str, jax.Array]]]
    evaluate: Callable[[PyTree, PyTree], dict[str, jax.Array]] | None
    batch: Callable[[int], PyTree]
    resident: PyTree
    evaluation: PyTree
    key: jax.Array
    batch_axis: int = 0


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
    return Program(init, step, task.evaluate, data.batch, data.resident, data.evaluation, key)


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
    The state is replicated either way, so a checkpoint of one restores into the other.
    """
    first = program.batch(0)
    check_divisible(jax.tree.leaves(first)[0].shape[program.batch_axis], mesh.size)
    replicated = NamedSharding(mesh, PartitionSpec())
    # axis 0 of the stacked batches counts the steps of one call
    batch_spec = PartitionSpec(*[None] * (program.batch_axis + 1), AXIS)
    resident = jax.device_put(program.resident, replicated)
    evaluation = jax.device_put(program.evaluation, replicated)
    key = jax.device_put(program.key, replicated)

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

    def place(n, n_steps):
        rows = [program.batch(i) for i in range(n, n + n_steps)]
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
        steps = np.arange(n, n + n_steps, dtype=np.int32)
        if parallel == 'pmap':  # the devices' shares are cut out where pmap is called
            return stacked, steps
        return (
            jax.device_put(stacked, NamedSharding(mesh, batch_spec)),
            jax.device_put(steps, replicated),
        )

    def call(state, n, n_steps):
        batches, steps = place(n, n_steps)
        return run(state, resident, batches, key, steps)

    init = jax.jit(program.init, out_shardings=replicated)
    shapes = jax.eval_shape(program.init, program.key, program.resident, first)
    evaluate = None
    if program.evaluate is not None:
        measured = jax.jit(program.evaluate, out_shardings=replicated)
        evaluate = lambda state: measured(state, evaluation)  # noqa: E731
    return Compiled(
        init=lambda: init(key, resident, first),
        advance=call,
        evaluate=evaluate,
        like=jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated), shapes
        ),
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
