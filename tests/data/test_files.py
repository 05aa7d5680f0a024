import numpy as np
import pytest
from PIL import Image

from lecture4.data import sources
from lecture4.data.dataset import DataError
from lecture4.data.sources import files

RAMP = np.arange(96, dtype=np.uint8).reshape(8, 12)
COLOURS = np.random.default_rng(0).integers(256, size=(8, 12, 3), dtype=np.uint8)


def save(path, pixels=RAMP, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


def test_class_folders(tmp_path):
    for name, value in (('b/2.png', 2), ('b/1.png', 1), ('a/9.PNG', 9), ('c/3.bmp', 3)):
        save(tmp_path / name, np.full((4, 4), value, np.uint8))
    (tmp_path / 'a/notes.txt').write_text('passed over')
    (tmp_path / '.hidden').mkdir()
    (tmp_path / 'a/._9.png').write_text('passed over')
    data = sources.load(f'dir:{tmp_path}')
    assert data.names == ('a', 'b', 'c')
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
    assert data.names == ('a', 'b') and list(data.labels) == [0, 1, 1]
    with pytest.raises(DataError, match=r"no split 'test'; it has train, valid"):
        sources.load(f'dir:{tmp_path}', 'test')


def test_a_class_may_be_called_train(tmp_path):
    for name in ('bus/1.png', 'train/1.png'):
        save(tmp_path / name)
    assert sources.load(f'dir:{tmp_path}').names == ('bus', 'train')


def test_unreadable_pictures_are_refused_or_left_out_by_name(tmp_path, caplog):
    for name, value in (('a/1.png', 1), ('a/3.png', 3), ('b/1.png', 9)):
        save(tmp_path / name, np.full((4, 4), value, np.uint8))
    whole = (tmp_path / 'a/1.png').read_bytes()
    (tmp_path / 'a/2.png').write_bytes(whole[:40])
    with pytest.raises(
        DataError,
        match=r'a/2\.png cannot be read .*remove or replace it, or leave .* \(unreadable="skip"\)',
    ):
        sources.load(f'dir:{tmp_path}')
    data = sources.load(f'dir:{tmp_path}', unreadable='skip')
    np.testing.assert_array_equal(data.images[:, 0, 0, 0], [1, 3, 9])
    np.testing.assert_array_equal(data.labels, [0, 0, 1])
    assert 'a/2.png' in caplog.text and 'left out' in caplog.text
    (tmp_path / 'b/1.png').write_bytes(b'none')
    with pytest.raises(DataError, match='b holds no picture that can be read'):
        sources.load(f'dir:{tmp_path}', unreadable='skip')


def test_a_folder_of_pictures_is_unlabelled(tmp_path):
    save(tmp_path / 'a.png', RAMP)
    save(tmp_path / 'b.png', COLOURS[:5])
    data = sources.load(f'dir:{tmp_path}')
    assert data.labels is None and data.names == ()
    np.testing.assert_array_equal(data.images[0], np.repeat(RAMP[..., None], 3, -1))
    np.testing.assert_array_equal(data.images[1], COLOURS[:5])


def test_bad_folders(tmp_path):
    with pytest.raises(DataError, match='gone is not a folder'):
        sources.load(f'dir:{tmp_path}/gone')
    with pytest.raises(DataError, match='holds no picture'):
        sources.load(f'dir:{tmp_path}')
    save(tmp_path / 'a/1.png')
    (tmp_path / 'b').mkdir()
    (tmp_path / 'b/readme.txt').write_text('')
    with pytest.raises(DataError, match=r'/b holds no picture'):
        sources.load(f'dir:{tmp_path}')


@pytest.mark.parametrize('cut', [0, 10, 40, 0.5, 0.9])
@pytest.mark.parametrize('name', ['bad.png', 'bad.jpg', 'bad.gif'])
def test_a_broken_picture_is_named(tmp_path, name, cut):
    save(tmp_path / 'a/good.png')
    bad = save(tmp_path / 'a' / name, np.kron(COLOURS, np.ones((8, 8, 1), np.uint8)))
    data = bad.read_bytes()
    bad.write_bytes(data[: int(cut * len(data)) if cut < 1 else cut])
    with pytest.raises(DataError, match=rf'a/{name} cannot be read as a picture'):
        sources.load(f'dir:{tmp_path}')


def test_kinds_of_pixels(tmp_path):
    alpha = np.dstack([COLOURS, RAMP])
    np.testing.assert_array_equal(files.read_image(save(tmp_path / '1.png', COLOURS)), COLOURS)
    np.testing.assert_array_equal(files.read_image(save(tmp_path / '2.png', alpha)), COLOURS)
    grey = np.dstack([RAMP, RAMP[::-1]])
    np.testing.assert_array_equal(files.read_image(save(tmp_path / '3.png', grey))[..., 0], RAMP)
    bits = Image.fromarray(RAMP > 50)
    expected = np.where(RAMP > 50, 255, 0)
    np.testing.assert_array_equal(
        files.read_image(save(tmp_path / '4.png', bits))[..., 0], expected
    )
    palette = Image.fromarray(COLOURS // 128 * 255).quantize(8)
    palette = save(tmp_path / '5.png', palette, transparency=bytes([0, 9, 99]))
    np.testing.assert_array_equal(files.read_image(palette), COLOURS // 128 * 255)
    deep = save(tmp_path / '6.png', RAMP.astype(np.uint16) * 600)
    with pytest.raises(DataError, match=r'6\.png has pixels of kind I;16'):
        files.read_image(deep)


def test_pictures_are_turned_as_the_camera_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    path = save(tmp_path / '1.png', RAMP, exif=exif)
    np.testing.assert_array_equal(files.read_image(path)[..., 0], np.rot90(RAMP, -1))


@pytest.mark.parametrize(
    ('keys', 'splits'),
    [
        (('images', 'labels'), ['train']),
        (('x_train', 'y_train', 'x_test', 'y_test'), ['train', 'test']),
        (('train_images', 'train_labels', 'valid_images', 'valid_labels'), ['train', 'valid']),
    ],
)
def test_npz_keys(tmp_path, keys, splits):
    arrays = {
        key: np.full((i + 1, 4, 4), i, np.uint8) if i % 2 == 0 else np.arange(i)[:, None]
        for i, key in enumerate(keys)
    }
    np.savez(tmp_path / 'x.npz', **arrays)
    for i, split in enumerate(splits):
        data = sources.load(f'npz:{tmp_path}/x.npz', split)
        assert data.images.shape == (2 * i + 1, 4, 4, 1) and (data.images == 2 * i).all()
        np.testing.assert_array_equal(data.labels, np.arange(2 * i + 1))
    with pytest.raises(DataError, match=f'no split .other.; it has {", ".join(splits)}'):
        sources.load(f'npz:{tmp_path}/x.npz', 'other')


def test_npz_names_and_missing_labels(tmp_path):
    images = np.zeros((2, 4, 4), np.float16)
    np.savez(tmp_path / 'a.npz', images=images, labels=[1, 0], names=['cat', 'dog'])
    data = sources.load(f'npz:{tmp_path}/a.npz')
    assert data.names == ('cat', 'dog') and data.images.dtype == np.float32
    np.savez(tmp_path / 'b.npz', images=images)
    assert sources.load(f'npz:{tmp_path}/b.npz').labels is None


def test_bad_npz(tmp_path):
    path = tmp_path / 'x.npz'
    with pytest.raises(DataError, match='not a file'):
        sources.load(f'npz:{path}')
    np.savez(path, pictures=np.zeros(3))
    with pytest.raises(DataError, match='holds no images; wanted images'):
        sources.load(f'npz:{path}')
    np.savez(path, images=np.array([None, {}], object))
    with pytest.raises(DataError, match='arrays of numbers only'):
        sources.load(f'npz:{path}')
    np.savez(path, images=np.zeros((9, 40, 40)))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match=r'x\.npz cannot be read as \.npz'):
        sources.load(f'npz:{path}')
    np.save(tmp_path / 'y.npy', np.zeros((9, 4, 4)))
    (tmp_path / 'y.npy').rename(path)
    with pytest.raises(DataError, match=r'x\.npz cannot be read as \.npz'):
        sources.load(f'npz:{path}')
