"""Sets of images with boxes by name: `load('scenes')`, `load('bccd')`, `load('voc:PATH')`, ...

    scenes            digits pasted on photographs, made from the seed; splits train, test; 10 classes
    bccd              blood cells, 364 images of 640 x 480; splits train, val, trainval, test; 3 classes
    voc2012_animals   600 images of VOC 2012; splits train, val; six of its classes: SIX_CLASSES
    voc2007, voc2012  PASCAL VOC; splits train, val, trainval and, for 2007, test; 20 classes
    voc:PATH          a folder or zip archive in VOC layout; see `lecture4.data.detection.voc`
    coco:PATH         JSON in COCO's format; see `lecture4.data.detection.coco`
    npz:PATH          arrays in one file; see `lecture4.data.detection.own_arrays`

scenes needs no file and no network. bccd and voc2012_animals are read from manual_dir; voc2007 and voc2012 are
prepared once in data_dir, from files in manual_dir or, with `download`, from the network.
"""

import dataclasses
import difflib
import functools
import os
import pathlib
from collections.abc import Sequence
from os import PathLike

import numpy as np

from lecture4.data.dataset import DataError
from lecture4.data.detection import scenes
from lecture4.data.detection.dataset import (
    DetectionDataset,
    LazyImages,
    check_images,
    select_classes,
    take,
)
from lecture4.data.detection.scenes import SceneConfig
from lecture4.data.sources import archives
from lecture4.data.sources.folders import Unreadable

SIX_CLASSES = ('cat', 'cow', 'dog', 'horse', 'person', 'sheep')
NAMES = ('scenes', 'bccd', 'voc2012_animals', 'voc2007', 'voc2012')
FORMS = ('voc:PATH', 'coco:PATH', 'npz:PATH')
# Checksums of one zip archive of each set; other archives are accepted by their contents.
PINS = {
    'bccd': archives.Pin(
        'BCCD.zip',
        'https://github.com/Shenggan/BCCD_Dataset (the folder BCCD, zipped)',
        7869626,
        'c826520d5278c9ed4d0499bd79966fe15d8c38d42c67c43e72d0805bf17765eb',
    ),
    'voc2012_animals': archives.Pin(
        'VOC2012_animals.zip',
        'http://host.robots.ox.ac.uk/pascal/VOC/voc2012 (600 of its images, zipped)',
        14987680,
        '19b16cde0677553dac10d41803e6150905026f0de6a48e8c9852ca74b8c39b33',
    ),
}


def load(
    source: str,
    split: str = 'train',
    *,
    classes: Sequence[str] = (),
    num_images: int = 0,
    seed: int = 0,
    scene: SceneConfig = SceneConfig(),
    data_dir: str | PathLike[str] | None = None,
    manual_dir: str | PathLike[str] | None = None,
    download: bool = False,
    unreadable: Unreadable = 'refuse',
) -> DetectionDataset:
    """The split of a set of images with boxes.

    Args:
      source: A name or form from the table above.
      split: A split of the set.
      classes: Names of the classes to keep, numbered in this order; () keeps all (for voc2012_animals the six).
      num_images: Largest number of images, the first of the split, 0 for all; for scenes the number of images, 0 for
        1000.
      seed: Seed of the scenes.
      scene: Options of the scenes; the split is replaced by `split`.
      data_dir: Directory of prepared sets; by default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      manual_dir: Directory of downloaded files, only read; by default $LECTURE4_MANUAL_DIR.
      download: Whether missing files may be downloaded.
      unreadable: 'skip' leaves out images that cannot be decoded, and logs each by name.

    Raises:
      DataError: The source, split or class is unknown; or the set is missing, altered or of the wrong form.
    """
    manual_dir = manual_dir or os.environ.get('LECTURE4_MANUAL_DIR') or None
    kind, _, path = source.partition(':')
    if kind in ('voc', 'coco', 'npz') and path:
        dataset = _read_form(kind, path, split, unreadable)
    elif source == 'scenes':
        dataset = _scenes(split, num_images or 1000, seed, scene, manual_dir, data_dir)
    elif source in PINS:
        dataset = _read_pinned(source, split, manual_dir, unreadable)
        classes = classes or (SIX_CLASSES if source == 'voc2012_animals' else ())
    elif source in ('voc2007', 'voc2012'):
        folder = data_dir or os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
        folder = pathlib.Path(folder).expanduser()
        dataset = load_prepared(source, split, folder, manual_dir, download=download)
        dataset = check_images(source, dataset, unreadable)
    else:
        raise DataError(_unknown(source))
    if num_images:
        dataset = take(dataset, range(min(num_images, dataset.num_images)))
    return select_classes(source, dataset, classes) if classes else dataset


