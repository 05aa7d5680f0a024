"""Images with boxes in an .npz file of the user: `npz:PATH`."""

import pathlib
from os import PathLike

import numpy as np

from lecture4.data.dataset import DataError, readable_name, validate
from lecture4.data.detection.dataset import DetectionDataset, clip_boxes
from lecture4.data.detection.voc import warn
from lecture4.data.sources.decode import to_rgb


def read_npz(path: str | PathLike[str], split: str = 'train') -> DetectionDataset:
    """The images and boxes of an .npz file, by these names (each, for another split, as SPLIT_NAME):

        images         uint8 [n, h, w], [n, h, w, 1] or [n, h, w, 3]
        boxes          [m, 4], edges x1, y1, x2, y2 in pixels, see `lecture4.data.detection.dataset`
        image          integers [m]: index of the image of each box, from 0
        labels         integers [m], 1 to K
        sizes          optional, integers [n, 2]: (height, width) of each image, for images padded at the right and
                       below to one size
        difficult, crowd   optional, bool [m]
        class_names    optional, K names; by default '1', '2', ...
        names          optional, n names of the images; by default '0', '1', ...

    Args:
      path: The file.
      split: 'train', or the prefix of the arrays' names.

    Raises:
      DataError: There is no such file or split, arrays do not fit, a label has no class, an index has no image, or a
        box has NaN, x2 < x1 or lies outside its image.
    """
    path = pathlib.Path(path).expanduser()
    where = f'npz:{path}'
    if not path.is_file():
        raise DataError(f'{path} is not a file; name an .npz file of images and boxes')
    try:
        with path.open('rb') as stream, np.load(stream, allow_pickle=False) as file:
            prefix = '' if split == 'train' and 'images' in file.files else f'{split}_'
            names = [name for name in file.files if name.startswith(prefix)]
            arrays = {name.removeprefix(prefix): file[name] for name in names}
            shared = file.get('class_names')
    except (
        Exception
    ) as error:  # zipfile, zlib and numpy raise many kinds of exceptions on a broken file
        raise DataError(
            f'{path} cannot be read as .npz ({type(error).__name__}: {error}); save it again with numpy.savez, '
            'arrays of numbers only'
        ) from error
    missing = [name for name in ('images', 'boxes', 'image', 'labels') if name not in arrays]
    if missing:
        raise DataError(
            f'{where} has no {prefix}{missing[0]}; expected arrays images, boxes [m, 4], image (the index of '
            'the image of each box) and labels, for another split as SPLIT_images, ...'
        )
    images = validate(where, arrays['images']).images
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        raise DataError(
            f'{where}: expected uint8 images of values 0 to 255, got {arrays["images"].dtype}; convert them'
        )
    n = len(images)
    boxes, image, labels = arrays['boxes'], arrays['image'], arrays['labels']
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not len(boxes) == len(image) == len(labels):
        raise DataError(
            f'{where}: expected boxes [m, 4], image [m] and labels [m], got shapes {boxes.shape}, {image.shape} and '
            f'{labels.shape}'
        )
    if len(image) and not 0 <= image.min() <= image.max() < n:
        raise DataError(
            f'{where}: expected image from 0 to {n - 1}, got {image.min()} to {image.max()}'
        )
    class_names = arrays.get('class_names', shared)
    if class_names is None:
        class_names = range(1, 1 + int(labels.max(initial=1)))
    class_names = tuple(readable_name(str(name)) for name in class_names)
    if len(labels) and not 1 <= labels.min() <= labels.max() <= len(class_names):
        raise DataError(
            f'{where}: expected labels from 1 to {len(class_names)}, got {labels.min()} to {labels.max()}; 0 is the '
            'background'
        )
    sizes = arrays.get('sizes', np.tile(images.shape[1:3], (n, 1))).astype(np.int32)
    if sizes.shape != (n, 2) or (sizes > images.shape[1:3]).any() or (sizes < 1).any():
        raise DataError(
            f'{where}: expected sizes [{n}, 2] from 1 to {images.shape[1:3]}, got shape {sizes.shape}'
        )
    return _assemble(where, arrays, _cut_to_sizes(images, sizes), sizes, class_names)


def _cut_to_sizes(images, sizes):
    """Each image cropped to its size, with three channels."""
    return tuple(
        np.ascontiguousarray(to_rgb(image[:h, :w]))
        for image, (h, w) in zip(images, sizes, strict=True)
    )


def _assemble(where, arrays, images, sizes, class_names):
    m = len(arrays['boxes'])
    flags = {
        name: arrays.get(name, np.zeros(m, bool)).astype(bool) for name in ('difficult', 'crowd')
    }
    lists = {name: [] for name in ('boxes', 'labels', 'difficult', 'crowd', 'areas')}
    num_empty = num_clipped = 0
    for i, (h, w) in enumerate(sizes.tolist()):
        rows = np.flatnonzero(arrays['image'] == i)
        boxes, clipped = clip_boxes(f'{where}: image {i}', arrays['boxes'][rows], h, w)
        has_area = (boxes[:, 2:] > boxes[:, :2]).all(1)
        rows, boxes = rows[has_area], boxes[has_area]
        num_empty, num_clipped = num_empty + int((~has_area).sum()), num_clipped + clipped
        lists['boxes'].append(boxes)
        lists['areas'].append(np.prod(boxes[:, 2:] - boxes[:, :2], -1))
        lists['labels'].append(arrays['labels'][rows].astype(np.int32))
        for name, values in flags.items():
            lists[name].append(values[rows])
    warn(where, num_empty, num_clipped)
    names = arrays.get('names', range(len(images)))
    return DetectionDataset(
        images=images,
        sizes=sizes,
        names=tuple(map(str, names)),
        class_names=class_names,
        **{name: tuple(values) for name, values in lists.items()},
    )
