"""Sets that tensorflow-datasets has prepared, read without TensorFlow: `tfds:NAME`."""

import concurrent.futures
import io
import itertools
import math
import pathlib
import re
import zlib
from collections.abc import Callable
from os import PathLike
from typing import Any

import numpy as np

from lecture4.data.dataset import DataError, Dataset, validate
from lecture4.data.sources import prepared
from lecture4.data.sources.decode import decode_image

CHUNK = (
    512  # number of examples decoded at a time, which bounds the memory in addition to the result
)


def load(
    name: str,
    split: str,
    data_dir: str | PathLike[str],
    transform: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Dataset:
    """The images and labels of a split of a set that is prepared in `data_dir`.

    Nothing is downloaded or prepared. The image is the feature named image or the first of the supervised keys:
    uint8, encoded (png, jpeg) or a tensor. The label is the class label named label or the second of the supervised
    keys; a set without one, or with labels of -1 only, is unlabeled.

    Args:
      name: NAME, NAME/CONFIG or either with :VERSION; by default the newest prepared version.
      split: A split of the set.
      data_dir: Directory of sets prepared in the array_record format.
      transform: Function applied to each image [h, w, c] as soon as it is read, to save memory.

    Raises:
      DataError: The set is not prepared (the message says how to prepare it, and lists the prepared ones), is in
        another format, has no image and label, or is damaged; or there is no such split.
    """
    source = f'tfds:{name}'
    builder = _builder(name, pathlib.Path(data_dir).expanduser())
    features = _features(builder.info)
    image_key, label_key = _keys(source, features, builder.info.supervised_keys)
    feature = features[image_key]
    examples = prepared.read_examples(builder, source, split)

    def decode(item):
        i, fields = item
        image = _decode(fields[image_key], feature, f'{source}, {split}, image {i}')
        return transform(image) if transform else image

    images, labels = [], []
    with concurrent.futures.ThreadPoolExecutor() as pool, prepared.refuse_damaged(builder, source):
        numbered = enumerate(examples)
        while chunk := list(itertools.islice(numbered, CHUNK)):
            images.extend(pool.map(decode, chunk))
            if label_key:
                labels.extend(fields[label_key].int64_list.value[0] for _, fields in chunk)
    if not labels or set(labels) == {-1}:
        return validate(source, images)
    names = getattr(features[label_key], 'names', None)
    return validate(source, images, np.array(labels), names)


def _builder(name, data_dir):
    match = re.fullmatch(r'(\w[\w.-]*)(/\w[\w.-]*)?(:[\w.]+)?', name)
    if match is None:
        raise DataError(
            f'tfds:{name}: expected tfds:NAME, tfds:NAME/CONFIG or either with :VERSION, such as '
            'tfds:cifar10:3.0.2'
        )
    dataset, config, version = match.groups()
    folders = {
        path.parent.relative_to(data_dir / dataset).as_posix(): path.parent
        for path in (data_dir / dataset).glob('**/dataset_info.json')
    }
    config, version = (config or '')[1:], (version or '')[1:]
    matching = sorted(
        (folder for folder in folders if _matches(folder, config, version)), key=_version
    )
    if not matching:
        raise DataError(_how_to_prepare(name, dataset, sorted(folders), data_dir))
    configs = {folder.rpartition('/')[0] for folder in matching}
    if len(configs) > 1:
        raise DataError(
            f'tfds:{name} has several configs in {data_dir}: {", ".join(sorted(configs))}; name one, '
            f'such as tfds:{dataset}/{min(filter(None, configs))}'
        )
    import tensorflow_datasets as tfds

    folder = folders[matching[-1]]
    try:
        builder = tfds.builder_from_directory(folder)
    except (
        Exception
    ) as error:  # reading the description of a set may need TensorFlow or another package
        raise DataError(
            f'tfds:{name} in {folder} cannot be read without TensorFlow '
            f'({type(error).__name__}: {" ".join(str(error).split())[:300]})'
        ) from error
    if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
        stored = getattr(builder.info.file_format, 'value', builder.info.file_format)
        raise DataError(
            f'tfds:{name} in {folder} is stored as {stored}, which needs TensorFlow to read; prepare it '
            f'again as array_record: {_command(name, data_dir)}'
        )
    return builder


def _matches(folder, config, version):
    name, _, number = folder.rpartition('/')
    return (not config or name == config) and (not version or number == version)


def _version(folder):
    return [int(part) if part.isdigit() else -1 for part in folder.rpartition('/')[2].split('.')]


def _how_to_prepare(name, dataset, folders, data_dir):
    if folders:
        there = f'there are {", ".join(f"tfds:{dataset}" + _spec(folder) for folder in folders)}'
    else:
        sets = sorted(p.name for p in data_dir.iterdir() if p.is_dir()) if data_dir.is_dir() else []
        sets = [s for s in sets if s != 'downloads']
        there = f'that folder has {", ".join(sets) or "no sets"}'
    return (
        f'tfds:{name} is not prepared in {data_dir}; {there}. Name another folder with --data_dir, or '
        f'prepare it where TensorFlow is installed: {_command(name, data_dir)}'
    )


def _spec(folder):
    config, _, version = folder.rpartition('/')
    return f'{"/" if config else ""}{config}:{version}'


def _command(name, data_dir):
    return (
        f"tfds.builder('{name}', data_dir='{data_dir}', file_format='array_record')"
        '.download_and_prepare()'
    )


def _features(info: Any) -> dict[str, Any]:
    """The features of a set by name."""
    return dict(info.features.items())


def _keys(source: str, features: dict[str, Any], supervised: Any) -> tuple[str, str]:
    """The names of the features that are image and label; the label is '' if there is none."""
    import tensorflow_datasets as tfds

    supervised = supervised or ()
    image = 'image' if 'image' in features else supervised[0] if len(supervised) == 2 else ''
    label = 'label' if 'label' in features else supervised[1] if len(supervised) == 2 else ''
    feature: Any = features.get(image) if isinstance(image, str) else None
    is_image = isinstance(feature, tfds.features.Image)
    shape: Any = getattr(feature, 'shape', ())
    is_tensor = isinstance(feature, tfds.features.Tensor) and None not in shape
    if not (is_image or is_tensor) or feature.np_dtype != np.uint8:
        raise DataError(
            f'{source}: expected a feature image of uint8 and a feature label, got '
            f'{", ".join(f"{key} ({type(value).__name__})" for key, value in features.items())}'
        )
    if label and (feature := features.get(label)) is not None:
        if feature.shape != () or not np.issubdtype(feature.np_dtype, np.integer):
            raise DataError(
                f'{source}: expected one integer {label} per image, got {type(feature).__name__} of '
                f'shape {feature.shape}'
            )
        return image, label
    return image, ''


def _decode(field, feature, name):
    import tensorflow_datasets as tfds

    if isinstance(feature, tfds.features.Image):
        return decode_image(io.BytesIO(field.bytes_list.value[0]), name)
    if field.int64_list.value:
        return np.array(field.int64_list.value, np.uint8).reshape(feature.shape)
    pixels = field.bytes_list.value[0]
    if len(pixels) != math.prod(feature.shape):
        pixels = zlib.decompress(pixels)
    return np.frombuffer(pixels, np.uint8).reshape(feature.shape)
