"""Learned encoders compared with solvers that are stopped early: accuracy of the codes against time."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Real

from lecture4.features.timing import median_times
from lecture4.sparse import lista, objective, solvers

# (method, number of layers or iterations): signals [n, d] -> codes [n, k].
Encoders = Mapping[tuple[str, int], Callable[[Any], Any]]
LEARNED = 'learned'  # the method of learned encoders; the others are solvers


class Accuracy(NamedTuple):
    """Accuracy and cost of the codes of one encoder.

    Attributes:
      error: Squared error of the codes, relative to predicting zero.
      excess: Excess of the mean objective above its minimum, relative to the minimum.
      time: Microseconds per signal.
    """

    error: float
    excess: float
    time: float


def stopped_solvers(
    D: Float[Array, 'd k'], l1_penalty: Real[ArrayLike, ''], iterations: Sequence[int]
) -> dict[tuple[str, int], Callable[[Any], Any]]:
    """FISTA and ADMM, stopped after each number of iterations.

    Args:
      D: Dictionary.
      l1_penalty: Weight of the l1 penalty on the codes.
      iterations: Numbers of iterations.

    Returns:
      {('FISTA' or 'ADMM', iterations): signals -> codes}.
    """

    def fista(x, n):
        options = {'max_iterations': n, 'check_every': n, 'tolerance': 0.0}
        return solvers.fista(x, D, l1_penalty, **options).codes

    def admm(x, n):
        return solvers.approximate(x, D, l1_penalty, n_iterations=n)

    methods = {'FISTA': fista, 'ADMM': admm}
    return {
        (name, n): functools.partial(method, n=n)
        for n in iterations
        for name, method in methods.items()
    }


def measure(
    encoders: Encoders,
    x: Float[Array, 'n d'],
    exact: Float[Array, 'n k'],
    D: Float[Array, 'd k'],
    l1_penalty: Real[ArrayLike, ''],
    num_repeats: int = 9,
) -> dict[tuple[str, int], Accuracy]:
    """Accuracy and cost of every encoder on the same signals, timed alternately.

    Args:
      encoders: Encoders, traceable by jax.jit.
      x: Signals.
      exact: Exact codes of the signals.
      D: Dictionary.
      l1_penalty: Weight of the l1 penalty on the codes.
      num_repeats: As in timing.median_times.
    """
    minimum = float(objective.loss(x, D, exact, l1_penalty).mean())
    codes = {name: jax.jit(encode)(x) for name, encode in encoders.items()}
    times = median_times(encoders, (x,), num_repeats=num_repeats)
    return {
        name: Accuracy(
            float(lista.prediction_error(a, exact)),
            float(objective.loss(x, D, a, l1_penalty).mean()) / minimum - 1,
            1e6 * times[name] / len(x),
        )
        for name, a in codes.items()
    }


def speedups(measured: Mapping[tuple[str, int], Accuracy]) -> list[dict[str, Any]]:
    """A record for every learned encoder: its speedup over solvers stopped at the same error.

    Args:
      measured: As `measure` returns it; the iterations of a solver in increasing order.

    Returns:
      Records with the entries layers, error, excess, time and, for each solver, `SOLVER iterations`,
      the first number of iterations whose error is no larger, and `speedup_SOLVER`, the ratio of the
      times; where no number of iterations is enough, '> MOST' and no speedup.
    """
    records = []
    for (method, n), learned in measured.items():
        if method != LEARNED:
            continue
        record = {'layers': n, **learned._asdict()}
        for solver in dict.fromkeys(name for name, _ in measured if name != LEARNED):
            iterations = [m for name, m in measured if name == solver]
            enough = [m for m in iterations if measured[solver, m].error <= learned.error]
            record[f'{solver} iterations'] = enough[0] if enough else f'> {iterations[-1]}'
            if enough:
                record[f'speedup_{solver}'] = measured[solver, enough[0]].time / learned.time
        records.append(record)
    return records


def against_time(
    measured: Mapping[tuple[str, int], Accuracy], field: str, minimum: float = 1e-7
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Curves of error or excess against microseconds per signal, for a logarithmic axis.

    Args:
      measured: As `measure` returns it.
      field: 'error' or 'excess'.
      minimum: Smaller values are replaced by it.

    Returns:
      {method: (times, values)}.
    """
    curves = {}
    for (method, _), accuracy in measured.items():
        point = accuracy.time, max(getattr(accuracy, field), minimum)
        curves.setdefault(method, []).append(point)
    return {method: tuple(np.array(points).T) for method, points in curves.items()}
