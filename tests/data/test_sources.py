import subprocess
import sys

import numpy as np
import pytest
from sklearn import datasets

from lecture4.data import sources
from lecture4.data.sources.registry import DataError


def test_import_is_light():
    heavy = ['tensorflow_datasets', 'grain', 'jax', 'skimage', 'sklearn', 'PIL', 'scipy', 'absl']
    code = f'import sys, lecture4.data.sources.registry; print([m for m in {heavy} if m in sys.modules])'
    assert subprocess.check_output([sys.executable, '-c', code], text=True).strip() == '[]'


def test_photos_are_bundled_color_photographs():
    data = sources.load('photos')
    assert len(data.images) == 9 and data.labels is None
    for image in data.images:
        assert image.dtype == np.uint8 and image.shape[2] == 3
        assert min(image.shape[:2]) >= 300 and image.std() > 20
    sklearn = datasets.load_sample_images().images
    for ours, theirs in zip(data.images, sklearn, strict=False):
        np.testing.assert_array_equal(ours, theirs)
    assert len({image.tobytes() for image in data.images}) == 9


def test_textures_are_three_labeled_images():
    from skimage import data as skimage_data

    data = sources.load('textures')
    assert data.class_names == ('brick', 'grass', 'gravel') and list(data.labels) == [0, 1, 2]
    for name, image in zip(data.class_names, data.images, strict=True):
        np.testing.assert_array_equal(image[..., 0], getattr(skimage_data, name)())


def test_bundled_images_do_not_import_their_package():
    code = (
        'import sys; from lecture4.data import sources; sources.load("photos"); '
        'sources.load("textures"); print([m for m in ("skimage", "sklearn") if m in sys.modules])'
    )
    assert subprocess.check_output([sys.executable, '-c', code], text=True).strip() == '[]'


def test_digits_are_scaled_exactly_and_split():
    whole, train, test = (sources.load('digits', split) for split in ('all', 'train', 'test'))
    reference = datasets.load_digits()
    assert whole.images.shape == (1797, 8, 8, 1) and whole.images.dtype == np.float32
    np.testing.assert_array_equal(whole.images[..., 0] * 16, reference.images)
    np.testing.assert_array_equal(whole.labels, reference.target)
    np.testing.assert_array_equal(np.concatenate([train.images, test.images]), whole.images)
    np.testing.assert_array_equal(np.concatenate([train.labels, test.labels]), whole.labels)
    assert len(test.labels) == 500 and len(set(test.labels)) == 10


@pytest.mark.parametrize('name', ['photos', 'textures', 'digits', 'olshausen'])
def test_unknown_split_lists_those_that_exist(name):
    with pytest.raises(DataError, match=rf"{name} has no split 'valid'; it has .*train"):
        sources.load(name, 'valid')


@pytest.mark.parametrize(
    ('source', 'hint'),
    [
        ('mnits', 'did you mean mnist'),
        ('Omniglot', 'did you mean omniglot'),
        ('photo', 'did you mean photos'),
        ('nothing like it', 'available are photos'),
        ('dir:', 'available are photos'),
        ('', 'available are photos'),
        ('zip:/x', 'npz:PATH'),
    ],
)
def test_unknown_source_suggests_the_nearest_name(source, hint):
    with pytest.raises(DataError, match=rf'unknown data set .*{hint}'):
        sources.load(source)


def test_a_path_without_prefix_is_suggested_with_it(tmp_path):
    with pytest.raises(DataError, match=f'did you mean dir:{tmp_path}'):
        sources.load(str(tmp_path))
    (tmp_path / 'a.npz').write_bytes(b'')
    with pytest.raises(DataError, match=f'did you mean npz:{tmp_path}/a.npz'):
        sources.load(f'{tmp_path}/a.npz')


@pytest.mark.parametrize('name', ['mnist', 'omniglot'])
def test_missing_set_says_what_to_run(name, tmp_path, monkeypatch):
    monkeypatch.delenv('LECTURE4_MANUAL_DIR', raising=False)
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'here'))
    with pytest.raises(DataError, match=rf'{name} is not prepared in .*/here/.*--download') as e:
        sources.load(name)
    assert '--manual_dir PATH' in str(e.value)
    with pytest.raises(DataError, match=rf'{name} is not prepared in .*/there/'):
        sources.load(name, data_dir=tmp_path / 'there')
    monkeypatch.setenv('LECTURE4_MANUAL_DIR', str(tmp_path / 'gone'))
    with pytest.raises(DataError, match=r'--manual_dir .*/gone is not a folder'):
        sources.load(name)
    assert not list(tmp_path.iterdir())


def test_files_other_than_the_published_ones_are_refused(tiny_mnist, tmp_path):
    with pytest.raises(DataError, match=r'is truncated or altered: expected 1648877 bytes, sha256'):
        sources.load('mnist', data_dir=tmp_path / 'prepared', manual_dir=tiny_mnist.folder)


def test_olshausen_from_a_manual_folder(tmp_path, monkeypatch):
    monkeypatch.delenv('LECTURE4_MANUAL_DIR', raising=False)
    with pytest.raises(DataError, match='--manual_dir PATH'):
        sources.load('olshausen')
    path = tmp_path / 'IMAGES_whitened_10x512x512_float32.npy'
    images = np.zeros((10, 512, 512), np.float32)
    images[3] = 0.5
    np.save(path, images)
    data = sources.load('olshausen', manual_dir=tmp_path)
    np.testing.assert_array_equal(data.images[..., 0], images)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r'float32\.npy cannot be read'):
        sources.load('olshausen', manual_dir=tmp_path)
    np.save(path, images[:9])
    with pytest.raises(DataError, match=r'got float32 \(9, 512, 512\)'):
        sources.load('olshausen', manual_dir=tmp_path)


def test_random_images_have_the_shape_and_classes_of_their_name():
    train = sources.load('random:4x6x3:7')
    assert (train.images.shape, train.images.dtype) == ((1000, 4, 6, 3), np.uint8)
    assert np.bincount(train.labels).min() == 142
    assert len(train.class_names) == 7
    np.testing.assert_array_equal(train.images, sources.load('random:4x6x3:7').images)
    assert (train.images != sources.load('random:4x6x3:7', 'test').images).any()
    assert sources.load('random:1x1x1:2000').images.shape[0] == 2000
    assert sources.load('random:4x4x1').labels is None


@pytest.mark.parametrize('shape', ['', '4x4', '4x4x0:2', '4x4x1:0', 'AxBxC:2'])
def test_random_images_of_no_shape_name_the_form(shape):
    with pytest.raises(DataError, match='random:'):
        sources.load(f'random:{shape}')


def test_random_images_have_no_other_split():
    with pytest.raises(DataError, match='it has train, test'):
        sources.load('random:4x4x1:2', 'validation')
