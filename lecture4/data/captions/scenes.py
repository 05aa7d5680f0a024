"""Scenes of colored shapes with sentences of a small grammar: no files, and ground truth for every word.

A scene has two groups of one to three equal shapes, one left of or above the other, on a noisy background. Its five
sentences name counts, colors, shapes and the relation; the group that each word refers to is known. Some combinations
of color and shape occur only in the split `held_out`, so that a model cannot have memorized them. The regions are the
whole image, the boxes of the shapes, and random boxes.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from lecture4.data.captions import regions
from lecture4.data.captions.dataset import CaptionedImages
from lecture4.data.dataset import DataError

SIZE, CELL, NUM_REGIONS = 64, 16, 8
COLORS = {
    'red': (215, 40, 45), 'green': (40, 160, 65), 'blue': (45, 85, 215),
    'yellow': (235, 215, 55), 'purple': (145, 60, 170), 'white': (245, 245, 245),
}  # fmt: skip
SHAPES = ('circle', 'square', 'triangle', 'cross')
COUNTS = ('a', 'two', 'three')
HELD_OUT = (('red', 'square'), ('blue', 'circle'), ('yellow', 'cross'), ('white', 'triangle'))
SPLITS = ('train', 'dev', 'test', 'held_out')
OPPOSITE = {'left': 'right', 'above': 'below'}


class Group(NamedTuple):
    """A group of equal shapes: their number, color and shape."""

    number: int
    color: str
    shape: str


class Scene(NamedTuple):
    """A scene with its ground truth.

    Attributes:
      image: Pixels.
      groups: Two groups; the first is left of or above the second.
      relation: 'left' or 'above'.
      boxes: Regions: the whole image, the shapes in random order, random boxes.
      region_groups: 0 or 1 for regions that are shapes of this group, else -1.
    """

    image: UInt8[np.ndarray, '64 64 3']
    groups: tuple[Group, Group]
    relation: str
    boxes: Float[np.ndarray, '8 4']
    region_groups: Int[np.ndarray, ' 8']


def load(split: str, num_images: int, *, seed: int = 0) -> CaptionedImages:
    """Scenes, their sentences and the descriptors of their regions (`regions.describe`).

    Args:
      split: 'train', 'dev', 'test', or 'held_out', whose scenes have a combination of color and shape that
        is in no other split.
      num_images: Number of scenes.
      seed: Seed; scene n of a split is a function of (seed, split, n).

    Raises:
        DataError: The split is unknown.
    """
    if split not in SPLITS:
        raise DataError(f'scenes has no split {split!r}; it has {", ".join(SPLITS)}')
    scenes, sentences, word_groups = [], [], []
    for n in range(num_images):
        rng = np.random.default_rng((seed, SPLITS.index(split), n))
        drawing = scene(rng, held_out=split == 'held_out')
        described = describe(rng, drawing)
        scenes.append(drawing)
        sentences.append(tuple(words for words, _ in described))
        word_groups.append(tuple(groups for _, groups in described))
    features = np.stack([regions.describe(s.image, s.boxes) for s in scenes])
    return CaptionedImages(
        tuple(f'{split}_{n:05d}' for n in range(num_images)),
        tuple(sentences),
        lambda row: scenes[row].image,
        features,
        np.stack([s.boxes for s in scenes]),
        tuple(word_groups),
        np.stack([s.region_groups for s in scenes]),
    )


def scene(rng: np.random.Generator, *, held_out: bool = False) -> Scene:
    """A random scene; with `held_out` one of its groups has a combination of HELD_OUT, otherwise none does."""
    every = [(color, shape) for color in COLORS for shape in SHAPES]
    seen = [pair for pair in every if pair not in HELD_OUT]
    first, second = (seen[i] for i in rng.choice(len(seen), 2, replace=False))
    if held_out:
        unseen = HELD_OUT[rng.integers(len(HELD_OUT))]
        first, second = (unseen, second) if rng.random() < 0.5 else (first, unseen)
    groups = tuple(Group(int(rng.integers(1, 4)), *pair) for pair in (first, second))
    relation = ('left', 'above')[rng.integers(2)]
    tint = rng.uniform(85, 150) + rng.normal(0, 10, 3)
    image = tint + rng.normal(0, 9, (SIZE, SIZE, 1)) + rng.normal(0, 4, (SIZE, SIZE, 3))
    boxes, owners = [], []
    for i, group in enumerate(groups):
        for cell in rng.choice(8, group.number, replace=False):
            across, along = divmod(int(cell), 4)  # two of four rows or columns are the group's
            corner = np.array([across + 2 * i, along][:: 1 if relation == 'left' else -1]) * CELL
            size = rng.integers(11, 15)
            low = corner + rng.integers(0, CELL - size + 1, 2)
            _paint(image, low, size, group, rng)
            boxes.append([*(low - 1.0), *(low + size + 1.0)])
            owners.append(i)
    order = rng.permutation(len(boxes))
    boxes, owners = [boxes[i] for i in order], [owners[i] for i in order]
    while len(boxes) < NUM_REGIONS - 1:
        low, size = rng.uniform(0, SIZE - 24, 2), rng.uniform(12, 24)
        boxes.append([*low, *(low + size)])
        owners.append(-1)
    return Scene(
        np.clip(image, 0, 255).astype(np.uint8),
        (groups[0], groups[1]),
        relation,
        np.array([[0, 0, SIZE, SIZE], *boxes], np.float32),
        np.array([-1, *owners]),
    )


def _paint(image, low, size, group, rng):
    """Paint a shape of `size` pixels with its upper left corner at `low`."""
    x, y = np.meshgrid(
        (np.arange(size) + 0.5) / size * 2 - 1, (np.arange(size) + 0.5) / size * 2 - 1
    )
    inside = {
        'circle': x**2 + y**2 <= 1,
        'square': np.maximum(abs(x), abs(y)) <= 0.9,
        'triangle': (y <= 0.9) & (2 * abs(x) <= y + 1),
        'cross': np.minimum(abs(x), abs(y)) <= 0.3,
    }[group.shape]
    part = image[low[1] : low[1] + size, low[0] : low[0] + size]
    color = np.array(COLORS[group.color]) + rng.normal(0, 12, 3)
    part[inside] = color + rng.normal(0, 5, (int(inside.sum()), 3))


def describe(
    rng: np.random.Generator, scene: Scene
) -> list[tuple[tuple[str, ...], Int[np.ndarray, ' _t']]]:
    """Five sentences of a scene: words, and the group that each word refers to, -1 for neither."""
    relation, opposite = scene.relation, OPPOSITE[scene.relation]
    is_left = relation == 'left'
    before, behind = ('left of', 'right of') if is_left else (relation, opposite)
    templates = (
        f'0 {before} 1',
        f'1 {behind} 0',
        f'there {"is" if scene.groups[0].number == 1 else "are"} 0 to the left of 1'
        if is_left
        else f'there {"is" if scene.groups[0].number == 1 else "are"} 0 above 1',
        f'1 with 0 {"on the left" if is_left else "above"}',
        '0 and 1',
        '0 next to 1',
        '1 in an image with 0',
    )
    chosen = rng.choice(len(templates), 5, replace=False)
    return [_expand(rng, templates[i], scene.groups) for i in chosen]


def _expand(rng, template, groups):
    words, about = [], []
    for word in template.split():
        new, group = [word], -1
        if word in ('0', '1'):
            group = int(word)
            number, color, shape = groups[group]
            plural = f'{shape}es' if shape == 'cross' else f'{shape}s'
            new = [COUNTS[number - 1], color, plural if number > 1 else shape]
            if rng.random() < 0.15:  # sentences may omit attributes
                del new[1]
        words += new
        about += [group] * len(new)
    return tuple(words), np.array(about)
