"""Folders of images: layouts, splits, and what cannot be read."""

import numpy as np
import pytest
from PIL import Image

from lecture4.data import sources
from lecture4.data.dataset import DataError

RAMP = np.arange(96, dtype=np.uint8).reshape(8, 12)
COLORS = np.random.default_rng(0).integers(256, size=(8, 12, 3), dtype=np.uint8)


def save(path, pixels=RAMP, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


def test_class_folders(tmp_path):
    for name, value in (('b/2.png', 2), ('b/1.png', 1), ('a/9.PNG', 9), ('c/3.bmp', 3)):
        save(tmp_path / name, np.full((4, 4), value, np.uint8))
    (tmp_path / 'a/notes.txt').write_text('skipped')
    (tmp_path / '.hidden').mkdir()
    (tmp_path / 'a/._9.png').write_text('skipped')
    data = sources.load(f'dir:{tmp_path}')
    assert data.class_names == ('a', 'b', 'c')
    np.testing.assert_array_equal(data.labels, [0, 1, 1, 2])
    np.testing.assert_array_equal(data.images[:, 0, 0, 0], [9, 1, 2, 3])
    with pytest.raises(DataError, match=r"no split 'test'; it has train$"):
        sources.load(f'dir:{tmp_path}', 'test')


def test_split_folders(tmp_path):
    for name in (
        'train/a/1.png',
        'train/b/1.png',
        'valid/a/1.png',
        'valid/b/2.png',
        'valid/b/3.png',
    ):
        save(tmp_path / name)
    assert len(sources.load(f'dir:{tmp_path}').images) == 2
    data = sources.load(f'dir:{tmp_path}', 'valid')
    assert data.class_names == ('a', 'b') and list(data.labels) == [0, 1, 1]
    with pytest.raises(DataError, match=r"no split 'test'; it has train, valid"):
        sources.load(f'dir:{tmp_path}', 'test')


def test_a_class_may_be_called_train(tmp_path):
    for name in ('bus/1.png', 'train/1.png'):
        save(tmp_path / name)
    assert sources.load(f'dir:{tmp_path}').class_names == ('bus', 'train')


def test_unreadable_images_are_refused_or_skipped_by_name(tmp_path, caplog):
    for name, value in (('a/1.png', 1), ('a/3.png', 3), ('b/1.png', 9)):
        save(tmp_path / name, np.full((4, 4), value, np.uint8))
    content = (tmp_path / 'a/1.png').read_bytes()
    (tmp_path / 'a/2.png').write_bytes(content[:40])
    with pytest.raises(
        DataError,
        match=r'a/2\.png cannot be read .*remove or replace it, or skip .* unreadable="skip"',
    ):
        sources.load(f'dir:{tmp_path}')
    data = sources.load(f'dir:{tmp_path}', unreadable='skip')
    np.testing.assert_array_equal(data.images[:, 0, 0, 0], [1, 3, 9])
    np.testing.assert_array_equal(data.labels, [0, 0, 1])
    assert 'a/2.png' in caplog.text and 'skipped' in caplog.text
    (tmp_path / 'b/1.png').write_bytes(b'none')
    with pytest.raises(DataError, match='b has no readable image'):
        sources.load(f'dir:{tmp_path}', unreadable='skip')


def test_a_folder_of_images_is_unlabeled(tmp_path):
    save(tmp_path / 'a.png', RAMP)
    save(tmp_path / 'b.png', COLORS[:5])
    data = sources.load(f'dir:{tmp_path}')
    assert data.labels is None and data.class_names == ()
    np.testing.assert_array_equal(data.images[0], np.repeat(RAMP[..., None], 3, -1))
    np.testing.assert_array_equal(data.images[1], COLORS[:5])


def test_bad_folders(tmp_path):
    with pytest.raises(DataError, match='gone is not a folder'):
        sources.load(f'dir:{tmp_path}/gone')
    with pytest.raises(DataError, match='has no images'):
        sources.load(f'dir:{tmp_path}')
    save(tmp_path / 'a/1.png')
    (tmp_path / 'b').mkdir()
    (tmp_path / 'b/readme.txt').write_text('')
    with pytest.raises(DataError, match=r'/b has no images'):
        sources.load(f'dir:{tmp_path}')


@pytest.mark.parametrize('length', [0, 10, 40, 0.5, 0.9])
@pytest.mark.parametrize('name', ['bad.png', 'bad.jpg', 'bad.gif'])
def test_a_broken_image_is_named(tmp_path, name, length):
    save(tmp_path / 'a/good.png')
    bad = save(tmp_path / 'a' / name, np.kron(COLORS, np.ones((8, 8, 1), np.uint8)))
    data = bad.read_bytes()
    bad.write_bytes(data[: int(length * len(data)) if length < 1 else length])
    with pytest.raises(DataError, match=rf'a/{name} cannot be read as an image'):
        sources.load(f'dir:{tmp_path}')
