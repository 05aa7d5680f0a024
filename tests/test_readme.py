"""What the README shows as complete runs as it stands there."""

import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent


def test_own_experiment_runs_as_printed(tmp_path):
    text = (ROOT / 'README.md').read_text()
    (code,) = re.findall(r'<!-- example -->\n```python\n(.*?)```', text, re.DOTALL)
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
