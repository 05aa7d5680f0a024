"""Stand-ins for gcloud and kubectl: they record their arguments and do what a test can see.

Called through the two-line scripts that `install` puts on PATH. FAKES names a folder with a log of
calls (one JSON list a line), a folder for each worker, and a file `states` of what `describe` says.
An `ssh --worker=all` command runs once for every worker, at the same time, as on a slice.
"""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys

WORKERS = 2


def install(folder: pathlib.Path, *names: str, workers: int = WORKERS) -> dict[str, str]:
    """Put the stand-ins into a folder; returns the environment that finds them first."""
    for name in names:
        script = folder / 'bin' / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {name} "$@"\n')
        script.chmod(0o755)
    for worker in range(workers):
        (folder / f'worker{worker}').mkdir()
    (folder / 'states').write_text('WAITING_FOR_RESOURCES PROVISIONING ACTIVE')
    with socket.create_server(('', 0)) as server:
        port = str(server.getsockname()[1])
    return {
        'PATH': f'{folder / "bin"}:{os.environ["PATH"]}',
        'FAKES': str(folder),
        'JAX_COORDINATOR_PORT': port,
    }


def calls(folder: pathlib.Path) -> list[list[str]]:
    return [json.loads(line) for line in (folder / 'calls').read_text().splitlines()]


def main(words):
    folder = pathlib.Path(os.environ['FAKES'])
    with (folder / 'calls').open('a') as log:
        log.write(json.dumps(words) + '\n')
    workers = sorted(folder.glob('worker*'))
    if 'create' in words and (folder / 'exists').exists():
        sys.exit('ERROR: ALREADY_EXISTS: a')
    if 'describe' in words:
        state, _, left = (folder / 'states').read_text().partition(' ')
        (folder / 'states').write_text(left or state)
        print(state)
    elif 'scp' in words:
        for worker in workers:
            shutil.copy(words[words.index('scp') + 1], worker)
    elif 'ssh' in words:
        (text,) = [word[10:] for word in words if word.startswith('--command=')]
        sys.exit(max(one.wait() for one in [_ssh(text, w, len(workers)) for w in workers]))
    elif words[:2] == ['kubectl', 'apply']:
        (folder / 'manifest').write_text(sys.stdin.read())
        print('jobset.jobset.x-k8s.io/a created')
    elif 'rsync' in words:
        shutil.copytree(words[-2], folder / words[-1].removeprefix('gs://'))


def _ssh(text, worker, count):
    environ = {
        **os.environ,
        'HOME': str(worker),
        'TPU_WORKER_HOSTNAMES': ','.join(['127.0.0.1'] * count),
        'TPU_WORKER_ID': worker.name.removeprefix('worker'),
    }
    return subprocess.Popen(['bash', '-c', text], cwd=worker, env=environ)


if __name__ == '__main__':
    main(sys.argv[1:])