def load_prepared(
    name: str,
    split: str,
    data_dir: str | PathLike[str],
    manual_dir: str | PathLike[str] | None = None,
    *,
    download: bool = False,
    pins: tuple[archives.Pin, ...] | None = None,
) -> DetectionDataset:
    """voc2007 or voc2012, prepared first if needed.

    Args:
      name: The set.
      split: A split of the set.
      data_dir: Directory of prepared sets.
      manual_dir: Directory of its archives, if any.
      download: Whether missing files may be downloaded.
      pins: Checksums of the archives, if they are not the published ones.

    Raises:
        DataError: There is no such split; or as in `prepared.prepare`.
    """
    from lecture4.data.detection import voc
    from lecture4.data.sources import prepared
    from lecture4.data.sources.builders.voc.builder import Voc

    year = '2007' if name == 'voc2007' else '2012'
    make = functools.partial(Voc, year=year, data_dir=data_dir, manual_dir=manual_dir, pins=pins)
    prepared.prepare(make(), name, download=download)
    builder = make()
    if split not in builder.info.splits:
        raise DataError(
            f'{name} has no split {split!r}; it has {", ".join(sorted(builder.info.splits))}'
        )
    fields = _records(builder, split)
    rows = range(builder.info.splits[split].num_examples)
    sizes, objects, names = [], [], []
    for i in rows:
        record = fields(i)
        sizes.append(record['size'].int64_list.value)
        values = np.array(record['objects'].float_list.value, np.float32)
        objects.append(values.reshape(-1, 6))
        names.append(record['name'].bytes_list.value[0].decode())
    boxes = tuple(o[:, :4] for o in objects)
    return DetectionDataset(
        images=LazyImages(
            [f'{name}: {n}.jpg' for n in names],
            rows,
            lambda i: fields(i)['image'].bytes_list.value[0],
        ),
        sizes=np.array(sizes, np.int32),
        boxes=boxes,
        labels=tuple(o[:, 4].astype(np.int32) for o in objects),
        difficult=tuple(o[:, 5] > 0 for o in objects),
        crowd=tuple(np.zeros(len(o), bool) for o in objects),
        areas=tuple(np.prod(b[:, 2:] - b[:, :2], -1) for b in boxes),
        names=tuple(names),
        class_names=voc.CLASS_NAMES,
    )


def _records(builder, split):
    """Row -> the features of its record."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.proto import tf_example_pb2

    parse = tf_example_pb2.Example.FromString  # pyright: ignore[reportAttributeAccessIssue]
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    source = builder.as_data_source(split, deserialize_method=raw)
    return lambda i: parse(source[i]).features.feature


def _read_form(kind, path, split, unreadable):
    if kind == 'voc':
        from lecture4.data.detection import voc

        return voc.read_voc(path, split, unreadable=unreadable)
    if kind == 'coco':
        from lecture4.data.detection import coco

        return coco.read_coco(path, split, unreadable=unreadable)
    from lecture4.data.detection import own_arrays

    return own_arrays.read_npz(path, split)


def _scenes(split, num_images, seed, scene, manual_dir, data_dir):
    if split not in ('train', 'test'):
        raise DataError(f'scenes has no split {split!r}; it has train, test')
    changed = dataclasses.replace(
        scene,
        split=split,
        manual_dir=scene.manual_dir or manual_dir,
        data_dir=scene.data_dir or data_dir,
    )
    return scenes.dataset(seed, num_images, changed)


def _read_pinned(source, split, manual_dir, unreadable):
    from lecture4.data.detection import voc

    pin = PINS[source]
    path = archives.locate(manual_dir, source, [pin]).get(pin.file)
    if path is None:
        raise DataError(
            f'{source} cannot be downloaded as one file; run with --manual_dir PATH where PATH or PATH/{source} has '
            f'{pin.file}: {pin.url}; or name a copy of that folder: voc:PATH'
        )
    archives.verify(path, pin)
    return voc.read_voc(path, split, unreadable=unreadable)


def _unknown(source):
    near = difflib.get_close_matches(source, NAMES, n=1)
    hint = f'did you mean {near[0]}? ' if near and ':' not in source else ''
    if pathlib.Path(source).expanduser().exists():
        kind = {'.npz': 'npz', '.json': 'coco'}.get(pathlib.Path(source).suffix, 'voc')
        hint = f'did you mean {kind}:{source}? '
    return (
        f'unknown detection data set {source!r}; {hint}available are {", ".join((*NAMES, *FORMS))}'
    )
