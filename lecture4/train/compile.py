"""Compiles an experiment's programs for accelerators that are not attached: TPU slices and NVIDIA nodes.

The compilers are the real ones: libtpu's (`pip install libtpu`) and XLA's for CUDA (`pip install 'jax[cuda12]'`).
Their figures for memory, collectives and arithmetic hold for the program that a job would run, which is made by the
same functions (`train.step.jit_steps`); nothing is executed, so that no time here is a measurement.
"""

import dataclasses
import math
import re
import time
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lecture4.train import encode, executable, program_cost
from lecture4.train.config import Config, UsageError
from lecture4.train.experiment import Experiment, build_bound
from lecture4.train.sharding import device_mesh
from lecture4.train.step import (
    AXIS,
    BoundTask,
    abstract_state,
    batch_sharding,
    jit_steps,
    num_examples,
)
from lecture4.train.task import Data, PyTree
from lecture4.train.topology import Target

LARGE = 0.01  # of the memory of a chip


class DoesNotFit(UsageError):
    """A program needs more memory than a chip has."""


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program and its cost; bytes are per chip, flops over all chips.

    Attributes:
      name: 'step', 'evaluate' or 'encode'.
      compile_seconds: Time of compilation, without tracing and lowering.
      arguments: Bytes of all inputs: state, device arrays, batch.
      state: Bytes of the state, including the parameters.
      params: Bytes of the parameters, where the state names them.
      temporaries: Bytes of intermediate results.
      flops: Floating-point operations of all products.
      float32_flops: Floating-point operations of products of float32 operands.
      padded_flops: Floating-point operations of the matrix units, which pad the operands of products to their tiles.
      most_padding: The product with the most padding, see `program_cost.Products`.
      bytes: Bytes moved to and from memory, summed over the instructions of the program.
      collectives: One entry per kind.
      communicated: (kind, shape) of every array that a collective combines.
      unknown_loops: Loops without a known trip count, which count once.
      host_callbacks: Number of calls of the host from the program.
      float64: Whether the program computes in float64.
      dynamic_shapes: Whether sizes of arrays are known only while the program runs.
      replicated: (path, bytes) of the large arrays that every chip holds whole.
      examples: Examples per run of the program.
    """

    name: str
    compile_seconds: float
    arguments: int
    state: int
    params: int
    temporaries: int
    flops: float
    float32_flops: float
    padded_flops: float
    most_padding: str
    bytes: int
    collectives: tuple[program_cost.Collective, ...]
    communicated: tuple[tuple[str, str], ...]
    unknown_loops: int
    host_callbacks: int
    float64: bool
    dynamic_shapes: bool
    replicated: tuple[tuple[str, int], ...]
    examples: int

    def peak_memory(self) -> int:
        """Peak bytes of memory per chip: arguments and temporaries; outputs reuse the donated state."""
        return self.arguments + self.temporaries

    def seconds(self, target: Target) -> dict[str, float]:
        """Lower bounds of the time in seconds by what bounds it; {} for a CPU.

        'matrix unit', 'memory', 'links' within a slice or node and, where there are several slices, 'network'.
        """
        chip, n = target.chip, target.mesh.size
        if not chip.flops:
            return {}
        sent = {c.kind: c.sent for c in self.collectives}
        network = sent.pop(program_cost.BETWEEN_SLICES, 0.0)
        bounds = {
            'matrix unit': self.flops / n / chip.flops,
            'memory': self.bytes / chip.bandwidth,
            'links': sum(sent.values()) / chip.link,
        }
        if target.slices > 1 and chip.network:
            bounds['network'] = network / chip.network
        return bounds

    def warnings(self, target: Target) -> list[str]:
        """Warnings to read before paying for the slice."""
        messages = []
        if target.chip.memory and self.peak_memory() > target.chip.memory:
            messages.append(
                f'does not fit: {self.peak_memory() / 1e9:.1f} of {target.chip.memory / 1e9:.0f} GB'
            )
        if target.chip.flops and self.float32_flops > 0.5 * self.flops > 0:
            messages.append(
                f'{self.float32_flops / self.flops:.0%} of the products are of float32 operands; the '
                'peak is that of bfloat16'
            )
        if self.flops and self.padded_flops > 2 * self.flops:
            messages.append(
                f'the tiles of the matrix unit are filled to {self.flops / self.padded_flops:.0%} at most; the '
                f'product with the most padding is {self.most_padding}'
            )
        if self.replicated:
            path, size = max(self.replicated, key=lambda entry: entry[1])
            total = sum(size for _, size in self.replicated)
            messages.append(
                f'every chip holds all of {len(self.replicated)} large arrays, {total / 1e9:.2f} GB; the largest is '
                f'{path}, {size / 1e9:.2f} GB. --model_parallel divides those that the model names'
            )
        if self.dynamic_shapes:
            messages.append('arrays of dynamic shapes, which are padded to their largest size')
        if self.unknown_loops:
            messages.append(
                f'{self.unknown_loops} loops have no fixed trip count; their bodies are counted once'
            )
        if self.host_callbacks:
            messages.append(f'{self.host_callbacks} host callbacks inside the program')
        if self.float64:
            messages.append('computes in float64')
        if target.slices > 1 and not target.chip.network:
            messages.append('the time of the network between slices is not known')
        return messages


def compile_experiment(
    experiment: Experiment,
    config: Config,
    data: Data,
    on: Target,
    programs: tuple[str, ...],
    save: str = '',
) -> list[Program]:
    """Compile programs of an experiment for a target.

    Args:
      experiment: The experiment.
      config: Its config; `batch_size` is the batch of all chips, and one program takes `steps_per_call` steps.
      data: Its data; only shapes are used.
      on: The target to compile for.
      programs: Any of 'step', 'evaluate', 'encode'; those that the experiment does not have are left out.
      save: File for the compiled step, see `train.executable`; '' writes none.

    Returns:
      One Program for each of `programs`.

    Raises:
      DoesNotFit: The compiler finds no way to keep a program within the memory of a chip.
    """
    on = on._replace(mesh=device_mesh(list(on.mesh.devices.flat), config.model_parallel))
    bound = build_bound(experiment, config, data)
    first = bound.batch(0)
    replicated = NamedSharding(on.mesh, PartitionSpec())
    state = abstract_state(bound, on.mesh, first)
    result = []
    for name in programs:
        held = state
        if name == 'step':
            traced = _trace_step(bound, config, on, state, first)
            examples = num_examples(bound, first) * config.steps_per_call
        elif name == 'evaluate' and bound.evaluate is not None:
            evaluation = _abstract(bound.evaluation, replicated)
            run = jax.jit(bound.evaluate, out_shardings=replicated)
            traced, examples = run.trace(state, evaluation), _length(bound.evaluation)
        elif name == 'encode' and (encoder := experiment.apply(config, data.spec).get('encode')):
            rows = data.device_arrays if data.rows is None else data.rows
            traced, held, examples = _trace_encoder(encoder, on, state, rows)
        else:
            continue
        lowered = traced.lower(lowering_platforms=(on.platform,))
        start = time.perf_counter()
        is_saved = bool(save) and name == 'step'
        # A program in the cache cannot be read again without the chips it is for.
        with executable.uncached():
            try:
                compiled = lowered.compile()
            except jax.errors.JaxRuntimeError as error:
                if 'RESOURCE_EXHAUSTED' not in str(error):
                    raise
                reason = str(error).partition(': ')[2].splitlines()[0]
                raise DoesNotFit(
                    f'{name} does not fit on {on.name}: {reason} Use a smaller --batch_size '
                    '(launch.compile --fit finds the largest), --accumulate, --remat, more chips, or --model_parallel '
                    'where the model has divided arrays'
                ) from None
        seconds = time.perf_counter() - start
        if is_saved:
            executable.save(save, lowered, compiled, on.mesh, config.steps_per_call)
        result.append(_program(name, traced, compiled, seconds, held, examples, on))
    return result


def _trace_step(bound: BoundTask, config: Config, on: Target, state: PyTree, first: PyTree):
    replicated = NamedSharding(on.mesh, PartitionSpec())
    k = config.steps_per_call
    sharding = batch_sharding(bound, on.mesh, num_examples(bound, first))
    batches = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            (k, *np.shape(leaf)), np.asarray(leaf).dtype, sharding=sharding
        ),
        first,
    )
    steps = jax.ShapeDtypeStruct((k,), np.int32, sharding=replicated)
    arrays = _abstract(bound.device_arrays, replicated)
    key = _abstract(bound.key, replicated)
    return jit_steps(bound, on.mesh, state).trace(state, arrays, batches, key, steps)


def _trace_encoder(encoder: encode.Encoder, on: Target, state: PyTree, rows: PyTree):
    """The encoder as all processes call it at the same time, each for its block of rows; it has no collectives.

    Returns:
      What is traced, the state, which every chip holds, and the number of rows.
    """
    devices = list(on.mesh.devices.flat)
    mesh = Mesh(np.array(devices), (AXIS,))
    processes = len({device.process_index for device in devices})
    n = encode.rows_per_call(len(devices) // processes) * processes
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    given = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((n, *np.shape(leaf)[1:]), leaf.dtype, sharding=sharding),
        rows,
    )
    whole = _abstract(state, NamedSharding(mesh, PartitionSpec()))
    return encode.compile_encoder(encode.as_dict(encoder), mesh).trace(whole, given), whole, n


def _program(
    name: str,
    traced: Any,
    compiled: Any,
    seconds: float,
    state: PyTree,
    examples: int,
    on: Target,
) -> Program:
    text = compiled.as_text()
    memory = compiled.memory_analysis()
    products = program_cost.products(traced.jaxpr, on.chip.tile)
    moved = program_cost.traffic(text, on.slices)
    return Program(
        name=name,
        compile_seconds=seconds,
        arguments=memory.argument_size_in_bytes,
        state=_num_bytes(state),
        params=_num_bytes(getattr(state, 'params', ())),
        temporaries=memory.temp_size_in_bytes,
        flops=products.flops,
        float32_flops=products.float32_flops,
        padded_flops=products.padded_flops,
        most_padding=products.most_padding,
        bytes=moved.bytes,
        collectives=moved.collectives,
        communicated=program_cost.communicated(text),
        unknown_loops=moved.unknown_loops,
        host_callbacks=len(re.findall(r'custom_call_target="[^"]*callback', text)),
        float64=bool(re.search(r'\bf64\[', text)),
        dynamic_shapes=program_cost.has_dynamic_shapes(text),
        replicated=replicated(state, on),
        examples=examples,
    )


def _abstract(tree: PyTree, sharding: NamedSharding) -> PyTree:
    def shape(leaf):
        dtype = leaf.dtype if hasattr(leaf, 'dtype') else np.asarray(leaf).dtype
        return jax.ShapeDtypeStruct(np.shape(leaf), dtype, sharding=sharding)

    return jax.tree.map(shape, tree)


def replicated(state: PyTree, on: Target) -> tuple[tuple[str, int], ...]:
    """(path, bytes) of the state's arrays that take more than LARGE of a chip's memory and are not divided."""
    found = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        size = math.prod(leaf.shape) * leaf.dtype.itemsize
        if on.mesh.size > 1 and leaf.sharding.is_fully_replicated and size > LARGE * on.chip.memory:
            found.append((jax.tree_util.keystr(path, simple=True, separator='/'), size))
    return tuple(found) if on.chip.memory else ()


def _num_bytes(tree: PyTree) -> int:
    """Bytes per chip of abstract arrays with shardings."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _length(tree: PyTree) -> int:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if np.ndim(leaf)]
    return len(leaves[0]) if leaves else 0
