"""Dictionary learning by gradient steps: any optax optimiser, each atom projected on its ball.

The rule of Olshausen & Field with today's step sizes. It remembers of the past what the optimiser
does (momentum, scales), needs no k x k statistics, and so is the one that scales to dictionaries
whose Gram matrix does not fit, or that are part of a larger model.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lecture4.ops.prox import project_ball
from lecture4.ops.reduce import Reduce
from lecture4.sparse.dictionary import init as seeding
from lecture4.sparse.dictionary import statistics
from lecture4.sparse.objective import L1, product


class State(NamedTuple):
    """What the learner carries from batch to batch; a pytree, the same on every device."""

    atoms: jax.Array  # [d, k], ||d_j||^2 <= C
    optimizer: Any  # optax's state
    usage: jax.Array  # [k] running share of signals that use the atom
    step: jax.Array  # int32 scalar, batches seen


def init(key, signals, n_atoms, *, optimizer, norm_bound=1.0):
    """Atoms are random signals of norm sqrt(norm_bound); shapes and errors as seeding.from_signals.

    optimizer  an optax.GradientTransformation, the same as in step.
    """
    atoms = seeding.from_signals(key, signals, n_atoms, norm_bound)
    usage = jnp.zeros(n_atoms, atoms.dtype)
    return State(atoms, optimizer.init(atoms), usage, jnp.zeros((), jnp.int32))


def step(
    state,
    signals,
    key,
    *,
    optimizer,
    weight,
    penalty=L1,
    norm_bound=1.0,
    n_inner=8,
    memory=20.0,
    reduce=Reduce(),
):
    """One batch: codes, the gradient D A - B of the mean objective, one update, the projection.

    Shapes, domain, devices, metrics and errors as dictionary.step. memory: batches over which the
            use of atoms is averaged before one may count as unused. What the optimiser knows of a
            replaced atom stays: it fades as its other memories do.
    Source  Olshausen & Field 1996 (the gradient); the projection is that of Mairal et al. 2009.
    """
    D = state.atoms
    seen = statistics.collect(signals, D, weight, penalty=penalty, n_inner=n_inner, reduce=reduce)
    slope = product(D, seen.A) - seen.B
    with jax.numpy_dtype_promotion('standard'):  # optax's adam mixes integers and floats
        update, optimizer_state = optimizer.update(slope, state.optimizer, D)
    moved = project_ball(optax.apply_updates(D, update), norm_bound)  # pyright: ignore[reportArgumentType]
    t = state.step.astype(D.dtype)
    memory = jnp.minimum(t + 1, jnp.asarray(memory, D.dtype))
    usage = state.usage + (seen.share - state.usage) / memory
    atoms, usage, fresh, dead = seeding.reseed(
        moved,
        usage,
        memory * seen.n_signals,
        seen.x,
        seen.losses,
        key,
        norm_bound=norm_bound,
        reduce=reduce,
    )
    metrics = seen.metrics | {'dead': dead, 'replaced': jnp.sum(fresh).astype(D.dtype)}
    return State(atoms, optimizer_state, usage, state.step + 1), metrics
