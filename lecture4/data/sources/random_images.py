"""Images of random pixels: the shapes of a data set without its files, `random:HxWxC:CLASSES`."""

import re

import numpy as np

from lecture4.data.dataset import DataError, Dataset, SplitError, validate

NUM_IMAGES = 1000  # images of a split, or one per class if there are more classes
SEEDS = {'train': 0, 'test': 1}


def load(shape: str, split: str = 'train') -> Dataset:
    """Images of uniform random bytes and labels 0, 1, ..., 0, 1, ...: for programs whose time, memory or shapes matter.

    Args:
      shape: HxWxC:CLASSES with C of 1 or 3, such as 224x224x3:1000; without :CLASSES the images are unlabeled.
      split: train or test: different images of the same classes.

    Returns:
      uint8 [n, h, w, c] and the labels, the same in every call; n = max(1000, CLASSES).

    Raises:
      DataError: The shape has another form, a zero or other channels, or there is no such split.
    """
    source = f'random:{shape}'
    match = re.fullmatch(r'(\d+)x(\d+)x(\d+)(?::(\d+))?', shape)
    numbers = [int(number) for number in match.groups() if number is not None] if match else [0]
    if 0 in numbers:
        raise DataError(
            f'{source}: expected random:HxWxC:CLASSES or random:HxWxC with positive numbers, such as '
            'random:224x224x3:1000'
        )
    if split not in SEEDS:
        raise SplitError(f'{source} has no split {split!r}; it has {", ".join(SEEDS)}')
    num_classes = numbers[3] if len(numbers) == 4 else 0
    n = max(NUM_IMAGES, num_classes)
    images = np.random.default_rng(SEEDS[split]).integers(
        256, size=(n, *numbers[:3]), dtype=np.uint8
    )
    if not num_classes:
        return validate(source, images)
    return validate(source, images, np.arange(n) % num_classes, [*map(str, range(num_classes))])
