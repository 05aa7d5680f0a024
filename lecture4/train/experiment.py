"""The parts of an experiment file, and one run of it in one directory: data, loop, report."""

import contextlib
import dataclasses
import inspect
import logging
import pathlib
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lecture4.train import data_fingerprint, experiment_tracker, loop, saved_model, workdir
from lecture4.train import report as reports
from lecture4.train.config import Config, UsageError
from lecture4.train.distributed import processes
from lecture4.train.distributed.runtime import Runtime
from lecture4.train.metric_writer import read, write_hyperparameters
from lecture4.train.metrics import Metric
from lecture4.train.step import AXIS, BoundTask, bind, check_divisible
from lecture4.train.task import Data, PyTree, Spec, Task

LOG = logging.getLogger(__name__)


class Experiment(NamedTuple):
    """The parts of an experiment file, as `main` takes them.

    Attributes:
      config: The dataclass of its options.
      data: config -> Data, the only function that reads files.
      build: (config, spec) -> Task.
      apply: (config, spec) -> {name: (state, raw inputs) -> outputs}: what a trained model can do.
      report: (config, state, data) -> Report.
      metrics: Declarations of all metrics; one is primary.
      presets: Name -> fields.
      sweeps: Name -> variants.
    """

    config: type[Config]
    data: Callable[[Any], Data]
    build: Callable[..., Task]
    apply: Callable[..., dict[str, Callable]]
    report: Callable[..., reports.Report]
    metrics: tuple[Metric, ...]
    presets: dict[str, dict[str, Any]]
    sweeps: dict[str, tuple[dict[str, Any], ...]]

    @property
    def name(self) -> str:
        """The file's name without .py."""
        return pathlib.Path(inspect.getfile(self.data)).stem

    @property
    def module(self) -> str:
        """Name of the file's module, also where it runs as __main__; '' for a file run by its path."""
        spec = getattr(inspect.getmodule(self.data), '__spec__', None)
        return spec.name if spec else ''

    @property
    def pretrained_model(self) -> Callable[[Any], tuple[PyTree, Spec]] | None:
        """The file's function config -> (state, spec) of the weights of `--init` alone, if it has one."""
        return getattr(inspect.getmodule(self.data), 'pretrained_model', None)

    @property
    def about(self) -> str:
        """The file's docstring."""
        return inspect.cleandoc(inspect.getmodule(self.data).__doc__ or '')


def from_module(module: Any) -> Experiment:
    """The experiment of an imported file: Config, data, build, apply, report, METRICS, PRESETS, SWEEPS.

    Raises:
      AttributeError: A part is missing.
    """
    return Experiment(
        module.Config,
        module.data,
        module.build,
        module.apply,
        module.report,
        tuple(module.METRICS),
        getattr(module, 'PRESETS', {}),
        getattr(module, 'SWEEPS', {}),
    )


def load(experiment: Experiment, config: Config) -> Data:
    """The experiment's data; a ValueError becomes a UsageError.

    Raises:
      UsageError: A process cannot read its data; raised on every process.
    """

    def read_all():
        try:
            return _expect(
                experiment.data(config), Data, 'data', 'train.Data, as train.in_memory makes'
            )
        except (ValueError, OSError) as error:
            raise UsageError(str(error)) from error

    return processes.run_on_all(read_all)


def _expect(result: Any, kind: type, function: str, expected: str) -> Any:
    """The result of a function of the experiment, checked to be of the expected kind."""
    if not isinstance(result, kind):
        raise TypeError(f'{function} returned {_short(result)}; expected a {expected}')
    return result


def _short(value: Any) -> str:
    return f'{type(value).__name__} {value!r}'[:80]


def build(experiment: Experiment, config: Config, data: Data) -> Task:
    """The experiment's task, after a check that `apply` too returns what it should; ValueErrors become UsageErrors."""
    try:
        task = experiment.build(config, data.spec)
        _expect(task, Task, 'build', 'train.Task, as train.supervised or train.optimize make')
        functions = experiment.apply(config, data.spec)
        _expect(functions, dict, 'apply', 'dict {name: (state, raw inputs) -> outputs}')
        return task
    except ValueError as error:
        raise UsageError(str(error)) from error


