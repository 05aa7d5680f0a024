"""Region proposals of a whole data set: computed by several processes, stored with the set's fingerprint.

A set of proposals is a list with float32 [m, 4] for each image, edges [x1, y1, x2, y2] in pixels of the image, in
order of priority. The file that holds them has

    boxes         float32 [all, 4], image by image
    counts        integers [n], number of boxes of each image
    fingerprint   optional: `fingerprint(dataset)` of the images that they were computed from

and may come from any other method: write it with numpy.savez.
"""

import collections
import concurrent.futures
import functools
import multiprocessing
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from os import PathLike
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Shaped

from lecture4.vision.detection import selective_search

SAVE_EVERY = 10  # number of images between two saves of an incomplete file


def compute(
    images: Sequence[Shaped[np.ndarray, '_ _ 3']],
    propose: Callable[[Any], Float32[np.ndarray, '_ 4']] = selective_search.propose,
    *,
    num_workers: int = 1,
) -> Iterator[Float32[np.ndarray, '_ 4']]:
    """Proposals of each image, in order, with only a few images in memory at a time.

    Args:
      images: Images, uint8, read one after another.
      propose: Image -> proposals, a picklable function such as a partial of
        `selective_search.propose`.
      num_workers: Number of processes; 0 takes one for each core, 1 computes in this process.

    Yields:
      Boxes of the next image, the same for any number of processes.
    """
    num_workers = num_workers or len(os.sched_getaffinity(0))
    if num_workers == 1:
        yield from map(propose, images)
        return
    context = multiprocessing.get_context('spawn')  # a fork would copy the threads of JAX
    with concurrent.futures.ProcessPoolExecutor(num_workers, context) as pool:
        waiting = collections.deque()
        for image in images:
            waiting.append(pool.submit(propose, image))
            if len(waiting) >= 3 * num_workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def cached(
    path: str | PathLike[str],
    images: Sequence[Any],
    fingerprint: str,
    propose: Callable[[Any], Float32[np.ndarray, '_ 4']] = selective_search.propose,
    *,
    num_workers: int = 1,
    track: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> list[Float32[np.ndarray, '_ 4']]:
    """The proposals in the file at `path`, which is computed and written first if it does not exist.

    An interrupted computation continues after the last image whose proposals were saved (every ten images, in
    PATH.partial.npz). The file is renamed when complete, so that another process never reads an incomplete file.

    Args:
      path: An .npz file, whose name should contain the method and its settings, see `cache_name`.
      images: As in `compute`.
      fingerprint: Fingerprint of the images: `lecture4.data.detection.dataset.fingerprint`.
      propose: As in `compute`.
      num_workers: As in `compute`.
      track: Iterates over the indices of the remaining images and shows progress, such as a partial of
        `lecture4.train.track`.

    Raises:
      ValueError: As in `load`: the file is of other images, or damaged. The file is not changed.
    """
    path = pathlib.Path(path)
    if path.exists():
        return load(path, len(images), fingerprint)
    partial = path.with_suffix('.partial.npz')
    result = load(partial, None, fingerprint) if partial.exists() else []
    path.parent.mkdir(parents=True, exist_ok=True)
    start = len(result)
    boxes = compute(images[start:] if start else images, propose, num_workers=num_workers)
    for _ in track(range(start, len(images))):
        result.append(next(boxes))
        if len(result) % SAVE_EVERY == 0:
            save(partial, result, fingerprint)
    save(path, result, fingerprint)
    partial.unlink(missing_ok=True)
    return result


def prepare(
    images: Sequence[Any],
    fingerprint: str,
    number: int,
    *,
    file: str | PathLike[str] = '',
    folder: str | PathLike[str] = '.',
    width: int = 500,
    min_size: int = 20,
    track: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> tuple[Float32[np.ndarray, 'n {number} 4'], Bool[np.ndarray, 'n {number}']]:
    """Proposals of a set as padded arrays: from a file, or from selective search in mode fast, stored in a folder.

    Args:
      images: As in `compute`; more than 50 are divided among all cores.
      fingerprint: Fingerprint of the images.
      number: Number of proposals per image, the first ones.
      file: File with the user's proposals; '' computes selective search's.
      folder: Folder in which computed proposals are stored.
      width: As in `selective_search.propose`.
      min_size: As in `selective_search.propose`.
      track: As in `cached`.

    Returns:
      As `pad`.

    Raises:
      ValueError: As in `load`.
    """
    if file:
        return pad(load(file, len(images), fingerprint), number)
    name = cache_name(fingerprint, f'fast_width{width}_min{min_size}')
    propose = functools.partial(selective_search.propose, width=width, min_size=min_size)
    num_workers = 0 if len(images) > 50 else 1
    path = pathlib.Path(folder).expanduser() / name
    boxes = cached(path, images, fingerprint, propose, num_workers=num_workers, track=track)
    return pad(boxes, number)


def seconds_per_image(images: Any, propose: Callable[[Any], Any]) -> float:
    """Mean time per image of computing proposals, in this process.

    Args:
      images: n images, an array or a sequence.
      propose: Image -> proposals.
    """
    start = time.perf_counter()
    for image in images:
        propose(image)
    return (time.perf_counter() - start) / len(images)


def cache_name(fingerprint: str, mode: str = 'fast', seed: int = 0) -> str:
    """File name of selective search's proposals for a set of images."""
    return f'selective_search_{mode}_seed{seed}_{fingerprint[:16]}.npz'


def save(
    path: str | PathLike[str], proposals: Sequence[Shaped[np.ndarray, '_ 4']], fingerprint: str
) -> None:
    """Write a file of proposals; an existing file is replaced atomically."""
    path = pathlib.Path(path)
    temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    boxes = [np.asarray(boxes, np.float32).reshape(-1, 4) for boxes in proposals]
    with temporary.open('wb') as stream:
        np.savez(
            stream,
            boxes=np.concatenate([np.zeros((0, 4), np.float32), *boxes]),
            counts=np.array([len(b) for b in boxes], np.int32),
            fingerprint=np.array(fingerprint),
        )
    os.replace(temporary, path)


def load(
    path: str | PathLike[str], num_images: int | None, fingerprint: str = ''
) -> list[Float32[np.ndarray, '_ 4']]:
    """The proposals in a file.

    Args:
      path: An .npz file, see the module's docstring.
      num_images: Number of images; None accepts any number.
      fingerprint: Fingerprint of the images; '' accepts any, and a file without one fits any.

    Raises:
      ValueError: The file is of another data set or another number of images, is damaged, or has boxes with NaN or
        x2 < x1.
    """
    path = pathlib.Path(path)
    try:
        with path.open('rb') as stream, np.load(stream, allow_pickle=False) as file:
            boxes, counts = np.asarray(file['boxes'], np.float32), np.asarray(file['counts'])
            stored = str(file['fingerprint']) if 'fingerprint' in file.files else ''
    except (
        Exception
    ) as error:  # zipfile, zlib and numpy raise many kinds of exceptions on a broken file
        raise ValueError(
            f'{path} cannot be read as proposals ({type(error).__name__}: {error}); expected an .npz file with boxes '
            '[all, 4] and counts [n]; remove or replace it'
        ) from error
    if fingerprint and stored and stored != fingerprint:
        raise ValueError(
            f'{path} has proposals of another data set: its fingerprint is {stored[:16]}, that of the images '
            f'{fingerprint[:16]}; compute the proposals of this set, or name their file'
        )
    if boxes.ndim != 2 or boxes.shape[1] != 4 or counts.ndim != 1 or counts.sum() != len(boxes):
        raise ValueError(
            f'{path}: expected boxes [all, 4] and counts [n] whose sum is their number, got shapes {boxes.shape} and '
            f'{counts.shape} with sum {counts.sum()}'
        )
    if num_images not in (None, len(counts)):
        raise ValueError(f'{path} has proposals of {len(counts)} images, expected {num_images}')
    bad = np.flatnonzero(~(boxes[:, 2:] >= boxes[:, :2]).all(1))  # also NaN
    if bad.size:
        raise ValueError(
            f'{path}: {bad.size} of {len(boxes)} boxes have NaN or x2 < x1 or y2 < y1, the first is '
            f'{boxes[bad[0]].tolist()}; remove them'
        )
    return np.split(boxes, np.cumsum(counts)[:-1]) if len(counts) else []


def pad(
    proposals: Sequence[Shaped[np.ndarray, '_ 4']], number: int
) -> tuple[Float32[np.ndarray, 'n {number} 4'], Bool[np.ndarray, 'n {number}']]:
    """The first proposals of each image, padded with zeros to one number, and the mask of those that are not padding.

    Args:
      proposals: Proposals of each image.
      number: Number of proposals per image.
    """
    boxes = np.zeros((len(proposals), number, 4), np.float32)
    valid = np.zeros((len(proposals), number), bool)
    for i, image_boxes in enumerate(proposals):
        m = min(len(image_boxes), number)
        boxes[i, :m], valid[i, :m] = image_boxes[:m], True
    return boxes, valid
