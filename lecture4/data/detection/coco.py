"""Images with boxes described by a JSON file in COCO's format: `coco:PATH`.

PATH is the JSON file, or a folder in which the file of a split is annotations/instances_SPLIT*.json,
annotations/SPLIT.json, SPLIT.json or SPLIT/_annotations.coco.json. Images are searched next to the JSON file and
in the folders images, SPLIT, images/SPLIT and, for instances_NAME.json, NAME and images/NAME of PATH.
"""

import json
import logging
import pathlib
from os import PathLike

import numpy as np

from lecture4.data.dataset import DataError, readable_name
from lecture4.data.detection.dataset import (
    DetectionDataset,
    LazyImages,
    check_images,
    clip_boxes,
)
from lecture4.data.detection.voc import warn
from lecture4.data.sources.decode import image_size
from lecture4.data.sources.folders import Unreadable

LOG = logging.getLogger(__name__)
PATTERNS = (
    'annotations/instances_{}.json',
    'annotations/instances_{}*.json',
    'annotations/{}.json',
    '{}.json',
    '{}/_annotations.coco.json',
)


def read_coco(
    path: str | PathLike[str], split: str = 'train', *, unreadable: Unreadable = 'refuse'
) -> DetectionDataset:
    """A set in COCO's JSON format; images are decoded on access.

    Labels number the categories by ascending id from 1. Boxes without area are left out, boxes that extend beyond
    their image are clipped to it; both are counted in a warning. Crowd regions are kept and marked; areas are those
    in the file (of outlines), otherwise those of the boxes. Images without objects are kept.

    Args:
      path: The JSON file or a folder, see the module's docstring.
      split: Split of a folder; a JSON file counts as any split.
      unreadable: 'skip' leaves out images that cannot be decoded, and logs each by name.

    Returns:
      The set in ascending order of the images' ids; names are the ids.

    Raises:
      DataError: There is no such file or split, the file is not such a JSON, an annotation is of an unknown image or
        category, a box has NaN, a negative width or height or lies outside its image, or an image is missing or has
        another size than stated.
    """
    path = pathlib.Path(path).expanduser()
    file = _find_json(path, split)
    where = f'coco:{file}'
    content = _read_json(file)
    images = {image['id']: image for image in sorted(content['images'], key=lambda i: i['id'])}
    categories = sorted(content['categories'], key=lambda c: c['id'])
    index = {category['id']: k for k, category in enumerate(categories, 1)}
    objects = {key: [] for key in images}
    for annotation in content['annotations']:
        subject = f'{where}: annotation {annotation.get("id", "without id")}'
        if annotation.get('image_id') not in images:
            raise DataError(
                f'{subject} is of image {annotation.get("image_id")}, which is not among the images; remove it'
            )
        if annotation.get('category_id') not in index:
            raise DataError(
                f'{subject} has category {annotation.get("category_id")}, which is none of '
                f'{", ".join(map(str, index))}; add the category or remove it'
            )
        objects[annotation['image_id']].append(annotation)
    folder = _image_folder(path, file, split, images.values(), where)
    lists = {name: [] for name in ('boxes', 'labels', 'difficult', 'crowd', 'areas')}
    sizes, num_empty, num_clipped = [], 0, 0
    for key, image in images.items():
        sizes.append(_size(where, folder, image))
        arrays, empty, clipped = _objects(f'{where}: image {key}', objects[key], index, *sizes[-1])
        num_empty, num_clipped = num_empty + empty, num_clipped + clipped
        for name, values in arrays.items():
            lists[name].append(values)
    warn(where, num_empty, num_clipped)
    files = [folder / image['file_name'] for image in images.values()]
    dataset = DetectionDataset(
        images=LazyImages([str(f) for f in files], files, pathlib.Path.read_bytes),
        sizes=np.array(sizes, np.int32),
        names=tuple(map(str, images)),
        class_names=tuple(readable_name(str(category['name'])) for category in categories),
        **{name: tuple(values) for name, values in lists.items()},
    )
    return check_images(where, dataset, unreadable)


