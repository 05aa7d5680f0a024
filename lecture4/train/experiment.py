"""An experiment file's parts, and one run of it in one directory: data, loop, report."""

import inspect
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from lecture4.train import loop, workdir
from lecture4.train import report as reports
from lecture4.train.config import Common, UsageError
from lecture4.train.distributed import processes
from lecture4.train.distributed.runtime import Runtime
from lecture4.train.metric_writer import read
from lecture4.train.step import bind, check_divisible


class Experiment(NamedTuple):
    """The parts of an experiment file, as `main` takes them."""

    config: type[Common]
    data: Callable
    build: Callable
    report: Callable
    presets: dict[str, dict[str, Any]]
    sweeps: dict[str, tuple[dict[str, Any], ...]]

    @property
    def name(self) -> str:
        """The file's name without .py."""
        return pathlib.Path(inspect.getfile(self.data)).stem

    @property
    def about(self) -> str:
        """The file's docstring."""
        return inspect.cleandoc(inspect.getmodule(self.data).__doc__ or '')


def load(experiment: Experiment, config: Common):
    """The experiment's data; whatever is wrong with it is the user's to mend."""

    def read_all():
        try:
            return experiment.data(config)
        except (ValueError, OSError) as error:
            raise UsageError(str(error)) from error

    return processes.run_on_all(read_all)


def check_devices(config: Common, runtime: Runtime):
    """UsageError where the devices do not divide the batch."""
    try:
        check_divisible(config.batch_size, runtime.mesh.size)
    except ValueError as error:
        raise processes.CollectiveError(str(error)) from None


def single(experiment: Experiment, config: Common, data, runtime: Runtime, directory: pathlib.Path):
    """One run in one directory: train (or resume), then report. Returns (path, report)."""
    with workdir.run_lock(directory, config, config.overwrite, runtime):
        program = bind(experiment.build(config), data, config.seed)
        state = loop.run(program, config, runtime, directory, experiment.name)
        return conclude(experiment, config, to_local(state), data, directory, runtime)


def to_local(state):
    """A replicated state as arrays of this process alone, which it may compute with by itself."""

    def take(leaf):
        return leaf if leaf.is_fully_addressable else leaf.addressable_data(0)

    return jax.tree.map(take, state)


def conclude(
    experiment: Experiment, config: Common, state, data, directory: pathlib.Path, runtime: Runtime
):
    """Process 0 writes the report of a final state; the others wait. Returns (path, report).

    state   this process's own copy: the others take no part in what the report computes.
    Returns an empty report on the other processes.
    """
    path, report = directory / 'report.html', reports.Report()

    def write():
        found = experiment.report(config, state, data)
        title = experiment.name.replace('_', ' ')
        rows = read(directory / 'metrics.jsonl')
        try:
            reports.write(directory, found, title=title, about=experiment.about, rows=rows)
        except OSError as error:
            raise UsageError(
                f'cannot write the report to {directory}: {error.strerror}; the trained state is '
                'saved: make room, then run the same command'
            ) from error
        return found

    if runtime.is_primary:
        report = processes.run_on_all(write)
    else:
        processes.run_on_all(lambda: None)
    return path, report
