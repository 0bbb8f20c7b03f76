"""torchvision's segmentation networks by name, fetched from a server on this machine."""

import hashlib
import io
import json
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models import get_model, get_model_weights, list_models, segmentation
from torchvision.transforms.v2.functional import pil_to_tensor

import cocoseg
from cocoseg.cli import main
from cocoseg.core.errors import UserError
from cocoseg.core.labels import write_classes
from cocoseg.models.networks import OUTPUT_STRIDES
from tests import ROOT
from tests.misbehaving_server import MisbehavingServer
from tests.networks import blotches
from tests.samples import make_sample

NAME = "lraspp_mobilenet_v3_large"
WEIGHTS = get_model_weights(NAME)["COCO_WITH_VOC_LABELS_V1"]


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    """torchvision's network with random weights that predict several classes."""
    torch.manual_seed(0)
    model: nn.Module = get_model(NAME, weights=None, weights_backbone=None, num_classes=21)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # a cumulative mean
    images = torch.stack([transformed(blotches(96, 96, seed)) for seed in range(8)])
    with torch.no_grad():
        model(images)
        logits = model.eval()(images)["out"]
        model.get_parameter("classifier.high_classifier.bias").sub_(logits.mean(dim=(0, 2, 3)))
    return model


def transformed(image: np.ndarray) -> torch.Tensor:
    return WEIGHTS.transforms(resize_size=None)(pil_to_tensor(Image.fromarray(image)))


@pytest.fixture
def server(
    theirs: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MisbehavingServer]:
    """A server of the weights, whose hash is in the file name; torch's cache is empty."""
    buffer = io.BytesIO()
    torch.save(theirs.state_dict(), buffer)
    content = buffer.getvalue()
    path = f"/weights-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    with MisbehavingServer({path: content}) as server:
        monkeypatch.setattr(WEIGHTS.value, "url", f"{server.url}{path}")
        yield server


def test_labels_are_those_of_torchvisions_network_and_weights_are_fetched_once(
    server: MisbehavingServer, theirs: nn.Module
) -> None:
    image = blotches(520, 600, seed=9)  # the size of the weights' own preprocessing
    predictor = cocoseg.load(f"torchvision:{NAME}", "cpu")
    predictors = [predictor, pickle.loads(pickle.dumps(predictor))]
    assert len(server.requests) == 1
    with torch.inference_mode():
        expected = theirs(transformed(image)[None])["out"][0].argmax(dim=0).numpy()
    assert len(np.unique(expected)) > 3
    for predictor in predictors:
        assert (predictor.predict(image).labels == expected).mean() > 0.999


def test_classes_have_the_names_of_coco(server: MisbehavingServer) -> None:
    card = cocoseg.load(f"torchvision:{NAME}", "cpu").card
    names = (
        "background airplane bicycle bird boat bottle bus car cat chair cow dining_table dog horse "
        "motorcycle person potted_plant sheep couch train tv"
    )
    assert " ".join(name.replace(" ", "_") for name in card.classes) == names
    assert card.size == 520
    assert card.pretraining_overlap


def test_a_photograph_is_segmented_without_a_model_file(
    server: MisbehavingServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(blotches(60, 80)).save("photo.png")
    main(["predict", "photo.png", "--model", f"torchvision:{NAME}", "--device", "cpu"])
    (line,) = capsys.readouterr().out.splitlines()  # torch's own lines are on stderr
    assert re.match(r"photo.png: background \d.*, potted plant \d", line)
    assert cocoseg.read_mask(Path("predictions/photo_mask.png")).shape == (60, 80)


def test_a_model_of_torchvision_is_scored_by_class_names(
    server: MisbehavingServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    preset = (ROOT / "presets/sample.yaml").read_text(encoding="utf-8")
    quick = preset.replace("threads: 2", "threads: 1").replace("workers: auto", "workers: 0")
    Path("params.yaml").write_text(quick, encoding="utf-8")
    Path("data/splits").mkdir(parents=True)
    make_sample(Path("data"), "one")
    Path("data/splits/val.txt").write_text("one\n", encoding="utf-8")
    write_classes(Path("data/classes.json"), ["couch", "unicorn"])
    main(["evaluate", f"torchvision:{NAME}", "--split", "val", "--json"])
    scores = json.loads(capsys.readouterr().out)
    assert list(scores["iou"]) == ["background", "couch"]
    assert scores["unknown_to_model"] == ["unicorn"]
    assert len(scores["unknown_to_data"]) == 19
    assert scores["images"] == 1


def test_an_unreachable_server_and_other_content_are_one_line_errors(
    server: MisbehavingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = server.files
    server.files[path] = b"another file"
    with pytest.raises(UserError, match=r"^torchvision:lraspp\w+: cannot download .* invalid hash"):
        cocoseg.load(f"torchvision:{NAME}")
    server.files.clear()
    with pytest.raises(UserError, match="Not Found; check the network connection"):
        cocoseg.load(f"torchvision:{NAME}")
    server.server_close()
    Image.fromarray(blotches(60, 80)).save(tmp_path / "photo.png")
    arguments = ["predict", str(tmp_path / "photo.png"), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match=r"^error: torchvision:[^\n]*; check the network[^\n]*$"):
        main([*arguments, "--model", f"torchvision:{NAME}"])


def test_an_unknown_name_is_refused_with_the_names_of_torchvision() -> None:
    choices = list_models(module=segmentation)
    assert set(choices) <= OUTPUT_STRIDES.keys()
    with pytest.raises(UserError, match=f"no such segmentation network; use one of {choices[0]}"):
        cocoseg.load("torchvision:lraspp")
