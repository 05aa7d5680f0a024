"""Tables of images, rows of pixels, and the options that bring own data to one size."""

import numpy as np
import pytest
from PIL import Image

from lecture4.data import images, sources
from lecture4.data.dataset import DataError, SplitError
from lecture4.data.images import vectors

RNG = np.random.default_rng(0)


def write_images(folder, shapes):
    folder.mkdir(exist_ok=True)
    for name, shape in shapes.items():
        Image.fromarray(RNG.integers(0, 256, shape, np.uint8)).save(folder / name)


def test_a_table_of_files_with_labels_and_splits(tmp_path):
    write_images(tmp_path / 'files', {'a.png': (6, 8, 3), 'b.png': (9, 7), 'c.png': (6, 6)})
    table = tmp_path / 'set.csv'
    table.write_text(
        'Label,File,split\ncat,files/a.png,train\ndog,files/b.png,test\nowl,files/c.png,train\n'
    )
    train, test = (sources.load(f'csv:{table}', split) for split in ('train', 'test'))
    assert train.class_names == test.class_names == ('cat', 'dog', 'owl')
    assert train.labels.tolist() == [0, 2] and test.labels.tolist() == [1]
    assert train.images[0].shape == (6, 8, 3) and test.images.shape == (1, 9, 7, 1)
    with pytest.raises(SplitError, match="no split 'val'; it has test, train"):
        sources.load(f'csv:{table}', 'val')
    task = images.load(f'csv:{table}', image_size=5, pixels='stored', group_by_class=False)
    assert task.train_images.shape == (2, 5, 5, 3)


def test_unreadable_files_of_a_table_are_skipped_with_their_labels(tmp_path):
    write_images(tmp_path, {'a.png': (4, 4), 'c.png': (4, 4)})
    (tmp_path / 'set.csv').write_text('path,label\na.png,0\nb.png,1\nc.png,2\n')
    with pytest.raises(DataError, match=r'b\.png cannot be read .* --unreadable skip'):
        sources.load(f'csv:{tmp_path}/set.csv')
    data = sources.load(f'csv:{tmp_path}/set.csv', unreadable='skip')
    assert data.labels.tolist() == [0, 2] and len(data.images) == 2


@pytest.mark.parametrize('header', ['label,' + ','.join(f'p{i}' for i in range(6)) + '\n', ''])
def test_rows_of_pixels(tmp_path, header):
    x = RNG.integers(0, 256, (4, 6), np.uint8)
    rows = [','.join(map(str, [label, *row])) for label, row in zip([10, 2, 10, 9], x, strict=True)]
    (tmp_path / 'x.csv').write_text(header + '\n'.join(rows))
    data = sources.load(f'csv:{tmp_path}/x.csv', image_shape=(2, 3))
    np.testing.assert_array_equal(data.images, x.reshape(4, 2, 3, 1))
    assert data.images.dtype == np.uint8
    assert data.class_names == ('2', '9', '10') and data.labels.tolist() == [2, 0, 2, 1]


@pytest.mark.parametrize(
    ('text', 'match'),
    [
        (None, 'cannot be read'),
        ('path,label\n', 'has no rows'),
        ('path,label\na.png\n', 'row 1 has 1 values, expected 2'),
        ('name,label\na.png,1\n', 'neither numbers nor named path, file'),
        (
            'label,a,b\n1,2,3\n',
            'rows of 2 numbers; give the shape of an image with --image_shape H W',
        ),
        ('label,a,b\n,2,3\n', 'row 1 has no label'),
    ],
)
def test_bad_tables_are_refused(tmp_path, text, match):
    if text is not None:
        (tmp_path / 'x.csv').write_text(text)
    with pytest.raises(DataError, match=match):
        sources.load(f'csv:{tmp_path}/x.csv')


@pytest.mark.parametrize(
    'words', [('x', 'y'), ('X', 'Y'), ('data', 'target'), ('images', 'labels')]
)
def test_common_keys_of_npz_files(tmp_path, words):
    x, y = RNG.integers(0, 256, (3, 4, 4), np.uint8), np.array([1, 0, 1])
    for keys in (words, [f'{word}_train' for word in words], [f'train_{word}' for word in words]):
        np.savez(tmp_path / 'x.npz', **dict(zip(keys, (x, y), strict=True)))
        data = sources.load(f'npz:{tmp_path}/x.npz')
        np.testing.assert_array_equal(data.images[..., 0], x)
        np.testing.assert_array_equal(data.labels, y)


def test_images_of_a_scikit_learn_bunch_are_preferred_to_its_rows(tmp_path):
    x = RNG.random((3, 4, 4))
    np.savez(tmp_path / 'x.npz', data=x.reshape(3, -1), images=x, target=[0, 1, 0])
    data = sources.load(f'npz:{tmp_path}/x.npz')
    assert data.images.shape == (3, 4, 4, 1) and data.labels.tolist() == [0, 1, 0]


def test_a_single_array_is_the_images(tmp_path):
    np.savez(tmp_path / 'x.npz', np.zeros((3, 4, 4), np.uint8))
    assert sources.load(f'npz:{tmp_path}/x.npz').images.shape == (3, 4, 4, 1)


def test_rows_need_the_shape_of_an_image(tmp_path):
    source = f'npz:{tmp_path}/x.npz'
    for d, likely in ((784, '28 28'), (3072, '32 32 3'), (50, 'H W')):
        np.savez(tmp_path / 'x.npz', x_train=np.zeros((2, d), np.uint8))
        with pytest.raises(DataError, match=f'rows of {d} numbers; .* --image_shape {likely}$'):
            sources.load(source)
    with pytest.raises(DataError, match='--image_shape 5 5 has 25'):
        sources.load(source, image_shape=(5, 5))
    assert sources.load(source, image_shape=(5, 10)).images.shape == (2, 5, 10, 1)


def test_unlabeled_folders_are_split_and_brought_to_one_size(tmp_path):
    write_images(tmp_path / 'own', {f'{i}.png': (20 + i, 30, 3) for i in range(10)})
    source = f'dir:{tmp_path}/own'
    with pytest.raises(DataError, match=r"no split 'test'; .*--held_out 0\.1"):
        vectors.load_splits(source)
    with pytest.raises(DataError, match='several sizes; bring them to one with --image_size'):
        vectors.load_splits(source, held_out=0.2)
    loaded = vectors.load_splits(source, held_out=0.2, image_size=6, in_unit_interval=True)
    assert loaded.train.shape == (8, 36) and loaded.test.shape == (2, 36)
    assert loaded.image_shape == (6, 6, 1) and not len(loaded.train_labels)
    again = vectors.load_splits(source, held_out=0.2, image_size=6, seed=1)
    assert not np.array_equal(loaded.test, again.test)
    crops = vectors.load_splits(source, crop_size=8)
    assert crops.train.shape[1] == 64 and len(crops.train) > 50
    with pytest.raises(DataError, match='--crop_size excludes --image_size and --held_out'):
        vectors.load_splits(source, crop_size=8, held_out=0.2)


def test_labeled_sets_without_a_test_split_name_the_option(tmp_path):
    x = np.zeros((6, 4, 4), np.uint8)
    np.savez(tmp_path / 'x.npz', x=x, y=np.arange(6) % 2)
    with pytest.raises(DataError, match=r"no split 'test'; it has train; or .* --held_out 0\.1"):
        images.load(f'npz:{tmp_path}/x.npz')
    assert len(images.load(f'npz:{tmp_path}/x.npz', held_out=0.5).test_labels) == 3
