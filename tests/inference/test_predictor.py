"""Prediction of any image with a model file."""

import os
import pickle
import resource
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

import cocoseg
from cocoseg.core.drawing import overlay_labels
from cocoseg.core.errors import MissingFileError, UserError
from cocoseg.export.onnx import write_onnx
from cocoseg.inference import predictor as predictor_module
from cocoseg.inference.backends import TorchNetwork, normalize
from cocoseg.inference.batches import Views, predict_samples
from cocoseg.inference.dataset import MAX_ASPECT, Sample, resize_shorter_side
from cocoseg.inference.predictor import Prediction, Predictor
from cocoseg.models.heads import resize_bilinear
from cocoseg.models.networks import (
    BACKBONES,
    OUTPUT_STRIDES,
    ModelCard,
    build_model,
    coarse_size,
    fold_batch_norms,
)
from cocoseg.models.weights import save_model
from tests.networks import CPU, NAMES, FunctionNetwork, blotches, lively_model
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
    """Save blotches as the image of a sample."""
    sample = make_sample(directory, stem, width, height)
    Image.fromarray(blotches(height, width)).save(sample.image)
    return sample


def test_labels_equal_those_of_the_evaluation(tmp_path: Path, predictor: Predictor) -> None:
    network = TorchNetwork(*lively_model(), CPU)
    samples = [save_sample(tmp_path, "wide", 131, 77), save_sample(tmp_path, "high", 48, 64)]
    for found in predict_samples(network, samples, batch_size=1, workers=0):
        result = predictor.predict(samples[found.index].image)
        assert len(np.unique(result.labels)) > 1
        assert np.array_equal(result.labels, found.labels.numpy())
        assert result.classes == NAMES


def test_a_large_image_is_predicted_in_strips_without_a_difference(predictor: Predictor) -> None:
    model, card = lively_model()
    image = blotches(1700, 2000)
    result = predictor.predict(image)
    images = resize_shorter_side(torch.from_numpy(image).permute(2, 0, 1), card.size)[None]
    with torch.inference_mode():
        logits = fold_batch_norms(model)(normalize(images, card), (1700, 2000))["out"][0]
    assert len(list(result.logits())) > 1
    assert len(np.unique(result.labels)) > 1
    assert np.array_equal(result.labels, logits.argmax(dim=0).numpy())
    assert np.array_equal(np.asarray(result.overlay()), overlay_labels(image, result.labels))
    faint = overlay_labels(image, result.labels, 0.2)
    assert np.array_equal(np.asarray(result.overlay(opacity=0.2)), faint)


@pytest.mark.parametrize("backend", ["pytorch", "onnx"])
def test_labels_in_tiles_equal_those_of_the_evaluation(
    tmp_path: Path, predictor: Predictor, backend: str
) -> None:
    model, card = lively_model()
    sample = save_sample(tmp_path, "large", 420, 250)
    if backend == "onnx":
        write_onnx(tmp_path / "model.onnx", model, card, opset=18)
        predictor = cocoseg.load(tmp_path / "model.onnx")
    network, views = TorchNetwork(model, card, CPU), Views(tiles="full")
    (scored,) = predict_samples(network, [sample], batch_size=4, workers=0, views=views)
    result = predictor.predict(sample.image, tiles="full")
    assert (result.labels == scored.labels.numpy()).mean() > 0.999
    assert (result.labels != predictor.predict(sample.image).labels).mean() > 0.01
    probabilities = result.probabilities().astype(np.float32)
    assert np.allclose(probabilities, scored.probabilities.numpy(), atol=2e-3)
    ((_, again),) = predictor.predict_many([sample.image], batch_size=3, tiles=96)
    assert isinstance(again, Prediction)
    assert (result.labels == again.labels).mean() > 0.999


def test_tiles_do_not_affect_an_image_that_fits_into_one(predictor: Predictor) -> None:
    image = blotches(90, 131)
    untiled, tiled = predictor.predict(image), predictor.predict(image, tiles=131)
    assert np.array_equal(tiled.labels, untiled.labels)
    assert np.array_equal(tiled.probabilities(), untiled.probabilities())


