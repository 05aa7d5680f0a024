"""Where an image classifier is wrong: the classes that it takes for others, the pictures it is surest of."""

import numpy as np
from PIL import Image

from lecture4.figures import images, text

SHOWN = 64  # screen-friendly side of a picture; larger ones are made smaller


def confusion(counts, names, *, most: int = 20, title=''):
    """Counts by true and given class; of more than `most` classes those with the most mistakes.

    Shapes  counts [c, c], names c of them.
    """
    counts = np.asarray(counts)
    wrong = counts - np.diag(np.diag(counts))
    worst = np.sort(np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind='stable')[:most])
    return text.confusion(counts[np.ix_(worst, worst)], [names[i] for i in worst], title=title)


def worst(pictures, probabilities, labels, names, *, n: int = 12, columns: int = 6):
    """The pictures whose own class has the least probability: under each what it is, and what is answered.

    Shapes  pictures [m, h, w, c] uint8 or on [0, 1]; probabilities [m, c]; labels [m].
    """
    probabilities, labels = np.asarray(probabilities), np.asarray(labels)
    own = probabilities[np.arange(len(labels)), labels]
    order = np.argsort(own, kind='stable')[:n]
    columns = min(columns, len(order))
    order = order[: len(order) // columns * columns]
    notes = []
    for i in order:
        answer = probabilities[i].argmax()
        notes.append(f'{_short(names[labels[i]])} → {_short(names[answer])}')
    shown = np.stack([_small(pictures[i]) for i in order])
    rows = {
        f'{start + 1}-{start + columns}': slice(start, start + columns)
        for start in range(0, len(order), columns)
    }
    return images.rows(
        {name: shown[at] for name, at in rows.items()},
        notes={name: notes[at] for name, at in rows.items()},
    )


def _small(picture):
    picture = np.asarray(picture)
    unit = picture / 255 if picture.dtype == np.uint8 else picture
    h, w = unit.shape[:2]
    if max(h, w) <= SHOWN:
        return unit
    size = (SHOWN * w // max(h, w), SHOWN * h // max(h, w))
    planes = [
        np.asarray(
            Image.fromarray(np.float32(unit[..., c])).resize(size, Image.Resampling.BILINEAR)
        )
        for c in range(unit.shape[-1])
    ]
    return np.stack(planes, -1)


def _short(name, most=9):
    return name if len(name) <= most else name[: most - 1] + '…'
