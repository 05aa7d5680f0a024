"""The profiler traces steps 10 to 20 of a process, and nothing else."""

import gzip
import json
import logging

import jax
import jax.numpy as jnp
import pytest

from lecture4.train import profile


def loop(directory, enabled, steps, start=0, stride=1):
    double = jax.jit(lambda x: 2 * x)
    x = jnp.zeros(4)
    with profile.Profiler(directory, enabled) as profiler:
        for n in range(start, start + steps, stride):
            profiler.at(n, x)
            with jax.profiler.TraceAnnotation(f'step_{n}'):
                x = double(x)


def traced_steps(directory):
    (path,) = directory.rglob('perfetto_trace.json.gz')
    events = json.loads(gzip.decompress(path.read_bytes()))['traceEvents']
    names = {event.get('name', '') for event in events}
    return sorted(int(name[5:]) for name in names if name.startswith('step_'))


@pytest.mark.parametrize(
    ('steps', 'start', 'stride', 'expected'),
    [
        (30, 0, 1, list(range(10, 20))),
        (25, 500, 1, list(range(510, 520))),  # of a resumed run
        (40, 0, 4, [12, 16]),  # four steps per call
        (15, 0, 1, list(range(10, 15))),  # ended while tracing
    ],
)
def test_steps_10_to_20_are_traced(tmp_path, steps, start, stride, expected):
    loop(tmp_path / 'profile', True, steps, start, stride)
    assert list((tmp_path / 'profile').rglob('*.xplane.pb'))
    assert traced_steps(tmp_path / 'profile') == expected


def test_nothing_is_traced_unless_enabled(tmp_path, caplog):
    loop(tmp_path / 'profile', False, 30)
    assert not (tmp_path / 'profile').exists() and not caplog.records


def test_a_run_too_short_to_trace_is_reported(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, 'lecture4'):
        loop(tmp_path / 'profile', True, 5)
    assert 'ended before step 10' in caplog.text
    assert not (tmp_path / 'profile').exists()
