"""Images on the disk against the same in memory."""

import numpy as np
import pytest
from PIL import Image

from lecture4.data.dataset import DataError
from lecture4.data.images import task

RNG = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path):
    """Two classes of four and three images of different sizes, one of them grayscale."""
    for name, n in (('a', 4), ('b', 3)):
        (tmp_path / 'train' / name).mkdir(parents=True)
        (tmp_path / 'test' / name).mkdir(parents=True)
        for i in range(n):
            pixels = RNG.integers(0, 256, (12 + i, 10, 3), np.uint8)
            pixels = pixels[..., 0] if (name, i) == ('b', 1) else pixels
            for split in ('train', 'test'):
                Image.fromarray(pixels).save(tmp_path / split / name / f'{i}.png')
    return tmp_path


def load(folder, **options):
    options = {'image_size': 8, 'pixels': 'stored', 'group_by_class': False} | options
    return task.load(f'dir:{folder}', **options)


def test_rows_are_those_of_the_set_in_memory(folder):
    memory = load(folder)
    disk = task.load(
        f'dir:{folder}', image_size=8, pixels='stored', group_by_class=False, on_disk=True
    )
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


def test_held_out_images_stay_on_the_disk(folder):
    memory = task.load(
        f'dir:{folder}', image_size=8, pixels='stored', group_by_class=False, held_out=0.4, seed=3
    )
    disk = task.load(
        f'dir:{folder}',
        image_size=8,
        pixels='stored',
        group_by_class=False,
        held_out=0.4,
        seed=3,
        on_disk=True,
    )
    for name in ('train_images', 'test_images', 'train_labels', 'test_labels'):
        np.testing.assert_array_equal(getattr(disk, name)[:], getattr(memory, name))


def test_unreadable_images_are_refused_or_replaced_by_their_class(folder, caplog):
    images = task.load(
        f'dir:{folder}', image_size=8, pixels='stored', group_by_class=False, on_disk=True
    ).train_images[:]
    for name in ('a/1', 'a/2', 'b/2'):
        (folder / f'train/{name}.png').write_bytes(b'none')
    with pytest.raises(DataError, match=r'a/1\.png cannot be read'):
        task.load(
            f'dir:{folder}', image_size=8, pixels='stored', group_by_class=False, on_disk=True
        ).train_images[:]
    skipping = task.load(
        f'dir:{folder}',
        image_size=8,
        pixels='stored',
        group_by_class=False,
        on_disk=True,
        unreadable='skip',
    ).train_images
    np.testing.assert_array_equal(skipping[:], images[[0, 3, 3, 3, 4, 5, 4]])
    assert skipping[6].tolist() == images[4].tolist()
    assert caplog.text.count('skipped') == 3, 'each is logged once'
    for i in (0, 1):
        (folder / f'train/b/{i}.png').write_bytes(b'none')
    with pytest.raises(DataError, match='all others of its class cannot be read'):
        skipping[6]


def test_the_last_image_of_a_class_replaces_all_others(folder):
    images = load(folder, on_disk=True).train_images[:]
    for name in ('a/1', 'a/2', 'a/3', 'b/0', 'b/1'):
        (folder / f'train/{name}.png').write_bytes(b'none')
    skipping = load(folder, on_disk=True, unreadable='skip').train_images
    np.testing.assert_array_equal(skipping[:], images[[0, 0, 0, 0, 6, 6, 6]])


def test_what_cannot_stay_on_the_disk(folder):
    for source, options in (
        ('digits', {'image_size': 8}),
        (f'dir:{folder}', {}),
        (f'dir:{folder}', {'crop_size': 4}),
        (f'dir:{folder}', {'image_size': 8, 'pixels': 'gray'}),
        (f'dir:{folder}', {'image_size': 8, 'classes': (0, 1)}),
    ):
        with pytest.raises(DataError, match='name such a source and an --image_size'):
            task.load(source, on_disk=True, **({'pixels': 'stored'} | options))
