"""Pictures on the disk against the same in memory; batches ahead against the function itself."""

import time

import numpy as np
import pytest
from PIL import Image

from lecture4.data.dataset import DataError
from lecture4.data.images import prefetch, task

RNG = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path):
    """Two classes of four and three pictures of different sizes, one of them grey."""
    for name, n in (('a', 4), ('b', 3)):
        (tmp_path / 'train' / name).mkdir(parents=True)
        (tmp_path / 'test' / name).mkdir(parents=True)
        for i in range(n):
            pixels = RNG.integers(0, 256, (12 + i, 10, 3), np.uint8)
            pixels = pixels[..., 0] if (name, i) == ('b', 1) else pixels
            for split in ('train', 'test'):
                Image.fromarray(pixels).save(tmp_path / split / name / f'{i}.png')
    return tmp_path


def test_rows_are_those_of_the_set_in_memory(folder):
    memory = task.load(f'dir:{folder}', 8)
    disk = task.load(f'dir:{folder}', 8, on_disk=True)
    assert disk.train_images.shape == memory.train_images.shape == (7, 8, 8, 3)
    assert disk.train_images.dtype == np.uint8 and len(disk.train_images) == 7
    np.testing.assert_array_equal(disk.train_labels, memory.train_labels)
    for rows in (
        slice(None),
        slice(2, 5),
        slice(3, 3),
        np.array([[6, 0], [0, 5]]),
        -1,
        np.int64(3),
    ):
        np.testing.assert_array_equal(disk.train_images[rows], memory.train_images[rows])
        np.testing.assert_array_equal(disk.test_images[rows], memory.test_images[rows])
    with pytest.raises(IndexError):
        disk.train_images[7]
    np.testing.assert_array_equal(disk.train_images.take([5, 1])[:], memory.train_images[[5, 1]])


def test_held_out_pictures_stay_on_the_disk(folder):
    memory = task.load(f'dir:{folder}', 8, held_out=0.4, seed=3)
    disk = task.load(f'dir:{folder}', 8, held_out=0.4, seed=3, on_disk=True)
    for name in ('train_images', 'test_images', 'train_labels', 'test_labels'):
        np.testing.assert_array_equal(getattr(disk, name)[:], getattr(memory, name))


def test_unreadable_pictures_are_refused_or_replaced_by_their_class(folder, caplog):
    whole = task.load(f'dir:{folder}', 8, on_disk=True).train_images[:]
    for name in ('a/1', 'a/2', 'b/2'):
        (folder / f'train/{name}.png').write_bytes(b'none')
    with pytest.raises(DataError, match=r'a/1\.png cannot be read'):
        task.load(f'dir:{folder}', 8, on_disk=True).train_images[:]
    skipping = task.load(f'dir:{folder}', 8, on_disk=True, unreadable='skip').train_images
    np.testing.assert_array_equal(skipping[:], whole[[0, 3, 3, 3, 4, 5, 4]])
    assert skipping[6].tolist() == whole[4].tolist()
    assert caplog.text.count('left out') == 3, 'each is told once'
    for i in (0, 1):
        (folder / f'train/b/{i}.png').write_bytes(b'none')
    with pytest.raises(DataError, match='all others of its class cannot be read'):
        skipping[6]


def test_what_cannot_stay_on_the_disk(folder):
    for source, side, cut in (
        ('digits', 8, False),
        (f'dir:{folder}', 0, False),
        (f'dir:{folder}', 4, True),
    ):
        with pytest.raises(DataError, match='name such a source and a side'):
            task.load(source, side, cut=cut, on_disk=True)


def test_batches_ahead_are_the_functions_own_in_any_order():
    made = []

    def batch(n):
        made.append(n)
        return n**2

    asked = [5, 6, 7, 7, 2, 3, 4, 5]
    quick = prefetch.ahead(batch, 2)
    assert [quick(n) for n in asked] == [n**2 for n in asked]
    deadline = time.monotonic() + 10
    while 7 not in made[made.index(2) :] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert {6, 7} <= set(made[made.index(2) :]), 'two batches are made before they are asked for'
    assert max(made[made.index(2) :]) <= 8


def test_errors_come_with_their_batch():
    def batch(n):
        if n == 3:
            raise DataError('3.png cannot be read')
        return n

    quick = prefetch.ahead(batch)
    assert [quick(1), quick(2)] == [1, 2]
    with pytest.raises(DataError, match='cannot be read'):
        quick(3)
    assert quick(4) == 4
