"""torchvision's reference recipe for segmentation, the baseline of the benchmarks.

SGD 0.01 with momentum 0.9 and weight decay 1e-4 for all parameters, polynomial decay 0.9 by step,
cross-entropy plus half of the auxiliary head's, scale 0.5 to 2, flip, crop. Pillow decodes images,
polygons are rasterized in every step, tensors are contiguous.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.models import get_model
from torchvision.transforms import v2

from cocoseg.coco.instances import Annotation, Instances
from cocoseg.core.labels import IGNORE_INDEX
from cocoseg.models.networks import IMAGENET_MEAN, IMAGENET_STD


@dataclass(frozen=True)
class ReferenceRecipe:
    """Settings shared by both recipes."""

    size: int
    crop: int
    epochs: int
    batch_size: int
    seed: int


class CocoCrops(Dataset[tuple[Tensor, Tensor]]):
    """Crops of the images of `selection`, rasterized with pycocotools at each access."""

    def __init__(self, selection: Instances, directory: Path, recipe: ReferenceRecipe) -> None:
        self.images = selection.images
        self.directory = directory
        self.annotations: dict[int, list[Annotation]] = {image.id: [] for image in self.images}
        for annotation in selection.annotations:
            self.annotations[annotation.image_id].append(annotation)
        low, high = int(0.5 * recipe.size), int(2.0 * recipe.size)
        self.transforms = v2.Compose(
            [
                v2.RandomResize(low, high),
                v2.RandomHorizontalFlip(0.5),
                v2.RandomCrop(
                    recipe.crop,
                    pad_if_needed=True,
                    fill={tv_tensors.Image: 0, tv_tensors.Mask: IGNORE_INDEX},
                ),
                v2.ToDtype({tv_tensors.Image: torch.float, "others": None}, scale=True),
                v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        record = self.images[index]
        with Image.open(self.directory / record.file_name) as image:
            pixels = tv_tensors.Image(image.convert("RGB"))
        labels = np.zeros((record.height, record.width), np.uint8)
        for annotation in self.annotations[record.id]:
            segmentation: Any = json.loads(bytes(annotation.segmentation))
            encoded = coco_mask.frPyObjects(segmentation, record.height, record.width)
            if isinstance(encoded, list):
                encoded = coco_mask.merge(encoded)
            labels[coco_mask.decode(encoded) == 1] = (
                IGNORE_INDEX if annotation.iscrowd else annotation.category_id
            )
        crop, crop_labels = self.transforms(pixels, tv_tensors.Mask(labels))
        return crop, crop_labels.long()


def build_reference(classes: int) -> nn.Module:
    """torchvision's DeepLabV3 with MobileNetV3-Large and random weights, contiguous."""
    model: nn.Module = get_model(
        "deeplabv3_mobilenet_v3_large",
        weights=None,
        weights_backbone=None,
        num_classes=classes,
        aux_loss=True,
    )
    return model


def reference_loss(logits: dict[str, Tensor], labels: Tensor) -> Tensor:
    main = functional.cross_entropy(logits["out"], labels, ignore_index=IGNORE_INDEX)
    return main + 0.5 * functional.cross_entropy(logits["aux"], labels, ignore_index=IGNORE_INDEX)


def train_reference(
    model: nn.Module, data: CocoCrops, recipe: ReferenceRecipe, workers: int
) -> Iterator[float]:
    """Train `model` in place; yields the loss of each step."""
    random.seed(recipe.seed)
    torch.manual_seed(recipe.seed)
    loader = DataLoader(data, recipe.batch_size, shuffle=True, drop_last=True, num_workers=workers)
    optimizer = torch.optim.SGD(
        [
            {"params": [*model.backbone.parameters(), *model.classifier.parameters()]},
            {"params": model.aux_classifier.parameters(), "lr": 0.1},
        ],
        lr=0.01,
        momentum=0.9,
        weight_decay=1e-4,
    )
    steps = recipe.epochs * len(loader)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, steps, power=0.9)
    model.train()
    for _ in range(recipe.epochs):
        for images, labels in loader:
            loss = reference_loss(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            yield loss.item()
