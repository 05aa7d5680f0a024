"""The import rule: which package may import which."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
MAY_IMPORT = {
    'ops': set(),
    'sparse': {'ops'},
    'classifiers': {'ops'},
    'features': {'ops', 'classifiers', 'sparse'},
    'autoencoder': {'ops', 'sparse'},
    'vision': {'ops', 'classifiers'},
    'language': {'ops', 'vision'},
    'data': {'ops'},
    'figures': {'ops'},
    'train': {'ops', 'data', 'figures'},
}
FILES = sorted((ROOT / 'lecture4').rglob('*.py'))


def imported(path):
    """Every module that a file imports, also inside its functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f'{path} has a relative import'
            yield node.module
            yield from (f'{node.module}.{alias.name}' for alias in node.names)


EXPERIMENTS = sorted(
    path for path in (ROOT / 'experiments').rglob('*.py') if path.name != '__init__.py'
)


def test_there_are_files():
    assert len(FILES) > 300 and len(EXPERIMENTS) > 30


def test_a_package_imports_only_what_it_may():
    for path in FILES:
        parts = path.relative_to(ROOT / 'lecture4').parts
        if len(parts) == 1:
            continue  # lecture4/__init__.py
        package = parts[0]
        for name in imported(path):
            assert not name.startswith(('experiments', 'launch', 'tests')), f'{path} imports {name}'
            if name.startswith('lecture4.'):
                other = name.split('.')[1]
                is_allowed = other == package or other in MAY_IMPORT[package]
                assert is_allowed, f'{path} of {package} may not import {other}'
            if name.split('.')[0] == 'flax':
                assert package in ('vision', 'language'), f'{path} imports flax'


def test_experiments_never_import_one_another():
    for path in EXPERIMENTS:
        assert not [name for name in imported(path) if name.startswith('experiments')], path


@pytest.mark.parametrize(
    'module, absent',
    [
        ('lecture4.ops.prox', ('flax', 'orbax', 'tensorflow_datasets', 'matplotlib', 'optax')),
        ('lecture4.train', ('orbax', 'tensorflow_datasets', 'matplotlib', 'grain', 'sklearn')),
        (
            'lecture4.data.sources.registry',
            ('jax', 'tensorflow_datasets', 'sklearn', 'skimage', 'grain'),
        ),
    ],
)
def test_nothing_heavy_comes_along(module, absent):
    code = f'import sys, {module}; print(*[m for m in {absent!r} if m in sys.modules])'
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == ''


def test_files_stay_short():
    long = {str(path): n for path in FILES if (n := len(path.read_text().splitlines())) > 400}
    assert not long
