"""Rows in parallel on the cores of a CPU: the same numbers, in order, from several threads."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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


def test_results_keep_the_order_of_their_parts(monkeypatch):
    monkeypatch.setattr(cores, 'n_cores', lambda: 2)
    last = threading.Event()

    def run(n):
        if n == 0:
            assert last.wait(30)  # the first part ends last
        elif n == 8:
            last.set()
        return n**2

    assert cores.map_parts(run, range(9)) == [n**2 for n in range(9)]


def test_an_exception_of_a_part_is_raised():
    def run(n):
        if n == 1:
            raise ValueError(f'part {n}')

    with pytest.raises(ValueError, match='part 1'):
        cores.map_parts(run, range(3))


def test_settings_in_threads_are_those_of_the_caller():
    rows = np.arange(4.0) + 2.0**-40
    with jax.enable_x64(True), jax.default_matmul_precision('highest'):
        result = cores.map_rows(lambda x: 1 * x, rows, 2)
        assert cores.map_parts(lambda _: jax.config.jax_default_matmul_precision, [0]) == [
            'highest'
        ]
    assert result.dtype == np.float64
    np.testing.assert_array_equal(result, rows)
    assert cores.map_parts(lambda _: jax.config.jax_enable_x64, [0]) == [False]
