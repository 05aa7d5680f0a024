"""Digits pasted on photographs: images with boxes that need no download, made from (seed, n).

Each scene is a random region of one of the photographs of `sources.load('photos')` with clutter (pieces of
digits, as in cluttered MNIST) and digits of random size, tilt and color on top, which may cover one another.
Scenes of split train take the left halves of the photographs and the training digits, those of split test the
right halves and the test digits: they share neither pixels nor digits. The digits, their colors and spatial relations
are part of the ground truth, so that sentences can describe a scene.
"""

import dataclasses
import functools
from collections.abc import Sequence
from os import PathLike
from typing import Literal

import numpy as np
from jaxtyping import Int, Shaped

from lecture4.data import sources
from lecture4.data.dataset import DataError
from lecture4.data.detection.dataset import DetectionDataset
from lecture4.data.images import crops
from lecture4.data.sources.decode import to_rgb

CLASS_NAMES = tuple('0123456789')
COLORS = {
    'red': (214, 39, 40),
    'green': (44, 170, 60),
    'blue': (45, 90, 225),
    'yellow': (245, 215, 40),
    'white': (248, 248, 248),
    'black': (12, 12, 12),
}
RELATIONS = ('', 'left of', 'right of', 'above', 'below', 'overlapping')  # row i to column j
HIDDEN = 0.5  # fraction of a digit; if less is visible, the digit is difficult
MIN_CONTRAST = (
    110.0  # smallest distance in RGB from the mean color under a digit, if a color has it
)


@dataclasses.dataclass(frozen=True)
class SceneConfig:
    """Options of scenes.

    Attributes:
      sizes: (height, width) of the images in pixels; a scene has one of them at random.
      num_digits: Smallest and largest number of digits in a scene.
      digit_size: Smallest and largest height of a digit in pixels, uniform in the logarithm.
      max_overlap: Largest fraction (of the smaller box) by which boxes of two digits may overlap; a digit without
        such a position after 30 attempts is left out.
      num_clutter: Largest number of pieces of digits under the digits.
      max_tilt: Largest rotation of a digit in degrees.
      noise_std: Standard deviation of the noise on pixel values in 0..255.
      digits: Source of the digits.
      split: Split that determines the halves of the photographs and the digits.
      manual_dir: Folder of downloaded files, for mnist.
      data_dir: Folder of prepared sets, for mnist.
    """

    sizes: tuple[tuple[int, int], ...] = ((120, 160),)
    num_digits: tuple[int, int] = (1, 4)
    digit_size: tuple[int, int] = (20, 64)
    max_overlap: float = 0.25
    num_clutter: int = 8
    max_tilt: float = 15.0
    noise_std: float = 4.0
    digits: Literal['digits', 'mnist'] = 'digits'
    split: Literal['train', 'test'] = 'train'
    manual_dir: str | PathLike[str] | None = None
    data_dir: str | PathLike[str] | None = None

    def __post_init__(self):
        low, high = self.num_digits
        small, large = self.digit_size
        smallest = min((min(size) for size in self.sizes), default=0)
        if not 0 <= low <= high or high < 1:
            raise DataError(
                f'expected num_digits (fewest, most) with most >= 1, got {self.num_digits}'
            )
        if not 4 <= small <= large <= smallest:
            raise DataError(
                f'expected digit_size (smallest, largest) from 4 to the smallest side {smallest} of '
                f'sizes, got {self.digit_size}'
            )


def scenes(
    seed: int,
    indices: Sequence[int] | Int[np.ndarray, ' n'],
    config: SceneConfig = SceneConfig(),
) -> dict[str, np.ndarray]:
    """Scenes as a padded batch; each is a function of (seed, index, config) alone.

    Args:
      seed: Seed, >= 0.
      indices: Index of each scene, >= 0.
      config: Options of the scenes.

    Returns:
      With H, W the largest height and width in config.sizes and G the largest number of digits:
      {'images': uint8 [n, H, W, 3], zero beyond the size of a scene,
       'sizes': int32 [n, 2], (height, width) of the scene,
       'boxes': float32 [n, G, 4], edges [x1, y1, x2, y2] of the whole digit, hidden parts included, see
         `lecture4.data.detection.dataset`; zeros where not valid,
       'labels': int32 [n, G], digit + 1 (label k is CLASS_NAMES[k - 1]), 0 where not valid,
       'valid': bool [n, G],
       'difficult': bool [n, G]: more than half of the digit is hidden,
       'counts': int32 [n, 10], digits of each class,
       'colors': int32 [n, G], index into COLORS, -1 where not valid,
       'relations': int8 [n, G, G], index into RELATIONS of digit i to digit j: overlapping boxes, else the
         direction along which their centers are further apart; 0 on the diagonal and where not valid}.

    Raises:
      DataError: As in `sources.load`, for mnist.
    """
    images = [_scene(seed, int(n), config) for n in indices]
    height, width = np.max(config.sizes, axis=0)
    n, g = len(images), config.num_digits[1]
    batch = {
        'images': np.zeros((n, height, width, 3), np.uint8),
        'sizes': np.zeros((n, 2), np.int32),
        'boxes': np.zeros((n, g, 4), np.float32),
        'labels': np.zeros((n, g), np.int32),
        'valid': np.zeros((n, g), bool),
        'difficult': np.zeros((n, g), bool),
        'counts': np.zeros((n, len(CLASS_NAMES)), np.int32),
        'colors': np.full((n, g), -1, np.int32),
        'relations': np.zeros((n, g, g), np.int8),
    }
    for i, (image, digits, hidden) in enumerate(images):
        h, w = image.shape[:2]
        batch['images'][i, :h, :w], batch['sizes'][i] = image, (h, w)
        for j, (label, color, box) in enumerate(digits):
            batch['boxes'][i, j], batch['labels'][i, j] = box, label + 1
            batch['valid'][i, j], batch['difficult'][i, j] = True, hidden[j] > HIDDEN
            batch['colors'][i, j] = color
            batch['counts'][i, label] += 1
        k = len(digits)
        batch['relations'][i, :k, :k] = relations(batch['boxes'][i, :k])
    return batch


