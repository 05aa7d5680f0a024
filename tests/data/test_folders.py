"""Folders of images: layouts, splits, and what cannot be read."""

import os
import unicodedata

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
        match=r'a/2\.png cannot be read .*remove or replace it, or skip .* --unreadable skip',
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


def test_nested_folders_are_read_as_image_folder_does(tmp_path, caplog):
    for c, value in (('n02', 2), ('n01', 1)):
        for i in range(3):
            save(tmp_path / f'train/{c}/images/{c}_{i}.JPEG', np.full((4, 4), 10 * value, np.uint8))
    save(tmp_path / 'train/n01/deeper/still/x.png')
    for path in (tmp_path, tmp_path / 'train'):
        data = sources.load(f'dir:{path}')
        assert data.class_names == ('n01', 'n02') and list(data.labels) == [0] * 4 + [1] * 3
    assert not caplog.text  # every image of a class is in a folder of it
    with pytest.raises(DataError, match="no split 'test'; it has train"):
        sources.load(f'dir:{tmp_path}/train', 'test')


def test_validation_images_of_tiny_imagenet_are_labeled_by_their_list(tmp_path):
    for c in ('n01', 'n02'):
        save(tmp_path / f'train/{c}/images/{c}_0.JPEG')
    for i in range(3):
        save(tmp_path / f'val/images/val_{i}.JPEG', np.full((4, 4), 20 * i, np.uint8))
    lines = ['val_0.JPEG\tn02\t0\t0\t1\t1', 'val_2.JPEG\tn01\t0\t0\t1\t1', 'val_1.JPEG\tn02\t0']
    (tmp_path / 'val/val_annotations.txt').write_text('\n'.join(lines))
    data = sources.load(f'dir:{tmp_path}', 'val')
    assert data.class_names == ('n01', 'n02') and list(data.labels) == [1, 1, 0]
    np.testing.assert_array_equal(data.images[:, 0, 0, 0], [0, 20, 40])
    (tmp_path / 'val/val_annotations.txt').write_text('elsewhere.JPEG\tn01')
    with pytest.raises(DataError, match=r'val_annotations\.txt names no file of .*/val/images'):
        sources.load(f'dir:{tmp_path}', 'val')


def test_a_folder_of_images_next_to_images_is_named(tmp_path, caplog):
    for name in ('n01/0.png', 'n02/0.png', 'n02/rejected/9.png'):
        save(tmp_path / name)
    assert list(sources.load(f'dir:{tmp_path}').labels) == [0, 1, 1]
    assert "n02/rejected'; move them if they are not" in caplog.text


def test_images_outside_of_class_folders_are_named(tmp_path, caplog):
    for name in ('a/0.png', '1.png', '2.png'):
        save(tmp_path / name)
    assert len(sources.load(f'dir:{tmp_path}').images) == 1
    assert '2 files are not read (2 .png)' in caplog.text
    assert '2 images are outside of class folders' in caplog.text


def test_a_folder_with_the_suffix_of_an_image_is_a_folder(tmp_path):
    save(tmp_path / 'a/x.png/1.png')
    assert len(sources.load(f'dir:{tmp_path}').images) == 1
    flat = tmp_path / 'flat'
    save(flat / '1.png')
    (flat / 'x.png').mkdir()
    with pytest.raises(DataError, match=r'flat/x\.png has no images; remove the folder or fill it'):
        sources.load(f'dir:{flat}')


def test_a_link_that_leads_back_ends(tmp_path):
    save(tmp_path / 'a/1.png')
    (tmp_path / 'a/back').symlink_to(tmp_path / 'a')
    assert len(sources.load(f'dir:{tmp_path}').images) == 1


def test_a_link_that_leads_back_by_two_folders_ends(tmp_path):
    save(tmp_path / 'a/inner/innermost/1.png')
    (tmp_path / 'a/inner/innermost/again').symlink_to(tmp_path / 'a')
    assert len(sources.load(f'dir:{tmp_path}').images) == 1


def test_unread_files_are_counted_and_named_once(tmp_path, caplog):
    save(tmp_path / 'a/1.png')
    for i in range(3):
        (tmp_path / f'a/{i}.heic').write_bytes(b'none')
    for name in ('b.tga', 'README', 'Thumbs.db', '.hidden'):
        (tmp_path / 'a' / name).write_bytes(b'none')
    for _ in range(2):
        sources.load(f'dir:{tmp_path}')
    assert caplog.text.count('5 files are not read (3 .heic, 1 no suffix, 1 .tga)') == 1
    assert 'a/0.heic' in caplog.text


def test_classes_named_by_numbers_are_in_order_of_value(tmp_path):
    for i in (10, 9, 0, 2):
        save(tmp_path / f'{i}/1.png', np.full((4, 4), i, np.uint8))
    data = sources.load(f'dir:{tmp_path}')
    assert data.class_names == ('0', '2', '9', '10')
    np.testing.assert_array_equal(data.images[:, 0, 0, 0], [0, 2, 9, 10])
    save(tmp_path / 'b/1.png')
    assert sources.load(f'dir:{tmp_path}').class_names == ('0', '10', '2', '9', 'b')


def test_composed_and_decomposed_accents_are_one_class(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, 'café') for form in ('NFC', 'NFD'))
    save(tmp_path / f'train/{decomposed}/1.png')
    save(tmp_path / 'train/tea/1.png')
    save(tmp_path / f'test/{composed}/1.png')
    train, test = (sources.load(f'dir:{tmp_path}', split) for split in ('train', 'test'))
    assert train.class_names == (composed, 'tea') and test.class_names == (composed,)
    save(tmp_path / f'train/{composed}/2.png')
    merged = sources.load(f'dir:{tmp_path}')
    assert merged.class_names == (composed, 'tea') and list(merged.labels) == [0, 0, 1]


def test_class_names_that_are_not_utf_8_can_be_printed(tmp_path):
    folder = os.fsencode(tmp_path) + b'/caf\xe9'
    os.mkdir(folder)
    Image.fromarray(RAMP).save(os.path.join(folder, b'1.png'))
    (name,) = sources.load(f'dir:{tmp_path}').class_names
    assert name.encode() == b'caf\\udce9'
