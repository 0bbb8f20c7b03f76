"""Score the model on the validation and test images, list potential label errors, draw examples.

Reads   data/images/, data/masks/, data/splits/{val,test}.txt, data/selection.json,
        data/classes.json, the model
Writes  data/predictions/, metrics/{val,test}.json, metrics/{val,test}_images.json,
        and of the test images metrics/test_details.json, metrics/label_errors.csv,
        metrics/plots/, metrics/examples/, metrics/panels/
Run     python -m stages.evaluate
"""

import logging
from pathlib import Path
from typing import Any

import msgspec
import torch

from cocoseg.coco.instances import read_instances
from cocoseg.core.files import atomic_directory, atomic_file, write_json, write_text
from cocoseg.core.labels import read_classes
from cocoseg.core.stage import run_stage, shared_directory
from cocoseg.evaluation.examples import choose_examples, write_examples, write_gallery
from cocoseg.evaluation.label_errors import write_label_errors
from cocoseg.evaluation.object_recall import objects_by_stem
from cocoseg.evaluation.plots import write_plots
from cocoseg.evaluation.scores import evaluate
from cocoseg.inference.backends import TorchNetwork
from cocoseg.inference.batches import Views
from cocoseg.inference.dataset import read_samples
from cocoseg.models.devices import enough_memory, set_up_device
from cocoseg.models.weights import load_model, require_same_classes
from cocoseg.params.evaluate import EvaluateParams
from cocoseg.params.reader import load_params
from cocoseg.params.runtime import RuntimeParams

GALLERY = 12
"""The number of label errors that the report shows; `metrics/label_errors.csv` lists all."""


def main() -> dict[str, Any]:
    params = load_params(Path("params.yaml"))
    evaluate_params, runtime = params[EvaluateParams], params[RuntimeParams]
    torch.set_num_threads(evaluate_params.threads)
    device = set_up_device(runtime.device, shared_directory("devices"))
    model, card = load_model(Path("models/model.safetensors"))
    require_same_classes(card.classes, read_classes(Path("data/classes.json")))
    network = TorchNetwork(model, card, device)
    views = Views(evaluate_params.scales, evaluate_params.flip, evaluate_params.tiles)
    selection = read_instances(Path("data/selection.json")).instances
    objects = objects_by_stem(selection)
    with (
        atomic_directory(Path("data/predictions")) as predictions,
        enough_memory("lower evaluate.batch_size"),
    ):
        results = {
            split: evaluate(
                network,
                read_samples(
                    Path(f"data/splits/{split}.txt"), Path("data/images"), Path("data/masks")
                ),
                objects,
                split=split,
                batch_size=evaluate_params.batch_size,
                workers=runtime.worker_count(),
                views=views,
                predictions=predictions,
            )
            for split in ("val", "test")
        }
    for split, scored in results.items():
        image_counts = msgspec.json.encode(scored.image_counts()).decode()
        write_text(Path(f"metrics/{split}_images.json"), image_counts)
        scores = scored.scores()
        write_json(Path(f"metrics/{split}.json"), scores)
        if scores["miou"] is None:
            logging.warning(
                "mean IoU is undefined: no class but the background occurs in %d %s masks",
                *(scores["images"], split),
            )
        else:
            logging.info("mean IoU %.3f over %d %s images", scores["miou"], scores["images"], split)
    result = results["test"]
    label_errors = result.label_errors({image.stem: image.id for image in selection.images})
    with atomic_file(Path("metrics/label_errors.csv")) as file:
        write_label_errors(file, label_errors)
    with atomic_directory(Path("metrics/plots")) as directory:
        write_plots(directory, result)
    chosen = choose_examples(result, evaluate_params.examples)
    with (
        atomic_directory(Path("metrics/examples")) as directory,
        atomic_directory(Path("metrics/panels")) as panels,
    ):
        examples = write_examples(
            directory,
            panels,
            result,
            chosen,
            network,
            batch_size=evaluate_params.batch_size,
            views=views,
        )
        write_gallery(panels, label_errors[:GALLERY], result.samples, Path("data/predictions"))
    write_json(Path("metrics/test_details.json"), {**result.details(), "examples": examples})
    return {"device": str(device), "images_per_second": result.images_per_second}


if __name__ == "__main__":
    run_stage(main, Path("metrics/machine/evaluate.json"))
