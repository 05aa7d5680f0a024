"""Every experiment of the project by its name, for tests of all of them."""

import importlib
import pathlib

from lecture4.train import experiment

ROOT = pathlib.Path(__file__).parent.parent.parent
MODULES = {
    path.stem: '.'.join(path.relative_to(ROOT).with_suffix('').parts)
    for path in sorted((ROOT / 'experiments').rglob('*.py'))
    if not path.name.startswith('__')
}


def load(name: str) -> experiment.Experiment:
    """The experiment in the file of that name."""
    return experiment.from_module(importlib.import_module(MODULES[name]))


def first(*names: str) -> list[str]:
    """The names of all experiments, with these at the beginning."""
    return [*names, *(name for name in MODULES if name not in names)]
