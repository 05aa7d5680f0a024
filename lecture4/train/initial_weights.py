"""Initial weights that `--init` names: the network of a run, a checkpoint of one, or a file of another library."""

import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from lecture4.data.images import normalize
from lecture4.train import checkpoint, saved_model
from lecture4.train.config import UsageError
from lecture4.train.learners import State, variables
from lecture4.train.task import PyTree, Spec

LOG = logging.getLogger(__name__)


class Init(NamedTuple):
    """Initial weights of a network.

    Attributes:
      path: The value of `--init`.
      source: The file of another library, or the variables of a run's network ({'params', 'batch_stats',
        ...}; averaged ones where the run kept an average); '' if there is neither.
      constants: Constants of the run's data, such as 'normalization'; empty for an unfinished run.
      class_names: Class names of the run's data; empty for an unfinished run.
    """

    path: str
    source: str | PyTree
    constants: Mapping[str, Any] = {}
    class_names: tuple[str, ...] = ()


def read_init(path: str) -> Init:
    """The weights that `--init` names; files of other libraries are not opened.

    Args:
      path: The value of `--init`: a run directory, its model.safetensors, or a checkpoint
        (RUN/checkpoints/STEP or RUN/checkpoints/best/STEP); a file of another library; or ''.

    Raises:
      UsageError: The directory contains no run, the file is damaged, or the run has trained no network.
    """
    place = pathlib.Path(path).expanduser()
    if path and place.is_dir():
        return _from_checkpoint(place) if place.name.isdigit() else _from_model(_model_of(place))
    if place.is_file() and saved_model.is_model(place):
        return _from_model(place)
    return Init(path, path)


def init_normalization(
    kind: normalize.Kind | str, init: Init, published: str, images: Any, seed: int
) -> normalize.Normalization:
    """The normalization of a network's inputs; 'auto' takes that of the initial weights.

    Args:
      kind: 'auto', or a kind of `normalize.create`.
      init: As `read_init` returns it.
      published: Normalization kind of the weights of other libraries.
      images: The training set, [n, h, w, c].
      seed: As in `normalize.create`.

    Raises:
      UsageError: The run named by `init` subtracts a mean image of another size.
    """
    if kind != 'auto':
        return normalize.create(kind, images, 3, seed=seed)
    if isinstance(init.source, str):
        return normalize.create(published if init.source else 'standard', images, 3, seed=seed)
    normalization = init.constants.get('normalization')
    if not isinstance(normalization, normalize.Normalization):
        LOG.warning('%s has no normalization; using that of the training images', init.path)
        return normalize.create('standard', images, 3, seed=seed)
    size = normalization.mean.shape[:2]
    if size not in ((1, 1), images.shape[1:3]):
        raise UsageError(
            f'--init {init.path} subtracts a mean image of {size[0]} x {size[1]}, the images are '
            f'{images.shape[1]} x {images.shape[2]}; give --image_size {size[0]} or --normalization'
        )
    return normalization


def pretrained_model(
    variables: Mapping[str, PyTree], preprocessing: Any, class_names: tuple[str, ...]
) -> tuple[State, Spec]:
    """Published weights as the state and spec of a run, for `--stage predict` without one.

    Args:
      variables: {'params', 'batch_stats', ...}.
      preprocessing: What they expect of images: resize, crop_size, mean and std.
      class_names: One per class.
    """
    size, crop_size = preprocessing.resize, preprocessing.crop_size
    constants = {
        'normalization': normalize.from_mean_std(preprocessing.mean, preprocessing.std),
        'image_shape': (size, size, 3),
    }
    statistics = {name: tree for name, tree in variables.items() if name != 'params'}
    state = State(jnp.int32(0), variables['params'], (), {'network': statistics})
    return state, Spec((crop_size, crop_size, 3), class_names, constants)


def _model_of(directory: pathlib.Path) -> pathlib.Path:
    model = directory / saved_model.FILE
    if model.exists():
        return model
    steps = sorted(
        (int(p.name) for p in (directory / 'checkpoints').glob('*') if p.name.isdigit()),
        reverse=True,
    )
    hint = 'expected the directory of a run'
    if steps:
        hint = f'the run is not finished: finish it, or give {directory}/checkpoints/{steps[0]}'
    raise UsageError(f'--init {directory} has no {saved_model.FILE}; {hint}')


def _from_model(path: pathlib.Path) -> Init:
    state, spec = saved_model.load_state(path)
    return Init(str(path), _network(state, path), spec.constants, spec.class_names)


def _from_checkpoint(path: pathlib.Path) -> Init:
    tree = checkpoint.read(path)
    names = State._fields
    if not isinstance(tree, dict) or set(tree) != set(names):
        raise UsageError(f'--init {path} is not a checkpoint of a network; give the run directory')
    init = Init(str(path), _network(State(**tree), path))
    run = next(parent for parent in path.parents if parent.name not in ('checkpoints', 'best'))
    if not (run / saved_model.FILE).exists():
        return init
    _, spec = saved_model.load_state(run / saved_model.FILE)
    return init._replace(constants=spec.constants, class_names=spec.class_names)


def _network(state: Any, path: os.PathLike[str]) -> PyTree:
    model_state = getattr(state, 'model_state', None)
    if not isinstance(model_state, Mapping) or not {'network', 'polyak'} & set(model_state):
        raise UsageError(
            f'--init {path} is a run that trains no network of lecture4.vision; expected one of '
            'experiments.convnets'
        )
    return variables(state)
