"""The command that measures on accelerators runs on a CPU at tiny sizes, in parts that can be interrupted."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
COMMAND = [sys.executable, '-m', 'tests.benchmarks.accelerator', '--smoke']


@pytest.mark.slow
def test_all_parts_are_measured_after_an_interruption(tmp_path):
    command = [*COMMAND, '--workdir', str(tmp_path)]
    first = subprocess.run(
        [*command, '--minutes', '0.001'], cwd=ROOT, capture_output=True, text=True
    )
    assert first.returncode == 75 and 'run the same command again' in first.stdout, first.stderr
    second = subprocess.run([*command, '--minutes', '60'], cwd=ROOT, capture_output=True, text=True)
    assert second.returncode == 0, second.stderr[-3000:]
    parts = {path.stem: json.loads(path.read_text())['rows'] for path in tmp_path.glob('*.json')}
    assert len(parts) == 7 and all(row['measured'] > 0 for rows in parts.values() for row in rows)
    for name in parts:
        assert f'| {name} |' in second.stdout


def test_an_unknown_part_is_refused():
    result = subprocess.run([*COMMAND, '--only', 'code'], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2 and 'unknown parts code; expected codes' in result.stderr
