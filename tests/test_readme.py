"""What the README shows runs as it stands there; its pages name every experiment and existing functions."""

import importlib
import inspect
import json
import pathlib
import pkgutil
import re
import shlex
import subprocess
import sys
import typing

import jax
import numpy as np
import pytest
from PIL import Image

import lecture4
from experiments.__main__ import listed, pages
from lecture4.train import cli, experiment

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / 'README.md').read_text()


def block(name):
    """The code block behind a mark of the README."""
    (code,) = re.findall(rf'<!-- {name} -->\n```\w+\n(.*?)```', README, re.DOTALL)
    return code


def run_command(line, **changed):
    """A command of the README in this process, with other values of some options."""
    words = shlex.split(line)
    assert words[:2] == ['python', '-m']
    this = experiment.from_module(importlib.import_module(words[2]))
    options = [changed.get(word, word) for word in words[3:]]
    common = ['--progress', 'none', '--devices', '1']
    with jax.numpy_dtype_promotion('standard'), jax.numpy_rank_promotion('allow'):
        return cli.run(this, cli.parse(this, [*options, *common]))


def test_own_experiment_runs_as_printed(tmp_path):
    code = block('example')
    assert len(code.splitlines()) < 100
    path = tmp_path / 'my_experiment.py'
    path.write_text(code)
    command = [sys.executable, str(path), '--workdir', str(tmp_path / 'run'), '--steps', '200']
    result = subprocess.run(
        command, cwd=tmp_path, env={'PYTHONPATH': str(ROOT)}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / 'run/results.json').read_text())['metrics']
    assert metrics['accuracy'] > 0.85


def test_codes_of_patches_in_few_lines():
    code = block('codes')
    assert len([line for line in code.splitlines() if line]) <= 12
    scope = {}
    with jax.numpy_dtype_promotion('standard'), jax.numpy_rank_promotion('allow'):
        exec(code, scope)
    codes = np.asarray(scope['solution'].codes)
    assert codes.shape == (1000, 128) and 0.01 < np.mean(codes != 0) < 0.3
    assert np.asarray(scope['solution'].converged).all()
    reconstruction = codes @ np.asarray(scope['state'].atoms).T
    x = scope['signals'][:1000]
    assert np.mean((reconstruction - x) ** 2) < 0.7 * np.mean(x**2)


def test_a_network_for_own_images_predicts_new_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name, level in (('dark', 40), ('light', 200)):
        for i in range(10):
            for folder in (f'own/{name}', 'new'):
                (tmp_path / folder).mkdir(parents=True, exist_ok=True)
                pixels = rng.integers(level, level + 50, (40, 36, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / folder / f'{name}{i}.png')
    train, predict = block('predict').splitlines()
    short = ' --steps 2 --batch_size 8'
    run_command(train + short, **{'dir:PHOTOS': f'dir:{tmp_path}/own'})
    path = run_command(predict, **{'dir:NEW': f'dir:{tmp_path}/new'})
    assert path == pathlib.Path('runs/own/predictions.csv')
    assert len(path.read_text().splitlines()) == 21
    scope = {'x': rng.random((5, 32, 32, 3), np.float32)}
    with jax.numpy_dtype_promotion('standard'), jax.numpy_rank_promotion('allow'):
        exec(block('load'), scope)
    assert scope['probabilities'].shape == (5, 2)


TABLE = (ROOT / 'experiments/README.md').read_text()


def test_pages_are_the_docstrings_of_the_experiments():
    for path, text in pages().items():
        assert path.read_text() == text, 'run python -m experiments --write_pages'


def test_the_table_has_every_experiment():
    for name in listed():
        _, folder, last = name.split('.')
        assert re.search(rf'`(?:{folder})?\.{last}`', TABLE), (
            f'{name} is not in experiments/README.md'
        )


def test_pages_name_what_there_is():
    last_words = {name.rpartition('.')[2] for name in listed()}
    for page in (ROOT / 'experiments').glob('*/README.md'):
        named = re.findall(r'\((\w+\.py)\)', page.read_text())
        assert named and all((page.parent / file).is_file() for file in named)
    named = re.findall(
        r'`(?:sparse_coding|autoencoders|convnets|detection|descriptions)?\.(\w+)`', TABLE
    )
    assert len(named) > 25 and set(named) <= last_words
    for path in re.findall(
        r'`((?:ops|sparse|features|autoencoder|vision|language)/[a-z_/]+)`', TABLE
    ):
        place = ROOT / 'lecture4' / path
        assert place.is_dir() or place.with_suffix('.py').is_file(), path


@pytest.mark.parametrize(
    'package', [p.name for p in pkgutil.iter_modules(lecture4.__path__) if p.ispkg]
)
def test_packages_say_where_to_start(package):
    about = importlib.import_module(f'lecture4.{package}').__doc__ or ''
    named = re.findall(rf'^- `({package}\.[\w.]+)`', about, re.MULTILINE)
    assert len(named) == 5, about
    for name in named:
        module, _, function = f'lecture4.{name}'.rpartition('.')
        assert callable(getattr(importlib.import_module(module), function)), name


@pytest.mark.slow
def test_annotations_resolve_outside_their_modules():
    """As tools that write the API reference read them."""
    unresolved = {}
    for module in pkgutil.walk_packages(lecture4.__path__, 'lecture4.'):
        if '._' in module.name:
            continue  # imports the packages of an extra
        for name, value in vars(importlib.import_module(module.name)).items():
            if getattr(value, '__module__', '') == module.name and (
                inspect.isclass(value) or inspect.isfunction(value)
            ):
                try:
                    typing.get_type_hints(value)
                except NameError as error:
                    unresolved[f'{module.name}.{name}'] = str(error)
    assert not unresolved


def test_checks_build_the_api_reference_with_warnings_as_errors():
    command = "pdoc --docformat google -o docs lecture4 '!.*[.]_'"
    assert command in README
    assert f'python -W error -m {command}' in (ROOT / '.ci/run').read_text()
