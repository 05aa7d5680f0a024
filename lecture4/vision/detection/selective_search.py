"""Selective search: region proposals from hierarchical grouping of a segmentation.

Uijlings, van de Sande, Gevers & Smeulders, IJCV 2013. Regions of a Felzenszwalb segmentation are merged pair by
pair, the most similar neighbors first, until one is left; the bounding box of every region on the way is a proposal.
Several color spaces, segmentation scales and similarities diversify them. On the host, one core: about two seconds
per image of 500 x 375 in mode 'fast'. Only numpy, scipy and scikit-image are imported, so that workers start fast.
"""

import heapq
import zlib
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

Mode = Literal['single', 'fast', 'quality']
COLOR_BINS, TEXTURE_BINS = 25, 10
SIGMA = 0.8  # standard deviation of the smoothing before segmentation


class Strategy(NamedTuple):
    """A combination of settings that diversifies the regions of an image.

    Attributes:
      color_spaces: 'hsv', 'lab', 'rgi' (normalized red, green; intensity), 'h' (hue), 'intensity'.
      scales: k of Felzenszwalb's segmentation for values of 0 to 255, and its smallest region in pixels.
      similarities: Weights of color, texture, size and fill.
    """

    color_spaces: tuple[str, ...]
    scales: tuple[int, ...]
    similarities: tuple[tuple[int, int, int, int], ...]


MODES = {
    'single': Strategy(('hsv',), (100,), ((1, 1, 1, 1),)),
    'fast': Strategy(('hsv', 'lab'), (50, 100), ((1, 1, 1, 1), (0, 1, 1, 1))),
    'quality': Strategy(
        ('hsv', 'lab', 'rgi', 'h', 'intensity'),
        (50, 100, 150, 300),
        ((1, 1, 1, 1), (0, 1, 1, 1), (0, 0, 0, 1), (0, 0, 1, 0)),
    ),
}


class Regions(NamedTuple):
    """Regions of a segmentation.

    Attributes:
      histograms: float32 [r, d]: color, then texture, each with sum 1.
      num_color: Number of columns of the histograms for color.
      sizes: Number of pixels of each region.
      boxes: Edges [x1, y1, x2, y2] of each region.
      neighbors: Indices of the regions that touch each region.
    """

    histograms: Float32[np.ndarray, 'r d']
    num_color: int
    sizes: Int[np.ndarray, ' r']
    boxes: Int[np.ndarray, 'r 4']
    neighbors: list[set[int]]


def propose(
    image: UInt8[np.ndarray, 'h w 3'],
    *,
    mode: Mode = 'fast',
    seed: int = 0,
    width: int = 500,
    min_size: int = 20,
) -> Float32[np.ndarray, 'm 4']:
    """Proposals of an image in order of priority: a function of the image and the seed alone.

    The priority of a region is its rank in its hierarchy (the whole image is 1) times a uniform random number, so
    that large regions tend to come first and no strategy precedes the others. Of equal boxes the first one is kept.

    Args:
      image: The image.
      mode: 'single' (HSV, one segmentation: about 350 boxes of a photograph), 'fast' (about 2000; what R-CNN and
        Fast R-CNN use) or 'quality' (about 10,000).
      seed: Seed of the priorities.
      width: Width that images are resized to first; 0 keeps their size. R-CNN takes 500.
      min_size: Smallest width and height of a box, in pixels of the resized image.

    Returns:
      Edges in pixels of the original image; none for an image smaller than min_size.

    References:
      selective_search_boxes.m of R-CNN for the settings. Implementations differ in detail: compare recall and
      MABO, not boxes.
    """
    h, w = image.shape[:2]
    resized = _resize(image, width) if width and w > 1 else image
    strategy, boxes, priority = MODES[mode], [], []
    rng = np.random.default_rng((seed, zlib.crc32(image.tobytes())))
    for space in strategy.color_spaces:
        converted = convert(resized, space)
        textures = texture_bins(converted)
        for scale in strategy.scales:
            labels = segment(converted, scale)
            regions = describe(labels, converted, textures)
            for similarity in strategy.similarities:
                merged = group(regions, labels.size, similarity)
                boxes.append(merged)
                priority.append(np.arange(len(merged), 0, -1) * rng.random(len(merged)))
    order = np.argsort(np.concatenate(priority), kind='stable')
    boxes = np.concatenate(boxes)[order]
    boxes = boxes[(boxes[:, 2:] - boxes[:, :2] >= min_size).all(1)]
    _, first = np.unique(boxes, axis=0, return_index=True)
    boxes = boxes[np.sort(first)]
    factors = np.array([w / resized.shape[1], h / resized.shape[0]] * 2)
    return (boxes * factors).astype(np.float32)


