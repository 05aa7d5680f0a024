"""The command line of an experiment: from its dataclass to a run, a sweep and a report."""

import contextlib
import dataclasses
import difflib
import functools
import inspect
import io
import logging
import os
import pathlib
import re
import sys
import traceback
from typing import NoReturn

import jax
from absl import app, flags

from lecture4.train import encode, fields, loop, workdir
from lecture4.train import report as reports
from lecture4.train.checkpoint import CheckpointError, silence_late_callbacks
from lecture4.train.config import Config, UsageError
from lecture4.train.distributed.processes import CollectiveError
from lecture4.train.distributed.runtime import INTERRUPTED, Interrupted, start
from lecture4.train.experiment import Experiment, build, check_devices, load, single
from lecture4.train.step import bind
from lecture4.train.sweep import runner, variants


def main(config, data, build, apply, report, *, metrics, presets=None, sweeps=None):
    """Run an experiment from the command line; exits with 0, 2 (usage), 75 (saved, start again)."""
    experiment = Experiment(
        config, data, build, apply, report, tuple(metrics), presets or {}, sweeps or {}
    )
    app.run(functools.partial(_main, experiment), flags_parser=_absl_flags)


def _absl_flags(argv):
    """Absl takes its own flags and --flagfile; --help and all others are the experiment's."""
    flags.FLAGS.set_gnu_getopt(True)
    if {'-h', '--help'} & set(argv):
        flags.FLAGS.mark_as_parsed()
        return argv
    try:
        return flags.FLAGS([argv[0], *flags.FLAGS.read_flags_from_files(argv[1:])], known_only=True)
    except flags.Error as error:
        _stop(f'{str(error).splitlines()[0]}', 2)


def _main(experiment: Experiment, argv):
    for name in ('absl', 'orbax'):  # libraries that tell each step of theirs
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger('jax').setLevel(logging.WARNING)
    logging.getLogger('lecture4').setLevel(logging.INFO)
    silence_late_callbacks()
    try:
        try:
            config = parse(experiment, argv[1:])
        except BrokenPipeError:  # --help, read by a pager or by head, which has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        run(experiment, config)
    except Interrupted as error:
        _stop(str(error), INTERRUPTED)
    except (loop.Diverged, runner.SweepFailed) as error:
        _stop(str(error), 1)
    except CollectiveError as error:
        _stop(str(error), 2)
    except (UsageError, CheckpointError) as error:
        _stop(str(error), 2, alone=True)
    except BaseException as error:
        if not jax.distributed.is_initialized() or isinstance(error, SystemExit):
            raise
        traceback.print_exc()
        what = f'process {jax.process_index()} of {jax.process_count()} failed'
        _stop(f'{what}; when all have stopped, run the same command to resume', 1, alone=True)


