r"""Prepares an experiment's data sets once, with their sums, where all its jobs will read them.

    python -m launch.data --to /shared/sets -- \
        python -m experiments.sparse_coding.self_taught --preset cifar10 --download
    python -m launch.data --to gs://bucket/sets -- \
        python -m experiments.autoencoders.deep --preset mnist --manual_dir PATH
    python -m launch.data --to /shared/sets --check

The experiment then takes --data_dir /shared/sets; launch.tpu takes --data gs://bucket/sets and copies
it to every host. SHA256SUMS in the folder holds the sums of all files; a folder that has it is checked,
not written over. Sets that are read from --manual_dir as they are (olshausen, denoising) need no
preparation. Exit code: 0; 1 where a sum is wrong; 2 where something cannot be read or written.
"""

import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile

from launch import command

SUMS = 'SHA256SUMS'


def main(argv: list[str]) -> int:
    """Parse the options; prepare or check."""
    own, words = command.split(argv)
    parser = command.parser('launch.data', __doc__ or '')
    parser.add_argument('--to', required=True, help='a folder, or gs://BUCKET/FOLDER')
    parser.add_argument('--check', action='store_true', help='compare what is there with its sums')
    options = parser.parse_args(own)
    bucket = options.to.startswith('gs://')
    if options.check and bucket:
        raise command.LaunchError(
            '--check of a bucket: copy it to a folder first, then --check that'
        )
    if options.check:
        return 1 if wrong(pathlib.Path(options.to)) else 0
    line = command.experiment(words)
    if command.option(words, 'data_dir'):
        raise command.LaunchError('--data_dir of the experiment is what --to says; leave it out')
    if bucket and not options.dry_run:
        command.require('gcloud', 'install the Google Cloud CLI')
    if not bucket:
        return prepare(line, pathlib.Path(options.to).absolute(), options.dry_run)
    with tempfile.TemporaryDirectory(prefix='launch-') as folder:
        code = prepare(line, pathlib.Path(folder), options.dry_run)
        if not code:
            to = options.to.rstrip('/')
            command.call(['gcloud', 'storage', 'rsync', '--recursive', folder, to], options.dry_run)
        return code


def prepare(line: list[str], folder: pathlib.Path, dry_run: bool) -> int:
    """The experiment's own reading, with the folder as its data_dir; then the sums."""
    words = [*line, '--stage', 'data', '--data_dir', str(folder)]
    if dry_run:
        command.call(words, dry_run)
        return 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise command.LaunchError(
            f'cannot make {folder}: {error.strerror}; choose another --to'
        ) from None
    if (folder / SUMS).exists() and wrong(folder):
        return 1
    if code := subprocess.run(words, cwd=command.ROOT).returncode:
        return code
    found = sums(folder)
    if not found:
        print('launch.data: the experiment reads no set that has to be prepared', file=sys.stderr)
    temporary = folder / f'{SUMS}.tmp'
    temporary.write_text(''.join(f'{digest}  {name}\n' for name, digest in found.items()))
    os.replace(temporary, folder / SUMS)
    size = sum((folder / name).stat().st_size for name in found)
    print(f'{len(found)} files, {size / 1e6:.1f} MB in {folder}')
    return 0


def sums(folder: pathlib.Path) -> dict[str, str]:
    """{name: SHA-256} of all files, by name."""
    found = {}
    for path in sorted(folder.rglob('*')):
        if path.is_file() and path.name not in (SUMS, f'{SUMS}.tmp'):
            with path.open('rb') as file:
                digest = hashlib.file_digest(file, 'sha256').hexdigest()
            found[path.relative_to(folder).as_posix()] = digest
    return found


def wrong(folder: pathlib.Path) -> bool:
    """Whether a file named in the sums is missing or altered; says which."""
    try:
        lines = (folder / SUMS).read_text().splitlines()
    except OSError as error:
        raise command.LaunchError(
            f'{folder / SUMS} cannot be read ({error.strerror}); prepare the set there first'
        ) from None
    held = {name: digest for digest, _, name in (line.partition('  ') for line in lines)}
    there = sums(folder)
    bad = [name for name, digest in held.items() if there.get(name) != digest]
    for name in bad:
        print(
            f'launch.data: {folder / name} is {"altered" if name in there else "missing"}; '
            f'remove {folder} and prepare it again',
            file=sys.stderr,
        )
    print(f'{len(held) - len(bad)} of {len(held)} files are as they were')
    return bool(bad)


if __name__ == '__main__':
    command.main('launch.data', main)
