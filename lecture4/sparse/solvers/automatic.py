"""Choice of the fastest solver for a penalty and a platform, and a fixed number of iterations for learners."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import core, lax
from jaxtyping import Array, ArrayLike, Float, Real

from lecture4.ops.varying import vary_together
from lecture4.sparse.objective import L1, NONNEGATIVE, check_inputs, check_penalty_weight
from lecture4.sparse.penalties import Penalty
from lecture4.sparse.solvers.admm import admm, admm_steps, factorize
from lecture4.sparse.solvers.coordinate_descent import coordinate_descent
from lecture4.sparse.solvers.feature_sign import feature_sign
from lecture4.sparse.solvers.polish import MAX_ATOMS
from lecture4.sparse.solvers.proximal import fista, gradient_operator, ista, proximal_steps
from lecture4.sparse.solvers.solution import Solution
from lecture4.sparse.solvers.tiling import check_tile, select

SOLVERS: dict[str, Callable[..., Solution]] = {
    'fista': fista,
    'ista': ista,
    'admm': admm,
    'coordinate_descent': coordinate_descent,
    'feature_sign': feature_sign,
}
# A CPU's tile fits a core's cache; an accelerator takes all signals at once.
CPU_TILE = 128
# Options that are part of the compiled program.
STATIC = (
    'method',
    'tile',
    'finish',
    'platform',
    'penalty',
    'relaxation',
    'bfloat16_iterations',
    'polish',
    'stop',
    'kernel',
)


def choose(penalty: Penalty, n_atoms: int, platform: str) -> tuple[str, int | None]:
    """The method and tile for a penalty, a number of atoms and a platform, as measured.

    On a CPU coordinate descent is fastest for L1 and non-negative codes at common densities and any conditioning (1
    to 9 % non-zero, whitened patches and raw digits; tests/benchmarks/sparse_codes.py), as long as the Gram matrix
    fits in memory, and takes half the time or less where numba is installed (kernel='cpu'). Without it, at 20 % admm
    certifies 1e-4 in three quarters of its time: select it for codes that dense. A choice by the signals would compile
    both, and under vmap run both. An accelerator is fastest with few large products: admm, which is also the faster for
    other convex penalties. For penalties that are not convex fista is chosen.

    Args:
      penalty: Penalty on the codes.
      n_atoms: Number of atoms k.
      platform: Platform that the program is compiled for: 'cpu', 'gpu', 'tpu', ...
    """
    tile = CPU_TILE if platform == 'cpu' else None
    if penalty.gap is None:
        return 'fista', tile
    greedy = platform == 'cpu' and penalty in (L1, NONNEGATIVE) and n_atoms <= MAX_ATOMS
    return 'coordinate_descent' if greedy else 'admm', tile


def platform_of(*arrays: Any) -> str:
    """The platform of the devices that hold the arrays; that of the default device if none is known."""
    for array in jax.tree.leaves(arrays):
        if isinstance(array, jax.Array) and not isinstance(array, core.Tracer):
            return next(iter(array.devices())).platform
    device = getattr(jax.config, 'jax_default_device', None)  # a device, a platform's name or None
    if device is None:
        return jax.devices()[0].platform
    return device if isinstance(device, str) else device.platform


def encode(
    x: Float[Array | np.ndarray, 'n d'],
    D: Float[Array | np.ndarray, 'd k'],
    penalty_weight: Real[ArrayLike, '...'],
    *,
    method: str = 'auto',
    tile: int | str | None = 'auto',
    penalty: Penalty = L1,
    finish: bool = True,
    platform: str | None = None,
    **options: Any,
) -> Solution:
    """Codes of signals by a named solver, or by the fastest one for the platform (see choose).

    Signals that do not converge, because of the number of iterations or of the solver's rounding, are finished by
    feature_sign from their current codes (L1 and non-negative codes only; finish=False leaves them). Compiled once
    per shapes, dtype and options.

    For an NVIDIA GPU coordinate_descent gets kernel='gpu' unless given, for a CPU kernel='cpu'; jax.export needs
    kernel='none' for a GPU, since it refuses such kernels.

    Args:
      x: Signals.
      D: Dictionary, atoms in columns, at least one.
      penalty_weight: Scalar, [k], [n, 1] or [n, k], positive.
      method: 'auto', or a key of SOLVERS.
      tile: 'auto', None or a number of signals, see fista.
      penalty: Penalty on the codes.
      finish: Whether to finish by feature_sign.
      platform: Platform that the program is compiled for: 'cpu', 'gpu', 'tpu', ...; None takes that of
        the devices of x and D, or of the default device where they are traced.
      **options: Options of the solver.

    Returns:
      Solution; iterations of different solvers are summed.

    Raises:
      TypeError: As in the solver, and for an option that the method does not have.
      ValueError: As in the solver, and for an unknown method or a dictionary without atoms.
    """
    platform = platform_of(x, D) if platform is None else platform
    check_penalty_weight(penalty_weight)
    x, D, weight = check_inputs(x, D, penalty_weight)
    if D.shape[1] == 0:
        raise ValueError(f'D of shape {D.shape} has no atom to code with')
    best_method, best_tile = choose(penalty, D.shape[1], platform)
    method = best_method if method == 'auto' else method
    tile = best_tile if isinstance(tile, str) else tile
    check_tile(tile)
    if method not in SOLVERS:
        raise ValueError(
            f"method={method!r}; expected 'auto', {', '.join(map(repr, SOLVERS))}. For a number "
            f'of atoms instead of a penalty weight there is matching_pursuit'
        )
    check_options(method, options)
    if method == 'coordinate_descent' and platform in ('cpu', 'gpu', 'cuda'):
        options = {'kernel': 'cpu' if platform == 'cpu' else 'gpu', **options}
    if method in ('fista', 'admm') and penalty in (L1, NONNEGATIVE):
        options = {'polish': finish, **options}
    able = penalty in (L1, NONNEGATIVE) and D.shape[1] <= MAX_ATOMS
    finish = finish and able and method != 'feature_sign' and options.get('stop') != 'step'
    options = {'penalty': penalty, **options}
    static, traced = split_options(options)
    return _encode(x, D, weight, traced, method=method, tile=tile, finish=finish, static=static)


def check_options(method: str, options: Mapping[str, Any]) -> None:
    """Refuse options that a solver does not have.

    Args:
      method: A key of SOLVERS.
      options: Its options by name.

    Raises:
      TypeError: A name is unknown; the message has the known ones.
    """
    known = [*inspect.signature(SOLVERS[method]).parameters][4:]  # after x, D, weight and penalty
    for name in options:
        if name not in known:
            raise TypeError(f'{method} has no option {name}; expected {", ".join(known)}')


def split_options(options: dict[str, Any]) -> tuple[tuple[tuple[str, Any], ...], dict[str, Any]]:
    """Options of `encode` for a compiled function: hashable ones as sorted pairs, and the others."""
    static = {name: v for name, v in options.items() if name in STATIC or isinstance(v, str)}
    traced = {name: v for name, v in options.items() if name not in static}
    return tuple(sorted(static.items(), key=lambda item: item[0])), traced


@functools.partial(jax.jit, static_argnames=('method', 'tile', 'finish', 'static'))
def _encode(x, D, weight, traced, *, method, tile, finish, static):
    x, D, weight, traced = vary_together(x, D, weight, traced)
    solution = SOLVERS[method](x, D, weight, tile=tile, **dict(static), **traced)
    if not finish:
        return solution
    unfinished = ~solution.converged & ~solution.limited_by_precision & jnp.isfinite(solution.gap)

    def finish_exactly(solution):
        exact = feature_sign(
            x,
            D,
            weight,
            penalty=dict(static)['penalty'],
            init=solution.codes,
            tolerance=traced.get('tolerance', 1e-4),
            tile=tile,
        )
        better = unfinished & (exact.gap < solution.gap)
        exact = exact._replace(iterations=solution.iterations + exact.iterations)
        return select(better, exact, solution)

    return lax.cond(jnp.any(unfinished), finish_exactly, lambda solution: solution, solution)


def approximate(
    x: Float[Array | np.ndarray, 'n d'],
    D: Float[Array | np.ndarray, 'd k'],
    penalty_weight: Real[ArrayLike, '...'],
    *,
    penalty: Penalty = L1,
    n_iterations: int = 8,
) -> Float[Array, 'n k']:
    """Codes after a fixed number of iterations from zero, without a certificate.

    For the inner loop of a learner: admm for convex penalties, fista for others. The cost is known in advance, vmap
    adds none, and the result is differentiable. Compiled once per shapes, dtype, penalty and n_iterations.

    Args:
      x: Signals.
      D: Dictionary, atoms in columns.
      penalty_weight: Weight of the penalty, a scalar, [k] or [n, 1].
      penalty: Penalty on the codes.
      n_iterations: Number of iterations; static.

    Raises:
      TypeError: As in fista.
      ValueError: As in fista.
    """
    x, D, weight = check_inputs(x, D, penalty_weight)
    return _approximate(x, D, weight, penalty=penalty, n_iterations=n_iterations)


@functools.partial(jax.jit, static_argnames=('penalty', 'n_iterations'))
def _approximate(x, D, weight, *, penalty, n_iterations):
    if penalty.gap is None:
        step, codes, start = proximal_steps(
            x, D, weight, None, penalty, gradient_operator(D), momentum=True
        )
    else:
        step, codes, start = admm_steps(x, D, weight, None, None, factorize(D), 1.7, penalty)
    return codes(lax.fori_loop(0, n_iterations, lambda _, state: step(state), start))
