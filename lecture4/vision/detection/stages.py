"""Tests of a detector stage by stage, each compiled separately, to measure where the time per image goes.

A stage takes a batch and returns its additions to it; the last stage adds 'detections'. The results are those of
`fast_rcnn.predict` and `faster_rcnn.predict`.
"""

import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lecture4.vision.detection import fast_rcnn, faster_rcnn
from lecture4.vision.detection.fast_rcnn import Detections
from lecture4.vision.detection.networks import Detector
from lecture4.vision.detection.recipe import Recipe

Stages = Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]]


class Tested(NamedTuple):
    """A detector on a test set.

    Attributes:
      detections: {'boxes' [n, d, 4], 'scores', 'labels', 'valid' [n, d]}.
      seconds: Time per image of every stage, without compilation.
      num_bytes: Bytes per image that the stages pass on.
    """

    detections: dict[str, np.ndarray]
    seconds: dict[str, float]
    num_bytes: int


_features = jax.jit(fast_rcnn.feature_maps, static_argnums=0)
_pool = jax.jit(fast_rcnn.pool_rois, static_argnums=0)
_classify = jax.jit(fast_rcnn.classify, static_argnums=0)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _propose(network, recipe, variables, batch, levels):
    boxes, valid, _ = faster_rcnn.propose(network, recipe, variables, batch, levels)[0]
    return boxes, valid


@functools.partial(jax.jit, static_argnums=0)
def _suppress(recipe, logits, deltas, proposals, valid, sizes):
    n, p = valid.shape
    k = logits.shape[-1]
    return jax.vmap(functools.partial(fast_rcnn.detections_of, recipe))(
        logits.reshape(n, p, k), deltas.reshape(n, p, k, 4), proposals, valid, sizes
    )


def of_fast_rcnn(network: Detector, recipe: Recipe, variables: Any) -> Stages:
    """Stages of Fast R-CNN on batches with 'proposals'; dense layers may be decomposed.

    Args:
      network: The detector.
      recipe: Constants.
      variables: Variables of the network.
    """

    def convolutions(batch):
        return {'levels': _features(network, variables, _inputs(batch))}

    def pool(batch):
        return {'pooled': _pool(recipe, batch['levels'], batch['proposals'])}

    def classify(batch):
        return {'outputs': _classify(network, variables, batch['pooled'])}

    def suppress(batch):
        proposals = batch['proposals'], batch['proposals_valid']
        return {'detections': _suppress(recipe, *batch['outputs'], *proposals, batch['sizes'])}

    return {
        'convolutions': convolutions,
        'RoI pooling': pool,
        'dense layers': classify,
        'suppression': suppress,
    }


def of_faster_rcnn(network: Detector, recipe: Recipe, variables: Any) -> Stages:
    """Stages of Faster R-CNN: those of `of_fast_rcnn`, with a stage of region proposals after the convolutions."""

    def propose(batch):
        boxes, valid = _propose(network, recipe, variables, _inputs(batch), batch['levels'])
        return {'proposals': boxes, 'proposals_valid': valid}

    first, *rest = of_fast_rcnn(network, recipe, variables).items()
    return dict([first, ('region proposals', propose), *rest])


def _inputs(batch):
    return {name: batch[name] for name in ('images', 'features', 'sizes') if name in batch}


def predict_all(
    stages: Stages,
    arrays: Mapping[str, Any],
    batch_size: int,
    *,
    prepare: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    track: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> Tested:
    """Detections of all images, and time and memory of each stage.

    Args:
      stages: See the module's docstring.
      arrays: Arrays [n, ...] from which batches are taken.
      batch_size: Number of images per batch; the last batch is padded with the first image.
      prepare: Function that makes a batch of rows of the arrays, for instance by normalizing images; not timed.
      track: Function that shows progress over the batches.
    """
    n = len(next(iter(arrays.values())))
    parts, seconds, num_bytes = [], dict.fromkeys(stages, 0.0), 0
    for start in track(range(0, n, batch_size)):
        rows = np.arange(start, start + batch_size)
        rows = np.where(rows < n, rows, 0)
        given = prepare({name: np.asarray(values[rows]) for name, values in arrays.items()})
        batch = given
        for is_timed in (True,) if start else (False, True):
            batch = given
            for name, stage in stages.items():
                began = time.perf_counter()
                batch = {**batch, **jax.block_until_ready(stage(batch))}
                seconds[name] += (time.perf_counter() - began) * is_timed
        added = {name: value for name, value in batch.items() if name not in given}
        num_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(added)) // batch_size
        parts.append(jax.device_get(batch['detections']))
    result = {
        name: np.concatenate([getattr(part, name) for part in parts])[:n]
        for name in Detections._fields
    }
    per_image = {name: value / (len(parts) * batch_size) for name, value in seconds.items()}
    return Tested(result, per_image, num_bytes)
