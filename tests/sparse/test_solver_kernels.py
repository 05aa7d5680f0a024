"""The count of what kernels would save, from programs as XLA prints them."""

from tests.benchmarks import solver_kernels

PROGRAM = """
%body.1 (arg: (f32[8,4], f32[8,4])) -> (f32[8,4], f32[8,4]) {
  %arg = (f32[8,4]{1,0:T(8,128)S(1)}, f32[8,4]{1,0:T(8,128)}) parameter(0)
  %a = f32[8,4]{1,0:T(8,128)S(1)} get-tuple-element(%arg), index=0
  %b = f32[8,4]{1,0:T(8,128)} get-tuple-element(%arg), index=1
  %c = f32[8,4]{1,0:T(8,128)} add(%a, %b)
  %start = (f32[8,4]{1,0:T(8,128)S(1)}, f32[8,4]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%c)
  %done = f32[8,4]{1,0:T(8,128)S(1)} copy-done(%start)
  %d = f32[8,4]{1,0:T(8,128)S(1)} multiply(%done, %a)
  ROOT %next = (f32[8,4]{1,0:T(8,128)S(1)}, f32[8,4]{1,0:T(8,128)}) tuple(%d, %c)
}

ENTRY %main (x: f32[8,4]) -> f32[8,4] {
  %x = f32[8,4]{1,0:T(8,128)} parameter(0)
  %loop = (f32[8,4]{1,0:T(8,128)S(1)}, f32[8,4]{1,0:T(8,128)}) while(%x), condition=%until.1, body=%body.1
}
"""


def test_arrays_in_vector_memory_move_no_bytes():
    """Outside of it are b and c, and c once more where it is copied into it."""
    assert solver_kernels.bytes_per_iteration(PROGRAM) == 3 * 8 * 4 * 4


def test_a_kernel_has_to_beat_the_best_number_of_signals():
    programs = {8: PROGRAM, 2**20: PROGRAM}
    assert solver_kernels.row('greedy', 'h200', 256, {8: PROGRAM}).endswith('no')
    many = solver_kernels.row('greedy', 'v5e', 4, programs)
    assert many.endswith('1.0 | no') and '3.08   0.08' in many
    assert solver_kernels.row('greedy', 'v5e', 4, {8: PROGRAM}).endswith('yes')