def test_paths_pil_images_and_arrays_give_the_same_labels(
    tmp_path: Path, predictor: Predictor
) -> None:
    image = blotches(60, 80)
    Image.fromarray(image).save(tmp_path / "image.png")
    expected = predictor.predict(image).labels
    assert np.array_equal(predictor.predict(tmp_path / "image.png").labels, expected)
    assert np.array_equal(predictor.predict(str(tmp_path / "image.png")).labels, expected)
    with Image.open(tmp_path / "image.png") as opened:
        assert np.array_equal(predictor.predict(opened).labels, expected)
    with (tmp_path / "image.png").open("rb") as file:
        assert np.array_equal(predictor.predict(file).labels, expected)


def test_the_exif_orientation_is_applied(tmp_path: Path, predictor: Predictor) -> None:
    stored = blotches(60, 80)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(stored).save(tmp_path / "rotated.png", exif=exif)
    expected = predictor.predict(np.rot90(stored, -1).copy())
    assert expected.labels.shape == (80, 60)
    for image in (tmp_path / "rotated.png", Image.open(tmp_path / "rotated.png")):
        result = predictor.predict(image)
        assert np.array_equal(result.labels, expected.labels)
        assert np.array_equal(result.image, expected.image)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "YCbCr"])
def test_images_of_every_mode_are_predicted(
    tmp_path: Path, predictor: Predictor, mode: str
) -> None:
    image = Image.fromarray(blotches(50, 70))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    else:
        image = image.convert(mode)
    path = tmp_path / f"image.{'tif' if mode in ('CMYK', 'YCbCr') else 'png'}"
    image.save(path)
    assert predictor.predict(path).labels.shape == (50, 70)
    assert np.array_equal(predictor.predict(path).labels, predictor.predict(image).labels)


