"""Images with boxes in the layout of PASCAL VOC, in a folder or an archive: `voc:PATH`.

    PATH/Annotations/NAME.xml        objects of the image NAME
    PATH/JPEGImages/NAME.jpg         or another suffix of an image file
    PATH/ImageSets/Main/SPLIT.txt    one NAME per line; without these files all images are in split train

PATH may also hold that folder, as VOCdevkit/VOC2007 does, or be a zip archive of it. In the files boxes count
pixels from 1, inclusively; here they are edges, see `lecture4.data.detection.dataset`.
"""

import functools
import io
import logging
import math
import pathlib
import zipfile
from collections.abc import Callable, Sequence
from os import PathLike
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from lecture4.data.dataset import DataError, readable_name, sort_class_names
from lecture4.data.detection.dataset import (
    DetectionDataset,
    LazyImages,
    check_images,
    clip_boxes,
)
from lecture4.data.sources.decode import SUFFIXES, image_size
from lecture4.data.sources.folders import Unreadable

LOG = logging.getLogger(__name__)
CLASS_NAMES = (
    'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow',
    'diningtable', 'dog', 'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa', 'train',
    'tvmonitor',
)  # fmt: skip
EDGES = ('xmin', 'ymin', 'xmax', 'ymax')
ANNOTATIONS, IMAGES, SETS = 'Annotations/', 'JPEGImages/', 'ImageSets/Main/'


class Annotation(NamedTuple):
    """The objects of one XML file.

    Attributes:
      class_names: Name of each object's class.
      boxes: float64 [g, 4], edges, as in the file.
      difficult: bool [g].
      size: (height, width) stated in the file, or None.
    """

    class_names: tuple[str, ...]
    boxes: np.ndarray
    difficult: np.ndarray
    size: tuple[int, int] | None


class Files(NamedTuple):
    """The files of one set, in a folder or an archive.

    Attributes:
      path: Name of the set in messages.
      names: Names of all files, relative to the folder that has Annotations.
      read: Name -> bytes.
    """

    path: str
    names: frozenset[str]
    read: Callable[[str], bytes]


def read_voc(
    path: str | PathLike[str],
    split: str = 'train',
    *,
    class_names: Sequence[str] = (),
    unreadable: Unreadable = 'refuse',
) -> DetectionDataset:
    """A split of a set in VOC layout; images are decoded on access.

    Objects whose box is a point (xmin = xmax and ymin = ymax) or has no area are left out, boxes that extend beyond
    their image are clipped to it; both are counted in a warning. Images without objects are kept.

    Args:
      path: A folder or zip archive, see the module's docstring.
      split: The name of a file in ImageSets/Main.
      class_names: Names of the classes; others are refused. By default VOC's twenty classes if all names are among
        them, otherwise the names that occur in any split, sorted.
      unreadable: 'skip' leaves out images that cannot be decoded, and logs each by name.

    Returns:
      The set in the order of the split's file; names are those of the images without suffix.

    Raises:
      DataError: There is no such folder or split, an annotation cannot be read, a class is not in the list, a box has
        NaN, x2 < x1 or lies outside the image, or an image is missing or has another size than annotated.
    """
    return from_files(open_files(path), split, class_names=class_names, unreadable=unreadable)


