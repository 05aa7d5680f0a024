"""The command line: options, presets, and mistakes, which are one line and change no file."""

import json
import logging
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from absl import app, flags

from lecture4.train import cli
from lecture4.train.config import UsageError
from lecture4.train.experiment import Experiment, from_module
from lecture4.train.metric_writer import read
from tests.train import toy

ROOT = pathlib.Path(__file__).parents[2]
EXPERIMENT = Experiment(
    toy.Config, toy.data, toy.build, toy.apply, toy.report, toy.METRICS, toy.PRESETS, toy.SWEEPS
)


def parse(*argv):
    return cli.parse(EXPERIMENT, list(argv))


def run(directory, *argv):
    return cli.run(EXPERIMENT, parse('--workdir', str(directory), '--progress', 'none', *argv))


def shell(*argv):
    return subprocess.run(
        [sys.executable, '-m', 'tests.train.toy', *argv],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_options_override_the_preset():
    config = parse('--preset', 'smoke', '--seed', '3')
    assert (config.steps, config.seed, config.hidden) == (4, 3, 3)
    assert parse('--preset=wide', '--hidden', '7').hidden == 7
    assert parse('--learning-rate', '0.5').learning_rate == 0.5


@pytest.mark.parametrize(
    'argv, message',
    [
        (('--steps', '3', '4'), '--steps: expected one value, got 2: 3 4'),
        (('--download', 'maybe'), 'expected --download or --no_download'),
        (('--rate', '0.1'), '--rate is now --learning_rate'),
        (('--grid', 'rate=0.1'), 'the sweep names rate, which is now learning_rate'),
        (('--stepss', '3'), 'unknown option --stepss; did you mean --steps?'),
        (('--learning-rat=3',), 'did you mean --learning_rate?'),
        (('--steps', 'x'), '--steps x: expected an integer'),
        (('--steps',), '--steps: expected one value, got none'),
        (('--parallel', 'tmap'), '--parallel tmap: expected one of jit, pmap'),
        (('--weight', '-1'), '--weight is -1.0; it has to be at least 0'),
        (('--weight', 'nan'), '--weight is nan; it has to be at least 0'),
        (('--preset', 'smok'), "unknown preset 'smok'; did you mean smoke?"),
        (('--preset', 'smoke', '--preset', 'smok'), "unknown preset 'smok'"),
        (('--sweep', 'depth'), "unknown sweep 'depth'; expected one of weight, hidden, data"),
        (('--seed', '-1'), '--seed is -1; it has to be at least 0'),
    ],
)
def test_mistakes_are_one_line(argv, message):
    with pytest.raises(UsageError) as error:
        parse(*argv)
    assert message in str(error.value)
    assert '\n' not in str(error.value)


def test_help_shows_docstring_presets_sweeps_and_domains():
    result = shell('--help')
    assert result.returncode == 0
    for text in ('smallest experiment', 'smoke: steps=4', '4 variants of weight, seed'):
        assert text in result.stdout
    assert 'Delete the run that --workdir holds' in result.stdout


def test_help_keeps_the_lines_of_a_list_of_facts(monkeypatch):
    about = (
        'A job.\n\nRun:      python -m job\n          python -m job --fast\nHardware: 2 CPU cores\n'
        'Results:  12 %'
    )
    monkeypatch.setattr(Experiment, 'about', about)
    lines = cli._description(EXPERIMENT).splitlines()
    at = lines.index('          python -m job --fast')
    assert lines[at + 1 : at + 5] == ['', 'Hardware: 2 CPU cores', '', 'Results:  12 %']


def test_help_piped_into_a_closed_reader_is_no_error():
    command = f'{sys.executable} -m tests.train.toy --help | true'
    result = subprocess.run(
        command, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert 'Traceback' not in result.stderr and 'BrokenPipe' not in result.stderr


def test_a_mistake_exits_with_2_and_no_traceback(tmp_path):
    result = shell('--workdir', str(tmp_path / 'run'), '--examples', '0')
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith('toy: ')
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('argv', [('--stepss', '3'), ('--flagfile', 'none')], ids=' '.join)
def test_a_slip_in_the_options_exits_with_2_and_one_line(argv, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['toy.py', *argv])
    monkeypatch.setattr(app, 'run', lambda main, flags_parser: main(flags_parser(sys.argv)))
    monkeypatch.setattr(cli, 'silence_late_callbacks', lambda: None)
    levels = {name: logging.getLogger(name).level for name in ('absl', 'orbax', 'jax', 'lecture4')}
    with pytest.raises(SystemExit) as exit_:
        cli.main(*EXPERIMENT[:5], metrics=EXPERIMENT.metrics)
    flags.FLAGS.unparse_flags()
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    errors = capsys.readouterr().err
    assert exit_.value.code == 2
    assert len(errors.splitlines()) == 1 and errors.startswith('toy: ')


def test_flagfile_gives_options(tmp_path):
    (tmp_path / 'flags').write_text('--preset=smoke\n--verbosity=0\n--progress=none\n')
    result = shell('--workdir', str(tmp_path / 'run'), '--flagfile', str(tmp_path / 'flags'))
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / 'run' / 'config.json').read_text())['steps'] == 4


