"""Score the model on the test images and show what it does with some of them.

Reads   data/images/, data/masks/, data/splits/test.txt, data/selection.json, the model
Writes  metrics/test.json, metrics/test_details.json, metrics/test_images.json,
        metrics/suspects.csv, metrics/plots/, metrics/examples/, metrics/panels/, data/predictions/
Run     python -m stages.evaluate
"""

import logging
from pathlib import Path
from typing import Any

import msgspec
import torch

from cocoseg.annotations.instances import read_instances
from cocoseg.common.files import atomic_file, atomic_folder, write_json, write_text
from cocoseg.common.params import load_params
from cocoseg.common.stage import run_stage, shared_folder
from cocoseg.network.devices import choose_device, enough_memory
from cocoseg.network.model import load_model
from cocoseg.network.photos import read_pairs
from cocoseg.scoring.evaluation import evaluate
from cocoseg.scoring.examples import choose_examples, write_examples, write_gallery
from cocoseg.scoring.objects import objects_by_stem
from cocoseg.scoring.plots import write_plots
from cocoseg.scoring.suspects import write_suspects

GALLERY = 12
"""How many suspects the report shows; all are in `metrics/suspects.csv`."""


def main() -> dict[str, Any]:
    params = load_params(Path("params.yaml"))
    torch.set_num_threads(params.evaluate.threads)
    model, card = load_model(Path("models/model.safetensors"))
    pairs = read_pairs(Path("data/splits/test.txt"), Path("data/images"), Path("data/masks"))
    selection = read_instances(Path("data/selection.json")).instances
    device = choose_device(params.runtime.device, shared_folder("devices"))
    with (
        atomic_folder(Path("data/predictions")) as predictions,
        enough_memory("lower evaluate.batch_size"),
    ):
        result = evaluate(
            model,
            card,
            pairs,
            objects_by_stem(selection),
            batch_size=params.evaluate.batch_size,
            workers=params.runtime.worker_count(),
            device=device,
            scales=params.evaluate.scales,
            flip=params.evaluate.flip,
            tiles=params.evaluate.tiles,
            predictions=predictions,
        )
    with atomic_folder(Path("metrics/plots")) as folder:
        write_plots(folder, result)
    suspects = result.suspects({image.stem: image.id for image in selection.images})
    with atomic_file(Path("metrics/suspects.csv")) as file:
        write_suspects(file, suspects)
    with (
        atomic_folder(Path("metrics/examples")) as pictures,
        atomic_folder(Path("metrics/panels")) as panels,
    ):
        examples = write_examples(
            pictures,
            panels,
            result,
            choose_examples(result, params.evaluate.examples),
            model,
            card,
            batch_size=params.evaluate.batch_size,
            scales=params.evaluate.scales,
            flip=params.evaluate.flip,
            tiles=params.evaluate.tiles,
        )
        write_gallery(panels, suspects[:GALLERY], pairs, Path("data/predictions"))
    write_json(Path("metrics/test_details.json"), {**result.details(), "examples": examples})
    write_text(
        Path("metrics/test_images.json"), msgspec.json.encode(result.image_counts()).decode()
    )
    scores = result.scores()
    write_json(Path("metrics/test.json"), scores)
    logging.info("mean IoU %.3f over %d test images", scores["miou"], scores["images"])
    return {"device": str(device), "images_per_second": result.images_per_second}


if __name__ == "__main__":
    run_stage(main, Path("metrics/machine/evaluate.json"))
