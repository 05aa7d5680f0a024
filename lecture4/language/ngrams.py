"""What the filters of a sentence network fire on: the words under the windows that they chose."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

OUTSIDE = '·'  # stands for the padding


class Firing(NamedTuple):
    """The strongest n-grams of one filter: words of each, and its features, falling."""

    filter: int
    width: int
    ngrams: tuple[tuple[str, ...], ...]
    features: tuple[float, ...]


def strongest(features, starts, texts: Sequence[Sequence[str]], filters, *, maps: int, widths, k=5):
    """The k different n-grams with the largest features of each of `filters`; fewer where fewer fire.

    Shapes  features [n, len(widths) * maps], starts {width: int [n, maps]} as the model gives them, texts n sequences
            of words, filters numbers among len(widths) * maps. Returns a list of Firing.
    """
    features = np.asarray(features)
    made = []
    for f in filters:
        width = widths[f // maps]
        start = np.asarray(starts[width])[:, f % maps]
        chosen: dict[tuple[str, ...], float] = {}
        for i in np.argsort(-features[:, f], kind='stable'):
            if len(chosen) == k or features[i, f] <= 0:
                break
            chosen.setdefault(window(texts[i], int(start[i]), width), float(features[i, f]))
        made.append(Firing(int(f), width, tuple(chosen), tuple(chosen.values())))
    return made


def window(text: Sequence[str], start: int, width: int) -> tuple[str, ...]:
    """The words at start .. start + width - 1; places outside the text are OUTSIDE."""
    return tuple(text[i] if 0 <= i < len(text) else OUTSIDE for i in range(start, start + width))


def telling(features, kernel, per_class: int) -> dict[int, np.ndarray]:
    """The filters that speak most for each class: {class: filters [per_class], the strongest first}.

    A filter speaks for a class with its softmax weight there, less the mean over classes, times its mean feature.
    Shapes  features [n, m], kernel [m, c].
    """
    kernel = np.asarray(kernel)
    says = (kernel - kernel.mean(1, keepdims=True)) * np.asarray(features).mean(0)[:, None]
    return {c: np.argsort(-says[:, c], kind='stable')[:per_class] for c in range(kernel.shape[1])}
