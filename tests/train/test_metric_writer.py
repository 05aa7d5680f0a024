"""metrics.jsonl keeps every complete row, and a resumed run continues it."""

import errno
import json

import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.train import metric_writer
from lecture4.train.config import UsageError
from lecture4.train.metric_writer import MetricWriter, phase_seconds, read


def test_rows_are_readable_at_once(tmp_path):
    writer = MetricWriter(tmp_path / 'metrics.jsonl', -1)
    writer.write(0, {'loss': jnp.float32(0.5), 'each': np.array([1.0, np.inf])}, 0.12345)
    writer.write(1, {'loss': float('nan')}, 1.0)
    assert read(tmp_path / 'metrics.jsonl') == [
        {'step': 0, 'seconds': 0.123, 'loss': 0.5, 'each': [1.0, None]},
        {'step': 1, 'seconds': 1, 'loss': None},
    ]
    writer.close()


def test_resuming_drops_rows_after_the_restored_step(tmp_path):
    path = tmp_path / 'metrics.jsonl'
    for restored, steps in ((-1, (0, 1, 2)), (1, (2, 3))):
        writer = MetricWriter(path, restored)
        for step in steps:
            writer.write(step, {'run': restored}, 0.0)
        writer.sync()
        writer.close()
    assert [(row['step'], row['run']) for row in read(path)] == [(0, -1), (1, -1), (2, 1), (3, 1)]


def test_a_truncated_last_line_is_left_out(tmp_path):
    path = tmp_path / 'metrics.jsonl'
    path.write_text('{"step": 1}\n{"step": 2}\n{"ste')
    assert read(path) == [{'step': 1}, {'step': 2}]
    assert read(tmp_path / 'none.jsonl') == []


def test_phases_take_their_steps_times_the_median(tmp_path):
    rows = [(10, 5.0), (20, 6.0), (25, 0.5), (30, 2.5), (40, 5.5), (50, 9.5)]
    lines = [json.dumps({'step': step, 'seconds': seconds}) for step, seconds in rows]
    (tmp_path / 'metrics.jsonl').write_text('\n'.join(lines) + '\n')
    first, second, none = phase_seconds(tmp_path / 'metrics.jsonl', [20, 50, 60])
    assert (first, second) == pytest.approx((20 * 0.1, 30 * 0.4)) and none != none


def test_a_damaged_line_within_the_file_is_named(tmp_path):
    path = tmp_path / 'metrics.jsonl'
    for line in (
        b'{"ste',
        b'3',
        b'{"loss": 1}',
        b'{"step": "1"}',
        b'{"step": 1, "seconds": []}',
        b'\xff',
    ):
        path.write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 3}\n')
        with pytest.raises(UsageError, match=r'metrics.jsonl line 2 is not a row of JSON'):
            read(path)


def test_a_full_disk_is_reported_with_the_fix(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, 'No space left on device')

    writer = MetricWriter(tmp_path / 'metrics.jsonl', -1)
    monkeypatch.setattr('os.fsync', full)
    with pytest.raises(UsageError, match=r'No space left on device; free .* command to resume'):
        writer.sync()
    writer.close()


def test_hyperparameters_and_results_go_to_event_files(tmp_path):
    pytest.importorskip('tensorboardX')
    for depth in (20, 32):  # a second report replaces the first
        metric_writer.write_hyperparameters(
            tmp_path,
            {'depth': depth, 'dims': (1, 2)},
            {'error': np.float32(0.25), 'all': np.ones(3)},
        )
    (events,) = (tmp_path / 'hyperparameters').iterdir()
    content = events.read_bytes()
    assert b'depth' in content and b'(1, 2)' in content and b'result/error' in content
    assert b'result/all' not in content


def test_scalars_go_to_event_files_where_tensorboard_is(tmp_path):
    pytest.importorskip('tensorboardX')
    writer = MetricWriter(tmp_path / 'metrics.jsonl', -1, tmp_path / 'events')
    writer.write(0, {'loss': 0.5}, 0.0)
    writer.close()
    (events,) = (tmp_path / 'events').iterdir()
    assert b'loss' in events.read_bytes()
    assert json.loads((tmp_path / 'metrics.jsonl').read_text())['loss'] == 0.5