def convert(image: UInt8[np.ndarray, 'h w 3'], space: str) -> Float[np.ndarray, 'h w c']:
    """The image in a color space, each channel in [0, 1].

    Args:
      image: Image in sRGB.
      space: A color space of `Strategy`.

    Raises:
        ValueError: The color space is unknown.
    """
    from skimage import color

    if space in ('hsv', 'h'):
        hsv = color.rgb2hsv(image)
        return hsv if space == 'hsv' else hsv[..., :1]
    if space == 'lab':
        return np.clip((color.rgb2lab(image) + np.array([0, 128, 128])) / [100, 255, 255], 0, 1)
    rgb = image / 255
    intensity = rgb.mean(-1, keepdims=True)
    if space == 'intensity':
        return intensity
    if space == 'rgi':
        total = np.maximum(rgb.sum(-1, keepdims=True), 1e-6)
        return np.concatenate([rgb[..., :2] / total, intensity], -1)
    raise ValueError(f'expected color space hsv, lab, rgi, h or intensity, got {space!r}')


def segment(image: Float[np.ndarray, 'h w c'], scale: int) -> Int[np.ndarray, 'h w']:
    """Felzenszwalb and Huttenlocher's segmentation, labels 0 to r - 1.

    Args:
      image: Image in [0, 1].
      scale: k for values of 0 to 255, and the smallest region in pixels.
    """
    from skimage import segmentation

    if min(image.shape[:2]) < 2:  # scikit-image needs neighbors in both directions
        return np.zeros(image.shape[:2], int)
    return segmentation.felzenszwalb(
        image, scale=scale, sigma=SIGMA, min_size=scale, channel_axis=-1
    )


def texture_bins(image: Float[np.ndarray, 'h w c']) -> UInt8[np.ndarray, 't h w']:
    """Bins of the derivatives in eight directions of each channel, at sigma 1.

    A derivative and its opposite are the positive and the negative part of one response; bins are equally spaced
    between 0 and the largest response of the image.
    """
    from scipy import ndimage

    responses = []
    for channel in np.moveaxis(image, -1, 0):
        dx, dy = (
            ndimage.gaussian_filter1d(
                ndimage.gaussian_filter1d(channel, 1.0, axis, order=1), 1.0, 1 - axis
            )
            for axis in (1, 0)
        )
        for angle in np.arange(4) * np.pi / 4:
            along = np.cos(angle) * dx + np.sin(angle) * dy
            responses += [np.maximum(along, 0), np.maximum(-along, 0)]
    responses = np.array(responses)
    largest = max(responses.max(), 1e-12)
    return np.minimum(responses * (TEXTURE_BINS / largest), TEXTURE_BINS - 1).astype(np.uint8)


def describe(
    labels: Int[np.ndarray, 'h w'],
    image: Float[np.ndarray, 'h w c'],
    textures: UInt8[np.ndarray, 't h w'],
) -> Regions:
    """Histograms, sizes, boxes and neighbors of the regions of a segmentation.

    Args:
      labels: Labels 0 to r - 1, each of which occurs.
      image: Image in [0, 1]; histograms have 25 bins per channel.
      textures: Textures, as `texture_bins` returns them.
    """
    from scipy import ndimage

    r, flat = int(labels.max()) + 1, labels.ravel()
    colors = np.minimum(image * COLOR_BINS, COLOR_BINS - 1).astype(np.uint8)
    parts = [
        _histograms(flat, values.reshape(-1), bins, r)
        for channels, bins in (
            (np.moveaxis(colors, -1, 0), COLOR_BINS),
            (textures, TEXTURE_BINS),
        )
        for values in channels
    ]
    histograms = np.concatenate(parts, 1)
    num_color = COLOR_BINS * image.shape[-1]
    sizes = np.bincount(flat, minlength=r)
    histograms[:, :num_color] /= (sizes * image.shape[-1])[:, None]
    histograms[:, num_color:] /= (sizes * len(textures))[:, None]
    boxes = [
        (columns.start, rows.start, columns.stop, rows.stop)
        for rows, columns in ndimage.find_objects(labels + 1)
    ]
    return Regions(histograms, num_color, sizes, np.array(boxes), _neighbors(labels, r))


