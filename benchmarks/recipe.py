"""Compare training recipes with torchvision's reference under the same conditions.

Trains on the mirror's train2017, scores its val2017 and prints the mean IoU of each recipe and
seed. The classes are six supercategories of COCO, each in at least 30 training images and 15 scored
ones; single classes are in too few images. A run uses one thread, so two can run in parallel.

    python -m benchmarks.recipe --recipes reference ours --seeds 0 1 2
    python -m benchmarks.recipe --classes person bicycle car motorcycle airplane
"""

import argparse
import json
import tempfile
import time
import zipfile
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.machine import machine
from benchmarks.reference import CocoCrops, ReferenceRecipe, build_reference, train_reference
from cocoseg.coco.instances import Instances, read_instances
from cocoseg.coco.rasterize import write_masks
from cocoseg.curation.selection import select
from cocoseg.evaluation.object_recall import objects_by_stem
from cocoseg.evaluation.scores import evaluate
from cocoseg.inference.backends import TorchNetwork
from cocoseg.inference.dataset import Sample
from cocoseg.models.networks import ModelCard, SegmentationNetwork, build_model
from cocoseg.params.reader import load_params
from cocoseg.params.train import TrainParams
from cocoseg.training.checkpoint import CheckpointFile
from cocoseg.training.trainer import train

CLASSES = ["person", "vehicle", "animal", "furniture", "kitchen", "food"]
MIRROR = Path("../shared/coco-mirror")
ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = Path("../shared/weights/mobilenet_v3_large_features.safetensors")
CPU = torch.device("cpu")

FULL = {"aux_weight": 0.5, "color_jitter": 0.3, "ema_decay": 0.98}
VARIANTS: dict[str, dict[str, Any]] = {
    "ours": {},
    "full": FULL,
    "full, one learning rate (0.0005)": {**FULL, "lr": 0.0005, "backbone_lr_factor": 1.0},
    "full, one learning rate (0.001)": {**FULL, "backbone_lr_factor": 1.0},
    "full, twice the learning rates": {**FULL, "lr": 0.002},
    "full, backbone at 1/20": {**FULL, "backbone_lr_factor": 0.05},
    "full without Dice": {**FULL, "dice_weight": 0.0},
    "full without EMA": {**FULL, "ema_decay": 0.0},
    "full without color jitter": {**FULL, "color_jitter": 0.0},
    "full without auxiliary head": {**FULL, "aux_weight": 0.0},
    "class weights": {"class_weights": "frequency"},
    "DeepLabV3+": {"architecture": "deeplabv3plus_mobilenet_v3_large"},
}
"""Changes to section `train` of `presets/coco_val2014.yaml` by recipe; `full` adds the options that
the preset leaves out because they made no difference."""

SHORT = {"size": 256, "crop": 224, "epochs": 15, "batch_size": 8, "threads": 1}
"""Settings of a short run."""


def prepare(directory: Path, split: str, classes: list[str]) -> tuple[Instances, list[Sample]]:
    """Select the mirror's images of a split that show the classes, and write their masks.

    A class is a category or a supercategory of COCO.
    """
    with zipfile.ZipFile(MIRROR / "annotations/annotations_trainval2017.zip") as archive:
        document = json.loads(archive.read(f"annotations/instances_{split}.json"))
    for category in document["categories"]:
        if category["supercategory"] in classes:
            category["name"] = category["supercategory"]
    annotations = directory / f"{split}.json"
    annotations.write_text(json.dumps(document), encoding="utf-8")
    selection = select(
        read_instances(annotations),
        classes,
        max_instances=20,
        max_images=8000,
        prefer="rare",
        seed=0,
    ).instances
    masks = directory / f"{split}_masks"
    masks.mkdir()
    write_masks(selection, masks, overlap="last", crowd="ignore", workers=1)
    images = MIRROR / split
    samples = [Sample(images / i.file_name, masks / f"{i.stem}.png") for i in selection.images]
    return selection, samples


def run_reference(
    selection: Instances, card: ModelCard, params: TrainParams
) -> SegmentationNetwork:
    recipe = ReferenceRecipe(
        params.size, params.crop, params.epochs, params.batch_size, params.seed
    )
    torch.manual_seed(recipe.seed)
    model = build_reference(len(card.classes))
    weights = {key: value.float() for key, value in load_file(params.weights).items()}
    model.get_submodule("backbone").load_state_dict(weights, strict=False)
    for _ in train_reference(
        model, CocoCrops(selection, MIRROR / "train2017", recipe), recipe, workers=1
    ):
        pass
    scored = build_model(card.architecture, len(card.classes))
    scored.load_state_dict(model.state_dict())
    return scored


def score(
    recipe: str,
    seed: int,
    directory: Path,
    params: TrainParams,
    classes: list[str],
    train_set: Any,
    val_set: Any,
) -> float:
    """Train once and return the mean IoU on val2017 of the last (reference) or best (ours) epoch.

    Ours chooses its epoch by some of its training images, so that both see the same data. Prints
    the IoU by class, the boundary IoU, and the fractions of small, medium and large objects found.
    """
    selection, samples = train_set
    short = {**SHORT, "seed": seed}
    changes = VARIANTS.get(recipe, {})
    train_params = TrainParams.model_validate({**params.model_dump(), **short, **changes})
    train_params = train_params.model_copy(update={"weights": str(WEIGHTS)})
    card = ModelCard(train_params.architecture, ("background", *classes), train_params.size)
    if recipe == "reference":
        model = run_reference(selection, card, train_params)
    else:
        model = train(
            classes,
            samples,
            samples[::10],
            train_params,
            device=CPU,
            workers=1,
            checkpoint=CheckpointFile(directory, f"{recipe}{seed}"),
        ).model
    val_selection, val_samples = val_set
    objects = objects_by_stem(val_selection)
    network = TorchNetwork(model, card, CPU)
    result = evaluate(network, val_samples, objects, batch_size=4, workers=0)
    scores, sizes = result.scores(), result.details()["sizes"].values()
    values = (
        *scores["iou"].values(),
        scores["boundary_miou"],
        *(s["objects_found"] for s in sizes),
    )
    print(f"  {recipe} {seed}:", *(f"{value:.2f}" for value in values), flush=True)
    return float(scores["miou"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--recipes", nargs="+", default=["reference", "ours"])
    parser.add_argument("--classes", nargs="+", default=CLASSES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    preset = ROOT / "presets/coco_val2014.yaml"
    params = load_params(preset)[TrainParams]
    classes = options.classes
    torch.set_num_threads(SHORT["threads"])
    print(machine("torch", "torchvision"), flush=True)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        train_set = prepare(directory, "train2017", classes)
        val_set = prepare(directory, "val2017", classes)
        print(f"{len(train_set[1])} training images, {len(val_set[1])} scored images", flush=True)
        for recipe in options.recipes:
            started = time.perf_counter()
            scores = [
                score(recipe, seed, directory, params, classes, train_set, val_set)
                for seed in options.seeds
            ]
            row = " ".join(f"{value:.3f}" for value in scores)
            seconds = (time.perf_counter() - started) / len(scores)
            print(
                f"{recipe:<24} {mean(scores):.3f}   ({row})   {seconds:.0f} s per run", flush=True
            )


if __name__ == "__main__":
    main()
