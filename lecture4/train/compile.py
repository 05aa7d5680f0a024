"""Compiles an experiment's programs for accelerators that are not attached: TPU slices and NVIDIA nodes.

The compilers are the real ones: libtpu's (`pip install libtpu`) and XLA's for CUDA (`pip install 'jax[cuda12]'`).
Their figures for memory, collectives and arithmetic hold for the program that a job would run, which is made by the
same functions (`train.step.jit_steps`); nothing is executed, so that no time here is a measurement.
"""

import contextlib
import dataclasses
import math
import os
import re
import time
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lecture4.train import encode, executable, program_cost
from lecture4.train.chips import CHIPS, Chip
from lecture4.train.config import Config, UsageError
from lecture4.train.experiment import Experiment, build
from lecture4.train.sharding import device_mesh
from lecture4.train.step import (
    AXIS,
    BoundTask,
    abstract_state,
    batch_sharding,
    bind,
    jit_steps,
)
from lecture4.train.task import Data, PyTree

TPUS = {'v4': 3, 'v5e': 2, 'v5p': 3, 'v6e': 2}  # axes of a topology

# XLA's device description of an NVIDIA SXM module. Only an H200 is described in full.
H200 = """gpu_device_info { threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: 4800000000000
l2_cache_size: 62914560 clock_rate_ghz: 1.98 device_memory_size: 150000000000 shared_memory_per_block_optin: 232448
cuda_compute_capability { major: 9 } registers_per_core_limit: 65536 registers_per_block_limit: 65536 }
runtime_version { major: 12 minor: 9 patch: 0 } platform_name: "CUDA" dnn_version_info { major: 9 minor: 7 }
device_description_str: "NVIDIA H200" """


class DoesNotFit(UsageError):
    """A program needs more memory than a chip has."""


class Target(NamedTuple):
    """Accelerators to compile for, which need not be attached.

    Attributes:
      name: Name such as 'v5e:4x4', 'h200:8' or 'cpu:4'.
      platform: 'tpu', 'cuda' or 'cpu'.
      chip: Peak performance of one chip.
      mesh: Mesh of abstract devices with axis 'data'; of attached ones for 'cpu'.
      slices: Number of TPU slices, connected by the data center network.
    """

    name: str
    platform: str
    chip: Chip
    mesh: Mesh
    slices: int = 1


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
      bytes: Bytes moved to and from memory, summed over the instructions of the program.
      collectives: One entry per kind.
      communicated: (kind, shape) of every array that a collective combines.
      unknown_loops: Loops without a known trip count, which count once.
      host_callbacks: Number of calls of the host from the program.
      float64: Whether the program computes in float64.
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
    bytes: int
    collectives: tuple[program_cost.Collective, ...]
    communicated: tuple[tuple[str, str], ...]
    unknown_loops: int
    host_callbacks: int
    float64: bool
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


def target(name: str) -> Target:
    """The devices of a topology.

    Args:
      name: CHIP:SHAPE, 'v5e:4x4' or 'v4:2x2x4' for a TPU slice, '4xv5e:16x16' for 4 of them, 'h200:8' for the GPUs of a
        node; 'cpu:4' divides this machine's CPU into 4 devices.

    Raises:
      UsageError: An unknown chip or shape, with those that exist; or the compiler is not installed.
    """
    slices, kind, shape = _parts(name)
    if kind not in CHIPS:
        raise UsageError(f'unknown chip {kind!r} in {name!r}; expected one of {", ".join(CHIPS)}')
    is_tpu = kind in TPUS
    axes = TPUS.get(kind, 1)
    if not re.fullmatch(r'\d+(x\d+)*', shape) or shape.count('x') != axes - 1:
        example = 'x'.join(['4'] * axes) if is_tpu else '8'
        raise UsageError(f'topology {name!r}: expected {axes} numbers, such as {kind}:{example}')
    if slices > 1 and not is_tpu:
        raise UsageError(f'topology {name!r}: several slices are of TPUs, such as {slices}xv5e:4x4')
    if kind == 'cpu':
        with contextlib.suppress(RuntimeError):  # the number is fixed once a device is initialized
            jax.config.update('jax_num_cpu_devices', int(shape))
        devices = jax.devices('cpu')[: int(shape)]
        if len(devices) < int(shape):
            raise UsageError(f'{name}: the CPU of this process has {len(devices)} devices already')
        return Target(name, 'cpu', CHIPS['cpu'], device_mesh(devices))
    if not is_tpu and kind != 'h200':
        raise UsageError(f'programs for {kind} cannot be compiled here; use h200:{shape}')
    # Without these, libtpu queries a metadata server, and only one process of a machine may compile.
    os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
    os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
    from jax.experimental import topologies

    try:
        if is_tpu:
            _without_cpu_flags()
            # One slice has devices of another kind, with other operations between them.
            several = {'num_slices': slices} if slices > 1 else {}
            description = topologies.get_topology_desc(
                platform='tpu', topology_name=f'{kind}:{shape}', **several
            )
        else:
            description = topologies.get_topology_desc(
                platform='cuda', topology_name=name, target_config=H200, topology=f'1x1x{shape}'
            )
    except Exception as error:  # the plugins' exceptions are not documented
        reason = ' '.join(str(error).split())[:200]
        package = 'libtpu' if is_tpu else 'jax[cuda12]'
        raise UsageError(
            f'no compiler for {name} ({reason}); install it with pip install "{package}", or check '
            'the shape against those that exist'
        ) from None
    platform, mesh = 'tpu' if is_tpu else 'cuda', device_mesh(description.devices)
    return Target(name, platform, CHIPS[kind], mesh, slices)


