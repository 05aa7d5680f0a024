"""Two processes of two devices each on this host: the same numbers as one process."""

import re
import signal
import time

import numpy as np
import pytest

from lecture4.train import cli, encode
from lecture4.train.experiment import from_module
from lecture4.train.metric_writer import read
from tests.launch.running import TOY, environ, rows, run, start
from tests.train import toy

TWO = [
    '--processes',
    '2',
    '--',
    *TOY,
    '--devices',
    '4',
    '--progress',
    'none',
    '--init_timeout',
    '60',
]
EXPERIMENT = from_module(toy)
ONE = [*TOY[3:], '--progress', 'none']


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
    """One process, one device."""
    directory = tmp_path_factory.mktemp('alone')
    argv = [*ONE, '--devices', '1', '--workdir', str(directory)]
    cli.run(EXPERIMENT, cli.parse(EXPERIMENT, argv))
    return rows(directory)


def close(ours, theirs):
    """Sums over devices have another order: 1e-5 after 30 steps of Adam."""
    assert [row['step'] for row in ours] == [row['step'] for row in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(other, rel=1e-5)


def wait_for_step(directory, step):
    for _ in range(4800):
        if any(row['step'] >= step for row in read(directory / 'metrics.jsonl')):
            return
        time.sleep(0.05)
    raise AssertionError(f'no step {step}')


@pytest.mark.slow
def test_two_processes_train_like_one_and_encode(tmp_path, alone):
    code, out, errors = run('launch.local', *TWO, '--workdir', tmp_path)
    assert code == 0, errors
    close(rows(tmp_path), alone)
    assert '[0] report: ' in out and '[1] report' not in out  # only process 0 prints and writes
    for index in (0, 1):
        expected = rf'^\[{index}\] .*process {index} of 2, 2 x cpu local, 4 in total$'
        assert re.search(expected, errors, re.MULTILINE)
    code, out, errors = run('launch.local', *TWO, '--workdir', tmp_path, '--stage', 'encode')
    assert code == 0, errors
    assert encode.read(tmp_path / 'codes')['codes'].shape == (64, 3)


@pytest.mark.slow
def test_a_run_interrupted_in_one_process_resumes_in_another(tmp_path, alone):
    """SIGTERM to the launcher: all save the same step and exit with 75; one process resumes."""
    process = start('launch.local', *TWO, '--workdir', tmp_path, '--delay', '0.1')
    wait_for_step(tmp_path, 3)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 75, errors
    saved = rows(tmp_path)[-1]['step']
    assert errors.count(f'SIGTERM: saved step {saved}; run the same command') == 2
    argv = [*ONE, '--devices', '1', '--workdir', tmp_path, '--delay', '0.1']
    code, _, errors = run('tests.train.toy', *argv)
    assert code == 0 and f'restored step {saved}' in errors, errors
    close(rows(tmp_path), alone)


@pytest.mark.slow
def test_a_failing_process_stops_all_and_a_restart_finishes(tmp_path, alone):
    """One process kills itself at step 15; the restart resumes."""
    env = environ(TOY_DIES='1:15', TOY_ONCE=str(tmp_path / 'once'))
    code, _, errors = run(
        'launch.local',
        '--restarts',
        '1',
        *TWO,
        '--workdir',
        tmp_path / 'a',
        '--delay',
        '0.1',
        env=env,
    )
    assert code == 0, errors
    assert 'process 1 exited with 137' in errors
    assert 'exit code 137; restarting, 1 restarts left' in errors
    assert 'restored step 10' in errors
    close(rows(tmp_path / 'a'), alone)


@pytest.mark.slow
def test_a_stalled_process_counts_as_failed(tmp_path):
    env = environ(TOY_HANGS='1:5')
    argv = ['--stall_timeout', '15', *TWO, '--workdir', tmp_path]
    code, _, errors = run('launch.local', *argv, env=env)
    assert code == 124, errors
    assert 'launch.local: no step for 15 s; process' in errors


def test_a_usage_error_is_one_line(tmp_path):
    code, _, errors = run('launch.local', *TWO, '--workdir', tmp_path, '--parallel', 'pmap')
    assert code == 2
    lines = [line for line in errors.splitlines() if 'toy:' in line]
    expected = 'toy: --parallel pmap works in one process, not in 2; use --parallel jit'
    assert {line[4:] for line in lines} == {expected}  # at least of the process that ended first
    assert 'Traceback' not in errors


@pytest.mark.slow
def test_a_second_run_in_a_directory_is_refused(tmp_path):
    # Long enough that it is still running when the second has started, on a busy machine too.
    first = start('launch.local', *TWO, '--workdir', tmp_path, '--delay', '2')
    wait_for_step(tmp_path, 1)
    code, _, errors = run('tests.train.toy', *ONE, '--workdir', tmp_path, '--delay', '2')
    first.send_signal(signal.SIGTERM)
    _, first_errors = first.communicate(timeout=120)
    assert code == 2
    assert 'another process is writing to' in errors and 'Traceback' not in errors
    assert first.returncode == 75, first_errors


@pytest.mark.slow
def test_a_workdir_invisible_to_a_process_is_refused(tmp_path):
    """Each process has a directory of its own under the same relative name."""
    for name in ('0', '1'):
        (tmp_path / name).mkdir()
    env = environ(TOY_CHDIR=str(tmp_path))
    code, _, errors = run('launch.local', *TWO, '--workdir', 'here', env=env)
    assert code == 2, errors
    assert 'does not see the files of process 0 in' in errors
    assert 'use a --workdir on a file system shared by all hosts' in errors
    assert 'Traceback' not in errors


@pytest.mark.slow
def test_codes_are_independent_of_the_number_of_processes(tmp_path):
    for name, argv in (('two', ['launch.local', *TWO]), ('one', ['tests.train.toy', *ONE])):
        for stage in ([], ['--stage', 'encode']):
            code, _, errors = run(*argv, '--workdir', tmp_path / name, '--examples', '9000', *stage)
            assert code == 0, errors
    two, one = (encode.read(tmp_path / name / 'codes')['codes'] for name in ('two', 'one'))
    assert two.shape == (9000, 3)
    files = sorted(path.name for path in (tmp_path / 'two' / 'codes').glob('*.npz'))
    assert len(files) == 3  # of process 0, 1, 0
    np.testing.assert_allclose(two, one, atol=1e-4)