@pytest.mark.parametrize("shape", [(1, 1), (1, 8000), (8000, 2), (8000, 1000)])
def test_the_smallest_and_the_longest_images_are_predicted(
    predictor: Predictor, shape: tuple[int, int]
) -> None:
    inputs: list[torch.Size] = []

    def function(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        inputs.append(images.shape)
        return predictor.network(images, size)

    result = Predictor(FunctionNetwork(function, predictor.card)).predict(blotches(*shape))
    assert result.labels.shape == shape
    assert sum(result.fractions().values()) == pytest.approx(1)
    assert result.overlay().size == shape[::-1]
    assert max(inputs[0]) <= MAX_ASPECT * 96


def test_memory_does_not_grow_with_the_number_of_classes() -> None:
    """The full logits would take 1.5 GB."""
    names = tuple(f"class {number}" for number in range(254))
    card = ModelCard("deeplabv3_mobilenet_v3_large", names, 48)
    logits = torch.rand(1, 254, 3, 3, generator=torch.Generator().manual_seed(0))
    predictor = Predictor(FunctionNetwork(lambda images, size: logits, card))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = predictor.predict(blotches(1200, 1200))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert len(np.unique(result.labels)) > 3
    assert grown < 400 * (2**20 if sys.platform == "darwin" else 2**10)


@pytest.mark.parametrize("tiles", [None, 48])
def test_probabilities_are_the_softmax_of_the_logits(
    predictor: Predictor, tiles: int | None
) -> None:
    result = predictor.predict(blotches(60, 80), tiles=tiles)
    logits = np.concatenate([rows.numpy() for _, rows in result.logits()], axis=1)
    expected = np.exp(logits) / np.exp(logits).sum(axis=0)
    probabilities = result.probabilities()
    assert probabilities.dtype == np.float16
    assert probabilities.shape == (3, 60, 80)
    assert np.allclose(probabilities, expected, atol=1e-3)
    assert np.array_equal(result.labels, logits.argmax(axis=0))


def test_fractions_are_those_of_the_labels() -> None:
    labels = np.array([[0, 0, 0, 2]], np.uint8)
    result = Prediction(np.zeros((1, 4, 3), np.uint8), labels, NAMES, lambda: iter([]))
    assert list(result.fractions().items()) == [("background", 0.75), ("red", 0), ("blue", 0.25)]


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_batches_do_not_change_labels_and_unreadable_files_are_reported(
    tmp_path: Path, predictor: Predictor, batch_size: int
) -> None:
    sizes = [(80, 60), (60, 80), (80, 60), (160, 120), (80, 60)]
    paths = []
    for number, (width, height) in enumerate(sizes):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(blotches(height, width, seed=number)).save(paths[-1])
    damaged, missing = tmp_path / "damaged.png", tmp_path / "missing.png"
    damaged.write_bytes(paths[0].read_bytes()[:500])
    files = [paths[0], damaged, *paths[1:], missing, tmp_path]
    results = {}
    for path, result in predictor.predict_many(files, batch_size):
        assert not torch.is_inference_mode_enabled()
        results[path] = result
    assert set(results) == set(files)
    for path in (damaged, missing, tmp_path):
        assert isinstance(results[path], UserError)
        assert str(path) in str(results[path])
    with pytest.raises(MissingFileError, match=r"missing\.png not found"):
        predictor.predict(missing)
    for path in paths:
        result = results[path]
        assert isinstance(result, Prediction)
        # The order of float sums depends on the batch, which can change pixels on borders.
        assert (result.labels == predictor.predict(path).labels).mean() > 0.999


def test_images_of_one_shape_are_predicted_in_batches(predictor: Predictor) -> None:
    counts: list[int] = []

    def function(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        counts.append(len(images))
        return predictor.network(images, size)

    images = [blotches(60, 80, seed) for seed in range(5)]
    results = Predictor(FunctionNetwork(function, predictor.card)).predict_many(images, 2)
    assert [image is expected for (image, _), expected in zip(results, images, strict=True)]
    assert counts == [2, 2, 1]


def test_few_images_wait_in_memory_for_others_of_their_shape(
    tmp_path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictor_module, "_WAITING", 30_000)
    monkeypatch.setattr(predictor_module, "READ_AHEAD", 30_000)
    opened: list[Path] = []

    def paths() -> Iterator[Path]:
        for number in range(6):
            path = tmp_path / f"{number}.png"
            Image.fromarray(blotches(60, 80 + 10 * number)).save(path)  # at least 14,400 bytes
            opened.append(path)
            yield path

    predicted = []
    for path, _ in predictor.predict_many(paths(), batch_size=8):
        predicted.append(path)
        assert len(opened) <= len(predicted) + 5  # of which threads read two ahead
    assert predicted == opened


def test_a_list_is_predicted_in_batches_and_its_order_is_kept(
    tmp_path: Path, predictor: Predictor
) -> None:
    counts: list[int] = []

    def function(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        counts.append(len(images))
        return predictor.network(images, size)

    images = [blotches(*shape, seed) for seed, shape in enumerate([(60, 80), (80, 60), (60, 80)])]
    listed = Predictor(FunctionNetwork(function, predictor.card)).predict(images)
    assert counts == [2, 1]
    for image, result in zip(images, listed, strict=True):
        assert (result.labels == predictor.predict(image).labels).mean() > 0.999
    assert predictor.predict([]) == []
    with pytest.raises(UserError, match=r"missing\.png not found"):
        predictor.predict([tmp_path / "missing.png"])


@pytest.mark.parametrize("tiles", [None, 96])
def test_views_are_averaged_as_in_the_evaluation(
    tmp_path: Path, predictor: Predictor, tiles: int | None
) -> None:
    sample = save_sample(tmp_path, "image", 210, 150)
    views = Views(scales=(0.5, 1.25), flip=True, tiles=tiles)
    network = TorchNetwork(*lively_model(), CPU)
    (scored,) = predict_samples(network, [sample], batch_size=4, workers=0, views=views)
    result = predictor.predict(sample.image, tiles, flip=True, scales=(0.5, 1.25))
    assert (result.labels == scored.labels.numpy()).mean() > 0.999
    probabilities = result.probabilities().astype(np.float32)
    assert np.allclose(probabilities, scored.probabilities.numpy(), atol=2e-3)
    assert (result.labels != predictor.predict(sample.image, tiles).labels).mean() > 0.01


@pytest.mark.parametrize(("kept_bytes", "runs_again"), [(200_000_000, False), (1, True)])
def test_probabilities_do_not_run_tiles_again_while_their_logits_fit_in_memory(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, kept_bytes: int, runs_again: bool
) -> None:
    monkeypatch.setattr(predictor_module, "_WAITING", kept_bytes)
    calls = 0

    def function(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return predictor.network(images, size)

    image = blotches(200, 300)
    counting = Predictor(FunctionNetwork(function, predictor.card))
    result = counting.predict(image, tiles=96)
    once = calls
    probabilities = result.probabilities()
    assert once > 2
    assert (calls > once) is runs_again
    assert (probabilities.argmax(axis=0) == result.labels).mean() > 0.99  # float16 has ties
    assert np.array_equal(probabilities, predictor.predict(image, tiles=96).probabilities())


@pytest.mark.parametrize("name", ["model.safetensors", "model.onnx"])
def test_a_pickled_predictor_is_its_path_and_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    save_model(tmp_path / "model.safetensors", *lively_model())
    write_onnx(tmp_path / "model.onnx", *lively_model(), opset=18)
    monkeypatch.chdir(tmp_path)
    predictor = cocoseg.load(name, device="cpu")
    pickled = pickle.dumps(predictor)
    assert len(pickled) < 1000
    monkeypatch.chdir("/")
    copy = pickle.loads(pickled)
    image = blotches(60, 80)
    assert np.array_equal(copy.predict(image).labels, predictor.predict(image).labels)
    assert copy.device == CPU


def test_a_predictor_that_was_not_loaded_is_not_pickled(predictor: Predictor) -> None:
    with pytest.raises(pickle.PicklingError, match="only predictors that `load` returned"):
        pickle.dumps(Predictor(predictor.network))


FORK = """
import os, signal, sys, threading
import numpy as np, torch
import cocoseg

def attempt(predict):
    try:
        print(predict(image).labels.shape, flush=True)
    except cocoseg.UserError as error:
        print(error, flush=True)

def load_and_predict(image):
    return cocoseg.load(path, "cpu").predict(image)

path = sys.argv[1]
torch.set_num_threads(2)
image = np.random.default_rng(0).integers(0, 256, (480, 640, 3)).astype(np.uint8)
predictor = cocoseg.load(path, "cpu")
attempt(predictor.predict)
if os.fork():
    os.wait()
    sys.exit()
signal.alarm(600)  # ends a process that hangs
attempt(predictor.predict)
attempt(load_and_predict)
thread = threading.Thread(target=attempt, args=[predictor.predict])
thread.start()
thread.join()
torch.set_num_threads(1)
attempt(predictor.predict)
attempt(load_and_predict)
os._exit(0)  # at a normal exit, PyTorch may wait for threads that the fork did not copy
"""


@pytest.mark.parametrize("name", ["model.safetensors", "model.onnx"])
def test_after_a_fork_prediction_works_or_says_what_to_do(tmp_path: Path, name: str) -> None:
    save_model(tmp_path / "model.safetensors", *lively_model())
    write_onnx(tmp_path / "model.onnx", *lively_model(), opset=18)
    command = [sys.executable, "-c", FORK, tmp_path / name]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    expected, *attempts = result.stdout.splitlines()
    assert expected == "(480, 640)"
    hang = (
        "PyTorch would hang in this process, which was forked after a model was used: load models "
        "only after the fork, or call torch.set_num_threads(1) in the new process first"
    )
    again = (
        "an ONNX model cannot be used in a process that was forked after it was loaded: load it in "
        "the new process"
    )
    if name == "model.onnx":
        assert attempts == [hang, hang, again, again, expected]
    else:
        assert attempts == [hang, hang, expected, expected, expected]


def test_onnx_files_are_loaded_by_path(tmp_path: Path, predictor: Predictor) -> None:
    write_onnx(tmp_path / "model.onnx", *lively_model(), opset=18)
    image = blotches(90, 131)
    result = cocoseg.load(str(tmp_path / "model.onnx")).predict(image)
    assert result.classes == NAMES
    assert (result.labels == predictor.predict(image).labels).mean() > 0.999


@pytest.mark.parametrize("architecture", OUTPUT_STRIDES)
def test_output_strides_are_those_of_the_networks(architecture: str) -> None:
    """The network upsamples logits of this size, also those of padded images."""
    encoder = None if architecture in BACKBONES else "mobilenet_v2"
    model = build_model(architecture, 3, encoder=encoder).eval()
    images = torch.zeros(1, 3, 100, 75)
    size = coarse_size(ModelCard(architecture, NAMES, 75), images)
    with torch.inference_mode():
        coarse = model(images, size)["out"]
        upsampled = model(images)["out"]
    torch.testing.assert_close(upsampled, resize_bilinear(coarse, 100, 75))


@pytest.mark.parametrize("shape", [(5, 5), (5, 5, 4), (0, 5, 3)])
def test_arrays_other_than_rgb_are_refused(predictor: Predictor, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected an image uint8 \(H, W, 3\), got uint8"):
        predictor.predict(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="got float64"):
        predictor.predict(np.zeros((5, 5, 3)))


def test_an_image_too_long_for_a_jpeg_overlay_is_refused(predictor: Predictor) -> None:
    with pytest.raises(UserError, match="a side has 65501 pixels, more than the maximum of 65500"):
        predictor.predict(np.zeros((1, 65_501, 3), np.uint8))


@pytest.mark.parametrize("name", ["model.safetensors", "model.onnx"])
def test_a_missing_model_is_a_file_not_found_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match=rf"{name} not found: .*`dvc repro"):
        cocoseg.load(tmp_path / name)
    with pytest.raises(cocoseg.UserError):
        cocoseg.load(tmp_path / name)


@pytest.mark.parametrize("name", ["model.safetensors", "model.onnx"])
def test_the_device_is_the_one_asked_for(tmp_path: Path, name: str) -> None:
    save_model(tmp_path / "model.safetensors", *lively_model())
    write_onnx(tmp_path / "model.onnx", *lively_model(), opset=18)
    assert cocoseg.load(tmp_path / name, device="cpu").device == CPU
    with pytest.raises(UserError, match="cuda:99 is not available"):
        cocoseg.load(tmp_path / name, device="cuda:99")


@pytest.mark.parametrize("tiles", [None, 48])
def test_too_little_gpu_memory_is_a_one_line_error(tiles: int | None) -> None:
    def function(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB.")

    predictor = Predictor(FunctionNetwork(function, lively_model()[1]))
    with pytest.raises(UserError, match=r"^out of GPU memory: lower the batch size [^\n]*$"):
        predictor.predict(blotches(60, 80), tiles=tiles)


def test_image_files_larger_than_those_of_data_sets_are_read(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(blotches(60, 80)).save(tmp_path / "image.png")
    monkeypatch.setattr(predictor_module, "MAX_PREDICTION_PIXELS", 60 * 80 - 1)
    with pytest.raises(UserError, match=r"image\.png"):
        predictor.predict(tmp_path / "image.png")
    monkeypatch.setattr(predictor_module, "MAX_PREDICTION_PIXELS", 60 * 80)
    predictor.predict(tmp_path / "image.png")


def test_loading_and_predicting_change_no_state_of_the_process(model_file: Path) -> None:
    def state() -> list[object]:
        return [
            torch.are_deterministic_algorithms_enabled(),
            torch.get_rng_state().tolist(),
            torch.get_num_threads(),
            torch.get_default_dtype(),
            torch.get_default_device(),
            torch.backends.cudnn.benchmark,
            np.random.get_state()[1].tolist(),  # noqa: NPY002
            Image.MAX_IMAGE_PIXELS,
            list(warnings.filters),
            dict(os.environ),
        ]

    before = state()
    cocoseg.load(model_file, device="cpu").predict(blotches(48, 64))
    assert state() == before


def test_importing_the_predictor_changes_no_warning_filters() -> None:
    code = """
        import sys, warnings
        import onnxruntime, safetensors.torch, torchvision.models.segmentation  # change them
        before = list(warnings.filters)
        import cocoseg
        cocoseg.load
        sys.exit(warnings.filters != before)
    """
    program = "\n".join(line.strip() for line in code.splitlines())
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
