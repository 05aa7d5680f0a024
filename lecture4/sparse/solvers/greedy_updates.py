"""The updates of greedy coordinate descent: in JAX, by machine code for a CPU, and as one kernel for NVIDIA GPUs.

Codes y and correlations c are in units in which every weight is 1 and every atom of norm 1 (see coordinate_descent):
the best y_j is the soft threshold at 1 of y_j + c_j, and a step s in y_j subtracts s times row j from c.

For a GPU, XLA compiles an update to four kernels, between which y and c travel through memory: 4 numbers for every
signal and atom, and one of the Gram matrix. In the kernel here a program of the grid solves one signal, whose y and c
stay in registers, and only the row of the Gram matrix is read. A TPU needs no kernel for that: XLA keeps the loop's
arrays in the chip's vector memory. tests/benchmarks/solver_kernels.py counts both.

For a CPU, XLA compiles an update of 16 signals to several loops over their codes, and waits for the slowest signal. The
machine code solves a signal at a time, with one pass over its codes for an update (see _greedy_handler).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Int32

from lecture4.ops import machine_code
from lecture4.ops.varying import vary_like
from lecture4.sparse.objective import L1, NONNEGATIVE
from lecture4.sparse.penalties import Penalty
from lecture4.sparse.solvers.polish import bits_for, maximum_of_slices, slices_of
from lecture4.sparse.solvers.tiling import by_groups

ATOMS_PER_WARP = (
    512  # a thread holds 16 numbers of each array; up to 8192 atoms no register is spilled
)
TARGET = 'lecture4_greedy_updates'
GROUP_SIZE = (
    16  # signals updated together: their codes and correlations fit in a core's inner cache
)

Updated = tuple[Float[Array, 'n k'], Float[Array, 'n k'], Int32[Array, ' n'], Bool[Array, ' n']]


def descend(
    y: Float[Array, 'n k'],
    c: Float[Array, 'n k'],
    step_tolerance: Float[Array, ' n'],
    budget: Int[Array, ' n'],
    penalty_weight: Float[Array, 'n k'] | int,
    rows: Float[Array, 'k k'],
    penalty: Penalty,
) -> Updated:
    """Greedy updates until every signal's largest step is below step_tolerance or its budget is used up.

    Args:
      y: Codes in units of weights; k a multiple of slices_of(k).
      c: Correlations in units of weights.
      step_tolerance: Largest step at which a signal ends, as a fraction of the weight.
      budget: Largest number of updates of a signal.
      penalty_weight: The weights that these units leave, 1 or [n, k].
      rows: Row j is subtracted from c for a step of 1 in y_j.
      penalty: L1 or NONNEGATIVE.

    Returns:
      y, c, the number of updates, and whether a signal ended by its step.
    """
    n, k = y.shape
    low = (1 << bits_for(k)) - 1
    n_slices = slices_of(k)
    width = k // n_slices
    signals = jnp.arange(n)
    at: dict[str, Any] = {'mode': 'promise_in_bounds', 'unique_indices': True}

    lane_bits = bits_for(k) - bits_for(n_slices)  # n_slices is a power of 2
    lanes = lax.broadcasted_iota(jnp.int32, (n, width), 1)

    def best_atom(y, c):
        def part(i):
            cut = slice(i * width, (i + 1) * width)
            weight = penalty_weight if isinstance(penalty_weight, int) else penalty_weight[:, cut]
            return _key(_best_step(y[:, cut], c[:, cut], weight, penalty), i << lane_bits, low)

        # The index within a slice is put in last: XLA divides an operation of more than one flop per byte over the
        # cores of a CPU, which takes three times as long as the updates of a group on one core.
        key = jnp.max(maximum_of_slices(part, n_slices) | lanes, axis=1) & low
        return (key >> lane_bits) * width + (key & ((1 << lane_bits) - 1))

    def body(carry):
        y, c, _, updates, _ = carry
        index = best_atom(y, c)
        weight = penalty_weight
        if not isinstance(weight, int):
            weight = weight.at[signals, index].get(**at)
        old, correlation = y.at[signals, index].get(**at), c.at[signals, index].get(**at)
        step = _best_step(old, correlation, weight, penalty)
        far = jnp.abs(step) > step_tolerance * weight
        active = far & (updates < budget)
        step = jnp.where(active, step, 0)
        y = y.at[signals, index].add(step, **at)
        c = c - step[:, None] * rows.at[index].get(mode='promise_in_bounds')
        return y, c, active, updates + active.astype(jnp.int32), ~far

    start = (y, c, budget > 0, jnp.zeros((n,), jnp.int32), budget < 0)
    start = vary_like(start, (y, c, budget))
    y, c, _, updates, done = lax.while_loop(lambda carry: jnp.any(carry[2]), body, start)
    return y, c, updates, done


def descend_on_cpu(
    y: Float[Array, 'n k'],
    c: Float[Array, 'n k'],
    step_tolerance: Float[Array, ' n'],
    budget: Int[Array, ' n'],
    rows: Float[Array, 'k k'],
    penalty: Penalty,
) -> Updated:
    """`descend` in float32 with a weight of 1, by machine code where numba is installed, see ops/machine_code.

    A signal of budget 0 does not end by its step there.

    Args:
      y: Codes, as in descend.
      c: Correlations.
      step_tolerance: Largest step at which a signal ends.
      budget: Largest number of updates of a signal.
      rows: Rows subtracted from c.
      penalty: L1 or NONNEGATIVE.
    """
    args = (y, c, step_tolerance, budget.astype(jnp.int32), rows)
    args = vary_like(args, args)
    return tuple(_updates.bind(*args, is_nonnegative=penalty == NONNEGATIVE))


def _plain(y, c, step_tolerance, budget, rows, *, is_nonnegative):
    penalty = NONNEGATIVE if is_nonnegative else L1

    def solve(y, c, step_tolerance, budget):
        return descend(y, c, step_tolerance, budget, 1, rows, penalty)

    return by_groups(solve, GROUP_SIZE, y, c, step_tolerance, budget)


def _attributes(context, *, is_nonnegative):
    from lecture4.sparse.solvers._greedy_handler import make_handler  # loads numba

    machine_code.register(TARGET, make_handler)
    low = (1 << bits_for(context.avals_in[0].shape[1])) - 1
    return {'options': np.array([low, is_nonnegative], np.int64)}


_updates = machine_code.define('greedy_updates', _plain, ('is_nonnegative',), TARGET, _attributes)


def descend_on_gpu(
    y: Float[Array, 'n k'],
    c: Float[Array, 'n k'],
    step_tolerance: Float[Array, ' n'],
    budget: Int[Array, ' n'],
    penalty_weight: Float[Array, 'n k'] | int,
    rows: Float[Array, 'k k'],
    penalty: Penalty,
    interpret: bool = False,
) -> Updated:
    """`descend` as one kernel, to the same updates; derivatives are those of `descend`.

    A signal of budget 0 does not end by its step. Compiled by XLA for an H200 and equal to `descend` in Pallas'
    interpreter; it has not been run on a GPU.

    Args:
      y: Codes, as in descend.
      c: Correlations.
      step_tolerance: Largest step at which a signal ends.
      budget: Largest number of updates of a signal.
      penalty_weight: The weights, 1 or [n, k].
      rows: Rows subtracted from c.
      penalty: L1 or NONNEGATIVE.
      interpret: Whether to run in Pallas' interpreter, on any platform.
    """
    weights = () if isinstance(penalty_weight, int) else (penalty_weight,)

    def plain(y, c, step_tolerance, budget, rows, *weights):
        weight = weights[0] if weights else 1
        return descend(y, c, step_tolerance, budget, weight, rows, penalty)

    @jax.custom_jvp
    def fused(*args):
        return _fused(*args, penalty=penalty, interpret=interpret)

    fused.defjvp(lambda primals, tangents: jax.jvp(plain, primals, tangents))  # Pallas has none
    return fused(y, c, step_tolerance, budget, rows, *weights)


def _fused(y, c, step_tolerance, budget, rows, *weights, penalty, interpret):
    from jax.experimental import pallas as pl  # half a second, for GPUs only
    from jax.experimental.pallas import triton

    n, k = y.shape
    width = pl.next_power_of_2(k)  # of any other size Triton has no arrays
    low = (1 << bits_for(k)) - 1

    def kernel(y_ref, c_ref, tolerance_ref, budget_ref, rows_ref, *refs):
        *weight_ref, y_out, c_out, updates_out, done_out = refs
        index = jnp.arange(width, dtype=jnp.int32)
        tolerance, budget = tolerance_ref[0], budget_ref[0]
        weight = weight_ref[0][0, :] if weight_ref else 1

        def body(carry):
            y, c, _, updates, _ = carry
            best = jnp.max(_key(_best_step(y, c, weight, penalty), index, low)) & low
            here = index == best

            def pick(v):
                return jnp.sum(jnp.where(here, v, 0))

            own_weight = pick(weight) if weight_ref else 1
            step = _best_step(pick(y), pick(c), own_weight, penalty)
            far = jnp.abs(step) > tolerance * own_weight
            active = far & (updates < budget)
            step = jnp.where(active, step, 0)
            y = jnp.where(here, y + step, y)
            c = c - step * rows_ref[best, :]
            return y, c, active, updates + active.astype(jnp.int32), ~far

        start = (y_ref[0, :], c_ref[0, :], budget > 0, jnp.zeros((), jnp.int32), budget < 0)
        y_out[0, :], c_out[0, :], _, updates_out[0], done = lax.while_loop(
            lambda carry: carry[2], body, start
        )
        done_out[0] = done.astype(jnp.int32)

    def padded(v, value=0.0):
        return jnp.pad(v, ((0, 0), (0, width - k)), constant_values=value)

    budget = budget.astype(jnp.int32)
    inputs = (padded(y), padded(c), step_tolerance, budget, padded(rows))
    inputs += tuple(padded(v, 1.0) for v in weights)
    row = pl.BlockSpec((1, width), lambda i: (i, 0))
    one = pl.BlockSpec((1,), lambda i: (i,))
    whole = pl.BlockSpec((k, width), lambda i: (0, 0))
    y, c, updates, done = pl.pallas_call(
        kernel,
        grid=(n,),
        in_specs=[row, row, one, one, whole] + [row] * len(weights),
        out_specs=[row, row, one, one],
        # Shapes by way of eval_shape contain the mesh axes along which arrays in shard_map vary.
        out_shape=jax.eval_shape(lambda *v: v, *inputs[:2], budget, budget),
        compiler_params=triton.CompilerParams(num_warps=max(1, width // ATOMS_PER_WARP)),
        interpret=interpret,
        name='coordinate_descent',
    )(*inputs)
    return y[:, :k], c[:, :k], updates, done != 0


def _best_step(y, c, weight, penalty):
    """The change of each code that minimizes the objective if no other one changes."""
    u = y + c
    inside = jnp.clip(u, -weight, weight) if penalty == L1 else jnp.minimum(u, weight)
    return u - inside - y


def _key(step, index, low):
    """Integers in the order of |step|, with the index of the atom in place of the lowest bits."""
    bits = lax.bitcast_convert_type(step.astype(jnp.float32), jnp.int32)
    return (bits & (0x7FFFFFFF & ~low)) | index  # without the sign
