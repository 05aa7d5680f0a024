"""Accelerators to compile for, which need not be attached: TPU slices and NVIDIA nodes by their names."""

import contextlib
import importlib.util
import os
import re
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from lecture4.train.chips import CHIPS, Chip
from lecture4.train.config import UsageError
from lecture4.train.sharding import device_mesh

TPUS = {'v4': 3, 'v5e': 2, 'v5p': 3, 'v6e': 2}  # axes of a topology

# XLA's device description of an NVIDIA SXM module. Only an H200 is described in full.
H200 = """gpu_device_info { threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: 4800000000000
l2_cache_size: 62914560 clock_rate_ghz: 1.98 device_memory_size: 150000000000 shared_memory_per_block_optin: 232448
cuda_compute_capability { major: 9 } registers_per_core_limit: 65536 registers_per_block_limit: 65536 }
runtime_version { major: 12 minor: 9 patch: 0 } platform_name: "CUDA" dnn_version_info { major: 9 minor: 7 }
device_description_str: "NVIDIA H200" """


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
        package, module = ('libtpu', 'libtpu') if is_tpu else ('jax[cuda12]', 'jax_cuda12_plugin')
        if importlib.util.find_spec(module):
            raise UsageError(
                f'no topology {name} ({reason}); expected a shape that exists'
            ) from None
        raise UsageError(
            f'no compiler for {name} ({reason}); install it with pip install "{package}"'
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