def test_a_flagfile_that_is_no_utf_8_is_named(tmp_path, capsys):
    path = tmp_path / 'flags'
    path.write_text('--preset=smoke\n', encoding='utf-16')
    with pytest.raises(SystemExit) as exit_:
        cli._parse_absl_flags(['program', f'--flagfile={path}'])
    flags.FLAGS.unparse_flags()
    assert exit_.value.code == 2
    assert f'{path}: expected a file of UTF-8 text' in capsys.readouterr().err


def test_a_run_leaves_all_its_files(tmp_path, capsys):
    path = run(tmp_path, '--preset', 'smoke')
    assert 'report: ' in capsys.readouterr().out
    assert path == tmp_path / 'report.html'
    environment = json.loads((tmp_path / 'environment.json').read_text())
    assert environment['versions']['jax'] and environment['devices']
    assert environment['start_time'] <= environment['end_time']
    assert json.loads((tmp_path / 'results.json').read_text())['metrics']['final_error'] > 0
    page = path.read_text()
    assert 'data:image/png;base64,' in page and '>3</th>' in page and 'src="http' not in page
    assert (tmp_path / 'figures' / 'learning.png').stat().st_size > 1000


@pytest.mark.usefixtures('no_drawing')
def test_another_config_is_refused_without_changes(tmp_path):
    run(tmp_path, '--preset', 'smoke')
    before = {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()}
    with pytest.raises(
        UsageError, match=r'holds a run with weight=0.01, expected 0.5; .*--overwrite'
    ):
        run(tmp_path, '--preset', 'smoke', '--weight', '0.5')
    assert {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()} == before
    # Run options may change.
    run(tmp_path, '--preset', 'smoke', '--parallel', 'pmap', '--log_every', '2')
    (tmp_path / 'mine.txt').write_text('not a run file')
    run(tmp_path, '--preset', 'smoke', '--weight', '0.5', '--overwrite')
    assert json.loads((tmp_path / 'config.json').read_text())['weight'] == 0.5
    assert (tmp_path / 'mine.txt').exists()


@pytest.mark.usefixtures('no_drawing')
def test_bad_data_keeps_the_old_run_even_with_overwrite(tmp_path):
    run(tmp_path, '--preset', 'smoke')
    with pytest.raises(UsageError, match='a set needs at least 1'):
        run(tmp_path, '--preset', 'smoke', '--examples', '0', '--overwrite')
    assert (tmp_path / 'report.html').exists()


def test_an_indivisible_batch_leaves_no_directory(tmp_path):
    """Only under pmap, which cannot divide it."""
    with pytest.raises(UsageError, match='use 8 or 12, or --parallel jit'):
        run(tmp_path / 'run', '--devices', '4', '--batch_size', '10', '--parallel', 'pmap')
    assert not (tmp_path / 'run').exists()


