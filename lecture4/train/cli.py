"""The command line of an experiment: from its dataclass to a run, a sweep and a report."""

import difflib
import functools
import json
import logging
import os
import pathlib
import re
import sys
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NoReturn

import jax
from absl import app, flags

from lecture4.train import encode, experiment_tracker, export, loop, options, predict, workdir
from lecture4.train import report as reports
from lecture4.train.checkpoint import CheckpointError, silence_late_callbacks
from lecture4.train.config import Config, UsageError, config_fingerprint
from lecture4.train.distributed.processes import CollectiveError
from lecture4.train.distributed.runtime import INTERRUPTED, Interrupted, Runtime, start
from lecture4.train.experiment import Experiment, build_bound, check_devices, load, single
from lecture4.train.metrics import Metric
from lecture4.train.sweep import runner, variants
from lecture4.train.task import Data, Task

LOG = logging.getLogger(__name__)


def main(
    config: type[Config],
    data: Callable[[Any], Data],
    build: Callable[..., Task],
    apply: Callable[..., dict[str, Callable]],
    report: Callable[..., reports.Report],
    *,
    metrics: Sequence[Metric],
    presets: Mapping[str, dict[str, Any]] | None = None,
    sweeps: Mapping[str, Sequence[dict[str, Any]]] | None = None,
) -> NoReturn:
    """Run an experiment from the command line and exit.

    Exit codes: 0; 1 where a metric diverged or variants of a sweep failed; 2 for a usage error; 75 after
    a signal, with the state saved: run the same command to resume.

    Args:
      config: The dataclass of the experiment's options.
      data: config -> Data, the only function that reads files.
      build: (config, spec) -> Task.
      apply: (config, spec) -> {name: (state, raw inputs) -> outputs}.
      report: (config, state, data) -> Report.
      metrics: Declarations of all metrics; one is primary.
      presets: Name -> fields, for `--preset`.
      sweeps: Name -> variants, for `--sweep`.
    """
    if not (isinstance(config, type) and issubclass(config, Config)):
        raise TypeError(
            f'main: config is {config!r}; expected a dataclass derived from train.Config'
        )
    experiment = Experiment(
        config,
        data,
        build,
        apply,
        report,
        tuple(metrics),
        dict(presets or {}),
        {name: tuple(variants) for name, variants in (sweeps or {}).items()},
    )
    app.run(functools.partial(_main, experiment), flags_parser=_parse_absl_flags)
    raise AssertionError('absl.app.run returned')


def _parse_absl_flags(argv: list[str]) -> list[str]:
    """Absl parses its own flags and --flagfile; --help and all other options belong to the experiment."""
    flags.FLAGS.set_gnu_getopt(True)
    if {'-h', '--help'} & set(argv):
        flags.FLAGS.mark_as_parsed()
        return argv
    try:
        return flags.FLAGS([argv[0], *flags.FLAGS.read_flags_from_files(argv[1:])], known_only=True)
    except flags.Error as error:
        _exit(f'{str(error).splitlines()[0]}', 2)
    except UnicodeDecodeError:
        files = ' '.join(word for word in argv if 'flagfile' in word)
        _exit(
            f'{files}: expected a file of UTF-8 text, one option on each line; save it as such', 2
        )


def _main(experiment: Experiment, argv: list[str]) -> None:
    for name in ('absl', 'orbax'):  # these libraries log every step at the INFO level
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger('jax').setLevel(logging.WARNING)
    logging.getLogger('lecture4').setLevel(logging.INFO)
    silence_late_callbacks()
    try:
        try:
            config = parse(experiment, argv[1:])
        except BrokenPipeError:  # --help is piped into a program that stopped reading
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        run(experiment, config)
    except Interrupted as error:
        _exit(str(error), INTERRUPTED)
    except (loop.Diverged, runner.SweepFailed) as error:
        _exit(str(error), 1)
    except CollectiveError as error:
        _exit(str(error), 2)
    except (UsageError, CheckpointError) as error:
        _exit(str(error), 2, on_this_process_only=True)
    except BaseException as error:
        if not jax.distributed.is_initialized() or isinstance(error, SystemExit):
            raise
        traceback.print_exc()
        process = f'process {jax.process_index()} of {jax.process_count()}'
        _exit(
            f'{process} failed; when all have stopped, run the same command to resume',
            1,
            on_this_process_only=True,
        )


def _exit(message: str, code: int, on_this_process_only: bool = False) -> NoReturn:
    """Exit with one line, without JAX's exit handler, which waits for processes that have not failed."""
    print(f'{pathlib.Path(sys.argv[0]).stem}: {" ".join(message.split())}', file=sys.stderr)
    if on_this_process_only and jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def parse(experiment: Experiment, argv: Sequence[str]) -> Config:
    """Parse a command line into the experiment's config; `--help` prints the options and exits.

    Args:
      experiment: The experiment.
      argv: The words of the command line, without the program.

    Returns:
      The config: defaults, overridden by the preset, overridden by options.

    Raises:
      UsageError: An unknown option, preset or sweep (with the nearest name), an ill-typed value, or one outside its
        domain.
    """
    preset = _last_value(argv, 'preset')
    _check_known('preset', preset, experiment.presets)
    values = options.read(
        experiment.config,
        experiment.presets.get(preset, {}),
        argv,
        description=_description(experiment),
        prog=f'python -m {experiment.module or experiment.name}',
    )
    try:
        config = experiment.config(**values)
    except ValueError as error:
        raise UsageError(str(error)) from None
    _check_known('sweep', config.sweep, experiment.sweeps)
    experiment_tracker.check(config)
    if config.sweep and config.grid:
        raise UsageError('--sweep and --grid both define a sweep; give one of them')
    variants.variants(config, variants.requested(config, experiment.sweeps))
    return config