def _stop(message: str, code: int, alone: bool = False) -> NoReturn:
    """Exit with one line. JAX's own exit waits for all processes: not where one fails alone."""
    print(f'{pathlib.Path(sys.argv[0]).stem}: {" ".join(message.split())}', file=sys.stderr)
    if alone and jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def parse(experiment: Experiment, argv: list[str]) -> Config:
    """The config that a command line asks for.

    Errors  UsageError, one line with the nearest name, for an unknown option, preset or sweep, an
            ill-typed value, or one outside its domain.
    """
    import tyro

    preset = _peek(argv, 'preset')
    _known('preset', preset, experiment.presets)
    default = experiment.config(**experiment.presets.get(preset, {}))
    description = _description(experiment)
    caught = io.StringIO()
    try:
        with contextlib.redirect_stderr(caught):
            arguments = fields.with_help(experiment.config)
            parsed, unknown = tyro.cli(
                arguments,
                args=argv,
                default=arguments(**vars(default)),
                description=description,
                prog=f'python -m {_module(experiment)}',
                return_unknown_args=True,
                use_underscores=True,
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UsageError(f'{_first_line(caught.getvalue())} (--help lists all options)') from None
    if unknown:
        raise UsageError(_unknown(experiment, unknown[0]))
    try:
        config = experiment.config(**vars(parsed))
    except ValueError as error:
        raise UsageError(str(error)) from None
    _known('sweep', config.sweep, experiment.sweeps)
    if config.sweep and config.grid:
        raise UsageError('--sweep and --grid are two sweeps; give one')
    variants.variants(config, variants.requested(config, experiment.sweeps))
    return config


def _module(experiment: Experiment) -> str:
    spec = getattr(inspect.getmodule(experiment.data), '__spec__', None)
    return spec.name if spec else experiment.name


def _peek(argv, option: str) -> str:
    """The value of an option that has to be known before the others can be read: the last one given."""
    value = ''
    for i, word in enumerate(argv):
        if word == f'--{option}' and i + 1 < len(argv):
            value = argv[i + 1]
        if word.startswith(f'--{option}='):
            value = word.partition('=')[2]
    return value


def _known(kind: str, name: str, names):
    if name and name not in names:
        nearest = difflib.get_close_matches(name, names, 1)
        hint = (
            f'did you mean {nearest[0]}?' if nearest else f'there are {", ".join(names) or "none"}'
        )
        raise UsageError(f'unknown {kind} {name!r}; {hint}')


def _unknown(experiment: Experiment, word: str) -> str:
    option = word.partition('=')[0]
    options = [f'--{field.name}' for field in dataclasses.fields(experiment.config)]
    nearest = difflib.get_close_matches(option.replace('-', '_').replace('__', '--', 1), options, 1)
    hint = f'did you mean {nearest[0]}? ' if nearest else ''
    return f'unknown option {option}; {hint}(--help lists all options)'


def _first_line(box: str) -> str:
    """The message of tyro's framed error, without its frame."""
    lines = [line.strip('│╭╮╰╯─ ') for line in box.splitlines()]
    message = []
    for line in lines[1:]:
        if not line:
            break
        message.append(line)
    text = ' '.join(message) or box.strip()
    return text.removeprefix('Error parsing Config: ')


def _description(experiment: Experiment) -> str:
    # What is not indented would be drawn up to the line before it: behind an indented one, and where a
    # fact begins ('Cost    one minute').
    parts = [
        re.sub(r'(\n +[^\n]*)\n(?=\S)|(?<=[^\n])\n(?=\w+ {2,}\S)', r'\1\n\n', experiment.about)
    ]
    for kind, named in (('Presets', experiment.presets), ('Sweeps', experiment.sweeps)):
        lines = [f'{kind}:'] if named else []
        for name, value in named.items():
            if isinstance(value, dict):
                told = ' '.join(f'{field}={_short(item)}' for field, item in value.items())
            else:
                told = f'{len(value)} variants of {", ".join(value[0])}'
            lines.append(f'  {name}: {told}')
        parts.append('\n'.join(lines))
    return '\n\n'.join(filter(None, parts))


def _short(value) -> str:
    return ','.join(map(str, value)) if isinstance(value, tuple) else str(value)


def run(experiment: Experiment, config: Config) -> pathlib.Path | None:
    """Carry out what the config asks for; returns the path of report.html, where there is one."""
    swept = config.sweep or ('grid' if config.grid else 'seeds' if config.seeds else '')
    directory = pathlib.Path(
        config.workdir or '-'.join(filter(None, [f'runs/{experiment.name}', config.preset, swept]))
    )
    if config.stage == 'data':
        load(experiment, config)
        return directory
    if config.stage in ('plan', 'table') and not swept:
        raise UsageError(
            f'--stage {config.stage} is for a sweep; give --sweep, --grid or --seeds too'
        )
    if config.stage != 'table':
        workdir.check_config(directory, config, config.overwrite)
    if swept:
        path, report = runner.run(experiment, config, directory)
    else:
        runtime = start(config)
        check_devices(config, runtime)
        data = load(experiment, config)
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


def _encode(experiment: Experiment, config: Config, data, runtime, directory):
    encode_rows = experiment.apply(config, data.spec).get('encode')
    bound = bind(build(experiment, config, data), data, config.seed)
    folder = encode.run(encode_rows, data, bound, config, runtime, directory)
    if jax.process_index() == 0:
        print(f'codes: {folder}')
    return folder
