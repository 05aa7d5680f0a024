"""A run is resumed on the data that it was started on, or refused with what changed."""

import dataclasses

import numpy as np
import pytest

from lecture4 import train
from lecture4.train import data_fingerprint
from lecture4.train.config import UsageError


def data(names=('cat', 'dog'), labels=(0, 1, 0, 1), scale=1.0, n=4):
    x = np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32) * np.float32(scale)
    arrays = {'images': x, 'labels': np.array(labels[:n], np.int32)}
    return train.in_memory(arrays, 2, seed=0, spec=train.Spec((3,), names))


@pytest.mark.parametrize(
    ('changed', 'match'),
    [
        ({'names': ('cat', 'cow')}, 'classes were cat, dog, now cat, cow'),
        ({'names': ('cat', 'cow', 'dog')}, 'now cat, cow, dog'),
        ({'labels': (1, 0, 0, 1)}, r"the values of data\['labels'\] have changed"),
        ({'scale': 1.1}, r"the values of data\['images'\] have changed"),
        ({'n': 3}, r"data\['images'\] had the shape \(4, 3\), now \(3, 3\)"),
    ],
)
def test_other_data_are_refused(tmp_path, changed, match):
    data_fingerprint.check(tmp_path, data())
    data_fingerprint.check(tmp_path, data(scale=1.00001))  # another machine's rounding
    with pytest.raises(UsageError, match=match):
        data_fingerprint.check(tmp_path, data(**changed))
    data_fingerprint.check(tmp_path, data())


def test_host_batches_and_missing_arrays_count(tmp_path):
    whole = data()
    data_fingerprint.check(tmp_path, whole)
    other = dataclasses.replace(whole, batch=lambda n: np.array([3, 3], np.int32))
    with pytest.raises(UsageError, match='the values of first batch have changed'):
        data_fingerprint.check(tmp_path, other)
    with pytest.raises(UsageError, match=r"data\['images'\] is no longer there"):
        data_fingerprint.check(tmp_path, dataclasses.replace(whole, device_arrays=()))


def test_large_arrays_are_hashed_at_both_ends(monkeypatch):
    monkeypatch.setattr(data_fingerprint, 'HASHED_BYTES', 8)
    first = np.arange(40, dtype=np.uint8)
    last = first.copy()
    last[-1] = 0
    assert data_fingerprint._contents(first) != data_fingerprint._contents(last)


def test_damaged_file_is_named(tmp_path):
    for text in ('{', '[]', '3', '{"shape": [8]}', '{"classes": 3, "shape": 3}'):
        (tmp_path / 'data.json').write_text(text)
        with pytest.raises(UsageError, match=r'data\.json is damaged'):
            data_fingerprint.check(tmp_path, data())
