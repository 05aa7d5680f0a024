r"""Prepare the data sets of an experiment once, with checksums, in a directory that all its jobs read.

    python -m launch.data --to /shared/sets -- \
        python -m experiments.sparse_coding.self_taught --preset cifar10 --download
    python -m launch.data --to gs://bucket/sets -- \
        python -m experiments.autoencoders.deep --preset mnist --manual_dir PATH
    python -m launch.data --to /shared/sets --check

The experiment then takes --data_dir /shared/sets; launch.tpu takes --data gs://bucket/sets and copies it to
every host. SHA256SUMS in the directory holds the checksums of all files; a directory that has it is checked
before anything is written to it. Data sets that are read from --manual_dir without preparation (olshausen,
denoising) are not copied.

Exit code: 0; 1 if a checksum is wrong; 2 if something cannot be read or written.
"""

import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile

from launch import command, experiment

SUMS = 'SHA256SUMS'


def main(argv: list[str]) -> int:
    """Parse the options; prepare the data sets, or check them.

    Args:
      argv: The words of the command line.

    Returns:
      The exit code.

    Raises:
      LaunchError: A mistake in the options, or the directory cannot be read or written.
    """
    launcher_args, words = command.split(argv)
    parser = command.parser('launch.data', __doc__ or '')
    add = parser.add_argument
    add('--to', required=True, help='Directory, or gs://BUCKET/DIRECTORY, for the data sets.')
    add('--check', action='store_true', help='Compare the files there with their checksums.')
    options = parser.parse_args(launcher_args)
    is_bucket = options.to.startswith('gs://')
    if options.check and is_bucket:
        raise command.LaunchError(
            f'--check cannot read {options.to}; copy it to a directory and check that'
        )
    if options.check:
        return 1 if find_damage(pathlib.Path(options.to)) else 0
    line = experiment.command_line(words)
    if experiment.option(words, 'data_dir'):
        raise command.LaunchError("omit the experiment's --data_dir; --to names the directory")
    if is_bucket and not options.dry_run:
        command.require('gcloud', 'install the Google Cloud CLI')
    if not is_bucket:
        return prepare(line, pathlib.Path(options.to).absolute(), options.dry_run)
    with tempfile.TemporaryDirectory(prefix='launch-') as directory:
        code = prepare(line, pathlib.Path(directory), options.dry_run)
        if not code:
            to = options.to.rstrip('/')
            upload = ['gcloud', 'storage', 'rsync', '--recursive', directory, to]
            command.call(upload, options.dry_run)
        return code


def prepare(line: list[str], directory: pathlib.Path, dry_run: bool) -> int:
    """Run the data stage of an experiment with a directory as its data_dir; write checksums.

    Args:
      line: The experiment's command line.
      directory: Where the data sets are prepared.
      dry_run: Whether to print the command instead.

    Returns:
      The exit code.

    Raises:
      LaunchError: The directory cannot be created.
    """
    line = [*line, '--stage', 'data', '--data_dir', str(directory)]
    if dry_run:
        command.call(line, dry_run)
        return 0
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise command.LaunchError(
            f'cannot create {directory}: {error.strerror}; choose another --to'
        ) from None
    if (directory / SUMS).exists() and find_damage(directory):
        return 1
    if code := subprocess.run(line).returncode:
        return code
    sums = checksums(directory)
    if not sums:
        print(
            'launch.data: the experiment reads no data set that needs preparation', file=sys.stderr
        )
    temporary = directory / f'{SUMS}.tmp'
    temporary.write_text(''.join(f'{digest}  {name}\n' for name, digest in sums.items()))
    os.replace(temporary, directory / SUMS)
    size = sum((directory / name).stat().st_size for name in sums)
    print(f'{len(sums)} files, {size / 1e6:.1f} MB in {directory}')
    return 0


def checksums(directory: pathlib.Path) -> dict[str, str]:
    """{name: SHA-256} of all files in a directory, sorted by name."""
    sums = {}
    for path in sorted(directory.rglob('*')):
        if path.is_file() and path.name not in (SUMS, f'{SUMS}.tmp'):
            with path.open('rb') as file:
                digest = hashlib.file_digest(file, 'sha256').hexdigest()
            sums[path.relative_to(directory).as_posix()] = digest
    return sums


def find_damage(directory: pathlib.Path) -> list[str]:
    """Compare the files of a directory with its checksums and print the result.

    Args:
      directory: A directory that `prepare` has written.

    Returns:
      Names of files that are missing or changed.

    Raises:
      LaunchError: The checksums cannot be read.
    """
    try:
        lines = (directory / SUMS).read_text().splitlines()
    except OSError as error:
        raise command.LaunchError(
            f'cannot read {directory / SUMS}: {error.strerror}; prepare the data set there first'
        ) from None
    expected = {name: digest for digest, _, name in (line.partition('  ') for line in lines)}
    actual = checksums(directory)
    damaged = [name for name, digest in expected.items() if actual.get(name) != digest]
    for name in damaged:
        print(
            f'launch.data: {directory / name} is {"changed" if name in actual else "missing"}; '
            f'remove {directory} and prepare it again',
            file=sys.stderr,
        )
    print(f'{len(expected) - len(damaged)} of {len(expected)} files are intact')
    return damaged


if __name__ == '__main__':
    command.main('launch.data', main)
