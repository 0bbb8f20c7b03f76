"""Any photo, one call: labels as the evaluation has them, whatever kind of file it is."""

import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

import cocoseg
from cocoseg.core.drawing import overlay_labels
from cocoseg.core.errors import UserError
from cocoseg.export.onnx import write_onnx
from cocoseg.inference import predictor as predictor_module
from cocoseg.inference.batches import normalize, predict_with_confidence
from cocoseg.inference.dataset import MAX_ASPECT, Sample, resize_shorter_side
from cocoseg.inference.predictor import Prediction, Predictor
from cocoseg.models.networks import (
    OUTPUT_STRIDES,
    ModelCard,
    build_model,
    coarse_size,
    fold_batch_norms,
)
from cocoseg.models.weights import save_model
from tests.networks import NAMES, blotches, lively_model
from tests.samples import make_sample


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prediction") / "model.safetensors"
    save_model(path, *lively_model())
    return path


@pytest.fixture(scope="module")
def predictor(model_file: Path) -> Predictor:
    return cocoseg.load(model_file, device="cpu")


def save_sample(directory: Path, stem: str, width: int, height: int) -> Sample:
    """Files of a photo of blotches."""
    sample = make_sample(directory, stem, width, height)
    Image.fromarray(blotches(height, width)).save(sample.image)
    return sample


def test_labels_are_those_that_the_evaluation_scores(tmp_path: Path, predictor: Predictor) -> None:
    model, card = lively_model()
    samples = [save_sample(tmp_path, "wide", 131, 77), save_sample(tmp_path, "high", 48, 64)]
    scored = predict_with_confidence(
        model, card, samples, batch_size=1, workers=0, device=torch.device("cpu")
    )
    for found in scored:
        result = predictor.predict(samples[found.index].image)
        assert len(np.unique(result.labels)) > 1
        assert np.array_equal(result.labels, found.labels.numpy())
        assert result.classes == NAMES


def test_a_large_photo_is_labeled_in_strips_as_it_would_be_at_once(predictor: Predictor) -> None:
    model, card = lively_model()
    photo = blotches(1700, 2000)
    result = predictor.predict(photo)
    images = resize_shorter_side(torch.from_numpy(photo).permute(2, 0, 1), card.size)[None]
    with torch.inference_mode():
        logits = fold_batch_norms(model)(normalize(images, card), (1700, 2000))["out"][0]
    assert len(np.unique(result.labels)) > 1
    assert np.array_equal(result.labels, logits.argmax(dim=0).numpy())
    assert np.array_equal(np.asarray(result.overlay()), overlay_labels(photo, result.labels))


@pytest.mark.parametrize("backend", ["pytorch", "onnx"])
def test_tiles_are_labeled_as_the_evaluation_scores_them(
    tmp_path: Path, predictor: Predictor, backend: str
) -> None:
    model, card = lively_model()
    sample = save_sample(tmp_path, "large", 420, 250)
    if backend == "onnx":
        write_onnx(tmp_path / "model.onnx", model, card, opset=18)
        predictor = cocoseg.load(tmp_path / "model.onnx")
    (scored,) = predict_with_confidence(
        model, card, [sample], batch_size=4, workers=0, device=torch.device("cpu"), tiles="full"
    )
    result = predictor.predict(sample.image, tiles="full")
    assert (result.labels == scored.labels.numpy()).mean() > 0.999
    assert (result.labels != predictor.predict(sample.image).labels).mean() > 0.01
    probabilities = result.probabilities().astype(np.float32)
    assert np.allclose(probabilities, scored.probabilities.numpy(), atol=2e-3)
    ((_, again),) = predictor.predict_files([sample.image], batch_size=3, tiles=96)
    assert isinstance(again, Prediction)
    assert (result.labels == again.labels).mean() > 0.999
    assert sum(result.fractions().values()) == pytest.approx(1)


def test_a_photo_that_fits_into_a_tile_is_labeled_as_without_tiles(predictor: Predictor) -> None:
    photo = blotches(90, 131)
    untiled, tiled = predictor.predict(photo), predictor.predict(photo, tiles=131)
    assert np.array_equal(tiled.labels, untiled.labels)
    assert np.array_equal(tiled.probabilities(), untiled.probabilities())


def test_a_path_a_picture_and_an_array_are_the_same_photo(
    tmp_path: Path, predictor: Predictor
) -> None:
    photo = blotches(60, 80)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    expected = predictor.predict(photo).labels
    assert np.array_equal(predictor.predict(tmp_path / "photo.png").labels, expected)
    assert np.array_equal(predictor.predict(str(tmp_path / "photo.png")).labels, expected)
    with Image.open(tmp_path / "photo.png") as image:
        assert np.array_equal(predictor.predict(image).labels, expected)


def test_a_photo_is_labeled_as_its_exif_turns_it(tmp_path: Path, predictor: Predictor) -> None:
    stored = blotches(60, 80)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(stored).save(tmp_path / "turned.png", exif=exif)
    expected = predictor.predict(np.rot90(stored, -1).copy())
    assert expected.labels.shape == (80, 60)
    for image in (tmp_path / "turned.png", Image.open(tmp_path / "turned.png")):
        result = predictor.predict(image)
        assert np.array_equal(result.labels, expected.labels)
        assert np.array_equal(result.photo, expected.photo)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "YCbCr"])
def test_every_kind_of_picture_is_labeled(tmp_path: Path, predictor: Predictor, mode: str) -> None:
    image = Image.fromarray(blotches(50, 70))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    else:
        image = image.convert(mode)
    path = tmp_path / f"photo.{'tif' if mode in ('CMYK', 'YCbCr') else 'png'}"
    image.save(path)
    assert predictor.predict(path).labels.shape == (50, 70)
    assert np.array_equal(predictor.predict(path).labels, predictor.predict(image).labels)


