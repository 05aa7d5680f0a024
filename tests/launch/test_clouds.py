"""TPU VMs and GKE with stand-ins for gcloud and kubectl; no real pod takes part."""

import json

import pytest

from tests.launch import fakes
from tests.launch.running import ROOT, TOY, environ, rows, run

# the hosts of the stand-in share this machine's interpreter
SETUP = f'ln -sfn {ROOT / ".venv"} .venv'
TPU = ['--name', 'a', '--zone', 'z', '--type', 'v5litepod-8', '--poll', '0.2', '--setup', SETUP]


@pytest.mark.slow
def test_a_tpu_slice_of_two_hosts(tmp_path):
    """create, copy, setup, run: two workers find one another as a TPU slice does, and train."""
    env = environ(**fakes.install(tmp_path, 'gcloud'))
    toy = [*TOY, '--progress', 'none', '--devices', '2', '--workdir', tmp_path / 'shared']
    code, out, errors = run('launch.tpu', *TPU, '--spot', '--project', 'p', '--', *toy, env=env)
    assert code == 0, errors
    assert 'report: ' in out
    assert rows(tmp_path / 'shared')[-1]['step'] == 30
    log = (tmp_path / 'worker1' / 'lecture4' / 'run.log').read_text()
    assert 'process 1 of 2' in log
    called = fakes.calls(tmp_path)
    assert called[0] == [
        *('gcloud', 'compute', 'tpus', 'queued-resources', 'create', 'a', '--node-id=a'),
        '--accelerator-type=v5litepod-8',
        '--runtime-version=v2-alpha-tpuv5-lite',
        *('--spot', '--zone=z', '--project=p'),
    ]
    assert [words[4] for words in called[1:4]] == ['describe'] * 3
    assert called[4][3:5] == ['tpu-vm', 'scp'] and '--worker=all' in called[4]
    assert all('--zone=z' in words and '--project=p' in words for words in called)
    # the tree without what git ignores
    assert (tmp_path / 'worker0' / 'lecture4' / 'launch' / 'tpu.py').exists()
    assert not (tmp_path / 'worker0' / 'lecture4' / '.cache').exists()

    code, out, errors = run('launch.tpu', *TPU, '--do', 'logs,delete', env=env)
    assert code == 0, errors
    assert 'process 0 of 2' in out
    assert fakes.calls(tmp_path)[-1][3:8] == [
        *('queued-resources', 'delete', 'a', '--force', '--quiet'),
    ]


def test_a_failing_host_is_told(tmp_path):
    """One worker's command line is wrong: exit code 2 of both, and the last lines of the log."""
    env = environ(**fakes.install(tmp_path, 'gcloud', workers=1))
    for name in ('launch', 'lecture4'):
        (tmp_path / 'worker0' / name).mkdir()
    argv = [*TPU, '--do', 'setup,run', '--', 'python', '-m', 'none', '--workdir', '/x']
    code, _, errors = run('launch.tpu', *argv, env=env)
    assert code == 1
    assert 'No module named none' in errors
    assert 'launch.tpu: the hosts ended with 1' in errors


def test_a_slice_that_is_there_is_taken(tmp_path):
    env = environ(**fakes.install(tmp_path, 'gcloud'))
    (tmp_path / 'exists').touch()
    code, _, errors = run('launch.tpu', *TPU, '--do', 'create', env=env)
    assert code == 0, errors
    assert [words[4] for words in fakes.calls(tmp_path)] == ['create'] + ['describe'] * 3


def test_a_request_that_fails(tmp_path):
    env = environ(**fakes.install(tmp_path, 'gcloud'))
    (tmp_path / 'states').write_text('WAITING_FOR_RESOURCES FAILED')
    code, _, errors = run('launch.tpu', *TPU, '--do', 'create', env=env)
    assert code == 2
    assert 'the request a is FAILED; --do delete it, then try another --zone' in errors


def test_data_and_shares_are_set_up_on_every_host(capsys):
    from launch import tpu

    argv = ['--share', '10.0.0.2:/vol', '--data', 'gs://b/sets', '--do', 'setup,run', '--dry_run']
    assert tpu.main([*TPU, *argv, '--', *TOY, '--workdir', '/mnt/shared/a']) == 0
    out = capsys.readouterr().out
    assert 'sudo mount -t nfs 10.0.0.2:/vol /mnt/shared' in out
    assert 'gcloud storage rsync --recursive gs://b/sets data' in out
    assert 'sha256sum --quiet -c SHA256SUMS' in out and '--data_dir ../data' in out


def test_gke_applies_shows_and_deletes(tmp_path):
    env = environ(**fakes.install(tmp_path, 'kubectl'))
    argv = ['--name', 'a', '--image', 'i', '--accelerator', 'tpu-v6e-slice', '--topology', '2x4']
    code, out, errors = run('launch.gke', *argv, '--', *TOY, '--workdir', '/mnt/shared/a', env=env)
    assert code == 0, errors
    assert 'created' in out
    made = json.loads((tmp_path / 'manifest').read_text())
    (replicated,) = made['spec']['replicatedJobs']
    assert replicated['template']['spec']['completions'] == 2
    for do in ('logs', 'delete'):
        assert run('launch.gke', '--name', 'a', '--do', do, env=env)[0] == 0
    assert fakes.calls(tmp_path)[1:] == [
        *(['kubectl', 'logs', '-l', 'jobset.sigs.k8s.io/jobset-name=a', '--prefix', '--tail=50'],),
        ['kubectl', 'delete', 'jobset', 'a'],
    ]
