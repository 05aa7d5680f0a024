"""The data set that every source of images with boxes returns, and its batches as padded arrays of static shape.

Boxes are the edges [x1, y1, x2, y2] of rectangles in pixels: the upper left corner of the image is (0, 0), its
lower right corner (width, height), and a box is x2 - x1 wide. The first and last pixel in the papers' convention
(inclusive, from 0) are x1 and x2 - 1, so that their `x2 - x1 + 1` and this `x2 - x1` are equal. VOC's files count
from 1, inclusive: the edges are x1 - 1, y1 - 1, x2, y2. Labels are 1 to K, 0 is the background.
"""

import functools
import hashlib
import io
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int, Int32, Shaped

from lecture4.data.dataset import DataError
from lecture4.data.sources.decode import decode_image, to_rgb
from lecture4.data.sources.folders import Unreadable

LOG = logging.getLogger(__name__)


class DetectionDataset(NamedTuple):
    """Images with labeled boxes; images may have different sizes and may be on disk.

    Attributes:
      images: Sequence of uint8 [h, w, 3]; a `LazyImages` decodes an image on access.
      sizes: (height, width) of each image.
      boxes: float32 [g, 4] for each image, edges as in this module's docstring, inside the image.
      labels: int32 [g] for each image, 1 to K.
      difficult: bool [g] for each image: VOC's objects that are ignored in evaluation.
      crowd: bool [g] for each image: COCO's regions of many objects.
      areas: float32 [g] for each image: the area that defines COCO's sizes.
      names: Identifier of each image, such as '2008_000008'.
      class_names: Names of the K classes; label k is class_names[k - 1].
    """

    images: Sequence[np.ndarray]
    sizes: Int32[np.ndarray, 'n 2']
    boxes: tuple[np.ndarray, ...]
    labels: tuple[np.ndarray, ...]
    difficult: tuple[np.ndarray, ...]
    crowd: tuple[np.ndarray, ...]
    areas: tuple[np.ndarray, ...]
    names: tuple[str, ...]
    class_names: tuple[str, ...]

    @property
    def num_images(self) -> int:
        """Number of images (the length of the tuple is the number of its fields)."""
        return len(self.names)


class LazyImages(Sequence):
    """Encoded images that are decoded on access, as uint8 [h, w, 3].

    Attributes:
      names: Names of the images in error messages.
      sources: Arguments of `read`: paths, members of an archive, rows of a prepared set.
      read: Source -> the bytes of an image file.
    """

    def __init__(self, names: Sequence[str], sources: Sequence[Any], read: Callable[[Any], bytes]):
        self.names, self.sources, self.read = tuple(names), tuple(sources), read

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, i: Any) -> Any:
        """One decoded image; for a slice the images, still encoded."""
        if isinstance(i, slice):
            return LazyImages(self.names[i], self.sources[i], self.read)
        return np.ascontiguousarray(
            to_rgb(decode_image(io.BytesIO(self.encoded(i)), self.names[i]))
        )

    def encoded(self, i: int) -> bytes:
        """The bytes of an image file.

        Raises:
          DataError: The file cannot be read.
        """
        try:
            return self.read(self.sources[i])
        except (OSError, KeyError) as error:
            raise DataError(f'{self.names[i]} cannot be read ({error}); replace it') from error


def take(
    dataset: DetectionDataset, rows: Sequence[int] | Int[np.ndarray, ' m']
) -> DetectionDataset:
    """The images of some rows, in this order."""
    rows = [int(row) for row in rows]
    images = dataset.images
    if isinstance(images, LazyImages):
        names, sources = (
            [values[row] for row in rows] for values in (images.names, images.sources)
        )
        images = LazyImages(names, sources, images.read)
    else:
        images = [images[row] for row in rows]
    lists = {
        name: tuple(getattr(dataset, name)[row] for row in rows)
        for name in ('boxes', 'labels', 'difficult', 'crowd', 'areas', 'names')
    }
    return dataset._replace(images=images, sizes=dataset.sizes[rows], **lists)


def select_classes(
    name: str, dataset: DetectionDataset, class_names: Sequence[str]
) -> DetectionDataset:
    """The boxes of some classes, numbered 1, 2, ... in the given order; images without such boxes are kept.

    Args:
      name: Prefix of error messages.
      dataset: The data set.
      class_names: Classes to keep.

    Raises:
      DataError: The data set does not have one of the classes.
    """
    unknown = [c for c in class_names if c not in dataset.class_names]
    if unknown:
        raise DataError(
            f'{name} has no class {unknown[0]!r}; it has {", ".join(dataset.class_names)}'
        )
    new = np.zeros(len(dataset.class_names) + 1, np.int32)
    for k, class_name in enumerate(class_names, 1):
        new[dataset.class_names.index(class_name) + 1] = k
    is_kept = [new[labels] > 0 for labels in dataset.labels]
    lists = {
        field: tuple(v[k] for v, k in zip(getattr(dataset, field), is_kept, strict=True))
        for field in ('boxes', 'labels', 'difficult', 'crowd', 'areas')
    }
    lists['labels'] = tuple(new[labels] for labels in lists['labels'])
    return dataset._replace(class_names=tuple(class_names), **lists)


