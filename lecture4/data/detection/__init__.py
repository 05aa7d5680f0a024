"""Images with boxes: `detection.load('scenes')`, `detection.load('voc:PATH')`."""

from lecture4.data.detection.dataset import DetectionDataset as DetectionDataset
from lecture4.data.detection.dataset import annotations as annotations
from lecture4.data.detection.registry import load as load