def _last_value(argv: Sequence[str], option: str) -> str:
    """The value of an option that determines the defaults of others; '' where it is not given."""
    value = ''
    for i, word in enumerate(argv):
        if word == f'--{option}' and i + 1 < len(argv):
            value = argv[i + 1]
        if word.startswith(f'--{option}='):
            value = word.partition('=')[2]
    return value


def _check_known(kind: str, name: str, names: Collection[str]) -> None:
    if not name or name in names:
        return
    hint = f'expected one of {", ".join(names)}' if names else f'the experiment has no {kind}s'
    if nearest := difflib.get_close_matches(name, names, 1):
        hint = f'did you mean {nearest[0]}?'
    raise UsageError(f'unknown {kind} {name!r}; {hint}')


def _description(experiment: Experiment) -> str:
    """The experiment's docstring, presets and sweeps, for --help.

    tyro joins lines that are not indented. A blank line separates lines that follow an indented line or begin with a
    label ('Hardware: 2 CPU cores').
    """
    parts = [
        re.sub(r'(\n +[^\n]*)\n(?=\S)|(?<=[^\n])\n(?=\w+:? {2,}\S)', r'\1\n\n', experiment.about)
    ]
    for kind, named in (('Presets', experiment.presets), ('Sweeps', experiment.sweeps)):
        lines = [f'{kind}:'] if named else []
        for name, value in named.items():
            if isinstance(value, dict):
                text = ' '.join(f'{field}={_short(item)}' for field, item in value.items())
            else:
                text = f'{len(value)} variants of {", ".join(value[0])}'
            lines.append(f'  {name}: {text}')
        parts.append('\n'.join(lines))
    return '\n\n'.join(filter(None, parts))


def _short(value: Any) -> str:
    return ','.join(map(str, value)) if isinstance(value, tuple) else str(value)


def run(experiment: Experiment, config: Config) -> pathlib.Path | None:
    """Run the stage that a config names.

    Args:
      experiment: The experiment.
      config: Its config.

    Returns:
      The path of report.html, of the directory of codes for `--stage encode`, of the file of
      predictions for `--stage predict`, of the weights for `--stage export`, or of the run directory for
      `--stage data`; None for `--dry_run`, `--stage plan` and `--group`.

    Raises:
      UsageError: A mistake in the options; the message says how to fix it.
    """
    swept = config.sweep or ('grid' if config.grid else 'seeds' if config.seeds else '')
    directory = pathlib.Path(
        config.workdir or '-'.join(filter(None, [f'runs/{experiment.name}', config.preset, swept]))
    )
    if '://' in config.workdir:
        raise UsageError(
            f'--workdir {config.workdir}: expected a directory; mount the bucket (gcsfuse, s3fs) and name '
            'the directory'
        )
    if config.stage in ('plan', 'table') and not swept:
        raise UsageError(f'--stage {config.stage} needs a sweep; add --sweep, --grid or --seeds')
    if config.dry_run:
        workdir.check_config(directory, config, config.overwrite or config.stage == 'table')
        print(json.dumps(_as_printed(experiment, config, directory)))
        return None
    if config.stage == 'data':
        load(experiment, config)
        return directory
    if config.stage == 'predict':
        path = predict.run(experiment, config, directory)
        print(f'predictions: {path}')
        return path
    if config.stage == 'export':
        path = export.run(experiment, directory)
        print(f"weights under torchvision's names: {path}")
        return path
    if config.stage != 'table':
        changes = workdir.check_config(directory, config, config.overwrite)
        if changes and config.stage == 'encode':
            raise UsageError(f'--stage encode: {changes[0]}; run the command without --stage first')
        for change in changes:
            LOG.info('%s', change)
    if swept:
        path, report = runner.run(experiment, config, directory)
    else:
        runtime = start(config)
        check_devices(config, runtime)
        workdir.preflight(directory, runtime)
        data = load(experiment, config)
        if runtime.n_processes > 1:
            LOG.info('all processes can write to %s and have read their data', directory)
        if config.stage == 'encode':
            return _encode(experiment, config, data, runtime, directory)
        path, report = single(experiment, config, data, runtime, directory)
    if path is not None and jax.process_index() == 0:
        if report.summary:
            print(report.summary)
        for table in report.tables:
            print(reports.text(table, experiment.metrics))
        print(f'report: {path}')
    return path


def _as_printed(experiment: Experiment, config: Config, directory: pathlib.Path) -> dict[str, Any]:
    """The config as --dry_run prints it, for users and launchers."""
    return {
        'experiment': experiment.module or experiment.name,
        'workdir': str(directory),
        'config': config_fingerprint(config),
    }


def _encode(
    experiment: Experiment,
    config: Config,
    data: Data,
    runtime: Runtime,
    directory: pathlib.Path,
) -> pathlib.Path:
    encoder = experiment.apply(config, data.spec).get('encode')
    bound = build_bound(experiment, config, data)
    path = encode.run(encoder, data, bound, config, runtime, directory)
    if jax.process_index() == 0:
        print(f'codes: {path}')
    return path
