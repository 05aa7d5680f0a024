"""Counts of the classic networks, known from formulas and from other implementations."""

import pytest

from lecture4.ops import receptive_field
from lecture4.vision import layer_specs

IMAGENET, CIFAR = (224, 224, 3), (32, 32, 3)
COUNTS = {
    'alexnet': (layer_specs.alexnet(), (227, 227, 3), 60_965_224, 724_406_816),
    'alexnet, one group': (layer_specs.alexnet(1), (227, 227, 3), 62_378_344, 1_135_256_096),
    'alexnet v2': (layer_specs.alexnet_v2(), IMAGENET, 61_100_840, 714_188_480),
    'zfnet': (layer_specs.zfnet(), IMAGENET, 62_357_608, 1_168_032_896),
    'vgg a': (layer_specs.vgg('a'), IMAGENET, 132_863_336, 7_609_090_048),
    'vgg b': (layer_specs.vgg('b'), IMAGENET, 133_047_848, 11_308_466_176),
    'vgg c': (layer_specs.vgg('c'), IMAGENET, 133_638_952, 11_770_888_192),
    'vgg d': (layer_specs.vgg('d'), IMAGENET, 138_357_544, 15_470_264_320),
    'vgg e': (layer_specs.vgg('e'), IMAGENET, 143_667_240, 19_632_062_464),
    'vgg a bn': (layer_specs.vgg('a', True), IMAGENET, 132_868_840, 7_609_090_048),
    'vgg b bn': (layer_specs.vgg('b', True), IMAGENET, 133_053_736, 11_308_466_176),
    'vgg d bn': (layer_specs.vgg('d', True), IMAGENET, 138_365_992, 15_470_264_320),
    'vgg e bn': (layer_specs.vgg('e', True), IMAGENET, 143_678_248, 19_632_062_464),
    'googlenet': (layer_specs.googlenet(), IMAGENET, 6_998_552, 1_582_671_872),
    'googlenet, torchvision': (
        layer_specs.googlenet('torchvision'), IMAGENET, 6_624_904, 1_498_376_192,
    ),
    'plain 34': (layer_specs.resnet(34, None), IMAGENET, 21_623_848, 3_644_493_824),
    'resnet 18 A': (layer_specs.resnet(18, 'A'), IMAGENET, 11_515_688, None),
    'resnet 18 B': (layer_specs.resnet(18, 'B'), IMAGENET, 11_689_512, 1_814_073_344),
    'resnet 18 C': (layer_specs.resnet(18, 'C'), IMAGENET, 12_043_816, None),
    'resnet 34 A': (layer_specs.resnet(34, 'A'), IMAGENET, 21_623_848, 3_644_493_824),
    'resnet 34 B': (layer_specs.resnet(34, 'B'), IMAGENET, 21_797_672, 3_663_761_408),
    'resnet 34 C': (layer_specs.resnet(34, 'C'), IMAGENET, 22_716_840, 3_830_747_136),
    'resnet 50': (layer_specs.resnet(50), IMAGENET, 25_557_032, 3_857_973_248),
    'resnet 50 v1.5': (layer_specs.resnet(50, version='v1.5'), IMAGENET, 25_557_032, 4_089_184_256),
    'resnet 101': (layer_specs.resnet(101), IMAGENET, 44_549_160, 7_570_194_432),
    'resnet 101 v1.5': (layer_specs.resnet(101, version='v1.5'), IMAGENET, 44_549_160, 7_801_405_440),
    'resnet 152': (layer_specs.resnet(152), IMAGENET, 60_192_808, 11_282_415_616),
    'resnet 152 v1.5': (layer_specs.resnet(152, version='v1.5'), IMAGENET, 60_192_808, 11_513_626_624),
    'cifar 20': (layer_specs.cifar_resnet(20), CIFAR, 269_722, 40_551_040),
    'cifar plain 20': (layer_specs.cifar_resnet(20, None), CIFAR, 269_722, 40_551_040),
    'cifar 32': (layer_specs.cifar_resnet(32), CIFAR, 464_154, 68_862_592),
    'cifar 44': (layer_specs.cifar_resnet(44), CIFAR, 658_586, 97_174_144),
    'cifar 56': (layer_specs.cifar_resnet(56), CIFAR, 853_018, 125_485_696),
    'cifar 110': (layer_specs.cifar_resnet(110), CIFAR, 1_727_962, 252_887_680),
    'cifar 1202': (layer_specs.cifar_resnet(1202), CIFAR, 19_421_274, 2_829_238_912),
    'cifar 20 B': (layer_specs.cifar_resnet(20, 'B'), CIFAR, 272_474, None),
    'cifar 110 B': (layer_specs.cifar_resnet(110, 'B'), CIFAR, 1_730_714, None),
}  # fmt: skip


