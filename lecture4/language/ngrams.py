"""What the filters of a sentence network fire on: the words under the windows that they chose."""

from collections.abc import Sequence

import numpy as np

OUTSIDE = '·'  # stands for the padding


def window(text: Sequence[str], start: int, width: int) -> tuple[str, ...]:
    """The words at start .. start + width - 1; places outside the text are OUTSIDE."""
    return tuple(text[i] if 0 <= i < len(text) else OUTSIDE for i in range(start, start + width))


def strongest(feature, start, texts, width: int, k: int = 5):
    """The k different n-grams with the largest features of one filter, falling; fewer where fewer fire.

    Shapes  feature [n], start int [n], texts n sequences of words. Returns [(n-gram, feature), ...].
    """
    chosen: dict[tuple[str, ...], float] = {}
    for i in np.argsort(-np.asarray(feature), kind='stable'):
        if len(chosen) == k or feature[i] <= 0:
            break
        chosen.setdefault(window(texts[i], int(start[i]), width), float(feature[i]))
    return list(chosen.items())


def telling(features, kernel, per_class: int) -> dict[int, np.ndarray]:
    """The filters that speak most for each class: {class: filters [per_class], the strongest first}.

    A filter speaks for a class with its softmax weight there, less the mean over classes, times its mean feature.
    Shapes  features [n, m], kernel [m, c].
    """
    says = (kernel - kernel.mean(1, keepdims=True)) * np.asarray(features).mean(0)[:, None]
    return {c: np.argsort(-says[:, c], kind='stable')[:per_class] for c in range(kernel.shape[1])}


def by_class(features, starts, texts, kernel, names, *, widths, per_class: int, k: int = 5):
    """For each class the filters that speak most for it, and their strongest n-grams.

    Shapes  features [n, m], starts int [n, m], texts n sequences of words, kernel [m, c], names c of them, widths [m].
            Returns {name: [('3 words, filter 7', [('an n-gram', feature), ...]), ...]}.
    """
    return {
        names[c]: [
            (
                f'{widths[f]} words, filter {f}',
                [
                    (' '.join(ngram), value)
                    for ngram, value in strongest(
                        features[:, f], starts[:, f], texts, int(widths[f]), k
                    )
                ],
            )
            for f in filters
        ]
        for c, filters in telling(features, kernel, per_class).items()
    }