def dataset(seed: int, num_images: int, config: SceneConfig = SceneConfig()) -> DetectionDataset:
    """The first scenes of a seed as a detection data set with images in memory.

    Raises:
      DataError: As in `scenes`, or no image.
    """
    if num_images < 1:
        raise DataError(f'scenes: expected at least one image, got {num_images}')
    batch = scenes(seed, range(num_images), config)
    valid = batch['valid']

    def own(name):
        return tuple(values[mask] for values, mask in zip(batch[name], valid, strict=True))

    boxes = own('boxes')
    return DetectionDataset(
        images=tuple(
            image[:h, :w] for image, (h, w) in zip(batch['images'], batch['sizes'], strict=True)
        ),
        sizes=batch['sizes'],
        boxes=boxes,
        labels=own('labels'),
        difficult=own('difficult'),
        crowd=tuple(np.zeros(len(b), bool) for b in boxes),
        areas=tuple((b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]) for b in boxes),
        names=tuple(f'{config.split}_{seed}_{i:06}' for i in range(num_images)),
        class_names=CLASS_NAMES,
    )


def relations(boxes: Shaped[np.ndarray, 'g 4']) -> Int[np.ndarray, 'g g']:
    """Relation of box i to box j, as indices into RELATIONS; y increases downward.

    Args:
      boxes: Edges [x1, y1, x2, y2].
    """
    low, high = boxes[:, :2], boxes[:, 2:]
    center = (low + high) / 2
    dx, dy = np.moveaxis(center[:, None] - center[None], -1, 0)
    overlap = np.minimum(high[:, None], high[None]) - np.maximum(low[:, None], low[None])
    horizontal = np.where(dx < 0, RELATIONS.index('left of'), RELATIONS.index('right of'))
    vertical = np.where(dy < 0, RELATIONS.index('above'), RELATIONS.index('below'))
    result = np.where(np.abs(dx) >= np.abs(dy), horizontal, vertical)
    result = np.where((overlap > 0).all(-1), RELATIONS.index('overlapping'), result)
    np.fill_diagonal(result, 0)
    return result.astype(np.int8)


def _scene(seed, n, config):
    """uint8 [h, w, 3], [(digit, color, box)], the hidden fraction of each."""
    rng = np.random.default_rng((seed, n, ('train', 'test').index(config.split)))
    h, w = config.sizes[rng.integers(len(config.sizes))]
    image = _background(rng, h, w, config.split)
    glyphs, labels = _glyphs(config.digits, config.split, config.manual_dir, config.data_dir)
    for _ in range(rng.integers(config.num_clutter + 1)):
        _paste_clutter(rng, image, glyphs, config.digit_size)
    digits, owner, counts = [], np.full((h, w), -1), []
    for _ in range(rng.integers(config.num_digits[0], config.num_digits[1] + 1)):
        i = rng.integers(len(glyphs))
        size = np.exp(rng.uniform(*np.log(config.digit_size)))
        alpha = _render(glyphs[i], size, rng.uniform(-1, 1) * config.max_tilt, h, w)
        place = _place(rng, alpha.shape, (h, w), [box for *_, box in digits], config.max_overlap)
        if place is None:
            continue
        top, left = place
        region = np.s_[top : top + alpha.shape[0], left : left + alpha.shape[1]]
        color = _choose_color(rng, image[region][alpha > 0.5])
        shade = np.array(list(COLORS.values())[color]) * rng.uniform(0.85, 1.0)
        image[region] += alpha[..., None] * (shade - image[region])
        owner[region][alpha > 0.5] = len(digits)
        counts.append((alpha > 0.5).sum())
        box = (left, top, left + alpha.shape[1], top + alpha.shape[0])
        digits.append((int(labels[i]), color, box))
    hidden = [1 - (owner == j).sum() / count for j, count in enumerate(counts)]
    image += np.float32(config.noise_std) * rng.standard_normal(image.shape, np.float32)
    return np.clip(np.round(image), 0, 255).astype(np.uint8), digits, hidden


