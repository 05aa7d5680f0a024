"""A regularisation path: the codes of the same signals for many weights."""

import jax.numpy as jnp
from jax import lax

from lecture4.sparse.objective import check, check_positive, max_weight
from lecture4.sparse.solvers.automatic import encode


def weights_from_max(x, D, n_weights, *, smallest=0.01):
    """n_weights from max |D'x|, where all codes are 0, down to `smallest` of it, evenly in the log.

    Shapes  x [n, d], D [d, k]. Returns [n_weights], falling, the same for all signals.
    Domain  0 < smallest < 1; n_weights >= 1.
    """
    largest = jnp.max(max_weight(x, D), initial=0)
    return largest * jnp.geomspace(1, smallest, n_weights, dtype=x.dtype)


def path(x, D, weights, **options):
    """The Solution for every weight, each begun at the codes of the one before.

    Weights that fall are the fast order: codes then enter a few at a time. A vmap over weights gives
    the same, and is slower: every weight starts from nothing, and waits for the smallest.

    Shapes  x [n, d], D [d, k], weights [p]. Returns a Solution whose arrays have a first axis of p.
    Options those of solvers.encode.
    Errors  ValueError where weights is not of one axis; otherwise as encode.
    """
    check_positive(weights)
    x, D, _ = check(x, D, 1.0)
    weights = jnp.asarray(weights, x.dtype)
    if weights.ndim != 1:
        raise ValueError(
            f'weights have shape {weights.shape}; [p] is wanted, one weight for each step'
        )

    def next_weight(codes, weight):
        found = encode(x, D, weight, init=codes, **options)
        # A signal that is not finite stays marked, and starts the next weight from zero.
        return jnp.where(jnp.isfinite(found.codes), found.codes, 0), found

    start = jnp.zeros((x.shape[0], D.shape[1]), x.dtype)
    return lax.scan(next_weight, start, weights)[1]
