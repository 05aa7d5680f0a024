"""The timer compiles first, lets the functions take turns, and returns the median."""

import itertools

import jax
import jax.numpy as jnp
import pytest

from lecture4.features import timing


def logged(name, calls):
    def function(x):
        jax.debug.callback(lambda: calls.append(name), ordered=True)
        return x + 1

    return function


def test_functions_are_traced_once_and_take_turns():
    calls = []
    functions = {name: logged(name, calls) for name in ('a', 'b')}
    times = timing.median_times(functions, (jnp.ones(3),), num_repeats=3)
    jax.effects_barrier()
    assert list(times) == ['a', 'b'] and all(seconds > 0 for seconds in times.values())
    assert calls == ['a', 'b'] * 4


def test_the_time_is_the_median(monkeypatch):
    """Clock readings that make the runs of a take 1, 9 and 2 seconds, those of b 5, 5 and 5."""
    lengths = [1, 5, 9, 5, 2, 5]
    readings = itertools.accumulate(itertools.chain(*((0, length) for length in lengths)))
    monkeypatch.setattr(timing.time, 'perf_counter', lambda: next(readings))
    times = timing.median_times({'a': jnp.sin, 'b': jnp.cos}, (jnp.ones(3),), num_repeats=3)
    assert times == {'a': 2, 'b': 5}


def test_no_repeats_are_refused():
    with pytest.raises(ValueError, match='num_repeats=0; expected at least 1'):
        timing.median_times({'a': jnp.sin}, (jnp.ones(3),), num_repeats=0)
