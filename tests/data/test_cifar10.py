"""CIFAR-10 from its archive and from sheets: the same images, labels and names."""

import functools
import hashlib
import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from lecture4.data.dataset import DataError
from lecture4.data.sources import archives, prepared
from lecture4.data.sources.builders.cifar10 import builder as cifar10

RNG = np.random.default_rng(0)
COUNTS = {'data_batch_1.bin': 2, 'data_batch_2.bin': 3, 'test_batch.bin': 2}
COUNTS |= {f'data_batch_{i}.bin': 1 for i in (3, 4, 5)}
IMAGES = {m: RNG.integers(256, size=(n, 32, 32, 3), dtype=np.uint8) for m, n in COUNTS.items()}
LABELS = {m: RNG.integers(10, size=n, dtype=np.uint8) for m, n in COUNTS.items()}


def write_archive(folder, *, truncated=0, leave_out=()):
    """The original's format: planes of red, green and blue behind a byte of label."""
    with tarfile.open(folder / cifar10.ARCHIVE, 'w:gz') as archive:
        for member in sorted(set(COUNTS) - set(leave_out)):
            records = b''.join(
                bytes([label]) + b''.join(image[..., c].tobytes() for c in range(3))
                for image, label in zip(IMAGES[member], LABELS[member], strict=True)
            )
            data = records[: len(records) - truncated]
            info = tarfile.TarInfo(f'cifar-10-batches-bin/{member}')
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def write_sheets(folder, n_train=2):
    """Sheets of 60 images, on two rows of which the second is partly empty; one of them for test."""
    sheets = {}
    for name in [*(f'train_{i:02}' for i in range(n_train)), 'test_00']:
        images = RNG.integers(256, size=(60, 32, 32, 3), dtype=np.uint8)
        labels = RNG.integers(10, size=60)
        sheet = np.zeros((64, 1600, 3), np.uint8)
        for k, image in enumerate(images):
            top, left = 32 * (k // 50), 32 * (k % 50)
            sheet[top : top + 32, left : left + 32] = image
        Image.fromarray(sheet).save(folder / f'{name}.webp', lossless=True)
        lines = [f'{label},{cifar10.CLASS_NAMES[label]},{i}.png' for i, label in enumerate(labels)]
        (folder / f'{name}.csv').write_text('\n'.join(['label,class,original_filename', *lines]))
        sheets[name] = images, labels
    return sheets


def pins(folder):
    return tuple(
        archives.Pin(p.name, f'http://example.invalid/{p.name}', len(data), digest)
        for p in sorted(folder.iterdir())
        for data in [p.read_bytes()]
        for digest in [hashlib.sha256(data).hexdigest()]
    )


def load(tmp_path, split, known, *, folder=None, to='prepared'):
    make = functools.partial(
        cifar10.Cifar10, data_dir=tmp_path / to, manual_dir=folder or tmp_path, pins=known
    )
    return prepared.load(make, 'cifar10', split)


def test_archive_keeps_its_order(tmp_path):
    folder = tmp_path / 'cifar10'
    folder.mkdir()
    write_archive(folder)
    known = pins(folder)
    for split, members in cifar10.MEMBERS.items():
        data = load(tmp_path, split, known)
        np.testing.assert_array_equal(data.images, np.concatenate([IMAGES[m] for m in members]))
        np.testing.assert_array_equal(data.labels, np.concatenate([LABELS[m] for m in members]))
        assert (
            data.images.dtype == np.uint8
            and data.class_names[3] == 'cat'
            and len(data.class_names) == 10
        )


def test_sheets_are_split_row_by_row(tmp_path):
    folder = tmp_path / 'cifar10'
    folder.mkdir()
    sheets = write_sheets(folder)
    known = pins(folder)
    train = load(tmp_path, 'train', known)
    expected = [sheets['train_00'], sheets['train_01']]
    np.testing.assert_array_equal(train.images, np.concatenate([x for x, _ in expected]))
    np.testing.assert_array_equal(train.labels, np.concatenate([y for _, y in expected]))
    np.testing.assert_array_equal(load(tmp_path, 'test', known).images, sheets['test_00'][0])


def test_the_archive_is_required_if_sheets_are_incomplete(tmp_path):
    folder = tmp_path / 'cifar10'
    folder.mkdir()
    write_archive(folder)
    write_sheets(folder)
    known = pins(folder)
    with_both = load(tmp_path, 'train', known)
    np.testing.assert_array_equal(with_both.images[:2], IMAGES['data_batch_1.bin'])
    (folder / cifar10.ARCHIVE).unlink()
    assert len(load(tmp_path, 'train', known, to='from sheets').images) == 120
    (folder / 'train_01.csv').unlink()
    with pytest.raises(DataError, match=r'cifar10 has cifar-10-binary.tar.gz$'):
        load(tmp_path, 'train', known, to='from nothing')
    assert not (tmp_path / 'from nothing').exists()


def test_altered_sheets_are_refused(tmp_path):
    folder = tmp_path / 'cifar10'
    folder.mkdir()
    write_sheets(folder, n_train=1)
    known = pins(folder)
    path = folder / 'train_00.csv'
    path.write_text(path.read_text().replace('.png', '.jpg'))
    with pytest.raises(DataError, match=r'train_00.csv is truncated or altered'):
        load(tmp_path, 'train', known)


def test_incomplete_records_and_tiles_are_refused(tmp_path):
    write_archive(tmp_path, truncated=1)
    with pytest.raises(
        DataError, match=r'data_batch_1.bin has 6145 bytes, expected a multiple of 3073'
    ):
        list(cifar10.read_archive(tmp_path / cifar10.ARCHIVE, 'train'))
    write_archive(tmp_path, leave_out=['data_batch_4.bin'])
    with pytest.raises(DataError, match=r'data_batch_4.bin.*download it again'):
        list(cifar10.read_archive(tmp_path / cifar10.ARCHIVE, 'train'))
    (tmp_path / cifar10.ARCHIVE).write_bytes(b'not a tape')
    with pytest.raises(DataError, match='cannot be read'):
        list(cifar10.read_archive(tmp_path / cifar10.ARCHIVE, 'train'))
    write_sheets(tmp_path, n_train=1)
    Image.fromarray(np.zeros((32, 1600, 3), np.uint8)).save(tmp_path / 'train_00.webp')
    with pytest.raises(DataError, match=r'32 x 1600 x 3 and .* 60 lines, expected 64 x 1600 x 3'):
        cifar10.read_sheet(tmp_path / 'train_00.webp', tmp_path / 'train_00.csv')


def test_the_checksum_table_has_both_forms():
    known = cifar10.Cifar10(data_dir='/nowhere').known_pins
    assert len(known) == 1 + 2 * 60 and known[0].size == 170_052_171
    sheets = sorted(pin.file for pin in known[1:])
    assert sheets == sorted(
        f'{split}_{i:02}.{kind}'
        for split, n in (('train', 50), ('test', 10))
        for i in range(n)
        for kind in ('csv', 'webp')
    )


@pytest.mark.data
def test_the_real_set(manual_dir, tmp_path):
    """Counts, the published means and standard deviations, and no image twice."""
    from lecture4.data import sources

    data = sources.load('cifar10', data_dir=tmp_path, manual_dir=manual_dir)
    assert data.images.shape == (50_000, 32, 32, 3)
    assert (np.bincount(data.labels) == 5000).all()
    pixels = data.images.reshape(-1, 3) / np.float32(255)
    np.testing.assert_allclose(pixels.mean(0, dtype=float), [0.4914, 0.4822, 0.4465], atol=1e-4)
    np.testing.assert_allclose(pixels.std(0, dtype=float), [0.2470, 0.2435, 0.2616], atol=1e-4)
    test = sources.load('cifar10', 'test', data_dir=tmp_path, manual_dir=manual_dir)
    assert (np.bincount(test.labels) == 1000).all()
    both = np.concatenate([data.images, test.images])
    assert len({image.tobytes() for image in both}) == 60_000
