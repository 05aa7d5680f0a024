"""The result of every solver, and its summary over many signals."""

import warnings
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int32


class Solution(NamedTuple):
    """Codes and, per signal, their certificate.

    For a convex penalty the gap is the duality gap divided by the objective: the objective is at most that far, in
    relative terms, above the minimum. For other penalties it is the norm of the proximal gradient divided by that of
    D'x: it certifies stationarity, not a global minimum.

    A solver stops at a signal in one of three states: converged; limited by precision, where the
    gap is above the tolerance but no larger than the rounding of ||x||^2, so that more iterations
    at this precision cannot lower it (typical of very small penalty weights; use float64); or
    neither, where the number of iterations was not enough.

    A signal with a NaN or an infinity, or whose numbers overflow, has NaN codes, gap and objective,
    and is in none of these states.

    Attributes:
      codes: [n, k].
      gap: [n], relative.
      iterations: int32 [n], counted until the check that ended the signal.
      converged: [n], gap <= tolerance.
      limited_by_precision: [n].
      objective: [n].
    """

    codes: Float[jax.Array, '*batch n k']
    gap: Float[jax.Array, '*batch n']
    iterations: Int32[jax.Array, '*batch n']
    converged: Bool[jax.Array, '*batch n']
    limited_by_precision: Bool[jax.Array, '*batch n']
    objective: Float[jax.Array, '*batch n']


class Summary(NamedTuple):
    """Counts over many signals, and their typical and worst gaps.

    Attributes:
      n_signals: Number of signals.
      n_unconverged: Number of finite signals that are neither converged nor limited by precision.
      n_limited_by_precision: Number of signals limited by precision, see Solution.
      n_invalid: Number of signals that are not finite or whose penalty weight is not positive.
      mean_gap: Mean gap over finite signals, as the next two.
      gap_99: 99th percentile of the gap.
      worst_gap: Largest gap.
      worst_signal: Row of the largest gap; -1 where there is none.
      worst_limited_gap: Largest gap of a signal limited by precision; 0 where there is none.
    """

    n_signals: int
    n_unconverged: int
    n_limited_by_precision: int
    n_invalid: int
    mean_gap: float
    gap_99: float
    worst_gap: float
    worst_signal: int
    worst_limited_gap: float


def summarize(solution: Solution) -> Summary:
    """The Summary of a Solution of n signals, on the host."""
    gap, converged = np.asarray(solution.gap), np.asarray(solution.converged)
    limited = np.asarray(solution.limited_by_precision)
    finite = np.isfinite(gap)
    if not finite.any():
        return Summary(len(gap), 0, 0, len(gap), 0.0, 0.0, 0.0, -1, 0.0)
    worst = int(np.argmax(np.where(finite, gap, -1)))
    return Summary(
        n_signals=len(gap),
        n_unconverged=int((finite & ~converged & ~limited).sum()),
        n_limited_by_precision=int(limited.sum()),
        n_invalid=int((~finite).sum()),
        mean_gap=float(gap[finite].mean(dtype=np.float64)),
        gap_99=float(np.quantile(gap[finite], 0.99)),
        worst_gap=float(gap[worst]),
        worst_signal=worst,
        worst_limited_gap=float(gap[limited].max(initial=0)),
    )


def warn_if_unconverged(solution: Solution) -> str:
    """Warn of signals that are not converged, with their worst gaps; on the host.

    Returns:
      The text of the warning, '' where all signals are converged.
    """
    summary = summarize(solution)
    gap = np.asarray(solution.gap)
    other = ~np.asarray(solution.converged) & ~np.asarray(solution.limited_by_precision)
    messages = []
    if summary.n_unconverged:
        messages.append(
            f'{summary.n_unconverged} did not converge (worst relative gap '
            f'{np.nanmax(gap[other]):.2g}): raise max_iterations or the tolerance'
        )
    if summary.n_limited_by_precision:
        messages.append(
            f'{summary.n_limited_by_precision} are limited by the precision of {gap.dtype} (worst '
            f'relative gap {summary.worst_limited_gap:.2g}): use float64 or a larger penalty weight'
        )
    if summary.n_invalid:
        messages.append(
            f'{summary.n_invalid} are not finite, or have a penalty weight that is not positive'
        )
    text = f'of {summary.n_signals} signals, ' + '; '.join(messages) if messages else ''
    if text:
        warnings.warn(text, stacklevel=2)
    return text
