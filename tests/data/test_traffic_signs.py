"""Traffic signs: what is written in tiny sheets of their form comes out; the real set where it is."""

import gzip
import hashlib
import io
import zipfile

import numpy as np
import pytest
from PIL import Image, features

from lecture4.data import sources
from lecture4.data.dataset import DataError
from lecture4.data.sources import archives, traffic_signs

RNG = np.random.default_rng(0)


def write(folder, n=60, size=(64, 1600)):
    """An archive of one lossless sheet of 60 images on two rows, and its table."""
    images = RNG.integers(256, size=(100, 32, 32, 3), dtype=np.uint8)
    labels = RNG.integers(43, size=n)
    sheet = np.concatenate(
        [np.concatenate(list(row), 1) for row in images.reshape(2, 50, 32, 32, 3)]
    )
    buffer = io.BytesIO()
    Image.fromarray(sheet[: size[0], : size[1]]).save(buffer, format='png')
    with zipfile.ZipFile(folder / 'train.zip', 'w') as archive:
        archive.writestr('train_00.png', buffer.getvalue())
    lines = [f'{i}.ppm,30,30,5,5,25,25,{label}' for i, label in enumerate(labels)]
    with gzip.open(folder / 'train.csv.gz', 'wt') as file:
        file.write('\n'.join(['filename,width,height,x1,y1,x2,y2,class', *lines]))
    return images[:n], labels


def pins(folder):
    return {
        path.name: archives.Pin(path.name, '', len(data), hashlib.sha256(data).hexdigest())
        for path in folder.iterdir()
        for data in [path.read_bytes()]
    }


def test_tiles_and_labels_are_in_order(tmp_path):
    images, labels = write(tmp_path)
    data = traffic_signs.load('train', tmp_path, pins(tmp_path))
    np.testing.assert_array_equal(data.images, images)
    np.testing.assert_array_equal(data.labels, labels)
    assert len(data.class_names) == 43 and data.class_names[14] == 'stop'


def test_missing_altered_and_damaged_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r'has train\.zip and train\.csv\.gz'):
        traffic_signs.load('train', tmp_path)
    with pytest.raises(DataError, match="no split 'validation'; it has train, test"):
        traffic_signs.load('validation', tmp_path)
    write(tmp_path)
    with pytest.raises(DataError, match=r'train\.zip is truncated or altered'):
        traffic_signs.load('train', tmp_path)
    write(tmp_path, n=101)
    with pytest.raises(DataError, match='has 100 images, its table 101 lines'):
        traffic_signs.load('train', tmp_path, pins(tmp_path))
    write(tmp_path, size=(64, 1599))
    with pytest.raises(DataError, match='64 x 1599; expected rows of 50 images'):
        traffic_signs.load('train', tmp_path, pins(tmp_path))
    (tmp_path / 'train.zip').write_bytes(b'no archive')
    with pytest.raises(DataError, match='cannot be read'):
        traffic_signs.read_sheets(tmp_path / 'train.zip', 1)
    (tmp_path / 'train.csv.gz').write_bytes(gzip.compress(b'a,b\n1,2\n'))
    with pytest.raises(DataError, match='cannot be read'):
        traffic_signs.read_labels(tmp_path / 'train.csv.gz')


@pytest.mark.data
@pytest.mark.skipif(not features.check('avif'), reason='this Pillow does not read AVIF')
def test_real_set_has_the_published_counts(manual_dir):
    train = sources.load('gtsrb', 'train', manual_dir=manual_dir)
    test = sources.load('gtsrb', 'test', manual_dir=manual_dir)
    assert isinstance(train.images, np.ndarray) and isinstance(test.images, np.ndarray)
    assert train.labels is not None and test.labels is not None
    assert train.images.shape == (19605, 32, 32, 3) and test.images.shape == (12630, 32, 32, 3)
    assert np.bincount(test.labels).tolist()[:4] == [60, 720, 750, 450]
    assert set(np.unique(train.labels)) == set(range(43))
    red = train.images[train.labels == 14].reshape(-1, 3).mean(0)  # stop signs
    assert red[0] > 1.1 * red[1]
