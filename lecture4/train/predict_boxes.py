"""Detections in new images as a file in COCO's format, for `--stage predict` of a detector."""

import json
import logging
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from lecture4.data.dataset import DataError
from lecture4.data.detection.buckets import (
    ScaleRule,
    buckets_for,
    resize,
    resized_shape,
    scale_boxes,
)
from lecture4.data.sources import decode
from lecture4.train.config import Config, UsageError
from lecture4.train.inputs import Inputs
from lecture4.train.progress import track
from lecture4.train.task import Spec

LOG = logging.getLogger(__name__)
FILE = 'detections.json'
BLOCK = 8  # images per call of the model
NO_BOXES = np.zeros((0, 4), np.float32)


def run(
    spec: Spec,
    on_devices: Callable[[int], Callable[..., Any]],
    inputs: Inputs,
    config: Config,
    directory: pathlib.Path,
    *,
    skip: bool,
) -> pathlib.Path:
    """Detect objects in new images.

    Args:
      spec: Spec of the run; its constant 'scale_rule' determines the size of resized images.
      on_devices: From a number of rows to the detector, (images uint8 [n, h, w, 3], sizes [n, 2]) -> detections with
        boxes [n, d, 4], scores, labels (1 to K) and valid [n, d].
      inputs: The images.
      config: Config that selects the display of progress.
      directory: The run directory.
      skip: Whether images that cannot be read are left out and logged.

    Returns:
      detections.json: images, categories and annotations with 'bbox' [x, y, width, height] in pixels of the
      stored image, and 'score', which the source coco:PATH reads as boxes.

    Raises:
      UsageError: An image cannot be read.
    """
    rule: ScaleRule = spec.constants['scale_rule']
    sizes = {}
    for row, name in enumerate(inputs.names):
        size = _read(lambda row=row: inputs.size(row), skip=skip)
        if size is not None:
            sizes[row] = (name, size)
    if not sizes:
        raise UsageError(f'--input {" ".join(config.input)}: none of the images can be read')
    used = buckets_for(np.array([size for _, size in sizes.values()], np.int32), rule)
    bucket = tuple(np.max(used, axis=0).tolist())
    detect, rows = on_devices(BLOCK), list(sizes)
    images, annotations = [], []
    for block in track(config, [rows[i : i + BLOCK] for i in range(0, len(rows), BLOCK)], 'detect'):
        pixels, shapes, kept = [], [], []
        for row in block:
            image = _read(lambda row=row: inputs.read(row), skip=skip)
            if image is None:
                continue
            height, width = sizes[row][1]
            shape = resized_shape(height, width, rule)
            small, _ = resize(_to_uint8(decode.to_rgb(image)), NO_BOXES, shape[0], shape[1])
            pixels.append(
                np.pad(small, [(0, bucket[0] - shape[0]), (0, bucket[1] - shape[1]), (0, 0)])
            )
            shapes.append(shape)
            kept.append(row)
        if not kept:
            continue
        detections = detect(np.stack(pixels), np.array(shapes, np.int32))
        for i, row in enumerate(kept):
            name, size = sizes[row]
            images.append(
                {'id': row, 'file_name': _absolute(name), 'height': size[0], 'width': size[1]}
            )
            valid = detections.valid[i]
            boxes = scale_boxes(detections.boxes[i][valid], shapes[i], size).astype(float)
            for box, score, label in zip(
                boxes, detections.scores[i][valid], detections.labels[i][valid], strict=True
            ):
                x1, y1, x2, y2 = (round(float(edge), 2) for edge in box)
                annotations.append(
                    {
                        'id': len(annotations) + 1,
                        'image_id': row,
                        'category_id': int(label),
                        'bbox': [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)],
                        'area': round((x2 - x1) * (y2 - y1), 2),
                        'iscrowd': 0,
                        'score': round(float(score), 6),
                    }
                )
    LOG.info('%d detections in %d of %d images', len(annotations), len(images), len(inputs.names))
    categories = [{'id': k, 'name': name} for k, name in enumerate(spec.class_names, 1)]
    path = directory / FILE
    temporary = path.with_suffix('.tmp')
    content = {'images': images, 'categories': categories, 'annotations': annotations}
    temporary.write_text(json.dumps(content))
    os.replace(temporary, path)
    return path


def _read(read: Callable[[], Any], *, skip: bool) -> Any:
    try:
        return read()
    except DataError as error:
        if not skip:
            raise UsageError(f'{error}; or leave such files out with --unreadable skip') from None
        LOG.warning('%s: left out', error)
        return None


def _to_uint8(image: np.ndarray) -> np.ndarray:
    if image.dtype == np.uint8:
        return image
    return np.clip(np.round(np.asarray(image) * 255), 0, 255).astype(np.uint8)


def _absolute(name: str) -> str:
    return str(pathlib.Path(name).absolute()) if pathlib.Path(name).exists() else name
