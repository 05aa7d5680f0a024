"""Labelled squares of sources whose pictures differ in size, and mistakes in their splits."""

import numpy as np
import pytest
from PIL import Image

from lecture4.data import sources
from lecture4.data.dataset import DataError
from lecture4.data.images import task

RNG = np.random.default_rng(0)


def folder(path, pictures):
    """Class folders from {relative name: pixels}."""
    for name, pixels in pictures.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path / name)
    return f'dir:{path}'


def random(h, w):
    return RNG.integers(0, 256, (h, w, 3), np.uint8)


def test_the_middle_square_of_the_resized_picture(tmp_path):
    wide, high = random(20, 33), random(31, 20)
    source = folder(tmp_path, {'train/a/1.png': wide, 'train/b/1.png': high, 'test/b/1.png': high,
                               'test/a/1.png': wide})  # fmt: skip
    found = task.load(source, 10)
    assert found.train_images.dtype == np.uint8 and found.train_images.shape == (2, 10, 10, 3)
    resized = np.asarray(Image.fromarray(wide).resize((16, 10), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(found.train_images[0], resized[:, 3:13])
    resized = np.asarray(Image.fromarray(high).resize((10, 15), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(found.test_images[1], resized[2:12])
    assert list(found.test_labels) == [0, 1] and found.names == ('a', 'b')
    with pytest.raises(DataError, match='not all squares of one size; name the side'):
        task.load(source)
    # Squares are made as pictures are read: no more than they are held.
    kept = sources.load(source, each=lambda image: image[:2, :2])
    assert kept.images.shape == (2, 2, 2, 3)


def test_classes_are_matched_by_name(tmp_path):
    one = random(4, 4)
    source = folder(tmp_path, {f'train/{c}/1.png': one for c in 'abc'} | {'test/c/1.png': one})
    assert list(task.load(source).test_labels) == [2]
    folder(tmp_path, {'test/bird/1.png': one})
    with pytest.raises(DataError, match='test has bird, which training has not'):
        task.load(source)
    with pytest.raises(DataError, match="no split 'val'; it has test, train"):
        task.load(source, test_split='val')


def test_held_out_pictures_are_not_trained_on(tmp_path):
    images = RNG.integers(0, 256, (40, 3, 3), np.uint8)
    np.savez(tmp_path / 'set.npz', images=images, labels=np.arange(40) % 4)
    found = task.load(f'npz:{tmp_path}/set.npz', held_out=0.25)
    assert len(found.train_images) == 30 and len(found.test_images) == 10
    both = np.concatenate([found.train_images, found.test_images])[..., 0]
    labels = np.concatenate([found.train_labels, found.test_labels])
    for image, label in zip(both, labels, strict=True):
        (row,) = np.flatnonzero((images == image).all((1, 2)))
        assert row % 4 == label
    with pytest.raises(DataError, match="no split 'test'"):
        task.load(f'npz:{tmp_path}/set.npz')


def test_cuts_of_textures_share_no_pixel():
    found = task.load('textures', 128, cut=True)
    assert found.train_images.shape == (3 * 7 * 3, 128, 128, 1) == found.test_images.shape
    assert list(np.bincount(found.train_labels)) == [21, 21, 21]
    train = {image.tobytes() for image in found.train_images}
    assert not train & {image.tobytes() for image in found.test_images}
    with pytest.raises(DataError, match='photos has no labels'):
        task.load('photos', 32)
