"""The bytes that tests/benchmarks/scaling.py counts are those that XLA's program sums."""

from tests.benchmarks import scaling


def test_dictionary_learning_sums_what_the_formula_says():
    sizes = {'d': 20, 'k': 40, 'n_inner': 3}
    assert scaling.count(**sizes, n_devices=4) == scaling.dictionary_learning(**sizes).bytes


def test_bytes_of_a_program():
    text = """
      %a = f32[3,4]{1,0} all-reduce(f32[3,4] %x), replica_groups={}
      %b = (f32[5]{0}, f32[]) all-reduce(f32[5] %y, f32[] %z), replica_groups={}
      %c = f32[100] add(f32[100] %p, f32[100] %q)
    """
    assert scaling.reduced_bytes(text) == 4 * (12 + 5 + 1)


def test_resnet_counts():
    step = scaling.resnet50()
    # 25,557,032 parameters, 26,560 channels of 53 batch norms with four sums each
    assert step.bytes == 4 * (25_557_032 + 4 * 26_560)
    assert step.sums == 1 + 2 * 53