def clip_boxes(
    where: str, boxes: Shaped[np.ndarray, 'g 4'], height: int, width: int
) -> tuple[Float32[np.ndarray, 'g 4'], int]:
    """Boxes clipped to their image, and the number of boxes that changed.

    Args:
      where: Prefix of error messages: the file of the annotation.
      boxes: Edges; boxes without area are kept.
      height: Height of the image.
      width: Width of the image.

    Raises:
      DataError: A box has NaN or infinity, has x2 < x1 or y2 < y1, or lies entirely outside the image.
    """
    boxes = np.asarray(boxes, float).reshape(-1, 4)
    clipped = np.clip(boxes, 0, [width, height, width, height])
    low, high = boxes[:, :2], boxes[:, 2:]
    faults = {
        'it is not finite': ~np.isfinite(boxes).all(1),
        'x2 < x1 or y2 < y1': (high < low).any(1),
        f'it lies outside the image of {width} x {height} (width x height)': (
            (high <= 0) | (low >= [width, height])
        ).any(1),
    }
    for reason, bad in faults.items():
        if bad.any():
            i = int(np.flatnonzero(bad)[0])
            edges = ', '.join(f'{edge:g}' for edge in boxes[i])
            raise DataError(
                f'{where}: box {i + 1} of {len(boxes)} is [{edges}] (x1, y1, x2, y2): {reason}; correct or '
                'remove it'
            )
    return clipped.astype(np.float32), int((clipped != boxes).any(1).sum())


def check_images(
    name: str, dataset: DetectionDataset, unreadable: Unreadable = 'refuse'
) -> DetectionDataset:
    """The data set; with 'skip' without the images that cannot be decoded.

    Args:
      name: Prefix of messages.
      dataset: The data set. With 'refuse' no image is decoded: a broken one raises DataError on access.
      unreadable: 'skip' decodes each image once and logs those that are left out.

    Raises:
      DataError: No image can be read.
    """
    if unreadable == 'refuse' or not isinstance(dataset.images, LazyImages):
        return dataset
    rows = []
    for i in range(dataset.num_images):
        try:
            dataset.images[i]
        except DataError as error:
            LOG.warning('skipped: %s', error)
        else:
            rows.append(i)
    if not rows:
        raise DataError(f'{name}: none of {dataset.num_images} images can be read; replace them')
    return take(dataset, rows)


def fingerprint(dataset: DetectionDataset) -> str:
    """64 hexadecimal digits that depend only on the names, sizes and contents of the images.

    Results that are computed from images alone, such as region proposals, are stored under it. For files, the bytes
    are hashed: the same image in another encoding has another fingerprint.
    """
    digest = hashlib.sha256()
    for i, name in enumerate(dataset.names):
        images = dataset.images
        content = images.encoded(i) if isinstance(images, LazyImages) else images[i].tobytes()
        inside = hashlib.sha256(content)
        digest.update(f'{name}\0{dataset.sizes[i].tolist()}\0'.encode() + inside.digest())
    return digest.hexdigest()


def annotations(dataset: DetectionDataset) -> dict[str, np.ndarray]:
    """All boxes as flat arrays, in pixels of the original images, for evaluations.

    Returns:
      {'image': int32 [m] row of the image, 'boxes': float32 [m, 4], 'labels': int32 [m],
      'difficult': bool [m], 'crowd': bool [m], 'areas': float32 [m]}.
    """
    counts = [len(boxes) for boxes in dataset.boxes]
    fields = ('boxes', 'labels', 'difficult', 'crowd', 'areas')
    flat = {name: np.concatenate(getattr(dataset, name)) for name in fields}
    return {'image': np.repeat(np.arange(len(counts), dtype=np.int32), counts), **flat}


def pad_boxes(
    boxes: Sequence[Float32[np.ndarray, '_ 4']],
    labels: Sequence[Int32[np.ndarray, ' _']],
    difficult: Sequence[Bool[np.ndarray, ' _']],
    max_boxes: int,
) -> dict[str, np.ndarray]:
    """Boxes of several images padded to one number, with zeros.

    If an image has more than `max_boxes`, the largest are kept, in their order, and a warning is logged once.

    Returns:
      {'boxes': float32 [n, max_boxes, 4], 'labels': int32 [n, max_boxes], 'valid': bool, 'difficult': bool}.
    """
    n = len(boxes)
    result = {
        'boxes': np.zeros((n, max_boxes, 4), np.float32),
        'labels': np.zeros((n, max_boxes), np.int32),
        'valid': np.zeros((n, max_boxes), bool),
        'difficult': np.zeros((n, max_boxes), bool),
    }
    for i, image_boxes in enumerate(boxes):
        rows = np.arange(len(image_boxes))
        if len(image_boxes) > max_boxes:
            _warn_once(
                f'{len(image_boxes)} boxes in an image; the {max_boxes} largest are kept; a larger max_boxes keeps all'
            )
            area = (image_boxes[:, 2] - image_boxes[:, 0]) * (image_boxes[:, 3] - image_boxes[:, 1])
            rows = np.sort(np.argsort(-area, kind='stable')[:max_boxes])
        g = len(rows)
        result['boxes'][i, :g], result['labels'][i, :g] = image_boxes[rows], labels[i][rows]
        result['difficult'][i, :g], result['valid'][i, :g] = difficult[i][rows], True
    return result


@functools.cache
def _warn_once(message):
    LOG.warning(message)
