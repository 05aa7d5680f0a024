"""Every experiment's smoke preset runs from its command line and leaves a report."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
EXPERIMENTS = sorted(
    path for path in (ROOT / 'experiments').rglob('*.py') if path.name != '__init__.py'
)


@pytest.mark.parametrize('path', EXPERIMENTS, ids=lambda path: path.stem)
def test_smoke_preset(path, tmp_path):
    module = '.'.join(path.relative_to(ROOT).with_suffix('').parts)
    command = [sys.executable, '-m', module, '--preset', 'smoke', '--workdir', str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert 'data:image/png;base64,' in (tmp_path / 'report.html').read_text()