def _background(rng, h, w, split):
    """float32 [h, w, 3]: a random region of half a photograph, mirrored and dimmed at random."""
    from PIL import Image

    photos = _photos(split)
    photo = photos[rng.integers(len(photos))]
    zoom = min(photo.shape[0] / h, photo.shape[1] / w) * np.exp(rng.uniform(np.log(0.4), 0))
    top = rng.uniform(0, photo.shape[0] - zoom * h)
    left = rng.uniform(0, photo.shape[1] - zoom * w)
    box = (left, top, min(left + zoom * w, photo.shape[1]), min(top + zoom * h, photo.shape[0]))
    resized = Image.fromarray(photo).resize((w, h), Image.Resampling.BILINEAR, box=box)
    image = np.asarray(resized, np.float32)
    image = image[:, ::-1] if rng.integers(2) else image
    return image * np.float32(rng.uniform(0.6, 1.0))


def _render(glyph, size, tilt, h, w):
    """Opacity in [0, 1], cropped to pixels that are at least half opaque; smooth strokes from few pixels."""
    from PIL import Image

    size = max(round(float(size)), 4)
    width = max(round(size * glyph.shape[1] / glyph.shape[0]), 2)
    ink = Image.fromarray(np.pad(glyph, 1))
    ink = ink.resize(
        (width + 2 * width // 6 + 2, size + 2 * size // 8 + 2), Image.Resampling.BICUBIC
    )
    ink = np.asarray(ink.rotate(tilt, Image.Resampling.BILINEAR, expand=True))
    alpha = np.clip((ink - 0.35) / 0.2, 0, 1)
    return _cut(alpha)[:h, :w]


def _cut(alpha, threshold=0.5):
    rows, columns = (
        np.flatnonzero((alpha > threshold).any(1)),
        np.flatnonzero((alpha > threshold).any(0)),
    )
    return alpha[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _place(rng, shape, size, boxes, max_overlap):
    """(top, left) at which no box is covered too much, or None."""
    for _ in range(30):
        top, left = (rng.integers(s - a + 1) for s, a in zip(size, shape, strict=True))
        own_area = shape[0] * shape[1]
        for x1, y1, x2, y2 in boxes:
            across = min(x2, left + shape[1]) - max(x1, left)
            down = min(y2, top + shape[0]) - max(y1, top)
            smaller = min(own_area, (x2 - x1) * (y2 - y1))
            if max(across, 0) * max(down, 0) > max_overlap * smaller:
                break
        else:
            return int(top), int(left)
    return None


def _choose_color(rng, under):
    """Index of a random color that contrasts with the pixels under it, or else of the most distant one."""
    distance = np.linalg.norm(np.array(list(COLORS.values())) - under.mean(0), axis=1)
    visible = np.flatnonzero(distance >= MIN_CONTRAST)
    return int(rng.choice(visible)) if len(visible) else int(distance.argmax())


def _paste_clutter(rng, image, glyphs, digit_size):
    """A random piece of a digit, in any color."""
    glyph = glyphs[rng.integers(len(glyphs))]
    alpha = _render(glyph, rng.uniform(*digit_size), rng.uniform(-180, 180), *image.shape[:2])
    h, w = (max(side // 2, 2) for side in alpha.shape)
    top, left = (
        rng.integers(side - part + 1) for side, part in zip(alpha.shape, (h, w), strict=True)
    )
    alpha = alpha[top : top + h, left : left + w]
    top, left = (rng.integers(s - a + 1) for s, a in zip(image.shape, alpha.shape, strict=False))
    region = np.s_[top : top + h, left : left + w]
    color = rng.uniform(0, 255, 3)
    image[region] += alpha[..., None] * (color - image[region])


@functools.lru_cache(maxsize=2)
def _photos(split):
    """Left or right halves of the photographs, uint8 [h, w, 3]."""
    halves = crops.split_left_right(tuple(sources.load('photos').images))[split == 'test']
    return tuple(np.ascontiguousarray(to_rgb(image)) for image in halves)


@functools.lru_cache(maxsize=4)
def _glyphs(source, split, manual_dir, data_dir):
    """Digits cropped to their ink, float32 in [0, 1], and their labels."""
    data = sources.load(source, split, manual_dir=manual_dir, data_dir=data_dir)
    assert data.labels is not None
    ink = crops.to_floats(data.images)
    return tuple(_cut(image[..., 0], 0.2) for image in ink), data.labels
