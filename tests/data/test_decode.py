"""Image files as arrays, and files that are no images."""

import numpy as np
import pytest
from PIL import Image

from lecture4.data.dataset import DataError
from lecture4.data.sources.decode import read_image

RAMP = np.arange(96, dtype=np.uint8).reshape(8, 12)
COLORS = np.random.default_rng(0).integers(256, size=(8, 12, 3), dtype=np.uint8)


def save(path, pixels=RAMP, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


def test_modes_of_pixels(tmp_path):
    alpha = np.dstack([COLORS, RAMP])
    np.testing.assert_array_equal(read_image(save(tmp_path / '1.png', COLORS)), COLORS)
    np.testing.assert_array_equal(read_image(save(tmp_path / '2.png', alpha)), COLORS)
    gray = np.dstack([RAMP, RAMP[::-1]])
    np.testing.assert_array_equal(read_image(save(tmp_path / '3.png', gray))[..., 0], RAMP)
    bits = Image.fromarray(RAMP > 50)
    expected = np.where(RAMP > 50, 255, 0)
    np.testing.assert_array_equal(read_image(save(tmp_path / '4.png', bits))[..., 0], expected)
    palette = Image.fromarray(COLORS // 128 * 255).quantize(8)
    palette = save(tmp_path / '5.png', palette, transparency=bytes([0, 9, 99]))
    np.testing.assert_array_equal(read_image(palette), COLORS // 128 * 255)
    deep = save(tmp_path / '6.png', RAMP.astype(np.uint16) * 600)
    with pytest.raises(DataError, match=r'6\.png has pixels of mode I;16'):
        read_image(deep)


def test_images_are_rotated_as_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated by 90 degrees clockwise
    path = save(tmp_path / '1.png', RAMP, exif=exif)
    np.testing.assert_array_equal(read_image(path)[..., 0], np.rot90(RAMP, -1))