def _objects(where, annotations, index, height, width):
    """Arrays of the objects of one image, and the numbers of boxes that are left out and clipped."""
    boxes = [annotation.get('bbox', ()) for annotation in annotations]
    if any(len(box) != 4 for box in boxes):
        raise DataError(
            f'{where}: expected bbox [x, y, width, height] of every annotation; correct it'
        )
    boxes = np.array(boxes, float).reshape(-1, 4)
    sides = boxes[:, 2:]
    is_valid = (sides != 0).all(1)
    edges = np.concatenate([boxes[:, :2], boxes[:, :2] + sides], 1)[is_valid]
    clipped, num_clipped = clip_boxes(where, edges, height, width)
    areas = [a.get('area', s.prod()) for a, s in zip(annotations, sides, strict=True)]
    arrays = {
        'labels': np.array([index[a['category_id']] for a in annotations], np.int32)[is_valid],
        'crowd': np.array([bool(a.get('iscrowd', 0)) for a in annotations], bool)[is_valid],
        'areas': np.array(areas, np.float32)[is_valid],
    }
    arrays |= {'boxes': clipped, 'difficult': np.zeros(len(clipped), bool)}
    has_area = (arrays['areas'] > 0) & (clipped[:, 2:] > clipped[:, :2]).all(1)
    arrays = {name: values[has_area] for name, values in arrays.items()}
    return arrays, int((~is_valid).sum() + (~has_area).sum()), num_clipped


def _read_json(file):
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, OSError) as error:
        raise DataError(
            f'coco:{file} cannot be read as JSON ({error}); download or write it again'
        ) from error
    missing = [
        k
        for k in ('images', 'annotations', 'categories')
        if not isinstance(content, dict) or k not in content
    ]
    if missing:
        raise DataError(
            f'coco:{file} has no {", ".join(missing)}; expected an object with images, annotations and categories'
        )
    if not content['images']:
        raise DataError(f'coco:{file} has no images; name a set that has some')
    for name, keys in (('images', ('id', 'file_name')), ('categories', ('id', 'name'))):
        for i, entry in enumerate(content[name]):
            absent = [key for key in keys if key not in entry]
            if absent:
                raise DataError(f'coco:{file}: entry {i} of {name} has no {absent[0]}; add it')
    return content


def _find_json(path, split):
    if path.is_file():
        return path
    for pattern in PATTERNS:
        files = sorted(path.glob(pattern.format(split)))
        if len(files) > 1:
            names = ', '.join(str(file.relative_to(path)) for file in files)
            raise DataError(f'coco:{path}: split {split} may be any of {names}; name one of them')
        if files:
            return files[0]
    there = sorted(str(f.relative_to(path)) for f in path.rglob('*.json')) if path.is_dir() else []
    raise DataError(
        f'coco:{path} has no split {split!r}; expected {", ".join(p.format(split) for p in PATTERNS)}, got '
        f'{", ".join(there[:5]) or "no JSON file"}'
    )


def _image_folder(path, file, split, images, where):
    root = path if path.is_dir() else file.parent
    stem = file.stem.removeprefix('instances_')
    names = ('', 'images', split, f'images/{split}', stem, f'images/{stem}')
    folders = [file.parent, *(base / name for base in (root, root.parent) for name in names)]
    first = next(iter(images))['file_name']
    for folder in folders:
        if (folder / first).is_file():
            return folder
    searched = ', '.join(dict.fromkeys(str(folder) for folder in folders[:7]))
    raise DataError(f'{where}: the image {first} is missing; it was searched in {searched}')


def _size(where, folder, image):
    """(height, width) of an image file, which must agree with the JSON file."""
    file = folder / image['file_name']
    if not file.is_file():
        raise DataError(
            f'{where}: the image {file} is missing; add it or remove image {image["id"]}'
        )
    size = image_size(file, str(file))
    stated = (image.get('height', size[0]), image.get('width', size[1]))
    if stated != size:
        raise DataError(
            f'{where}: image {image["id"]} is stated to be {stated[1]} x {stated[0]} (width x height), {file} is '
            f'{size[1]} x {size[0]}; use the image that was annotated'
        )
    return size
