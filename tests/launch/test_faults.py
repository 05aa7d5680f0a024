"""Two processes interrupted in every way at random moments: what a restart ends with.

python -m pytest -m faults tests/launch/test_faults.py     prints the table; a checkpoint is saved every 10 steps:

    fault                                runs  lost steps  equal at the end
    kill -9 of the coordinator              5     2 to 10  5 of 5
    kill -9 of the other rank               5      5 to 8  5 of 5
    kill -9 during a step                   4     1 to 11  4 of 4
    kill -9 during a save                  20     4 to 20  20 of 20
    SIGTERM to one rank                     3      0 to 0  3 of 3
    full disk                               2    20 to 20  2 of 2
    damaged newest checkpoint               3    10 to 10  3 of 3
    second launch on the same workdir       2      0 to 0  2 of 2

Lost steps have to be repeated; a save in progress can be lost together with the steps until the next one
is due. Equal: every row of metrics.jsonl once, with the numbers of an uninterrupted run to the last bit.
"""

import collections
import os
import pathlib
import random
import re
import signal
import subprocess
import time

import pytest

from lecture4.train.metric_writer import read
from tests.launch.running import TOY, environ, rows, run, start

pytestmark = pytest.mark.faults
STEPS = 30
SAVE = 1.5  # seconds that a slowed save takes
TABLE = collections.defaultdict(list)  # fault: (lost steps, equal at the end) of every run


def line(directory, *more):
    toy = [*TOY, '--delay', '0.06', '--workdir', directory, '--init_timeout', '120']
    return ['launch.local', '--processes', '2', '--', *toy, '--devices', '2', *more]


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
    directory = tmp_path_factory.mktemp('uninterrupted')
    code, _, errors = run(*line(directory))
    assert code == 0, errors
    return rows(directory)


def ranks(process) -> dict[int, int]:
    """{rank: process id} of a launcher's children."""
    found = {}
    children = pathlib.Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text()
    for child in children.split():
        words = pathlib.Path(f'/proc/{child}/cmdline').read_text().split('\0')
        if '--process_id' in words:
            found[int(words[words.index('--process_id') + 1])] = int(child)
    return found


def done(directory) -> int:
    return max((row['step'] for row in read(directory / 'metrics.jsonl')), default=0)


def wait_for(condition, process):
    ends = time.monotonic() + 240
    while time.monotonic() < ends and process.poll() is None:
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError(process.communicate(timeout=60)[1])


def resume(fault, directory, uninterrupted, reached):
    """Restart to the end, and note in the table whether it equals that of the uninterrupted run."""
    code, _, errors = run(*line(directory))
    assert code == 0, errors
    restored = re.search(r'restored step (\d+)', errors)
    first = int(restored[1]) if restored else 0
    assert first % 10 == 0 or fault.startswith('SIGTERM')
    TABLE[fault].append((max(reached - first, 0), rows(directory) == uninterrupted))
    return errors


