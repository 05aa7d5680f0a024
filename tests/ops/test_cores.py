"""Rows in parallel on the cores of a CPU: the same numbers, in order, from several threads."""

import threading

import jax
import jax.numpy as jnp
import numpy as np

from lecture4.ops import cores


def test_rows_are_those_of_one_call(monkeypatch):
    """Also where the last part is shorter, and in trees."""
    monkeypatch.setattr(cores, 'n_cores', lambda: 2)
    rows = {'x': np.arange(14.0, dtype=np.float32).reshape(7, 2), 'n': np.arange(7)}
    shapes, threads, both = set(), set(), threading.Barrier(2, timeout=30)

    def run(part):
        shapes.add(part['x'].shape)
        if part['n'][0] < 6:
            both.wait()  # the first two parts run at the same time
        threads.add(threading.get_ident())
        return part['x'] @ jnp.ones((2, 3), jnp.float32), -part['n']

    sums, negative = cores.map_rows(run, jax.tree.map(jnp.asarray, rows), 3)
    np.testing.assert_array_equal(sums, rows['x'].sum(1)[:, None] * np.ones(3))
    np.testing.assert_array_equal(negative, -rows['n'])
    assert shapes == {(3, 2)} and len(threads) == 2


def test_results_keep_the_order_of_their_parts():
    assert cores.map_parts(lambda n: n**2, range(9)) == [n**2 for n in range(9)]
