"""launch.compare and launch.gallery on runs written by hand and one toy run."""

import json

import matplotlib.figure
import numpy as np
import pytest
from PIL import Image

import lecture4
from launch import command, compare, gallery, runs
from lecture4.train import Figure, Metric, Report, Table
from lecture4.train import report as reports

METRICS = (
    Metric('test_error', 'fraction', 'lower', primary=True),
    Metric('loss', 'nats', 'lower'),
)


def write_run(
    directory, error, rate, *, source='digits', published=None, command_line='', name='m'
):
    directory.mkdir(parents=True)
    config = {'version': lecture4.__version__, 'seed': 0, 'learning_rate': rate, 'source': source}
    (directory / 'config.json').write_text(json.dumps(config))
    line = (
        command_line or f'-m experiments.convnets.toy --learning_rate {rate} --workdir {directory}'
    )
    environment = {'command': f'{line} --progress none --overwrite --keep=5', 'commit': 'a'}
    (directory / 'environment.json').write_text(json.dumps(environment))
    rows = [{'step': n, 'seconds': 30.0 * n, 'loss': rate / (n + 1)} for n in range(5)]
    (directory / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    figure = matplotlib.figure.Figure((2, 1))
    figure.add_subplot().imshow(np.eye(8))
    records = [
        {'method': 'other', 'test_error': 2 * error, 'published': 0.5},
        {'method': name, 'test_error': [0.9 * error, 1.1 * error], 'published': published},
    ]
    report = Report(
        {'test_error': error}, (Table('Errors', records, ('method',)),), {'filters': Figure(figure)}
    )
    reports.write(directory, report, METRICS, title='toy', records=rows)
    return directory


@pytest.fixture
def pair(tmp_path):
    first = write_run(tmp_path / 'a' / 'run', 0.02, 0.1, published=0.0114)
    return first, write_run(tmp_path / 'b' / 'run', 0.01, 0.2)


def test_what_differs_is_shown_with_curves_and_final_metrics(pair, tmp_path, capsys):
    assert compare.main([*map(str, pair), '--workdir', str(tmp_path / 'c')]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ['option', 'a/run', 'b/run'] in lines and ['--learning_rate', '0.1', '0.2'] in lines
    assert not any('--seed' in line for line in lines)
    assert ['test', 'error', '(%)', '2.00', '1.00'] in lines
    assert ['loss', '(nats)', '0.02000', '0.04000'] in lines
    results = json.loads((tmp_path / 'c' / 'results.json').read_text())
    assert results['metrics'] == {'test_error': 0.01}  # the best
    assert (tmp_path / 'c' / 'figures' / 'learning_loss.png').exists()
    both = compare.overlaid([runs.read(path) for path in pair], ['x', 'y'], METRICS)
    (axes,) = both['learning_loss'].figure.axes
    assert [line.get_ydata()[0] for line in axes.lines] == [0.1, 0.2]


def test_an_unfinished_run_is_compared_by_its_last_row(pair, tmp_path, capsys):
    (pair[0] / 'results.json').unlink()
    options = ['--metrics', 'loss', '--workdir', str(tmp_path / 'c')]
    assert compare.main([*map(str, pair), *options]) == 0
    assert 'test error' not in capsys.readouterr().out


@pytest.mark.parametrize(
    'argv, message',
    [
        (['A'], 'expected at least two runs'),
        (['A', 'A'], 'is given twice; expected different runs'),
        (['A', 'none'], 'none contains no run'),
        (
            ['A', 'B', '--metrics', 'los'],
            '--metrics los: fewer than two runs have it; choose from loss, test',
        ),
    ],
)
def test_mistakes_of_a_comparison_are_one_line(pair, argv, message):
    paths = {'A': str(pair[0]), 'B': str(pair[1])}
    with pytest.raises(command.LaunchError, match=message):
        compare.main([paths.get(word, word) for word in argv])


@pytest.fixture
def page(tmp_path):
    path = tmp_path / 'README.md'
    path.write_text('# Results\n\n<!-- gallery -->\nold\n<!-- /gallery -->\n\nEnd.\n')
    return path


def test_the_gallery_is_made_from_results(pair, page, tmp_path):
    photos = write_run(tmp_path / 'p', 0.25, 0.1, source='photos')
    own = write_run(tmp_path / 'o', 0.5, 0.1, source='dir:/home/me', command_line='my|regress.py')
    argv = [*map(str, (*pair, photos, own)), '--page', str(page)]
    assert gallery.main(argv) == 0
    text = page.read_text()
    assert text.startswith('# Results\n\n<!-- gallery -->\n| experiment |') and text.endswith(
        '\nEnd.\n'
    )
    assert 'old' not in text
    rows = [
        [cell.strip() for cell in line.split(' | ')] for line in text.splitlines() if '`' in line
    ]
    first = next(row for row in rows if '2.00 %' in row)
    assert first[0].endswith('convnets.toy')
    assert first[1] == '`python -m experiments.convnets.toy --learning_rate 0.1`'
    assert first[2:6] == ['2 min', 'test error', '2.00 %', '1.14 %']
    assert 'gallery/convnets.toy-learning_rate-0.1.png' in first[6]
    other = next(row for row in rows if '50.0 %' in row)
    assert (
        other[1] == r"`python 'my\|regress.py'`" and other[5] == '\u2013' and '<img' not in other[6]
    )
    (image, *_) = sorted((tmp_path / 'gallery').iterdir())
    with Image.open(image) as opened:
        assert max(opened.size) == gallery.WIDTH
    assert image.stat().st_size < 10_000
    before = page.read_bytes()
    gallery.main(argv)
    assert page.read_bytes() == before


def test_photographs_of_others_are_not_shown(tmp_path):
    """Of a run on photographs only learned filters; of downloaded sets nothing."""
    for source, shown in (('digits', True), ('photos', True), ('mnist', False), ('npz:a', False)):
        run = write_run(tmp_path / source.replace(':', ''), 0.1, 0.1, source=source)
        assert bool(gallery.thumbnail(runs.read(run))) == shown
    run = runs.read(tmp_path / 'photos')
    page = tmp_path / 'photos' / 'report.html'
    page.write_text(page.read_text().replace('figures/filters', 'figures/denoised'))
    assert not gallery.thumbnail(run)


def test_a_page_without_marks_is_refused(pair, tmp_path):
    (tmp_path / 'page.md').write_text('nothing')
    with pytest.raises(command.LaunchError, match='has no <!-- gallery --> and <!-- /gallery -->'):
        gallery.main([str(pair[0]), '--page', str(tmp_path / 'page.md')])
