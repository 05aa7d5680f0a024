"""Flickr8k: 8091 photographs with five sentences each, in the official splits of 6000, 1000 and 1000.

Files are read from manual_dir and its folders flickr8k_text (Flickr8k.token.txt and the lists of names),
flickr8k_features (features of EfficientNet-Lite0: of the whole image, and of nine windows by their 96
principal components) and flickr8k_images (pixels, 224 x 224, of the official dev and test images and of
1000 training images, needed for figures only). Hodosh, Young & Hockenmaier, JAIR 2013.
"""

import dataclasses
import functools
import io
import os
import pathlib
import zipfile
from os import PathLike

import numpy as np
from jaxtyping import Float, UInt8

from lecture4.data.captions.dataset import CaptionedImages, validate
from lecture4.data.dataset import DataError
from lecture4.data.sources import archives

CAPTIONS = archives.Pin(
    'Flickr8k.token.txt',
    '',
    3394868,
    '2f234ec9b9694ef7c0c7265d8b80b2b25e3823c6013c6911feddaaa3b36744e1',
)
SPLITS = {
    'train': archives.Pin(
        'Flickr_8k.trainImages.txt',
        '',
        154678,
        'e330ddd5156a4c2d2e2b67bc587e70e588f2d132bd8a10dc54dcb71e58115d8e',
    ),
    'dev': archives.Pin(
        'Flickr_8k.devImages.txt',
        '',
        25801,
        '18ba829f47f6df1cb830bf7f0506e2ddf333818925299babbd1bbcaf50fdc504',
    ),
    'test': archives.Pin(
        'Flickr_8k.testImages.txt',
        '',
        25775,
        'c0924146c131458ceba45da59670fe9520eadce1e5cafffa16a817672a9b1f17',
    ),
}
IMAGE_SIZE = 224
NUM_WITH_PIXELS = 1000  # number of first images of each split
WINDOWS = 'regions_3x3_pca96.npz'
WHOLE = 'image_1280.npz'


def load(
    split: str,
    manual_dir: str | PathLike[str] | None = None,
    *,
    with_features: bool = True,
    with_pixels: bool = False,
    max_words: int = 0,
) -> CaptionedImages:
    """A split of Flickr8k.

    Args:
      split: 'train', 'dev' or 'test'.
      manual_dir: Folder of the files; by default $LECTURE4_MANUAL_DIR.
      with_features: Whether to read the published features: float16 [n, 10, 1280], the whole image first.
      with_pixels: Whether to take only the 1000 training images whose pixels are in flickr8k_images.
      max_words: Largest number of words in a sentence; 0 for any.

    Raises:
      DataError: The split is unknown, or a file is missing (the message says which) or altered; or as in `validate`.
    """
    if split not in SPLITS:
        raise DataError(f'flickr8k has no split {split!r}; it has {", ".join(SPLITS)}')
    manual_dir = manual_dir or os.environ.get('LECTURE4_MANUAL_DIR') or None
    texts: dict[str, list[str]] = {}
    for number, line in enumerate(_lines(manual_dir, CAPTIONS), 1):
        key, tab, text = line.partition('\t')
        if not tab or '#' not in key:
            raise DataError(
                f'{CAPTIONS.file}, line {number}: expected NAME#NUMBER, tab, sentence, got {line!r}'
            )
        texts.setdefault(key.rsplit('#', 1)[0], []).append(text)
    names = _lines(manual_dir, SPLITS[split])[: NUM_WITH_PIXELS if with_pixels else None]
    split_texts = [texts.get(name, []) for name in names]
    names, sentences = validate(f'flickr8k, {split}', names, split_texts, max_words)
    data = CaptionedImages(names, sentences, lambda row: read_image(names[row], manual_dir))
    if not with_features:
        return data
    features, boxes = read_features(names, manual_dir)
    return dataclasses.replace(data, features=features, boxes=boxes)


def read_features(
    names: tuple[str, ...], manual_dir: str | PathLike[str] | None
) -> tuple[Float[np.ndarray, 'n 10 1280'], Float[np.ndarray, 'n 10 4']]:
    """Features of the whole image and of nine windows, float16, and their boxes.

    Windows are stored as principal components and returned in the space of the whole image's features.

    Raises:
      DataError: A file is missing, cannot be read, or lacks one of the images.
    """
    try:
        with np.load(_path(manual_dir, 'flickr8k_features', WHOLE)) as file:
            known = file['names'].tobytes().decode().split('\n')
            rows = {name: i for i, name in enumerate(known)}
            lacking = [name for name in names if name not in rows]
            if lacking:
                raise DataError(
                    f'{WHOLE} has no features of image {lacking[0]} ({len(lacking)} are missing); '
                    'use the features of these images'
                )
            at = np.array([rows[name] for name in names])
            whole = (file['q'][at] * file['scale']).astype(np.float16)
        with np.load(_path(manual_dir, 'flickr8k_features', WINDOWS)) as file:
            components = file['q'][at].astype(np.float32) * file['scale']
            basis, mean = file['basis'].astype(np.float32), file['mean']
            window_boxes = file['boxes'].astype(np.float32)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f'flickr8k_features cannot be read ({error}); copy it again') from error
    features = np.empty((len(at), 1 + len(window_boxes), whole.shape[1]), np.float16)
    features[:, 0] = whole
    for start in range(0, len(at), 500):
        part = components[start : start + 500]
        rows = part.reshape(-1, part.shape[2]) @ basis.T + mean
        features[start : start + 500, 1:] = rows.reshape(*part.shape[:2], -1)
    first = np.array([[0, 0, IMAGE_SIZE, IMAGE_SIZE]], np.float32)
    boxes = np.concatenate([first, window_boxes])
    return features, np.broadcast_to(boxes, (len(at), *boxes.shape))


def read_image(name: str, manual_dir: str | PathLike[str] | None) -> UInt8[np.ndarray, '224 224 3']:
    """Pixels of an image, resized to a square.

    Raises:
      DataError: The image is in none of the archives, like most of the training images.
    """
    from PIL import Image

    manual_dir = manual_dir or os.environ.get('LECTURE4_MANUAL_DIR') or None
    member = str(pathlib.PurePath(name).with_suffix('.webp'))
    for archive_name in ('test.zip', 'dev.zip', 'train.zip'):
        path = _path(manual_dir, 'flickr8k_images', archive_name)
        archive = _archive(path)
        if member in archive.NameToInfo:
            image = Image.open(io.BytesIO(archive.read(member)))
            return np.asarray(image.convert('RGB'))
    raise DataError(f'flickr8k_images has no pixels of {name}; use a dev or test image')


@functools.lru_cache(maxsize=3)
def _archive(path: pathlib.Path) -> zipfile.ZipFile:
    """An open archive, cached because reading its table of contents for each image would take most of the time."""
    return zipfile.ZipFile(path)


def _path(manual_dir, folder, file) -> pathlib.Path:
    pin = archives.Pin(file, '', -1, '')
    path = archives.locate(manual_dir, folder, [pin]).get(file)
    if path is None:
        raise DataError(
            f'flickr8k cannot be downloaded; run with --manual_dir PATH where PATH or PATH/{folder} '
            f'has {file}'
        )
    return path


def _lines(manual_dir, pin: archives.Pin) -> list[str]:
    path = _path(manual_dir, 'flickr8k_text', pin.file)
    archives.verify(path, pin)
    return path.read_text(encoding='utf-8').split('\n')[:-1]