def group(
    regions: Regions, num_pixels: int, similarity: tuple[int, int, int, int]
) -> Int[np.ndarray, 'm 4']:
    """Boxes of the regions and of all that arise by merging the two most similar neighbors, in that order.

    Args:
      regions: r regions, connected.
      num_pixels: Number of pixels of the image.
      similarity: Weights of color and texture (intersections of histograms), size (1 - the fraction of the image
        that both cover) and fill (1 - the fraction of the image that their box covers beyond them).

    Returns:
      2 r - 1 boxes, the last that of the whole image.
    """
    r = len(regions.sizes)
    color, texture, size, fill = similarity
    columns = slice(0 if color else regions.num_color, None if texture else regions.num_color)
    histograms = np.zeros((2 * r - 1, regions.histograms[:, columns].shape[1]), np.float32)
    histograms[:r] = regions.histograms[:, columns]
    sizes, boxes = np.zeros(2 * r - 1), np.zeros((2 * r - 1, 4), int)
    sizes[:r], boxes[:r] = regions.sizes, regions.boxes
    neighbors: list[Any] = [set(adjacent) for adjacent in regions.neighbors]

    def similarities(i: Any, j: np.ndarray) -> np.ndarray:
        total = sizes[i] + sizes[j]
        value = size * (1 - total / num_pixels)
        if fill:
            box = boxes[i], boxes[j]
            sides = np.maximum(box[0][..., 2:], box[1][:, 2:]) - np.minimum(
                box[0][..., :2], box[1][:, :2]
            )
            value = value + fill * (1 - (sides[:, 0] * sides[:, 1] - total) / num_pixels)
        if color or texture:
            value = value + np.minimum(histograms[i], histograms[j]).sum(1)
        return value

    pairs = np.array([(i, j) for i in range(r) for j in neighbors[i] if i < j], int).reshape(-1, 2)
    heap = [
        (-value, i, j)
        for value, (i, j) in zip(
            similarities(pairs[:, 0], pairs[:, 1]).tolist(), pairs.tolist(), strict=True
        )
    ]
    heapq.heapify(heap)
    merged = np.zeros(2 * r - 1, bool)
    for k in range(r, 2 * r - 1):
        _, i, j = heapq.heappop(heap)
        while merged[i] or merged[j]:
            _, i, j = heapq.heappop(heap)
        merged[i] = merged[j] = True
        sizes[k] = sizes[i] + sizes[j]
        histograms[k] = (sizes[i] * histograms[i] + sizes[j] * histograms[j]) / sizes[k]
        boxes[k, :2] = np.minimum(boxes[i, :2], boxes[j, :2])
        boxes[k, 2:] = np.maximum(boxes[i, 2:], boxes[j, 2:])
        adjacent = (neighbors[i] | neighbors[j]) - {i, j}
        neighbors.append(adjacent)
        for other in adjacent:
            neighbors[other] -= {i, j}
            neighbors[other].add(k)
        if adjacent:
            others = np.array(sorted(adjacent))
            for value, other in zip(similarities(k, others).tolist(), others.tolist(), strict=True):
                heapq.heappush(heap, (-value, other, k))
    return boxes


def _histograms(flat, values, bins, r):
    counts = np.bincount(flat * bins + values, minlength=r * bins)
    return counts.reshape(r, bins).astype(np.float32)


def _neighbors(labels, r):
    """Regions that touch across an edge of two pixels."""
    pairs = [
        np.stack([a.ravel(), b.ravel()])
        for a, b in ((labels[:, 1:], labels[:, :-1]), (labels[1:], labels[:-1]))
    ]
    low, high = np.sort(np.concatenate(pairs, 1), 0)
    keys = np.unique((low * r + high)[low != high])
    neighbors = [set() for _ in range(r)]
    for i, j in zip((keys // r).tolist(), (keys % r).tolist(), strict=True):
        neighbors[i].add(j)
        neighbors[j].add(i)
    return neighbors


def _resize(image, width):
    from PIL import Image

    h, w = image.shape[:2]
    size = (width, max(round(h * width / w), 1))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