def from_files(
    files: Files,
    split: str,
    *,
    class_names: Sequence[str] = (),
    unreadable: Unreadable = 'refuse',
) -> DetectionDataset:
    """As `read_voc`, for opened files."""
    names = list_split(files, split)
    parsed = [_annotation(files, name) for name in names]
    class_names = tuple(class_names) or _class_names(files, parsed)
    index = {name: k for k, name in enumerate(class_names, 1)}
    images = [_image_name(files, name) for name in names]
    sizes, lists = [], {'boxes': [], 'labels': [], 'difficult': []}
    num_empty = num_clipped = 0
    for name, image, annotation in zip(names, images, parsed, strict=True):
        where = f'{files.path}: {ANNOTATIONS}{name}.xml'
        size = image_size(io.BytesIO(files.read(image)), f'{files.path}: {image}')
        if annotation.size not in (None, size):
            stated = '{1} x {0}'.format(*annotation.size)
            raise DataError(
                f'{where} is for an image of {stated} (width x height), {image} is {size[1]} x {size[0]}; '
                'use the image that was annotated'
            )
        unknown = [c for c in annotation.class_names if c not in index]
        if unknown:
            raise DataError(
                f'{where} has an object of class {unknown[0]!r}, which is none of {", ".join(class_names)}; '
                'add the class or remove the object'
            )
        boxes, clipped = clip_boxes(where, annotation.boxes, *size)
        has_area = (boxes[:, 2:] - boxes[:, :2] > 0).all(1) & _has_area(annotation.boxes)
        num_empty, num_clipped = num_empty + int((~has_area).sum()), num_clipped + clipped
        labels = np.array([index[c] for c in annotation.class_names], np.int32)
        sizes.append(size)
        lists['boxes'].append(boxes[has_area])
        lists['labels'].append(labels[has_area])
        lists['difficult'].append(annotation.difficult[has_area])
    warn(files.path, num_empty, num_clipped)
    boxes = tuple(lists['boxes'])
    dataset = DetectionDataset(
        images=LazyImages([f'{files.path}: {image}' for image in images], images, files.read),
        sizes=np.array(sizes, np.int32),
        boxes=boxes,
        labels=tuple(lists['labels']),
        difficult=tuple(lists['difficult']),
        crowd=tuple(np.zeros(len(b), bool) for b in boxes),
        areas=tuple(np.prod(b[:, 2:] - b[:, :2], -1) for b in boxes),
        names=tuple(names),
        class_names=class_names,
    )
    return check_images(files.path, dataset, unreadable)


def warn(path: str, num_empty: int, num_clipped: int) -> None:
    """Log the numbers of boxes that are left out and clipped, if any."""
    if num_empty:
        LOG.warning('%s: %d boxes without area are left out', path, num_empty)
    if num_clipped:
        LOG.warning(
            '%s: %d boxes extend beyond their image and are clipped to it', path, num_clipped
        )


def open_files(path: str | PathLike[str]) -> Files:
    """The files of the set at `path`: a folder, a folder that contains it, or a zip archive.

    Raises:
      DataError: There is no Annotations folder, or more than one.
    """
    path = pathlib.Path(path).expanduser()
    if path.is_file():
        try:
            archive = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise DataError(
                f'{path} is not a complete zip archive ({error}); download it again'
            ) from error
        members = archive.namelist()
        roots = {
            m.partition(ANNOTATIONS)[0] for m in members if ANNOTATIONS in m and m.endswith('.xml')
        }
        root = _one_root(path, sorted(roots))
        names = frozenset(m.removeprefix(root) for m in members if m.startswith(root))
        return Files(f'voc:{path}', names, lambda name: archive.read(root + name))
    patterns = ('', '*/', '*/*/')
    folders = [
        f for p in patterns for f in path.glob(f'{p}{ANNOTATIONS}'.rstrip('/')) if f.is_dir()
    ]
    root = pathlib.Path(_one_root(path, sorted(str(folder.parent) for folder in folders)))
    parts = [(root / part) for part in (ANNOTATIONS, IMAGES, SETS)]
    paths = [file for part in parts if part.is_dir() for file in part.iterdir()]
    names = frozenset(file.relative_to(root).as_posix() for file in paths)
    return Files(f'voc:{path}', names, lambda name: (root / name).read_bytes())


def _one_root(path, roots):
    if len(roots) == 1:
        return roots[0]
    if roots:
        raise DataError(
            f'voc:{path} contains several sets ({", ".join(map(str, roots))}); name one of them'
        )
    raise DataError(
        f'voc:{path} has no folder Annotations; name a folder (or zip archive) with Annotations, JPEGImages '
        'and ImageSets/Main'
    )