@pytest.mark.usefixtures('no_drawing')
def test_a_batch_that_devices_do_not_divide_is_trained_on(tmp_path, caplog):
    """As one device trains on it, and the log names the sizes that load all devices equally."""
    options = ['--preset', 'smoke', '--batch_size', '10']
    with caplog.at_level('INFO', 'lecture4'):
        run(tmp_path / 'four', '--devices', '4', *options)
    assert 'batch_size 10 is not divisible by 4 devices; use 8 or 12' in caplog.text
    run(tmp_path / 'one', '--devices', '1', *options)
    losses = [
        [row['loss'] for row in read(tmp_path / name / 'metrics.jsonl') if 'loss' in row]
        for name in ('one', 'four')
    ]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


def test_an_unwritable_directory_is_reported(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UsageError, match=r'cannot write to .* choose another --workdir'):
        run(tmp_path / 'file' / 'run', '--preset', 'smoke')


def test_a_bucket_is_no_directory():
    this = from_module(toy)
    config = cli.parse(this, ['--workdir', 'gs://bucket/run'])
    with pytest.raises(UsageError, match=r'--workdir gs://bucket/run: expected a directory; mount'):
        cli.run(this, config)


@pytest.mark.parametrize(
    ('part', 'function', 'match'),
    [
        ('data', lambda config: [1], r'data returned list \[1\]; expected a train\.Data'),
        (
            'build',
            lambda config, spec: None,
            r'build returned NoneType None; expected a train\.Task',
        ),
        ('apply', lambda config, spec: None, r'apply returned NoneType None; expected a dict'),
        ('report', lambda *_: {'loss': 1}, r'report returned dict .*; expected a train\.Report'),
    ],
)
def test_a_slip_in_the_contract_is_explained(tmp_path, part, function, match):
    this = from_module(toy)._replace(**{part: function})
    config = cli.parse(this, ['--steps', '1', '--progress', 'none', '--workdir', str(tmp_path)])
    with pytest.raises(TypeError, match=match):
        cli.run(this, config)


def test_a_config_of_another_kind_is_explained():
    with pytest.raises(TypeError, match=r'expected a dataclass derived from train\.Config'):
        cli.main(dict, toy.data, toy.build, toy.apply, toy.report, metrics=toy.METRICS)  # pyright: ignore


def test_a_dry_run_prints_the_checked_options_and_runs_nothing(tmp_path, capsys):
    argv = ['--workdir', str(tmp_path / 'a'), '--hidden', '5', '--dry_run']
    assert cli.run(EXPERIMENT, cli.parse(EXPERIMENT, argv)) is None
    printed = json.loads(capsys.readouterr().out)
    assert printed['workdir'] == str(tmp_path / 'a') and printed['config']['hidden'] == 5
    assert not (tmp_path / 'a').exists()
    with pytest.raises(UsageError, match='--stage table needs a sweep'):
        cli.run(EXPERIMENT, cli.parse(EXPERIMENT, [*argv, '--stage', 'table']))


def test_a_run_does_not_start_on_devices_of_another_platform(tmp_path):
    argv = ['--workdir', str(tmp_path / 'a'), '--platform', 'gpu']
    with pytest.raises(
        UsageError, match=r'--platform gpu, but JAX sees .* cpu; install jax\[cuda\]'
    ):
        cli.run(EXPERIMENT, cli.parse(EXPERIMENT, argv))
    assert not (tmp_path / 'a').exists()


def test_the_directory_is_checked_before_data_are_read(tmp_path):
    (tmp_path / 'file').touch()
    argv = ['--workdir', str(tmp_path / 'file' / 'a'), '--examples', '0']
    with pytest.raises(
        UsageError, match=r'cannot write to .*file is not a directory; choose another'
    ):
        cli.run(EXPERIMENT, cli.parse(EXPERIMENT, argv))


def test_a_failing_report_names_the_figure_and_keeps_the_model(tmp_path):
    from lecture4.figures import lines

    def report(config, state, data):
        lines.panels({})

    this = EXPERIMENT._replace(report=report)
    argv = ['--workdir', str(tmp_path), '--preset', 'smoke', '--progress', 'none']
    with pytest.raises(ValueError, match='no panel to draw') as raised:
        cli.run(this, cli.parse(this, argv))
    (note,) = raised.value.__notes__
    assert note.startswith(
        'The report failed in figure lines.panels. The trained model, checkpoints'
    )
    assert (tmp_path / 'model.safetensors').exists() and (tmp_path / 'metrics.jsonl').exists()
