"""Bugs planted one at a time are found by the default tests: at least nine of ten.

The list is `tests/planted_bugs.py`. PLANTED=START:STOP runs a part of it:

    PLANTED=0:20 python -m pytest -m slow tests/test_planted_bugs.py
"""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.planted_bugs import PLANTED

ROOT = pathlib.Path(__file__).parent.parent
FOUND = 0.9  # of the bugs, at least


def test_planted_bugs_fit_the_code():
    """Each is of text that stands in its file once, and names tests that exist."""
    wrong = [
        (file, old)
        for file, old, new, tests in PLANTED
        if (ROOT / file).read_text().count(old) != 1
        or old == new
        or not all((ROOT / name).exists() for name in tests.split())
    ]
    assert not wrong
    assert len(PLANTED) >= 60


@pytest.fixture
def copy(tmp_path):
    """The code and its tests, apart from those that others may be running."""
    for name in ('lecture4', 'experiments', 'launch', 'tests'):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ('pyproject.toml', 'README.md'):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / '.cache').symlink_to(ROOT / '.cache')
    return tmp_path


@pytest.mark.slow
def test_most_planted_bugs_are_found(copy, capsys):
    start, _, stop = os.environ.get('PLANTED', ':').partition(':')
    chosen = PLANTED[int(start or 0) : int(stop or len(PLANTED))]
    missed = []
    for number, (file, old, new, tests) in enumerate(chosen, int(start or 0)):
        path = copy / file
        text = path.read_text()
        path.write_text(text.replace(old, new))
        command = [sys.executable, '-m', 'pytest', '-x', '-q', *tests.split()]
        result = subprocess.run(command, cwd=copy, capture_output=True, text=True)
        path.write_text(text)
        assert result.returncode in (0, 1), result.stdout + result.stderr  # tests ran
        if result.returncode == 0:
            missed.append(f'{file}: {new}')
        with capsys.disabled():
            print(f'{number:3} {"found" if result.returncode else "MISSED":6} {file}', flush=True)
    rate = 1 - len(missed) / len(chosen)
    with capsys.disabled():
        print(
            f'{len(chosen) - len(missed)} of {len(chosen)} planted bugs found ({100 * rate:.0f} %)'
        )
    assert rate >= FOUND, missed
