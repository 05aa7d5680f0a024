"""Rows of arrays divided over the cores of a CPU: threads that run a program each.

XLA's own threads share the work of one operation. Where the operations are small, as in solvers and in sampled training
sets, it is faster to run as many programs as there are cores, each on its part of the rows.
"""

import concurrent.futures
import contextlib
import os
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def n_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_is_only_device() -> bool:
    """Whether the only device of this process is a CPU."""
    devices = jax.local_devices()
    return len(devices) == 1 and devices[0].platform == 'cpu'


def map_parts(function: Callable[[Any], Any], parts: Iterable[Any]) -> list[Any]:
    """function(part) for every part, in as many threads as there are cores; results in order.

    JAX's settings in the threads are those of the caller, also where it has set them by contexts such as
    `jax.enable_x64()`. An exception is raised again after the parts that are running have finished.
    """
    config: Any = jax.config
    settings = (
        (jax.enable_x64, config.jax_enable_x64),
        (jax.numpy_dtype_promotion, config.jax_numpy_dtype_promotion),
        (jax.numpy_rank_promotion, config.jax_numpy_rank_promotion),
        (jax.default_matmul_precision, config.jax_default_matmul_precision),
        (jax.default_device, config.jax_default_device),
    )

    def run(part):
        with contextlib.ExitStack() as stack:
            for context, value in settings:
                stack.enter_context(context(value))
            return jax.block_until_ready(function(part))

    with concurrent.futures.ThreadPoolExecutor(n_cores()) as pool:
        return list(pool.map(run, parts))


def map_rows(function: Callable[[Any], Any], rows: Any, n_rows: int) -> Any:
    """function(rows), for n_rows of the rows at a time.

    Args:
      function: Compiled function, from n_rows rows to an array or tree of arrays of as many; a row's results do not
        depend on the other rows.
      rows: Array or tree of arrays [n, ...], n at least 1.
      n_rows: Number of rows in a part; the last part repeats the last row.
    """
    n = len(jax.tree.leaves(rows)[0])

    def run(start):
        # The threads also copy their rows; only the concatenation is left to the caller.
        if start + n_rows <= n:
            part = jax.tree.map(lambda v: lax.dynamic_slice_in_dim(v, start, n_rows), rows)
        else:
            place = jnp.minimum(start + jnp.arange(n_rows), n - 1)
            part = jax.tree.map(lambda v: v[place], rows)
        return jax.tree.map(lambda v: v[: n - start], function(part))

    results = map_parts(run, range(0, n, n_rows))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *results)