def killed(fault, directory, uninterrupted, victims, moment, env=None):
    process = start(*line(directory), env=env)
    moment(process)
    alive = ranks(process)
    for victim in victims:
        os.kill(alive[victim], signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0, errors
    resume(fault, directory, uninterrupted, done(directory))
    return rows(directory)


@pytest.mark.parametrize('number', range(5))
@pytest.mark.parametrize('victim, name', [(0, 'coordinator'), (1, 'other rank')])
def test_kill_at_a_random_moment(tmp_path, uninterrupted, victim, name, number):
    def moment(process):
        wait_for(lambda: done(tmp_path) >= 1, process)
        time.sleep(random.uniform(0, 1.6))

    ended = killed(f'kill -9 of the {name}', tmp_path, uninterrupted, [victim], moment)
    assert ended == uninterrupted  # row by row and bit by bit


@pytest.mark.parametrize('number', range(4))
def test_kill_during_a_step(tmp_path, uninterrupted, number):
    """The process dies while the other waits for it in a collective of that step."""
    step = random.randrange(1, STEPS)
    env = environ(TOY_DIES=f'{number % 2}:{step}', TOY_ONCE=str(tmp_path / 'once'))
    directory = tmp_path / 'run'
    code, _, errors = run(*line(directory), env=env)
    assert code == 137, errors
    resume('kill -9 during a step', directory, uninterrupted, done(directory))
    assert rows(directory) == uninterrupted


@pytest.mark.parametrize('number', range(20))
def test_kill_during_a_slow_save(tmp_path, uninterrupted, number):
    which = random.choice((1, 2))  # the first save, or the second

    def saving():
        names = [path.name for path in (tmp_path / 'checkpoints').glob('*tmp*')]
        return any(name.startswith(f'{10 * which}.') for name in names)

    def moment(process):
        wait_for(saving, process)
        time.sleep(random.uniform(0, SAVE))
        HIT.append(saving())

    victims = ([0], [1], [0, 1])[number % 3]
    env = environ(TOY_SLOW_SAVE=str(SAVE))
    ended = killed('kill -9 during a save', tmp_path, uninterrupted, victims, moment, env)
    assert ended == uninterrupted


HIT: list[bool] = []


def test_most_kills_hit_a_save_in_progress():
    assert sum(HIT) >= len(HIT) / 2, HIT


@pytest.mark.parametrize('victim', (0, 1, 1))
def test_sigterm_to_one_rank(tmp_path, uninterrupted, victim):
    process = start(*line(tmp_path))
    wait_for(lambda: done(tmp_path) >= random.randrange(1, 15), process)
    os.kill(ranks(process)[victim], signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    reached = done(tmp_path)
    assert errors.count(f'SIGTERM: saved step {reached};') == 2
    assert f'restored step {reached}' in resume(
        'SIGTERM to one rank', tmp_path, uninterrupted, reached
    )
    assert rows(tmp_path) == uninterrupted


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 8 MB of its own."""
    directory = tmp_path / 'disk'
    directory.mkdir()
    made = ['mount', '-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', directory]
    if subprocess.run(made, capture_output=True).returncode:
        pytest.skip('only root may mount a small disk')
    yield directory
    subprocess.run(['umount', '-l', directory], check=True)


@pytest.mark.parametrize('left', (0, 3000))
def test_full_disk(small_disk, uninterrupted, left):
    """Full but for `left` bytes after the first save: the next one fails, or the row before it."""
    directory = small_disk / 'run'
    process = start(*line(directory))
    wait_for(lambda: (directory / 'checkpoints' / '10').exists(), process)
    with (small_disk / 'filler').open('wb', buffering=0) as filler:
        while True:
            try:
                filler.write(b'0' * 4096)
            except OSError:
                break
    if left:
        os.truncate(small_disk / 'filler', max((small_disk / 'filler').stat().st_size - left, 0))
    _, errors = process.communicate(timeout=120)
    assert process.returncode in (1, 2), errors
    reached = done(directory)
    (small_disk / 'filler').unlink()
    resume('full disk', directory, uninterrupted, reached)
    assert rows(directory) == uninterrupted
    last = next(text for text in errors.splitlines() if '] toy: ' in text)
    assert 'No space left' in last or 'last good checkpoint: step 10' in last, errors
    assert 'Traceback' not in errors, errors


def shorten(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zero(path):
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize('damage', (shorten, zero, pathlib.Path.unlink))
def test_damaged_newest_checkpoint(tmp_path, uninterrupted, damage):
    process = start(*line(tmp_path))
    wait_for(lambda: (tmp_path / 'checkpoints' / '20').exists(), process)
    for child in ranks(process).values():
        os.kill(child, signal.SIGKILL)
    process.communicate(timeout=60)
    newest = max(
        int(path.name) for path in (tmp_path / 'checkpoints').iterdir() if path.name.isdigit()
    )
    files = [path for path in (tmp_path / 'checkpoints' / str(newest)).rglob('*') if path.is_file()]
    for path in files:
        damage(path)
    errors = resume('damaged newest checkpoint', tmp_path, uninterrupted, newest)
    assert rows(tmp_path) == uninterrupted
    assert 'cannot be read' in errors and f'restored step {newest - 10}' in errors, errors


@pytest.mark.parametrize('number', range(2))
def test_two_launches_on_one_workdir(tmp_path, uninterrupted, number):
    first = start(*line(tmp_path))
    wait_for(lambda: done(tmp_path) >= 1, first)
    code, _, errors = run(*line(tmp_path))
    assert code == 2, errors
    assert 'another process is writing to' in errors and 'Traceback' not in errors
    _, first_errors = first.communicate(timeout=120)
    assert first.returncode == 0, first_errors
    TABLE['second launch on the same workdir'].append((0, rows(tmp_path) == uninterrupted))
    assert rows(tmp_path) == uninterrupted


def test_the_table(capsys):
    lines = [f'{"fault":36} {"runs":>4}  {"lost steps":>10}  equal at the end']
    for fault, runs in TABLE.items():
        lost = [steps for steps, _ in runs]
        equal = sum(same for _, same in runs)
        span = f'{min(lost)} to {max(lost)}'
        lines.append(f'{fault:36} {len(runs):4}  {span:>10}  {equal} of {len(runs)}')
    # A save in progress may be lost together with the one that is due.
    assert max(steps for runs in TABLE.values() for steps, _ in runs) <= 20
    with capsys.disabled():
        print('', *lines, sep='\n')
    assert TABLE and all(same for runs in TABLE.values() for _, same in runs)
