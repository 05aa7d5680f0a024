"""Denoising sets: however a folder is zipped, the same images; another folder is refused."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from lecture4.data import sources
from lecture4.data.dataset import DataError
from lecture4.data.sources import archives, denoising_sets


def zipped(path, images, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, 'w', method) as archive:
        for name, image in images.items():
            file = io.BytesIO()
            Image.fromarray(image).save(file, 'png')
            archive.writestr(f'Set68/{name}.png', file.getvalue())
        archive.writestr('Set68/', b'')


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    shapes = {'test002': (9, 7), 'test001': (7, 9), 'test010': (9, 7)}
    return {n: rng.integers(256, size=s, dtype=np.uint8) for n, s in shapes.items()}


@pytest.fixture
def pin(tmp_path, images):
    zipped(tmp_path / 'Set68.zip', images)
    size, digest = archives.content_digest(tmp_path / 'Set68.zip')
    return {'bsd68': archives.Pin('Set68.zip', 'http://a', 1, '', digest, size)}


def test_images_are_in_order_of_their_names(tmp_path, images, pin):
    data = denoising_sets.load('bsd68', 'train', tmp_path, pin)
    assert data.labels is None and isinstance(data.images, tuple)
    for image, name in zip(data.images, sorted(images), strict=True):
        np.testing.assert_array_equal(image[..., 0], images[name])
        assert image.dtype == np.uint8


def test_the_contents_of_an_archive_decide(tmp_path, images, pin):
    backwards = dict(reversed(images.items()))
    zipped(tmp_path / 'Set68.zip', backwards, zipfile.ZIP_DEFLATED)
    assert len(denoising_sets.load('bsd68', 'train', tmp_path, pin).images) == 3
    images['test002'][0, 0] ^= 1
    zipped(tmp_path / 'Set68.zip', images)
    with pytest.raises(DataError, match=r'Set68.zip is truncated or altered'):
        denoising_sets.load('bsd68', 'train', tmp_path, pin)


def test_a_missing_set_says_which_file_to_provide(tmp_path, monkeypatch):
    monkeypatch.delenv('LECTURE4_MANUAL_DIR', raising=False)
    with pytest.raises(DataError, match=r'PATH/bsd_denoising has Set12.zip .*/data/Set12'):
        sources.load('set12', manual_dir=tmp_path)
    with pytest.raises(DataError, match='bsd400 cannot be downloaded'):
        sources.load('bsd400')
    with pytest.raises(DataError, match="bsd68 has no split 'test'; it has train"):
        sources.load('bsd68', 'test', manual_dir=tmp_path)


@pytest.mark.data
def test_the_real_sets(manual_dir):
    loaded = {
        name: sources.load(name, manual_dir=manual_dir).images for name in denoising_sets.PINS
    }
    assert loaded['bsd400'].shape == (400, 180, 180, 1)
    assert sorted(image.shape[0] for image in loaded['set12']) == [256] * 7 + [512] * 5
    assert len(loaded['bsd68']) == 68
    assert {image.shape[:2] for image in loaded['bsd68']} == {(321, 481), (481, 321)}
    for images in loaded.values():
        assert all(image.dtype == np.uint8 and image.std() > 10 for image in images)
    # Cameraman comes first, and scikit-image has the same scene (another scan of it).
    camera = np.asarray(Image.fromarray(_camera()).resize((256, 256), Image.Resampling.BOX))
    assert np.corrcoef(camera.ravel(), loaded['set12'][0].ravel())[0, 1] > 0.9


def _camera():
    from skimage import data

    return data.camera()
