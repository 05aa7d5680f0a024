"""Evaluation of a detector on a whole test set: padded batches of one shape, average precision, time."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Shaped

from lecture4.vision.detection import average_precision, error_types
from lecture4.vision.detection.average_precision import ClassResult
from lecture4.vision.detection.fast_rcnn import Detections


def predict_all(
    predict: Callable[[Mapping[str, Any]], Detections],
    arrays: Mapping[str, Any],
    batch_size: int,
    *,
    track: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> tuple[dict[str, np.ndarray], float]:
    """Detections of all images, and seconds per image without compilation.

    Args:
      predict: Batch -> detections; jitted.
      arrays: Arrays [n, ...] from which batches are taken.
      batch_size: Number of images per batch; the last batch is padded with the first image.
      track: Function that shows progress over the batches.

    Returns:
      ({'boxes' [n, d, 4], 'scores', 'labels', 'valid' [n, d]}, seconds per image).
    """
    n = len(next(iter(arrays.values())))
    parts, seconds = [], 0.0
    for start in track(range(0, n, batch_size)):
        rows = np.arange(start, start + batch_size)
        rows = np.where(rows < n, rows, 0)
        batch = {name: np.asarray(values[rows]) for name, values in arrays.items()}
        if not start:
            jax.block_until_ready(predict(batch))
        began = time.perf_counter()
        parts.append(jax.device_get(predict(batch)))
        seconds += time.perf_counter() - began
    result = {
        name: np.concatenate([getattr(part, name) for part in parts])[:n]
        for name in Detections._fields
    }
    return result, seconds / (len(parts) * batch_size)


def mean_ap(
    detections: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray], num_classes: int
) -> tuple[float, list[ClassResult]]:
    """MAP at IoU 0.5 (the area measure), and the results of the classes; see `average_precision.voc`.

    Args:
      detections: Result of `predict_all`.
      truth: 'boxes', 'labels', 'valid' and 'difficult' of the same images.
      num_classes: Number of classes without the background.
    """
    objects = {name: truth[name] for name in ('boxes', 'labels', 'valid', 'difficult')}
    results = average_precision.voc(dict(detections), objects, num_classes)
    return average_precision.mean_ap(results), results


def class_records(
    results: Sequence[ClassResult], class_names: Sequence[str]
) -> list[dict[str, Any]]:
    """Rows {'class', 'objects', 'ap'} of a table, one for each class that has objects."""
    return [
        {'class': name, 'objects': result.num_objects, 'ap': result.ap_area}
        for name, result in zip(class_names, results, strict=True)
        if result.num_objects
    ]


def bootstrap_interval(
    detections: Mapping[str, np.ndarray],
    truth: Mapping[str, np.ndarray],
    num_classes: int,
    *,
    num_trials: int = 100,
    seed: int = 0,
) -> tuple[float, float]:
    """Bootstrap 95 % interval of the mAP over resampled test sets of equal size.

    Args:
      detections: As in `mean_ap`.
      truth: As in `mean_ap`.
      num_classes: As in `mean_ap`.
      num_trials: Number of resampled sets.
      seed: Seed of the resampling.
    """
    rng, n = np.random.default_rng(seed), len(truth['labels'])
    values = []
    for _ in range(num_trials):
        rows = rng.integers(n, size=n)
        resampled, objects = (
            {name: d[name][rows] for name in ('boxes', 'labels', 'valid', *extra)}
            for d, extra in ((detections, ('scores',)), (truth, ('difficult',)))
        )
        values.append(mean_ap(resampled, objects, num_classes)[0])
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def panels(
    images: Shaped[np.ndarray, 'n h w 3'],
    detections: Mapping[str, np.ndarray],
    truth: Mapping[str, np.ndarray],
    num_classes: int,
    *,
    num_images: int = 8,
    min_score: float = 0.5,
) -> dict[str, Any]:
    """Arguments of `figures.detection.detections` for the first images: correct, false and missed boxes.

    Args:
      images: Images, uint8, padded.
      detections: As in `mean_ap`.
      truth: As in `mean_ap`, with 'sizes'.
      num_classes: As in `mean_ap`.
      num_images: Number of images to draw.
      min_score: Smallest score of a detection that counts.
    """
    n = min(num_images, len(images))
    scored = {name: np.asarray(detections[name][:n]) for name in Detections._fields}
    scored['valid'] = scored['valid'] & (scored['scores'] >= min_score)
    objects = {
        name: np.asarray(truth[name][:n]) for name in ('boxes', 'labels', 'valid', 'difficult')
    }
    flat = average_precision.check(scored, objects, num_classes)
    correct, detected = (np.zeros(part['valid'].sum(), bool) for part in (scored, objects))
    for label in range(1, num_classes + 1):
        matches = average_precision.match(*flat, label, 0.5)
        correct[matches.rows] = matches.is_correct
        detected[matches.object_row[matches.is_correct]] = True
    is_correct, is_missed = np.zeros_like(scored['valid']), objects['valid'].copy()
    is_correct[scored['valid']], is_missed[objects['valid']] = correct, ~detected
    rows, missed = scored['valid'], is_missed & ~objects['difficult']
    heights_widths = np.asarray(truth['sizes'][:n]).tolist()
    return {
        'images': [image[:h, :w] for image, (h, w) in zip(images, heights_widths, strict=False)],
        **{
            name: [scored[name][i][rows[i]] for i in range(n)]
            for name in ('boxes', 'labels', 'scores')
        },
        'is_correct': [is_correct[i][rows[i]] for i in range(n)],
        'missed': [objects['boxes'][i][missed[i]] for i in range(n)],
        'missed_labels': [objects['labels'][i][missed[i]] for i in range(n)],
    }


def curves(
    results: Sequence[ClassResult], class_names: Sequence[str]
) -> dict[str, tuple[np.ndarray, np.ndarray, float]]:
    """(recall, precision, AP) of each class with objects, for `figures.detection.precision_recall`."""
    return {
        name: (result.recall, result.precision, result.ap_area)
        for name, result in zip(class_names, results, strict=True)
        if result.num_objects
    }


def summarize(
    detections: Mapping[str, np.ndarray],
    truth: Mapping[str, np.ndarray],
    class_names: Sequence[str],
    *,
    min_score: float = 0.5,
) -> dict[str, Any]:
    """All that a report of a detector shows, as arguments of `train.detection_data.detection_report`.

    Args:
      detections: As in `mean_ap`.
      truth: As in `mean_ap`, with 'sizes' and 'shown', the padded images as uint8.
      class_names: Names of the classes.
      min_score: Least score of the detections that are drawn.
    """
    n = len(class_names)
    value, results = mean_ap(detections, truth, n)
    objects = {name: truth[name] for name in ('boxes', 'labels', 'valid', 'difficult')}
    return {
        'mean_ap': value,
        'interval': bootstrap_interval(detections, truth, n),
        'by_class': class_records(results, class_names),
        'class_names': class_names,
        'panels': panels(truth['shown'], detections, truth, n, min_score=min_score),
        'curves': curves(results, class_names),
        'error_counts': error_types.count_types(dict(detections), objects, n),
        'num_images': len(truth['labels']),
        'min_score': min_score,
    }
