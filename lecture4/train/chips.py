"""Peak performance of accelerators, with which the cost of a compiled program is compared."""

from typing import NamedTuple


class Chip(NamedTuple):
    """One accelerator of a pod or node.

    Attributes:
      name: As in a topology: 'v5e:4x4', 'h200:8'.
      flops: Peak of dense bfloat16 products, per second.
      memory: Bytes of memory.
      bandwidth: Bytes per second to and from the memory.
      link: Bytes per second that a chip sends to the others of its slice or node, while it receives as many.
      network: Bytes per second that a chip sends to other slices, over the data center network.
      tile: Rows and columns of the matrix unit, to which the operands of products are padded; 0 for small ones.
      source: Source of the numbers; they are 0 where they are not known.
    """

    name: str
    flops: float
    memory: float
    bandwidth: float
    link: float
    network: float
    tile: int
    source: str


CLOUD = 'cloud.google.com/tpu/docs/'
NVIDIA = 'NVIDIA data sheet, SXM, without sparsity'
CHIPS = {
    chip.name: chip
    for chip in (
        Chip('v4', 275e12, 32e9, 1.2e12, 300e9, 0.0, 128, CLOUD + 'v4'),
        Chip('v5e', 197e12, 16e9, 0.8e12, 200e9, 6.4e12 / 8 / 256, 128, CLOUD + 'v5e, v6e'),
        Chip('v5p', 459e12, 95e9, 2.765e12, 600e9, 50e9 / 8, 128, CLOUD + 'v5p'),
        Chip('v6e', 918e12, 32e9, 1.6e12, 400e9, 25.6e12 / 8 / 256, 256, CLOUD + 'v6e'),
        Chip('a100', 312e12, 80e9, 2.039e12, 300e9, 0.0, 0, NVIDIA),
        Chip('h100', 989e12, 80e9, 3.35e12, 450e9, 0.0, 0, NVIDIA),
        Chip('h200', 989e12, 141e9, 4.8e12, 450e9, 0.0, 0, NVIDIA),
        Chip('b200', 2250e12, 180e9, 8.0e12, 900e9, 0.0, 0, NVIDIA),
        Chip('cpu', 0.0, 0.0, 0.0, 0.0, 0.0, 0, 'this machine'),
    )
}
