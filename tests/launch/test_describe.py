"""launch.describe: the counts of the papers, as a table, a figure and results.json."""

import json

import pytest

from launch import command, describe


def test_a_network_is_described(tmp_path, capsys):
    assert describe.main(['--network', 'vgg_d', '--workdir', str(tmp_path / 'vgg')]) == 0
    out = capsys.readouterr().out
    assert out.startswith('138,357,544 parameters, 15,470,264,320 multiply-adds')
    rows = [line.split() for line in out.splitlines()]
    size = ['224', 'x', '224', 'x', '64']
    assert ['conv1_2', 'conv', *size, '36,928', '1,849,688,064', '5', '1', '0'] in rows
    assert any(
        row[:1] == ['total'] and row[3:5] == ['138,357,544', '15,470,264,320'] for row in rows
    )
    results = json.loads((tmp_path / 'vgg' / 'results.json').read_text())
    assert results['metrics']['parameters'] == 138357544
    assert (tmp_path / 'vgg' / 'figures' / 'layers.png').stat().st_size > 1000
    assert 'receptive field' in (tmp_path / 'vgg' / 'report.html').read_text()


@pytest.mark.parametrize(
    ('name', 'image_size', 'detail', 'parameters', 'n_rows'),
    [
        ('small_network', 0, False, 23_466, 4),
        ('cifar_resnet_20', 0, False, 269_722, 14),
        ('vgg_d', 256, False, 0, 22),
        ('resnet_18', 0, True, 11_689_512, 52),
        ('alexnet_one_stream', 0, False, 62_378_344, 14),
    ],
)
def test_sizes_details_and_other_networks(name, image_size, detail, parameters, n_rows):
    report = describe.describe(name, image_size, detail)
    assert not parameters or report.metrics['parameters'] == parameters
    assert len(report.tables[0].records) == n_rows
    if image_size:
        assert report.tables[0].records[0]['output'] == '256 x 256 x 64'


@pytest.mark.parametrize(
    ('argv', 'message'),
    [
        (
            ['--network', 'vgg_z'],
            r"unknown network 'vgg_z'; did you mean vgg_\w+\? expected one of",
        ),
        (['--image_size', '-1'], '--image_size -1: expected at least 1'),
        (['--network', 'vgg_d', '--image_size', '3'], 'pool'),
        (['--workdir', '/dev/null/x'], 'cannot write to .* choose another --workdir'),
    ],
)
def test_mistakes_are_explained(argv, message):
    with pytest.raises(command.LaunchError, match=message):
        describe.main(argv)


def test_networks_are_compared(tmp_path, capsys):
    assert describe.main(['--compare', '--workdir', str(tmp_path)]) == 0
    assert '8.7 times by count' in capsys.readouterr().out
    results = json.loads((tmp_path / 'results.json').read_text())
    key = 'ratio/GoogLeNet_has_12_times_fewer_parameters_than_AlexNet'
    assert results['metrics'][key] == pytest.approx(60_965_224 / 6_998_552)
    assert (tmp_path / 'figures' / 'comparison.png').stat().st_size > 1000