def build_bound(experiment: Experiment, config: Config, data: Data) -> BoundTask:
    """The experiment's task with its data, seed and way to compute gradients, as a run and the compiler take it."""
    task = build(experiment, config, data)
    return bind(task, data, config.seed, accumulate=config.accumulate, remat=config.remat)


def check_devices(config: Config, runtime: Runtime):
    """Log a hint if the batch size is not divisible by the number of devices.

    Raises:
      CollectiveError: It is not divisible, and `--parallel` is pmap.
    """
    try:
        check_divisible(config.batch_size, runtime.mesh.shape[AXIS])
    except ValueError as error:
        if config.parallel == 'pmap':
            raise processes.CollectiveError(f'{error}, or --parallel jit') from None
        if runtime.is_primary:
            LOG.info('%s to load all devices equally (the results are the same)', error)


def single(
    experiment: Experiment, config: Config, data: Data, runtime: Runtime, directory: pathlib.Path
):
    """One run in one directory: train (or resume), then report. Returns (path, report)."""
    with workdir.run_lock(directory, config, config.overwrite, runtime):
        processes.broadcast_from_primary(lambda: data_fingerprint.check(directory, data))
        bound = build_bound(experiment, config, data)
        state = loop.run(
            bound, config, runtime, directory, experiment.name, metrics=experiment.metrics
        )
        return finalize(experiment, config, to_local(state), data, directory, runtime)


def to_local(state):
    """A state as local arrays, with which this process can compute without the others; all processes call this."""

    def take(leaf):
        if leaf.is_fully_addressable:
            return leaf
        if leaf.is_fully_replicated:
            return leaf.addressable_data(0)
        from jax.experimental import multihost_utils

        return jnp.asarray(multihost_utils.process_allgather(leaf, tiled=True))

    return jax.tree.map(take, state)


def finalize(
    experiment: Experiment, config: Config, state, data, directory: pathlib.Path, runtime: Runtime
):
    """On process 0, write the model and the report of a final state; the others wait.

    Args:
      state: A local copy: the other processes take no part in the computations of the report.

    Returns:
      (path of report.html, report); an empty report on the other processes.
    """
    path, report = directory / 'report.html', reports.Report()

    def write():
        model = directory / saved_model.FILE
        try:
            saved_model.save(model, experiment.module, config, state, data.spec)
        except OSError as error:
            raise UsageError(_no_space(model, error)) from error
        in_directory = dataclasses.replace(config, workdir=str(directory))  # where its rows are
        with _named_failure(directory):
            result = experiment.report(in_directory, state, data)
        _expect(
            result, reports.Report, 'report', 'train.Report, such as train.Report(metrics={...})'
        )
        records = read(directory / 'metrics.jsonl')
        try:
            reports.write(
                directory,
                result,
                experiment.metrics,
                title=reports.title_of(experiment.about, experiment.name),
                about=experiment.about,
                records=records,
            )
        except OSError as error:
            raise UsageError(_no_space(directory / 'report.html', error)) from error
        fields = workdir.config_fingerprint(config)
        write_hyperparameters(directory / 'events', fields, result.metrics)
        experiment_tracker.finish(config, directory, experiment.name, records, result.metrics)
        return result

    if runtime.is_primary:
        report = processes.run_on_all(write)
    else:
        processes.run_on_all(lambda: None)
    return path, report


@contextlib.contextmanager
def _named_failure(directory: pathlib.Path) -> Iterator[None]:
    """The error of a report with the name of the figure that raised it and a list of what is saved."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        drawing = [
            frame for frame in frames if pathlib.Path(frame.filename).parent.name == 'figures'
        ]
        figure = (
            f' in figure {pathlib.Path(drawing[0].filename).stem}.{drawing[0].name}'
            if drawing
            else ''
        )
        error.add_note(
            f'The report failed{figure}. The trained model, checkpoints and metrics.jsonl are saved in '
            f'{directory}; the same command repeats the report without training.'
        )
        raise


def _no_space(path: pathlib.Path, error: OSError) -> str:
    return (
        f'cannot write {path}: {error.strerror}; the trained state is saved: free some disk space, '
        'then run the same command'
    )
