"""Notebooks are stored without outputs, and run from the first cell to the last."""

import ast
import json
import os
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / 'experiments/notebooks').glob('*.ipynb'))
# What is made smaller for the test: text in a cell -> text in its place.
SMALLER = {
    'NUM_PATCHES, NUM_STEPS = 50_000, 90': 'NUM_PATCHES, NUM_STEPS = 3000, 3',
    "STEPS, WORKDIR = 4000, 'runs/latent_space'": "STEPS, WORKDIR = 100, 'run'",
}


def test_there_are_two_notebooks():
    assert [path.stem for path in NOTEBOOKS] == ['latent_space', 'sparse_codes']


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_have_no_outputs(path):
    cells = json.loads(path.read_text())['cells']
    code = [cell for cell in cells if cell['cell_type'] == 'code']
    assert not any(cell['outputs'] or cell['execution_count'] for cell in code)
    for cell in code:
        ast.parse(''.join(cell['source']))
    text = path.read_text()
    assert any(json.dumps(words)[1:-1] in text for words in SMALLER)


@pytest.mark.slow
@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path, tmp_path, monkeypatch):
    nbformat = pytest.importorskip('nbformat')
    nbclient = pytest.importorskip('nbclient')
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')]))
    text = path.read_text()
    for words, smaller in SMALLER.items():
        text = text.replace(json.dumps(words)[1:-1], json.dumps(smaller)[1:-1])
    notebook = nbformat.reads(text, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=600, resources={'metadata': {'path': str(tmp_path)}}
    ).execute()
    images = [
        output
        for cell in notebook.cells
        for output in cell.get('outputs', ())
        if 'image/png' in output.get('data', {})
    ]
    assert len(images) == {'sparse_codes': 2, 'latent_space': 3}[path.stem]
