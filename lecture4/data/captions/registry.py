"""Captioned images by name: `load('scenes', 'train')`, `load('flickr8k', 'test')`, `load('coco:PATH', 'dev')`, ...

    scenes            colored shapes described by a small grammar; needs no file; splits train, dev, test, held_out
    flickr8k          8091 photographs, read from manual_dir; see `lecture4.data.captions.flickr8k`
    flickr8k_pixels   its 3000 images that have pixels in manual_dir: 1000 of each split
    coco:PATH         a folder in COCO's layout; see `lecture4.data.captions.files`
    folder:PATH       a folder of images with captions.txt

All have the splits train, dev and test. Features are those that come with scenes and flickr8k; otherwise `hog`,
descriptors of the whole image and of 3 x 3 windows, `flickr8k_features`, those that come with flickr8k also for
flickr8k_pixels, or `npz:PATH`, any features of the same images.
"""

import dataclasses
import difflib
import pathlib
import zipfile
from collections.abc import Callable
from os import PathLike

import numpy as np

from lecture4.data.captions import files, flickr8k, regions, scenes
from lecture4.data.captions.dataset import CaptionedImages
from lecture4.data.dataset import DataError

FeaturesFn = Callable[[CaptionedImages], CaptionedImages]
NAMES = ('scenes', 'flickr8k', 'flickr8k_pixels', 'coco:PATH', 'folder:PATH')


def load(
    source: str,
    split: str,
    *,
    features: str | FeaturesFn = '',
    num_images: int = 1000,
    max_words: int = 0,
    manual_dir: str | PathLike[str] | None = None,
    data_dir: str | PathLike[str] | None = None,
    download: bool = False,
    seed: int = 0,
) -> CaptionedImages:
    """A split of captioned images, with features of their regions.

    Args:
      source: A name of the table above.
      split: 'train', 'dev', 'test', for scenes also 'held_out'.
      features: '' takes those of the source; otherwise 'hog', 'flickr8k_features' or 'npz:PATH', where the arrays
        of the file (or of PATH/SPLIT.npz, if PATH is a folder) are those of `read_features`; or a function that
        returns the images with features.
      num_images: Number of scenes.
      max_words: Largest number of words in a sentence; 0 for any.
      manual_dir: Folder of downloaded files; by default $LECTURE4_MANUAL_DIR.
      data_dir: Not used, since no set is prepared.
      download: Not used, since nothing can be downloaded.
      seed: Seed of the scenes.

    Raises:
      DataError: The source or split is unknown, files are missing or broken; or as in `validate` and `read_features`.
    """
    del data_dir, download
    kind, _, path = source.partition(':')
    with_features = features == 'flickr8k_features'
    if with_features and source not in ('flickr8k', 'flickr8k_pixels'):
        raise DataError(f'{source} has no features {features}; use those of another option')
    known = scenes.SPLITS if source == 'scenes' else ('train', 'dev', 'test')
    if split not in known:
        raise DataError(f'{source} has no split {split!r}; it has {", ".join(known)}')
    if source == 'scenes':
        data = scenes.load(split, num_images, seed=seed)
    elif source == 'flickr8k':
        with_features = with_features or not features
        data = flickr8k.load(split, manual_dir, with_features=with_features, max_words=max_words)
    elif source == 'flickr8k_pixels':
        data = flickr8k.load(
            split,
            manual_dir,
            with_features=with_features,
            with_pixels=True,
            max_words=max_words,
        )
    elif kind in ('coco', 'folder') and path:
        read = files.load_coco if kind == 'coco' else files.load_folder
        data = read(pathlib.Path(path).expanduser(), split, max_words=max_words)
    else:
        near = difflib.get_close_matches(source, NAMES, 1)
        hint = f'did you mean {near[0]}? ' if near else ''
        raise DataError(
            f'unknown source of captioned images {source!r}; {hint}available are {", ".join(NAMES)}'
        )
    if not isinstance(features, str):
        return features(data)
    if with_features:
        return data
    if features.startswith('npz:'):
        file = pathlib.Path(features.removeprefix('npz:')).expanduser()
        return read_features(file / f'{split}.npz' if file.is_dir() else file, data)
    if features not in ('', 'hog'):
        raise DataError(
            f"features {features!r} are unknown; expected '', 'hog', 'flickr8k_features' or 'npz:PATH', or "
            'NETWORK:ACTIVATION with --init'
        )
    return describe(data) if features or data.features is None else data


def describe(data: CaptionedImages) -> CaptionedImages:
    """The same images with descriptors of the whole image and of 3 x 3 windows (`regions.describe`).

    Raises:
      DataError: The source has no pixels, or an image cannot be read.
    """
    if data.read_image is None:
        raise DataError('these captioned images have no pixels; use --features npz:PATH')
    features, boxes = [], []
    for row in range(len(data)):
        image = data.read_image(row)
        boxes.append(regions.grid_boxes(*image.shape[:2]))
        features.append(regions.describe(image, boxes[-1]))
    return dataclasses.replace(data, features=np.stack(features), boxes=np.stack(boxes))


def read_features(path: pathlib.Path, data: CaptionedImages) -> CaptionedImages:
    """The same images with the features of an .npz file.

    The file has `names` [m] of images, `features` [m, r, d] (the first region is the whole image) and
    optionally `boxes` [m, r, 4]; images that are not in `data` are skipped.

    Raises:
      DataError: The file cannot be read, or has no features of one of the images.
    """
    try:
        with path.open('rb') as stream, np.load(stream, allow_pickle=False) as file:
            names, features = file['names'].tolist(), file['features']
            boxes = file['boxes'] if 'boxes' in file.files else None
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(
            f'{path} cannot be read as features ({error}); expected an .npz file of names and features'
        ) from error
    if features.ndim != 3 or len(features) != len(names):
        raise DataError(
            f'{path}: expected features [m, r, d] of {len(names)} names, got shape {features.shape}'
        )
    rows = {name: i for i, name in enumerate(names)}
    lacking = [name for name in data.names if name not in rows]
    if lacking:
        raise DataError(
            f'{path} has features of other images: {len(lacking)} of {len(data)} are missing, such as '
            f'{lacking[0]}; compute them for this source and split'
        )
    at = [rows[name] for name in data.names]
    return dataclasses.replace(
        data,
        features=features[at],
        boxes=None if boxes is None else boxes[at],
        word_groups=None,
        region_groups=None,
    )