def list_split(files: Files, split: str) -> list[str]:
    """Names of the images of a split, in the order of its file.

    Raises:
      DataError: There is no such split (the message lists the splits), or it is empty.
    """
    sets = sorted(
        n[len(SETS) : -4] for n in files.names if n.startswith(SETS) and n.endswith('.txt')
    )
    if sets:
        if split not in sets:
            # Without the sets of one class, such as cat_train.
            splits = [s for s in sets if '_' not in s]
            raise DataError(
                f'{files.path} has no split {split!r}; it has {", ".join(splits or sets)}'
            )
        lines = files.read(f'{SETS}{split}.txt').decode().splitlines()
        names = [line.split()[0] for line in lines if line.strip()]
    elif split == 'train':
        names = sorted(n[len(ANNOTATIONS) : -4] for n in files.names if n.endswith('.xml'))
    else:
        raise DataError(
            f'{files.path} has no split {split!r}; without ImageSets/Main it has only train'
        )
    if not names:
        raise DataError(f'{files.path}: split {split} has no images; name another')
    return names


def parse_annotation(where: str, content: bytes) -> Annotation:
    """The objects of an XML file; parts of objects, such as a person's head, are not read.

    Args:
      where: Prefix of error messages.
      content: The file.

    Raises:
      DataError: The content is not such a file, or an object lacks its class or a number of its box.
    """
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise DataError(f'{where} cannot be read as XML ({error}); correct or remove it') from error
    names, boxes, difficult = [], [], []
    for number, node in enumerate(root.iter('object'), 1):
        name = (node.findtext('name') or '').strip()
        try:
            edges = [float(node.findtext(f'bndbox/{edge}') or '') for edge in EDGES]
        except ValueError:
            edges = []
        if not name or not edges:
            raise DataError(
                f'{where}: object {number} has no name or no box of four numbers; correct it'
            )
        names.append(readable_name(name))
        boxes.append([edges[0] - 1, edges[1] - 1, *edges[2:]])
        difficult.append((node.findtext('difficult') or '0').strip() not in ('0', ''))
    sides = [root.findtext(f'size/{side}') for side in ('height', 'width')]
    size = tuple(int(float(side)) for side in sides if side)
    return Annotation(
        tuple(names),
        np.array(boxes, float).reshape(-1, 4),
        np.array(difficult, bool),
        (size[0], size[1]) if len(size) == 2 and math.prod(size) else None,
    )


def _has_area(boxes):
    """False for points, xmin = xmax and ymin = ymax, which annotation tools write for a single click."""
    return ~(boxes[:, 2:] - boxes[:, :2] == 1).all(1)


def _annotation(files, name):
    file = f'{ANNOTATIONS}{name}.xml'
    if file not in files.names:
        raise DataError(f'{files.path} has no {file}; add it or remove {name} from the split')
    return parse_annotation(f'{files.path}: {file}', files.read(file))


def _image_name(files, name):
    for suffix in dict.fromkeys(('.jpg', *SUFFIXES)):
        for candidate in (suffix, suffix.upper()):
            if f'{IMAGES}{name}{candidate}' in files.names:
                return f'{IMAGES}{name}{candidate}'
    raise DataError(
        f'{files.path}: the image of {ANNOTATIONS}{name}.xml is missing; put it at {IMAGES}{name}.jpg or remove '
        f'{name} from the split'
    )


def _class_names(files, parsed):
    names = {name for annotation in parsed for name in annotation.class_names}
    if names <= set(CLASS_NAMES):
        return CLASS_NAMES
    every = [
        n[len(ANNOTATIONS) : -4]
        for n in files.names
        if n.startswith(ANNOTATIONS) and n.endswith('.xml')
    ]
    read = functools.partial(_annotation, files)
    return sort_class_names(names | {c for name in every for c in read(name).class_names})
