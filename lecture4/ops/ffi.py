"""What a handler of XLA's foreign-function interface needs to know before it is called in a program."""

import importlib.util
import pathlib
import platform
import re
from typing import Any

import jax


def numba_installed() -> bool:
    """Whether handlers can be compiled: numba is installed, on x86-64 Linux; numba is not loaded."""
    linux = platform.system() == 'Linux' and platform.machine() == 'x86_64'
    return linux and importlib.util.find_spec('numba') is not None


def api_version() -> int | None:
    """Version of the interface, major + minor * 2**32; None if the layout of a call frame may differ from 0.1's."""
    header = pathlib.Path(jax.ffi.include_dir(), 'xla', 'ffi', 'api', 'c_api.h').read_text()
    version = [re.search(rf'XLA_FFI_API_{part} (\d+)', header) for part in ('MAJOR', 'MINOR')]
    major, minor = (int(match[1]) if match else -1 for match in version)
    return None if major != 0 or minor < 1 else major + (minor << 32)


def on_one_device(context: Any) -> bool:
    """Whether the program, or the part in a shard_map, runs on whole arrays, and in this process's XLA.

    Args:
      context: `module_context` of the context of a lowering rule.
    """
    if context.lowering_parameters.for_export:
        return False
    axes = context.axis_context
    if hasattr(axes, 'num_devices'):
        return axes.num_devices == 1
    manual = getattr(axes, 'manual_axes', None)
    return manual is not None and all(
        name in manual or size == 1 for name, size in axes.mesh.shape.items()
    )
