"""Labeled tasks of images of one size, and mistakes in their splits."""

import itertools

import numpy as np
import pytest
from PIL import Image

from lecture4.data import images, sources
from lecture4.data.dataset import DataError
from lecture4.data.images import crops, task
from lecture4.data.images.loading import load_images

RNG = np.random.default_rng(0)


def folder(path, images):
    """Class folders from {relative name: pixels}."""
    for name, pixels in images.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path / name)
    return f'dir:{path}'


def random(h, w):
    return RNG.integers(0, 256, (h, w, 3), np.uint8)


def test_image_size_gives_the_center_square_of_the_resized_image(tmp_path):
    wide, high = random(20, 33), random(31, 20)
    source = folder(
        tmp_path,
        {
            'train/a/1.png': wide,
            'train/b/1.png': high,
            'test/b/1.png': high,
            'test/a/1.png': wide,
        },
    )
    squares = task.load(source, image_size=10, pixels='stored', group_by_class=False)
    assert squares.train_images.dtype == np.uint8 and squares.train_images.shape == (2, 10, 10, 3)
    resized = np.asarray(Image.fromarray(wide).resize((16, 10), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(squares.train_images[0], resized[:, 3:13])
    resized = np.asarray(Image.fromarray(high).resize((10, 15), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(squares.test_images[1], resized[2:12])
    assert list(squares.test_labels) == [0, 1] and squares.class_names == ('a', 'b')
    with pytest.raises(DataError, match='several sizes; bring them to one with --image_size'):
        task.load(source, pixels='stored')
    # Images are resized as they are read: no more than the squares are held.
    small = sources.load(source, transform=lambda image: image[:2, :2])
    assert small.images.shape == (2, 2, 2, 3)


def test_images_of_one_size_need_not_be_square(tmp_path):
    source = folder(tmp_path, {f'{s}/a/1.png': random(4, 7) for s in ('train', 'test')})
    assert task.load(source).train_images.shape == (1, 4, 7, 1)
    folder(tmp_path, {'test/a/1.png': random(7, 4)})
    with pytest.raises(DataError, match='training images are 4 x 7 x 1, those of test 7 x 4 x 1'):
        task.load(source)


def test_classes_are_matched_by_name(tmp_path):
    image = random(4, 4)
    source = folder(tmp_path, {f'train/{c}/1.png': image for c in 'abc'} | {'test/c/1.png': image})
    assert list(task.load(source).test_labels) == [2]
    assert list(task.load(source, classes=(0, 2)).test_labels) == [1]
    folder(tmp_path, {'test/bird/1.png': image})
    with pytest.raises(DataError, match='classes that training does not have: bird'):
        task.load(source)
    with pytest.raises(DataError, match="no split 'val'; it has test, train"):
        task.load(source, test_split='val')


def test_held_out_images_are_not_trained_on(tmp_path):
    images = RNG.integers(0, 256, (40, 3, 3), np.uint8)
    np.savez(tmp_path / 'set.npz', images=images, labels=np.arange(40) % 4)
    held_out = task.load(f'npz:{tmp_path}/set.npz', held_out=0.25, pixels='stored')
    assert len(held_out.train_images) == 30 and len(held_out.test_images) == 10
    both = np.concatenate([held_out.train_images, held_out.test_images])[..., 0]
    labels = np.concatenate([held_out.train_labels, held_out.test_labels])
    rows = [np.flatnonzero((images == image).all((1, 2)))[0] for image in both]
    assert sorted(rows) == list(range(40))
    np.testing.assert_array_equal(np.array(rows) % 4, labels)
    with pytest.raises(DataError, match="no split 'test'"):
        task.load(f'npz:{tmp_path}/set.npz')


@pytest.mark.parametrize('crop_size, rows, columns', [(128, 7, 3), (64, 15, 7)])
def test_crops_of_the_two_halves_share_no_pixel(crop_size, rows, columns):
    halves = task.load('textures', crop_size=crop_size, pixels='float')
    shape = (3 * rows * columns, crop_size, crop_size, 1)
    assert halves.train_images.shape == shape == halves.test_images.shape
    assert list(np.bincount(halves.train_labels)) == [rows * columns] * 3
    train = {image.tobytes() for image in halves.train_images}
    assert not train & {image.tobytes() for image in halves.test_images}
    # Every pixel of an image of distinct values is in the training crops or in the test ones.
    image = np.arange(40 * 32, dtype=np.float32).reshape(1, 40, 32, 1)
    left, right = crops.split_left_right(image)
    first, second = (set(crops.grid_crops(half, 8, 4)[0].ravel()) for half in (left, right))
    assert len(first) == len(second) == 40 * 16 and not first & second


def test_images_of_several_sizes_can_be_cropped(tmp_path):
    names = itertools.product(('train', 'test'), 'ab', (9, 12))
    source = folder(tmp_path, {f'{s}/{c}/{n}.png': random(n, n) for s, c, n in names})
    assert task.load(source, crop_size=4).train_images.shape[1:] == (4, 4, 1)


def test_candidates_per_class_are_a_function_of_the_seed():
    few = task.load('digits', candidates_per_class=5, classes=(5, 6), seed=1)
    assert np.bincount(few.train_labels).tolist() == [5, 5]
    again = task.load('digits', candidates_per_class=5, classes=(5, 6), seed=1)
    other = task.load('digits', candidates_per_class=5, classes=(5, 6), seed=2)
    np.testing.assert_array_equal(few.train_images, again.train_images)
    assert (few.train_images != other.train_images).any()
    np.testing.assert_array_equal(
        few.test_images, load_images('digits', 'test', classes=(5, 6)).images
    )


def test_grouping_by_class_keeps_every_example():
    stored = task.load('digits', group_by_class=False)
    grouped = task.load('digits', seed=3)
    assert (np.diff(grouped.train_labels) >= 0).all()
    assert grouped.train_images.tobytes() != stored.train_images.tobytes()
    for c in range(10):
        images = [x.train_images[x.train_labels == c] for x in (stored, grouped)]
        assert {image.tobytes() for image in images[0]} == {image.tobytes() for image in images[1]}


def test_shuffled_splits_are_disjoint_and_of_all_images():
    stored = task.load('digits', pixels='stored', group_by_class=False)
    parts = task.shuffled_splits(stored, (1000, 500, 297), seed=0)
    assert [len(images) for images, _ in parts] == [1000, 500, 297]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    everything = sources.load('digits', 'all')
    order = np.lexsort(everything.images.reshape(1797, -1).T)
    redistributed = np.lexsort(images.reshape(1797, -1).T)
    np.testing.assert_array_equal(images[redistributed], everything.images[order])
    np.testing.assert_array_equal(labels[redistributed], everything.labels[order])
    with pytest.raises(DataError, match=r'at most 1797 images in all parts, got 1000 \+ 798'):
        task.shuffled_splits(stored, (1000, 798), seed=0)


def test_pixels_are_gray_float_or_stored(tmp_path):
    images = RNG.integers(256, size=(6, 9, 9, 3), dtype=np.uint8)
    arrays = {f'{s}_images': images for s in ('train', 'test')}
    arrays |= {f'{s}_labels': np.arange(6) % 2 for s in ('train', 'test')}
    np.savez(tmp_path / 'set.npz', **arrays)
    source = f'npz:{tmp_path}/set.npz'
    np.testing.assert_array_equal(task.load(source, pixels='stored').test_images, images)
    floats = images.astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(task.load(source, pixels='float').test_images, floats)
    gray = task.load(source).test_images
    np.testing.assert_array_equal(gray, crops.to_grayscale(images))


def test_unlabeled_sources_and_exclusive_options_are_refused():
    for options in ({'image_size': 32}, {'crop_size': 32}, {'held_out': 0.5, 'image_size': 8}):
        with pytest.raises(DataError, match='photos has no labels'):
            task.load('photos', **options)
    for options in ({'image_size': 32}, {'held_out': 0.5}):
        with pytest.raises(DataError, match='it excludes --image_size and --held_out'):
            task.load('textures', crop_size=8, **options)
    with pytest.raises(DataError, match='image_size of at least 1, got -3'):
        task.load('digits', image_size=-3)


def test_a_related_task_has_the_other_classes():
    sets = images.load_related(
        'digits',
        classes=(0, 1),
        other_classes=(2, 3, 4),
        candidates_per_class=6,
        num_eval=7,
        seed=1,
    )
    assert len(sets.task.train_images) == 12 and len(sets.task.test_images) == 7
    assert sets.others.class_names == ('2', '3', '4')
    assert sets.unlabeled is sets.others.train_images
    other = images.load_related(
        'digits', classes=(0, 1), other_classes=(2,), unlabeled='photos', num_unlabeled=5
    )
    assert other.unlabeled.shape == (5, 8, 8, 1)


def test_a_subsample_keeps_images_and_labels_together():
    task = images.load('digits', classes=(0, 1))
    few = images.subsample_test(task, 5, 0)
    every = images.subsample_test(task, 0, 0)
    assert len(few.test_labels) == 5 and len(every.test_labels) == len(task.test_labels)
    np.testing.assert_array_equal(few.test_images, every.test_images[:5])
    for image, label in zip(few.test_images, few.test_labels, strict=True):
        rows = np.flatnonzero((task.test_images == image).all((1, 2, 3)))
        assert label in task.test_labels[rows]


def test_photographs_are_the_classes_of_their_crops():
    photos = task.load_squares('photos', 100)
    assert photos.train_images.shape[1:] == photos.test_images.shape[1:] == (100, 100, 3)
    assert len(photos.class_names) == 9 and set(photos.test_labels) == set(range(9))


def test_border_is_zero_around_every_image():
    digits = task.load_squares('digits', 0)
    padded = task.add_border(digits, 2)
    assert padded.test_images.shape[1:3] == (12, 12)
    np.testing.assert_array_equal(padded.test_images[:, 2:-2, 2:-2], digits.test_images)
    assert padded.test_images.sum() == digits.test_images.sum()
