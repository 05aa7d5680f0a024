"""Writes the network of a finished run for other libraries: `--stage export`."""

import json
import os
import pathlib
import sys

import numpy as np

from lecture4.data.images import normalize
from lecture4.train import saved_model
from lecture4.train.config import UsageError
from lecture4.train.experiment import Experiment

FILE = 'torchvision.safetensors'
# Experiments whose `apply` declares `state_dict`.
EXPORTING = ('convnets.image_classification', 'convnets.feature_visualization')


def run(experiment: Experiment, directory: pathlib.Path) -> pathlib.Path:
    """Write the weights of a run under torchvision's names.

    The header adds what torchvision's file lacks: class names, and the normalization of images (mean, std and
    channel order of pixels in [0, 1]; a mean image is a tensor of the run's model.safetensors only).

    Args:
      experiment: The experiment.
      directory: The run directory.

    Returns:
      Path of torchvision.safetensors in the run directory, for `load_state_dict` and for `--init`.

    Raises:
      UsageError: The run is not finished, the experiment has no networks of torchvision, torchvision does not have
        this one, or the file cannot be written.
    """
    import safetensors.numpy

    model = saved_model.load(directory, sys.modules[experiment.data.__module__])
    if 'state_dict' not in model.functions:
        raise UsageError(
            f'--stage export: torchvision has no networks of {experiment.name}; experiments that '
            f'can export are {" and ".join(EXPORTING)}'
        )
    try:
        tensors = model.state_dict()
    except ValueError as error:
        raise UsageError(f'--stage export: {error}') from None
    header = {'format': 'pt', 'class_names': json.dumps(model.spec.class_names)}
    normalization = model.spec.constants.get('normalization')
    if isinstance(normalization, normalize.Normalization) and normalization.mean.size <= 4:
        header['normalization'] = json.dumps(
            {name: np.ravel(value).tolist() for name, value in normalization._asdict().items()}
        )
    path = directory / FILE
    temporary = path.with_suffix('.tmp')
    try:
        safetensors.numpy.save_file(tensors, temporary, header)
        os.replace(temporary, path)
    except OSError as error:
        raise UsageError(f'cannot write {path}: {error.strerror}; free some disk space') from error
    return path
