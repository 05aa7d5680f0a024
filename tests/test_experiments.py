"""Every experiment's smoke preset leaves a report and declared metrics; every option has a help of its own."""

import dataclasses
import importlib
import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import pytest

from lecture4 import train
from lecture4.train import cli, experiment, fields, metrics
from lecture4.train.checkpoint import Checkpoints
from lecture4.train.config import RunOptions, config_fingerprint
from lecture4.train.metric_writer import read

ROOT = pathlib.Path(__file__).parent.parent
EXPERIMENTS = sorted(
    path for path in (ROOT / 'experiments').rglob('*.py') if not path.name.startswith('__')
)
# Begins with a capital or an option's first value, ends as a sentence or with an example of values.
SENTENCE = re.compile(r'[A-Z(][^\n]*(?:[.)\]]|[:=] ?\S+(?: \S+=\S+)?)')
MAX_LINES = 200


def module_name(path):
    return '.'.join(path.relative_to(ROOT).with_suffix('').parts)


def named(path):
    return experiment.from_module(importlib.import_module(module_name(path)))


@pytest.fixture
def users_promotion():
    """What users have; the library's own tests are stricter."""
    with jax.numpy_dtype_promotion('standard'), jax.numpy_rank_promotion('allow'):
        yield


@pytest.mark.parametrize('path', EXPERIMENTS, ids=lambda path: path.stem)
def test_smoke_preset_leaves_declared_metrics(path, tmp_path, users_promotion):
    this = named(path)
    options = ['--preset', 'smoke', '--workdir', str(tmp_path), '--progress', 'none']
    config = cli.parse(this, [*options, '--devices', '1'])
    cli.run(this, config)

    results = json.loads((tmp_path / 'results.json').read_text())
    primary = metrics.primary(this.metrics)
    assert results['primary'] == primary.name and primary.better in ('higher', 'lower')
    metrics.check_metrics(this.metrics, results['metrics'], 'results.json')
    rows = read(tmp_path / 'metrics.jsonl')
    assert rows and rows[-1]['step'] == config.steps
    for row in rows:
        metrics.check_metrics(this.metrics, row, 'metrics.jsonl', primary_required=False)
    page = (tmp_path / 'report.html').read_text()
    assert 'data:image/png;base64,' in page and 'could not be drawn' not in page
    assert Checkpoints(tmp_path / 'checkpoints').latest_step() == config.steps
    model = train.load(tmp_path)
    assert config_fingerprint(model.config) == config_fingerprint(config) and model.functions
    assert all(callable(function) for function in model.functions.values())


@pytest.mark.slow
@pytest.mark.parametrize('setting', ['JAX_ENABLE_X64', 'JAX_DEBUG_NANS'])
@pytest.mark.parametrize('path', EXPERIMENTS, ids=lambda path: path.stem)
def test_smoke_preset_runs_under_a_users_setting_of_jax(path, setting, tmp_path):
    """Float64 by default, NaNs as errors, and in both ranks that are not promoted."""
    command = [sys.executable, '-m', module_name(path), '--preset', 'smoke', '--progress', 'none']
    command += ['--workdir', str(tmp_path)]
    env = {**os.environ, setting: '1', 'JAX_NUMPY_RANK_PROMOTION': 'raise'}
    result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    assert (tmp_path / 'report.html').exists()


def test_experiment_runs_from_its_command_line(tmp_path):
    command = [sys.executable, '-m', 'experiments.detection.proposals', '--preset', 'smoke']
    command += ['--workdir', str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / 'report.html').exists()


@pytest.mark.parametrize('path', EXPERIMENTS, ids=lambda path: path.stem)
def test_every_option_has_a_help_of_its_own(path):
    this = named(path)
    helps = fields.helps(this.config)
    assert not [name for name, text in helps.items() if not text]
    assert not [text for text in helps.values() if not SENTENCE.fullmatch(text)]
    assert len(set(helps.values())) == len(helps)


@pytest.mark.parametrize('path', EXPERIMENTS, ids=lambda path: path.stem)
def test_presets_and_sweeps_are_valid(path):
    this = named(path)
    options = {field.name for field in dataclasses.fields(RunOptions)}
    for name in this.presets:
        assert cli.parse(this, ['--preset', name]).preset == name
    for name, variants in this.sweeps.items():
        assert variants and not options & {field for variant in variants for field in variant}
        assert cli.parse(this, ['--sweep', name]).sweep == name


@pytest.mark.parametrize('path', EXPERIMENTS, ids=lambda path: path.stem)
def test_file_is_short_and_its_docstring_a_result_record(path):
    text = path.read_text()
    assert len(text.splitlines()) <= MAX_LINES
    about = named(path).about
    for part in ('\nRun:', '\nHardware:', '\nResults:'):
        assert part in about


def test_experiments_are_listed():
    command = [sys.executable, '-m', 'experiments']
    listed = subprocess.check_output(command, cwd=ROOT, text=True).splitlines()
    assert [line.split()[2] for line in listed] == [module_name(path) for path in EXPERIMENTS]
    assert all(len(line.split()) > 4 for line in listed)


@pytest.mark.parametrize(
    ('name', 'hint'),
    [
        ('experiments.self_taught', 'did you mean experiments.sparse_coding.self_taught?'),
        ('experiments.convnets.resnet_cifra', 'did you mean experiments.convnets.resnet_cifar?'),
        ('experiments.descriptions', 'one of experiments.descriptions.alignment, '),
        ('experiments.zzz', 'python -m experiments lists all'),
    ],
)
def test_the_nearest_experiment_is_named(name, hint):
    command = [sys.executable, '-m', name, '--preset', 'smoke']
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2 and result.stderr.startswith(
        f'{name} is not an experiment; {hint}'
    )
    assert len(result.stderr.splitlines()) == 1
