"""Image files as arrays, and files that are no images."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from lecture4.data.dataset import DataError
from lecture4.data.sources.decode import SUFFIXES, image_size, read_image

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


def test_images_are_rotated_as_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated by 90 degrees clockwise
    path = save(tmp_path / '1.png', RAMP, exif=exif)
    np.testing.assert_array_equal(read_image(path)[..., 0], np.rot90(RAMP, -1))


@pytest.mark.parametrize('orientation', range(1, 9))
def test_every_orientation_agrees_with_pillow(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / '1.png', COLORS, exif=exif)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(read_image(path), expected)
    assert image_size(path, str(path)) == expected.shape[:2]  # from the header alone


def exif_with(tag, kind, count, value):
    """EXIF data with orientation 6 and one more tag, in the bytes that cameras write."""
    entries = [(0x0112, 3, 1, struct.pack('<H', 6)), (tag, kind, count, value)]
    packed = b''.join(
        struct.pack('<HHI', tag, kind, count) + value.ljust(4, b'\0')
        for tag, kind, count, value in entries
    )
    return b'Exif\0\0II*\0' + struct.pack('<IH', 8, len(entries)) + packed + bytes(4)


@pytest.mark.parametrize(
    'tag',
    [
        (0x011A, 2, 4, b'abc\0'),  # a resolution that is text
        (0x0103, 9, 1, struct.pack('<i', -5)),  # a negative number where none can be
        (0x0103, 7, 4, b'abcd'),
        (0x0201, 2, 4, b'abc\0'),  # a thumbnail's offset
        (0x0103, 3, 0, b''),
        (0x9999, 77, 1, b'abcd'),  # an unknown type
    ],
)
def test_a_malformed_exif_tag_does_not_hide_the_orientation(tmp_path, tag):
    path = save(tmp_path / '1.jpg', RAMP, exif=exif_with(*tag), quality=100)
    with Image.open(path) as image:
        expected = np.rot90(np.asarray(image), -1)
    np.testing.assert_array_equal(read_image(path)[..., 0], expected)


@pytest.mark.filterwarnings('ignore:Truncated File Read', 'ignore:Corrupt EXIF')
@pytest.mark.parametrize(
    'exif', [b'Exif\0\0II*\0\xff\xff\xff\xff', b'Exif\0\0nonsense', b'Exif\0\0']
)
def test_an_image_whose_exif_cannot_be_read_is_read_as_stored(tmp_path, exif):
    path = save(tmp_path / '1.jpg', RAMP, exif=exif)
    with Image.open(path) as image:
        expected = np.asarray(image)
    np.testing.assert_array_equal(read_image(path)[..., 0], expected)


@pytest.mark.parametrize('suffix', ['png', 'tiff', 'pgm'])
def test_16_bits_are_scaled_to_8_in_grayscale_as_in_color(tmp_path, suffix):
    deep = np.arange(0, 65536, 683, dtype=np.uint16).reshape(8, 12)
    path = save(tmp_path / f'1.{suffix}', Image.fromarray(deep))
    np.testing.assert_array_equal(read_image(path)[..., 0], deep // 256)


def png16_rgb(path, pixels):
    """A PNG of 16 bits per channel, which Pillow does not write."""

    def chunk(kind, data):
        return (
            struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
        )

    h, w, _ = pixels.shape
    rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in pixels)
    header = struct.pack('>IIBBBBB', w, h, 16, 2, 0, 0, 0)
    path.write_bytes(
        b'\x89PNG\r\n\x1a\n'
        + chunk(b'IHDR', header)
        + chunk(b'IDAT', zlib.compress(rows))
        + chunk(b'IEND', b'')
    )
    return path


def test_16_bits_of_gray_are_those_of_three_equal_colors(tmp_path):
    deep = np.arange(0, 65536, 683, dtype=np.uint16).reshape(8, 12)
    color = read_image(png16_rgb(tmp_path / 'color.png', np.repeat(deep[..., None], 3, -1)))
    gray = read_image(save(tmp_path / 'gray.png', Image.fromarray(deep)))
    np.testing.assert_array_equal(color, np.repeat(gray, 3, -1))


def test_32_bits_per_channel_are_refused(tmp_path):
    for pixels in (RAMP.astype(np.int32), RAMP.astype(np.float32)):
        path = save(tmp_path / '1.tif', Image.fromarray(pixels))
        with pytest.raises(DataError, match=r'1\.tif: expected 8 or 16 bits .* got pixels of mode'):
            read_image(path)


@pytest.mark.parametrize('suffix', ['jfif', 'jpe', 'avif', 'webp'])
def test_less_common_suffixes_are_read(tmp_path, suffix):
    path = save(tmp_path / f'a.{suffix}', np.kron(COLORS, np.ones((8, 8, 1), np.uint8)), quality=95)
    assert suffix in {kind[1:] for kind in SUFFIXES}
    assert abs(read_image(path)[4::8, 4::8].astype(int) - COLORS).mean() < 20
