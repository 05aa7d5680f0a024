"""Batches of images of different sizes with few static shapes: resized, flipped, padded to a bucket.

The scale rule of Fast R-CNN makes the shorter side 600 pixels and the longer at most 1000. Every image then
fits one of a few buckets (height, width), so that a step is compiled once for each of them and not for each
size. A batch holds images of one bucket.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int, Int32, Shaped, UInt8

from lecture4.data import batches
from lecture4.data.dataset import DataError
from lecture4.data.detection.dataset import DetectionDataset, pad_boxes

Bucket = tuple[int, int]
RATIOS = (
    1.0,
    1.25,
    4 / 3,
    1.5,
)  # ratios of the longer to the shorter side; the longest bucket takes longer images


class ScaleRule(NamedTuple):
    """Resizing rule of images.

    Attributes:
      shorter: Length of the shorter side in pixels; 0 keeps the size of the images.
      longer: Upper bound of the longer side, which takes precedence.
      stride: Heights and widths of buckets are multiples of it.
    """

    shorter: int = 600
    longer: int = 1000
    stride: int = 32


def resized_shape(height: int, width: int, rule: ScaleRule) -> tuple[int, int]:
    """Height and width after resizing by the rule, at least 1 pixel.

    Args:
      height: Height in pixels.
      width: Width in pixels.
      rule: Resizing rule; with shorter = 0 the size is kept, unless its longer side exceeds `longer`.

    References:
      Girshick 2015 (test.py, prep_im_for_blob).
    """
    shorter, longer = min(height, width), max(height, width)
    scale = rule.shorter / shorter if rule.shorter else 1.0
    if round(scale * longer) > rule.longer:
        scale = rule.longer / longer
    return max(round(scale * height), 1), max(round(scale * width), 1)


def buckets_for(sizes: Int[np.ndarray, 'n 2'], rule: ScaleRule) -> tuple[Bucket, ...]:
    """The buckets that images of these sizes need, at most ten: shapes of the ratios in RATIOS and the longest.

    They depend only on the rule and the ratios that occur, so that two splits share buckets. With `shorter` 0 there
    is one bucket with the largest height and width.

    Args:
      sizes: (height, width) of the images before resizing.
      rule: Resizing rule.

    Returns:
      Buckets in ascending order of area.
    """
    resized = np.array([resized_shape(h, w, rule) for h, w in np.asarray(sizes).tolist()])
    if not rule.shorter:
        return (tuple(_round_up(resized.max(0), rule.stride).tolist()),)
    longest = [
        round(rule.shorter * ratio) for ratio in RATIOS if rule.shorter * ratio < rule.longer
    ]
    shapes = [(rule.shorter, side) for side in (*longest, max(rule.longer, rule.shorter))]
    shapes = [shape for h, w in shapes for shape in ((h, w), (w, h))]
    candidates = sorted(
        {tuple(_round_up(shape, rule.stride).tolist()) for shape in shapes}, key=_area
    )
    used = {bucket_of(h, w, candidates) for h, w in resized.tolist()}
    return tuple(candidates[i] for i in sorted(used))


def bucket_of(height: int, width: int, buckets: Sequence[Bucket]) -> int:
    """Index of the smallest bucket that fits an image of a (resized) size.

    Raises:
      DataError: No bucket fits.
    """
    fitting = [i for i, (h, w) in enumerate(buckets) if height <= h and width <= w]
    if not fitting:
        raise DataError(
            f'an image of {height} x {width} pixels fits none of the buckets {list(buckets)}; add a larger one'
        )
    return min(fitting, key=lambda i: _area(buckets[i]))


def resize(
    image: UInt8[np.ndarray, 'h w 3'], boxes: Float32[np.ndarray, 'g 4'], height: int, width: int
) -> tuple[UInt8[np.ndarray, '{height} {width} 3'], Float32[np.ndarray, 'g 4']]:
    """An image resized by bilinear interpolation (antialiased if it shrinks), and its boxes.

    Args:
      image: The image.
      boxes: Edges in pixels of the image.
      height: Height of the result.
      width: Width of the result.
    """
    from PIL import Image

    h, w = image.shape[:2]
    if (h, w) == (height, width):
        return image, boxes
    resized = Image.fromarray(np.ascontiguousarray(image)).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    return np.asarray(resized), scale_boxes(boxes, (h, w), (height, width))


def scale_boxes(
    boxes: Shaped[np.ndarray, '*n 4'], size: Sequence[int], new_size: Sequence[int]
) -> Shaped[np.ndarray, '*n 4']:
    """Boxes of an image of one size (height, width) in the image resized to another, or back."""
    factors = np.array([new_size[1] / size[1], new_size[0] / size[0]] * 2)
    return (boxes * factors).astype(boxes.dtype)


def flip_boxes(boxes: Shaped[np.ndarray, '*n 4'], width: int | float) -> Shaped[np.ndarray, '*n 4']:
    """Boxes of an image mirrored left to right: x1, x2 become width - x2, width - x1."""
    x1, y1, x2, y2 = np.moveaxis(boxes, -1, 0)
    return np.stack([width - x2, y1, width - x1, y2], -1).astype(boxes.dtype)


def make_batch(
    dataset: DetectionDataset,
    rows: Sequence[int] | Int[np.ndarray, ' n'],
    bucket: Bucket,
    *,
    rule: ScaleRule = ScaleRule(),
    flips: Bool[np.ndarray, ' n'] | None = None,
    max_boxes: int = 64,
    for_training: bool = True,
    use_difficult: bool = False,
) -> dict[str, np.ndarray]:
    """Images resized by the rule, mirrored where `flips` is True, and padded with zeros to the bucket.

    Args:
      dataset: The images.
      rows: Rows of the images.
      bucket: (height, width), which all images have to fit.
      rule: Resizing rule.
      flips: Mask of the images to mirror; None mirrors none.
      max_boxes: Number of boxes G per image, see `pad_boxes`.
      for_training: Whether crowd regions, boxes without area and, unless `use_difficult`, difficult objects are left
        out, as in the training of Fast R-CNN and its successors.
      use_difficult: Whether to train on difficult objects.

    Returns:
      {'images': uint8 [n, H, W, 3], 'sizes': int32 [n, 2], (height, width) without the padding,
      'original_sizes': int32 [n, 2], before resizing, 'rows': int32 [n], 'boxes': float32 [n, G, 4] in pixels
      of the resized image, 'labels': int32 [n, G], 'valid': bool [n, G], 'difficult': bool [n, G]}.

    Raises:
      DataError: An image does not fit the bucket, or cannot be read.
    """
    n = len(rows)
    images, sizes = np.zeros((n, *bucket, 3), np.uint8), np.zeros((n, 2), np.int32)
    boxes, labels, difficult = [], [], []
    for i, row in enumerate(int(row) for row in rows):
        h, w = resized_shape(int(dataset.sizes[row, 0]), int(dataset.sizes[row, 1]), rule)
        bucket_of(h, w, [bucket])
        kept = np.ones(len(dataset.boxes[row]), bool)
        if for_training:
            kept &= ~dataset.crowd[row] & (
                dataset.boxes[row][:, 2:] > dataset.boxes[row][:, :2]
            ).all(1)
            kept &= ~dataset.difficult[row] | use_difficult
        image, resized = resize(dataset.images[row], dataset.boxes[row][kept], h, w)
        if flips is not None and flips[i]:
            image, resized = image[:, ::-1], flip_boxes(resized, w)
        images[i, :h, :w], sizes[i] = image, (h, w)
        boxes.append(resized)
        labels.append(dataset.labels[row][kept])
        difficult.append(dataset.difficult[row][kept])
    rows = np.asarray(rows, np.int32)
    batch = {'images': images, 'sizes': sizes, 'original_sizes': dataset.sizes[rows], 'rows': rows}
    return batch | pad_boxes(boxes, labels, difficult, max_boxes)


def bucketed_indices(
    bucket_numbers: Int[np.ndarray, ' n'], batch_size: int, *, seed: int
) -> Callable[[int], Int32[np.ndarray, ' b']]:
    """Batches whose rows are in one bucket each; pure in (seed, n) like `batches.indices`.

    Each bucket has an endless stream of its rows. An epoch takes ceil(m / batch_size) batches of a bucket with m
    rows, in random order; so buckets occur about as often as their images.

    Args:
      bucket_numbers: Bucket of each row, >= 0.
      batch_size: Number of rows per batch, >= 1, the same for all buckets.
      seed: Seed, >= 0.

    Returns:
      The function n -> int32 [batch_size] of rows.
    """
    members = [
        np.flatnonzero(bucket_numbers == b).astype(np.int32) for b in np.unique(bucket_numbers)
    ]
    counts = [-(-len(rows) // batch_size) for rows in members]
    seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(len(members))]
    order = np.repeat(np.arange(len(members)), counts)
    rank = np.concatenate([np.arange(count) for count in counts])

    @functools.lru_cache(maxsize=2)
    def permutation(epoch):
        return np.random.default_rng((seed, epoch)).permutation(len(order))

    def batch(n: int) -> np.ndarray:
        epoch, position = divmod(n, len(order))
        entry = permutation(epoch)[position]
        b = order[entry]
        number = epoch * counts[b] + int(rank[entry])
        return members[b][batches.indices(seeds[b], number, len(members[b]), batch_size)]

    return batch


def training_batches(
    dataset: DetectionDataset,
    batch_size: int,
    *,
    seed: int,
    rule: ScaleRule = ScaleRule(),
    flip: bool = True,
    max_boxes: int = 64,
    use_difficult: bool = False,
    keep_empty: bool = False,
) -> Callable[[int], dict[str, np.ndarray]]:
    """Training batches n -> `make_batch`, pure in (seed, n), each of images of one bucket, flipped at random.

    Args:
      dataset: The images.
      batch_size: Number of images per batch.
      seed: Seed of the order and the flips.
      rule: Resizing rule.
      flip: Whether each image is mirrored with probability 1/2.
      max_boxes: Number of boxes G per image.
      use_difficult: Whether to train on difficult objects.
      keep_empty: Whether to keep images without a box to train on; Fast R-CNN leaves them out.

    Raises:
      DataError: No image has a box to train on.
    """
    rows = np.arange(dataset.num_images)
    if not keep_empty:
        has_boxes = [
            ((difficult <= use_difficult) & ~crowd & (boxes[:, 2:] > boxes[:, :2]).all(1)).any()
            for boxes, difficult, crowd in zip(
                dataset.boxes, dataset.difficult, dataset.crowd, strict=True
            )
        ]
        rows = rows[np.array(has_boxes, bool)]
    if not len(rows):
        raise DataError('no image has a box to train on; check the classes, or use_difficult')
    buckets = buckets_for(dataset.sizes, rule)
    numbers = _bucket_numbers(dataset.sizes[rows], buckets, rule)
    draw = bucketed_indices(numbers, batch_size, seed=seed)

    def batch(n: int) -> dict[str, np.ndarray]:
        picked = draw(n)
        flips = np.random.default_rng((seed, n, 1)).random(batch_size) < 0.5
        return make_batch(
            dataset, rows[picked], buckets[numbers[picked[0]]], rule=rule, flips=flips & flip,
            max_boxes=max_boxes, use_difficult=use_difficult,
        )  # fmt: skip

    return batch


def evaluation_batches(
    dataset: DetectionDataset, batch_size: int, *, rule: ScaleRule = ScaleRule()
) -> list[tuple[Int32[np.ndarray, ' b'], Bucket]]:
    """(rows, bucket) of batches that together contain each image once, bucket by bucket.

    Only the last batch of a bucket is smaller; pad its rows with row 0 for a static shape in `make_batch`.
    """
    buckets = buckets_for(dataset.sizes, rule)
    numbers = _bucket_numbers(dataset.sizes, buckets, rule)
    result = []
    for b, bucket in enumerate(buckets):
        rows = np.flatnonzero(numbers == b).astype(np.int32)
        result += [(rows[i : i + batch_size], bucket) for i in range(0, len(rows), batch_size)]
    return result


def _bucket_numbers(sizes, buckets, rule):
    shapes = [resized_shape(h, w, rule) for h, w in sizes.tolist()]
    return np.array([bucket_of(h, w, buckets) for h, w in shapes])


def _round_up(shape, stride):
    return -(-np.asarray(shape) // stride) * stride


def _area(bucket):
    return bucket[0] * bucket[1]
