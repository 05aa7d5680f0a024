"""Lazy Adadelta ends where the dense rule ends."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4.language import sparse_adadelta


def test_equals_dense_adadelta(x64):
    rng = np.random.default_rng(0)
    table = jnp.asarray(rng.normal(size=(9, 4)))
    dense = optax.adadelta(0.7, rho=0.95, eps=1e-6)
    dense_state, expected = jax.jit(dense.init)(table), table
    dense_update = jax.jit(dense.update)
    spread = jax.jit(lambda rows, grads: jnp.zeros_like(table).at[rows].add(grads))
    state = sparse_adadelta.init(table)
    step = jax.jit(lambda *args: sparse_adadelta.update(*args, learning_rate=0.7))
    for count in range(1, 40):
        # rows come back after many steps or few; 8 never comes; 0 fills up, twice and with no gradient
        used = rng.choice(
            np.arange(1, 8), size=3, replace=False, p=np.array([8, 8, 8, 4, 1, 1, 1]) / 31
        )
        rows = np.concatenate([[0], used, [0]])
        grads = rng.normal(size=(5, 4)) * 10.0 ** rng.integers(-3, 2)
        grads[[0, -1]] = 0
        state = step(state, rows, jnp.asarray(grads), jnp.int32(count))
        full = spread(rows, grads)
        updates, dense_state = dense_update(full, dense_state, expected)
        expected = optax.apply_updates(expected, updates)
        np.testing.assert_allclose(state.table, expected, atol=1e-12)
    assert (state.table[8] == table[8]).all() and (state.table[0] == table[0]).all()
    assert int(state.last_step[8]) == 0 and len(set(np.asarray(state.last_step).tolist())) > 3