@pytest.mark.parametrize('name', COUNTS)
def test_parameters_and_multiply_adds(name):
    stack, shape, parameters, macs = COUNTS[name]
    counted = receptive_field.totals(receptive_field.summarize(stack, shape))
    assert counted[0] == parameters
    assert macs is None or counted[1] == macs


def test_layers_of_alexnet():
    rows = {
        row.name: row for row in receptive_field.summarize(layer_specs.alexnet(), (227, 227, 3))
    }
    assert [rows[f'conv{i}'].parameters for i in range(1, 6)] == [
        34_944, 307_456, 885_120, 663_936, 442_624,
    ]  # fmt: skip
    assert [rows[f'fc{i}'].parameters for i in (6, 7, 8)] == [37_752_832, 16_781_312, 4_097_000]
    assert [rows[n].output[0] for n in ('conv1', 'pool1', 'pool2', 'pool5')] == [55, 27, 13, 6]
    # published for this network: 195 pixels at pool5, 32 apart
    assert rows['pool5'].receptive_field == (195, 195) and rows['pool5'].stride == (32, 32)


def test_feature_map_sizes_of_zfnet():
    rows = {row.name: row for row in receptive_field.summarize(layer_specs.zfnet(), IMAGENET)}
    names = ('conv1', 'pool1', 'conv2', 'pool2', 'pool5')
    assert [rows[name].output[0] for name in names] == [110, 55, 26, 13, 6]
    assert [rows[f'conv{i}'].parameters for i in range(1, 6)] == [
        14_208, 614_656, 885_120, 1_327_488, 884_992,
    ]  # fmt: skip


def test_parts_of_googlenet_and_its_auxiliary_classifiers():
    rows = {row.name: row for row in receptive_field.summarize(layer_specs.googlenet(), IMAGENET)}
    thousands = {
        part: sum(
            row.parameters for name, row in rows.items() if name.startswith(f'inception_{part}/')
        )
        / 1024
        for part in layer_specs.INCEPTION
    }
    assert round(thousands['3a'], 1) == 159.9
    assert [round(thousands[part]) for part in ('4c', '5a')] == [498, 1019]
    assert rows['conv1'].parameters == 9_472 and round(rows['conv1'].macs / 1e6) == 118
    assert [rows[f'inception_{n}'].output for n in ('3b', '4e', '5b')] == [
        (28, 28, 480), (14, 14, 832), (7, 7, 1024),
    ]  # fmt: skip
    auxiliary = [
        receptive_field.totals(
            receptive_field.summarize(
                layer_specs.googlenet_auxiliary(), rows[f'inception_{name}'].output
            )
        )
        for name in ('4a', '4d')
    ]
    assert [parameters for parameters, _ in auxiliary] == [3_188_840, 3_190_888]
    main, macs = receptive_field.totals(tuple(rows.values()))
    assert main + sum(parameters for parameters, _ in auxiliary) == 13_378_280
    assert macs + sum(macs for _, macs in auxiliary) == 1_591_044_096


def test_unknown_depths_are_refused():
    with pytest.raises(ValueError, match='6 n \\+ 2'):
        layer_specs.cifar_resnet(21)
    with pytest.raises(KeyError):
        layer_specs.resnet(19)
