"""Comparison of networks and their ensemble on one test set by several kinds of test crops."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from lecture4.ops import metrics
from lecture4.vision.multi_crop import Kind

ENSEMBLE = 'ensemble'


def compare(
    predict_fns: Mapping[str, Callable[[Kind], Float[np.ndarray, 'n n_classes']]],
    kinds: Sequence[Kind],
    labels: Integer[np.ndarray, 'n'],
) -> tuple[list[dict[str, Any]], Float[np.ndarray, 'n n_classes']]:
    """Accuracies of networks and, of two or more, of their ensemble, by each kind of test crops.

    Args:
      predict_fns: Name of a network -> (kind of test crops -> its probabilities for the test set).
      kinds: Kinds of test crops, at least one.
      labels: True classes of the test set.

    Returns:
      Records {'test_crops', 'network', entries of `metrics.accuracy_record`, 'walltime' (seconds of all networks
      together)}, with the ensemble last for each kind; and the probabilities of the last record.

    References:
      Krizhevsky et al. 2012, section 6: averaged probabilities of several networks.
    """
    records, p = [], np.zeros(0)
    for kind in kinds:
        began = time.monotonic()
        probs = {name: predict(kind) for name, predict in predict_fns.items()}
        walltime = time.monotonic() - began
        if len(probs) > 1:
            probs[ENSEMBLE] = np.mean(list(probs.values()), axis=0)
        for name, p in probs.items():
            record = {'test_crops': kind, 'network': name, **metrics.accuracy_record(p, labels)}
            records.append(record | {'walltime': walltime})
    return records, p
