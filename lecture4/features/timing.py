"""Running times of functions, compared fairly: compiled, run alternately, medians."""

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

Name = TypeVar('Name', bound=Hashable)


def median_times(
    functions: Mapping[Name, Callable[..., Any]], args: Sequence[Any], num_repeats: int = 5
) -> dict[Name, float]:
    """Median wall-clock time of every function on the same arguments.

    Every function is compiled and run once first. Then they take turns, so that a slow phase of the
    machine, or a clock that changes, is spread over all of them.

    Args:
      functions: Functions traceable by jax.jit.
      args: Positional arguments, the same for all functions.
      num_repeats: Number of timed runs of each function.

    Returns:
      {name: seconds for one call}.

    Raises:
      ValueError: `num_repeats` below 1.
    """
    if num_repeats < 1:
        raise ValueError(f'num_repeats={num_repeats}; expected at least 1')
    compiled = {name: jax.jit(function) for name, function in functions.items()}
    for function in compiled.values():
        jax.block_until_ready(function(*args))
    seconds = {name: [] for name in compiled}
    for _ in range(num_repeats):
        for name, function in compiled.items():
            start = time.perf_counter()
            jax.block_until_ready(function(*args))
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(each)) for name, each in seconds.items()}