def _without_cpu_flags():
    """Take XLA's flags for CPUs out of the environment: libtpu stops at them, also while it compiles later."""
    jax.devices('cpu')  # jaxlib has read them
    flags = os.environ.get('XLA_FLAGS', '').split()
    os.environ['XLA_FLAGS'] = ' '.join(flag for flag in flags if not flag.startswith('--xla_cpu'))


def _parts(name):
    """(number of slices, chip, shape) of a topology's name."""
    kind, _, shape = name.partition(':')
    several = re.fullmatch(r'([1-9][0-9]*)x(\w+)', kind)
    return (int(several[1]), several[2], shape) if several else (1, kind, shape)


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
    bound = bind(build(experiment, config, data), data, config.seed)
    first = bound.batch(0)
    replicated = NamedSharding(on.mesh, PartitionSpec())
    state = abstract_state(bound, on.mesh, first)
    result = []
    for name in programs:
        held = state
        if name == 'step':
            traced = _trace_step(bound, config, on, state, first)
            examples = config.batch_size * config.steps_per_call
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
                    f'{name} does not fit on {on.name}: {reason} Use a smaller --batch_size (--fit finds the '
                    'largest), more chips, or --model_parallel where the model has divided arrays'
                ) from None
        seconds = time.perf_counter() - start
        if is_saved:
            executable.save(save, lowered, compiled, on.mesh, config.steps_per_call)
        result.append(_program(name, traced, compiled, seconds, held, examples, on.slices))
    return result


def _trace_step(bound: BoundTask, config: Config, on: Target, state: PyTree, first: PyTree):
    replicated = NamedSharding(on.mesh, PartitionSpec())
    k = config.steps_per_call
    sharding = batch_sharding(bound, on.mesh, config.batch_size)
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
    slices: int,
) -> Program:
    text = compiled.as_text()
    memory = compiled.memory_analysis()
    products = program_cost.products(traced.jaxpr)
    moved = program_cost.traffic(text, slices)
    return Program(
        name=name,
        compile_seconds=seconds,
        arguments=memory.argument_size_in_bytes,
        state=_num_bytes(state),
        params=_num_bytes(getattr(state, 'params', ())),
        temporaries=memory.temp_size_in_bytes,
        flops=products.flops,
        float32_flops=products.float32_flops,
        bytes=moved.bytes,
        collectives=moved.collectives,
        communicated=program_cost.communicated(text),
        unknown_loops=moved.unknown_loops,
        host_callbacks=len(re.findall(r'custom_call_target="[^"]*callback', text)),
        float64=bool(re.search(r'\bf64\[', text)),
        examples=examples,
    )


def _abstract(tree: PyTree, sharding: NamedSharding) -> PyTree:
    def shape(leaf):
        dtype = leaf.dtype if hasattr(leaf, 'dtype') else np.asarray(leaf).dtype
        return jax.ShapeDtypeStruct(np.shape(leaf), dtype, sharding=sharding)

    return jax.tree.map(shape, tree)


def _num_bytes(tree: PyTree) -> int:
    """Bytes per chip of abstract arrays with shardings."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _length(tree: PyTree) -> int:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if np.ndim(leaf)]
    return len(leaves[0]) if leaves else 0