@pytest.mark.parametrize("shape", [(1, 1), (1, 8000), (8000, 2), (8000, 1000)])
def test_the_smallest_and_the_longest_photos_are_labeled(
    predictor: Predictor, shape: tuple[int, int]
) -> None:
    seen: list[torch.Size] = []

    def network(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        seen.append(images.shape)
        return predictor.network(images, size)

    result = Predictor(network, predictor.card).predict(blotches(*shape))
    assert result.labels.shape == shape
    assert sum(result.fractions().values()) == pytest.approx(1)
    assert result.overlay().size == shape[::-1]
    # The network never sees more than a strip of 96 x (16 * 96) pixels.
    assert max(seen[0]) <= MAX_ASPECT * 96


def test_memory_does_not_grow_with_the_number_of_classes() -> None:
    """As one array the logits would take 1.5 GB."""
    names = tuple(f"class {number}" for number in range(254))
    card = ModelCard("deeplabv3_mobilenet_v3_large", names, 48)
    logits = torch.rand(1, 254, 3, 3, generator=torch.Generator().manual_seed(0))
    predictor = Predictor(lambda images, size: logits, card)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = predictor.predict(blotches(1200, 1200))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert len(np.unique(result.labels)) > 3
    assert grown < 400 * (2**20 if sys.platform == "darwin" else 2**10)


def test_probabilities_shares_and_labels_say_the_same(predictor: Predictor) -> None:
    result = predictor.predict(blotches(60, 80))
    probabilities = result.probabilities()
    assert probabilities.dtype == np.float16
    assert probabilities.shape == (3, 60, 80)
    assert np.allclose(probabilities.astype(float).sum(axis=0), 1, atol=2e-3)
    highest = probabilities.max(axis=0)
    of_labels = np.take_along_axis(probabilities, result.labels[None].astype(int), axis=0)[0]
    assert np.array_equal(of_labels, highest)
    counts = np.bincount(result.labels.ravel(), minlength=3)
    assert list(result.fractions()) == list(NAMES)
    assert np.allclose(list(result.fractions().values()), counts / counts.sum())


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_many_photos_are_labeled_as_each_alone_and_bad_files_are_named(
    tmp_path: Path, predictor: Predictor, batch_size: int
) -> None:
    sizes = [(80, 60), (60, 80), (80, 60), (160, 120), (80, 60)]
    paths = []
    for number, (width, height) in enumerate(sizes):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(blotches(height, width, seed=number)).save(paths[-1])
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(paths[0].read_bytes()[:500])
    files = [paths[0], damaged, *paths[1:], tmp_path / "missing.png"]
    results = dict(predictor.predict_files(files, batch_size))
    assert set(results) == set(files)
    for bad in (damaged, tmp_path / "missing.png"):
        assert isinstance(results[bad], UserError)
        assert str(bad) in str(results[bad])
    for path in paths:
        result = results[path]
        assert isinstance(result, Prediction)
        # A batch may sum in another order: some pixel on a border may be of the other class.
        assert (result.labels == predictor.predict(path).labels).mean() > 0.999


def test_photos_do_not_pile_up_in_memory_while_they_wait_for_others_of_their_shape(
    tmp_path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictor_module, "_WAITING", 30_000)
    opened: list[Path] = []

    def paths() -> Iterator[Path]:
        for number in range(6):
            path = tmp_path / f"{number}.png"
            Image.fromarray(blotches(60, 80 + 10 * number)).save(path)  # 14,400 bytes or more
            opened.append(path)
            yield path

    labeled = []
    for path, _ in predictor.predict_files(paths(), batch_size=8):
        labeled.append(path)
        assert len(opened) <= len(labeled) + 3
    assert labeled == opened


def test_the_onnx_file_is_used_in_the_same_way(tmp_path: Path, predictor: Predictor) -> None:
    write_onnx(tmp_path / "model.onnx", *lively_model(), opset=18)
    photo = blotches(90, 131)
    result = cocoseg.load(str(tmp_path / "model.onnx")).predict(photo)
    assert result.classes == NAMES
    assert (result.labels == predictor.predict(photo).labels).mean() > 0.999


@pytest.mark.parametrize("architecture", OUTPUT_STRIDES)
def test_logits_are_taken_at_the_resolution_at_which_each_network_makes_them(
    architecture: str,
) -> None:
    model = build_model(architecture, 3).eval()
    with torch.inference_mode():
        features = model.backbone(torch.empty(1, 3, 100, 75))
        logits = model.classifier(features if "low" in features else features["out"])
    card = ModelCard(architecture, NAMES, 75)
    assert logits.shape[2:] == coarse_size(card, torch.empty(3, 100, 75))


@pytest.mark.parametrize("shape", [(5, 5), (5, 5, 4), (0, 5, 3)])
def test_an_array_that_is_no_rgb_photo_is_refused(
    predictor: Predictor, shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"uint8 \(H, W, 3\) is needed"):
        predictor.predict(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="not float64"):
        predictor.predict(np.zeros((5, 5, 3)))


def test_a_photo_too_long_for_its_overlay_is_refused(predictor: Predictor) -> None:
    with pytest.raises(UserError, match="a side of 65501 pixels"):
        predictor.predict(np.zeros((1, 65_501, 3), np.uint8))


def test_importing_cocoseg_does_not_import_torch() -> None:
    code = "import sys, cocoseg; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = cocoseg.lod
