"""The check that certifies codes, and its results for every signal."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Int32

from lecture4.sparse.objective import objective_of_residual, product, proximal_residual
from lecture4.sparse.penalties import NONNEGATIVE, Penalty

# A gap below this multiple of eps ||x||^2 is rounding: no iteration lowers it.
ROUNDING = 2.0
# A signal is given up after this many consecutive checks without progress.
PATIENCE = 50


class SolverStatus(NamedTuple):
    """Result of the last check of each signal.

    Attributes:
      objective: [n].
      gap: [n], relative.
      converged: [n].
      limited_by_precision: [n]; see Solution.
      valid: [n], False where a number is not finite, or a penalty weight not positive.
      iterations: int32 [n], before that check.
      best_gap: [n], the gap at the last progress.
      stalled_checks: int32 [n], checks since.
    """

    objective: Float[Array, ' n']
    gap: Float[Array, ' n']
    converged: Bool[Array, ' n']
    limited_by_precision: Bool[Array, ' n']
    valid: Bool[Array, ' n']
    iterations: Int32[Array, ' n']
    best_gap: Float[Array, ' n']
    stalled_checks: Int32[Array, ' n']

    @property
    def done(self) -> Bool[Array, ' n']:
        """Signals whose gap is within the tolerance, or as small as rounding permits."""
        return self.converged | self.limited_by_precision


class Certifier(NamedTuple):
    """Everything needed to certify codes of the signals x.

    Attributes:
      x: [n, d].
      D: [d, k].
      weight: [1 or n, 1 or k].
      penalty: Penalty on the codes.
      L: Lipschitz constant of the gradient, for penalties without a gap.
      tolerance: Tolerance of the relative duality gap.
    """

    x: Float[Array, 'n d']
    D: Float[Array, 'd k']
    weight: Float[Array, '_ _']
    penalty: Penalty
    L: Any
    tolerance: Any

    def certify(
        self, a: Float[Array, 'n k'] | None, iterations: Int32[Array, ' n']
    ) -> tuple[SolverStatus, Float[Array, 'n k']]:
        """(status, correlation D'r) of codes (None: zeros), at full precision."""
        residual = self.x if a is None else self.x - product(a, self.D.T)
        correlation = product(residual, self.D)
        a = jnp.zeros_like(correlation) if a is None else a
        return self.status(residual, correlation, a, iterations), correlation

    def status(
        self,
        residual: Float[Array, 'n _'],
        correlation: Float[Array, 'n k'],
        a: Float[Array, 'n k'],
        iterations: Int32[Array, ' n'],
    ) -> SolverStatus:
        """The status of codes with known residual (or its norm, [n, 1]) and correlation."""
        tiny, eps = (getattr(jnp.finfo(a.dtype), name) for name in ('tiny', 'eps'))
        value = objective_of_residual(residual, a, self.weight, self.penalty)
        if self.penalty.gap is None:
            gap = proximal_residual(correlation, a, self.weight, self.penalty, 1 / self.L)
            scale = jnp.linalg.norm(product(self.x, self.D), axis=1)
            relative = gap / jnp.maximum(scale, tiny)
            converged = gap <= self.tolerance * scale
            at_precision = gap <= (self.tolerance + ROUNDING * eps) * scale
        else:
            gap = self.penalty.gap(residual, correlation, a, self.weight)
            relative = gap / jnp.maximum(value, tiny)
            scale = jnp.sum(self.x * self.x, axis=1)
            converged = gap <= self.tolerance * value
            at_precision = gap <= self.tolerance * value + ROUNDING * eps * scale
        # A weight of 0 would mean least squares: nothing here certifies that.
        valid = jnp.isfinite(gap) & jnp.isfinite(value) & jnp.all(self.weight > 0, axis=1)
        return SolverStatus(
            objective=value,
            gap=relative,
            converged=converged & valid,
            limited_by_precision=at_precision & ~converged & valid,
            valid=valid,
            iterations=iterations,
            best_gap=relative,
            stalled_checks=jnp.zeros_like(valid, jnp.int32),
        )


def is_unfinished(status: SolverStatus, max_iterations: Int[ArrayLike, '']) -> Bool[Array, ' n']:
    """Signals that need more iterations.

    Signals whose gap has stopped decreasing are excluded: in floating point this may happen above the tolerance.
    """
    running = (status.iterations < max_iterations) & (status.stalled_checks < PATIENCE)
    return status.valid & ~status.done & running


def update_status(new: SolverStatus, old: SolverStatus) -> SolverStatus:
    """The new status, with the best gap so far and the number of checks without progress.

    Progress means that the gap decreases by a tenth, or the objective by more than its rounding.
    """
    rounding = 4 * jnp.finfo(new.objective.dtype).eps * jnp.abs(old.objective)
    progress = (new.gap < 0.9 * old.best_gap) | (new.objective < old.objective - rounding)
    return new._replace(
        best_gap=jnp.where(progress, new.gap, old.best_gap),
        stalled_checks=jnp.where(progress, 0, old.stalled_checks + 1),
    )


def warm_start(
    init: Float[Array, 'n k'],
    x: Float[Array, 'n d'],
    D: Float[Array, 'd k'],
    weight: Float[Array, '_ _'],
    penalty: Penalty,
) -> Float[Array, 'n k']:
    """Initial codes with signs that the penalty allows, and zeros for signals whose minimum is zero.

    The minimum is zero if every |d_j'x| is at most its weight; from other codes iterations may never reach zeros
    exactly.
    """
    correlation = product(x, D)
    correlation = correlation if penalty == NONNEGATIVE else jnp.abs(correlation)
    init = jnp.maximum(init, 0) if penalty == NONNEGATIVE else init
    return jnp.where(jnp.all(correlation <= weight, axis=1, keepdims=True), 0, init)
