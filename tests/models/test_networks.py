"""Networks: equivalence of their shortcuts, pretrained weights and model files."""

import copy
import sys
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional
from torchvision.models import MobileNet_V3_Large_Weights, Weights, WeightsEnum, get_model

from cocoseg.core.errors import MissingFileError, UserError
from cocoseg.inference.backends import normalize
from cocoseg.models.heads import DilatedConv2d, SkipHead
from cocoseg.models.networks import (
    BACKBONES,
    ModelCard,
    build_model,
    estimate_norms,
    fold_batch_norms,
    synchronize_norms,
)
from cocoseg.models.weights import _download, load_model, load_pretrained, save_model
from tests import ROOT
from tests.networks import ENCODERS, blotches, lively_model

ARCHITECTURE = "deeplabv3_mobilenet_v3_large"
NAMES = ("background", "person", "bicycle", "car", "motorcycle", "airplane")
CARD = ModelCard(ARCHITECTURE, NAMES, 64)
BACKBONE = ROOT.parent / "shared/weights/mobilenet_v3_large_features.safetensors"


@pytest.mark.parametrize("shape", [(5, 7), (12, 30), (30, 12), (13, 13)])
def test_skipping_kernel_taps_over_padding_changes_neither_output_nor_gradient(
    shape: tuple[int, int],
) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(3, 4, 3, padding=12, dilation=12, bias=False).double()
    short = DilatedConv2d(3, 4, 3, padding=12, dilation=12, bias=False).double()
    short.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, *shape, dtype=torch.float64)
    expected, result = plain(images), short(images)
    torch.testing.assert_close(result, expected)
    weights = torch.randn_like(expected)
    (expected * weights).sum().backward()
    (result * weights).sum().backward()
    torch.testing.assert_close(short.weight.grad, plain.weight.grad)


def test_depthwise_convolutions_may_skip_taps_too() -> None:
    torch.manual_seed(0)
    short = DilatedConv2d(4, 4, 3, padding=12, dilation=12, groups=4)
    images = torch.randn(2, 4, 5, 30)
    torch.testing.assert_close(short(images), nn.Conv2d.forward(short, images))


@pytest.mark.parametrize("architecture", [ARCHITECTURE, "lraspp_mobilenet_v3_large"])
def test_logits_equal_those_of_torchvisions_network(architecture: str) -> None:
    """The layers of this network are scaled so that each of them affects the logits."""
    ours, card = lively_model(architecture)
    options = {} if architecture.startswith("lraspp") else {"aux_loss": True}
    theirs = get_model(
        architecture, weights=None, weights_backbone=None, num_classes=3, **options
    ).eval()
    theirs.load_state_dict(ours.state_dict())
    rgb = torch.from_numpy(blotches(96, 128, seed=9)).permute(2, 0, 1)[None]
    images = normalize(rgb, card)
    with torch.inference_mode():
        expected = theirs(images)["out"]
        difference = (ours(images)["out"] - expected).abs().max()
    assert difference < 1e-3 * expected.std()


def test_the_decoder_of_deeplabv3plus_uses_low_and_high_level_features() -> None:
    torch.manual_seed(0)
    head = SkipHead(4, 8, classes=3, channels=6).eval()
    features = {"low": torch.randn(1, 4, 40, 60), "high": torch.randn(1, 8, 10, 15)}
    logits = head(features)
    assert logits.shape == (1, 3, 40, 60)
    for name, maps in features.items():
        assert not torch.allclose(head({**features, name: maps.flip(-1)}), logits)


@pytest.mark.parametrize(
    ("architecture", "encoder"), [*((name, None) for name in BACKBONES), *ENCODERS.items()]
)
def test_folding_batch_norms_does_not_change_the_logits(
    architecture: str, encoder: str | None
) -> None:
    torch.manual_seed(0)
    model = build_model(architecture, 6, encoder=encoder)
    randomize_norms(model)
    folded = fold_batch_norms(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    images = torch.randn(2, 3, 70, 101)
    with torch.inference_mode():
        expected = model.eval()(images)["out"]
        difference = (folded(images)["out"] - expected).abs().max()
    assert difference < 1e-3 * expected.std()


def randomize_norms(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias):
                nn.init.normal_(tensor, std=0.1)
            for tensor in (module.running_var, module.weight):
                nn.init.uniform_(tensor, 0.5, 1.5)


@pytest.mark.parametrize("architecture", ["deeplabv3plus", "fpn"])
def test_synchronized_norms_compute_the_same_in_evaluation(architecture: str) -> None:
    """The norms of timm include activations, which PyTorch's conversion would drop."""
    model = build_model(architecture, 3, encoder=ENCODERS[architecture])
    randomize_norms(model)
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected = model.eval()(images)["out"]
        converted = synchronize_norms(copy.deepcopy(model)).eval()
        torch.testing.assert_close(converted(images)["out"], expected)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in converted.modules())


def test_images_of_any_size_are_padded_for_networks_that_divide_their_input() -> None:
    model, _ = lively_model("unet", ENCODERS["unet"])
    images = torch.randn(1, 3, 70, 101)
    with torch.inference_mode():
        padded = model(functional.pad(images, (0, 27, 0, 26)))["out"]
        torch.testing.assert_close(model(images)["out"], padded[..., :70, :101])


def test_networks_of_segmentation_models_pytorch_compute_what_the_library_computes() -> None:
    torch.manual_seed(0)
    theirs = smp.create_model("unet", "mobilenet_v2", None, classes=3).eval()
    ours = build_model("unet", 3, encoder="mobilenet_v2").eval()
    ours.backbone.load_state_dict(theirs.encoder.state_dict())
    ours.classifier[0].load_state_dict(theirs.decoder.state_dict())
    ours.classifier[1].load_state_dict(theirs.segmentation_head.state_dict())
    images = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images)["out"], theirs(images))


@pytest.mark.parametrize(
    ("architecture", "encoder", "problem"),
    [
        ("fpn", "resnet5", "fpn cannot use 'resnet5': Wrong encoder name `resnet5`; see"),
        ("fpn", "tu-resnet5", "fpn cannot use 'tu-resnet5': Unknown model"),
        ("deeplabv3", "inceptionv4", "deeplabv3 cannot use 'inceptionv4': "),
    ],
)
def test_unknown_and_unsuitable_encoders_are_refused_in_one_line(
    architecture: str, encoder: str, problem: str
) -> None:
    with pytest.raises(UserError) as error:
        build_model(architecture, 3, encoder=encoder)
    assert str(error.value).startswith(f"train.encoder: {problem}")
    assert "\n" not in str(error.value)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(UserError, match=r"run `pip install 'cocoseg\[smp\]'`"):
        build_model("fpn", 3, encoder="mobilenet_v2")


def test_estimated_norms_are_the_statistics_of_the_batches_without_dropout() -> None:
    norm = nn.BatchNorm2d(3)
    norm.running_mean = torch.full((3,), 100.0)
    batches = [torch.rand(4, 3, 8, 8) for _ in range(2)]
    model = nn.Sequential(nn.Dropout(0.5), norm)
    estimate_norms(model, batches)
    torch.testing.assert_close(norm.running_mean, torch.cat(batches).mean((0, 2, 3)))
    variances = torch.stack([batch.var((0, 2, 3)) for batch in batches])
    torch.testing.assert_close(norm.running_var, variances.mean(0))
    assert not any(module.training for module in model.modules())


def test_a_saved_model_is_loaded_with_its_card_and_equal_models_give_equal_bytes(
    tmp_path: Path,
) -> None:
    model = build_model(ARCHITECTURE, len(NAMES)).eval()
    save_model(tmp_path / "a.safetensors", model, CARD)
    save_model(tmp_path / "b.safetensors", model, CARD)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    loaded, card = load_model(tmp_path / "a.safetensors")
    assert card == CARD
    assert not loaded.training
    for key, value in model.state_dict().items():
        assert torch.equal(value.float(), loaded.state_dict()[key].float()), key


@pytest.mark.parametrize("content", [b"", b"not safetensors"])
def test_a_damaged_model_is_a_one_line_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"^[^\n]*model\.safetensors is damaged or not [^\n]*$"):
        load_model(path)


def test_a_model_card_that_cannot_be_read_is_a_one_line_error(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for card, problem in (("{}", "missing required field `architecture`"), ("card", "malformed")):
        save_file({"x": torch.zeros(1)}, path, metadata={"cocoseg": card})
        with pytest.raises(UserError, match=rf"^[^\n]*card that this version [^\n]*{problem}"):
            load_model(path)


def test_a_missing_model_is_a_file_not_found_error(tmp_path: Path) -> None:
    assert issubclass(MissingFileError, FileNotFoundError)
    with pytest.raises(MissingFileError, match=r"model\.safetensors not found: .*`dvc pull`$"):
        load_model(tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="is a directory: specify a model file"):
        load_model(tmp_path)


def test_a_safetensors_file_of_another_project_is_refused(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="use a file that the train stage wrote"):
        load_model(tmp_path / "x.safetensors")


@pytest.mark.skipif(not BACKBONE.is_file(), reason="needs ../shared/weights")
def test_a_backbone_file_initializes_the_whole_backbone() -> None:
    model = build_model(ARCHITECTURE, len(NAMES))
    assert "random heads" in load_pretrained(model, str(BACKBONE), CARD)
    for key, value in load_file(BACKBONE).items():
        assert torch.equal(model.state_dict()[f"backbone.{key}"].float(), value.float()), key


@pytest.mark.parametrize("auxiliary", [True, False])
def test_a_model_is_loaded_with_the_heads_it_was_saved_with(
    auxiliary: bool, tmp_path: Path
) -> None:
    model = build_model(ARCHITECTURE, len(NAMES), auxiliary=auxiliary)
    save_model(tmp_path / "model.safetensors", model, CARD)
    again, _ = load_model(tmp_path / "model.safetensors")
    assert (again.aux_classifier is not None) is auxiliary
    assert again.state_dict().keys() == model.state_dict().keys()


def test_unknown_weights_are_refused_with_the_alternatives() -> None:
    with pytest.raises(UserError, match=r"expected none, imagenet, coco .*, got image-net"):
        load_pretrained(build_model(ARCHITECTURE, 6), "image-net", CARD)


def test_imagenet_weights_initialize_the_backbone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = get_model("mobilenet_v3_large", weights=None)
    url = MobileNet_V3_Large_Weights.IMAGENET1K_V1.url
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    torch.save(theirs.state_dict(), tmp_path / "hub/checkpoints" / url.rsplit("/", 1)[1])
    model = build_model(ARCHITECTURE, 6)
    assert load_pretrained(model, "imagenet", CARD) == "backbone from ImageNet, random heads"
    expected = theirs.state_dict()["features.16.0.weight"]
    assert torch.equal(model.state_dict()["backbone.16.0.weight"], expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot download .*; check the network"), (b"not the weights", "invalid hash value")],
)
def test_a_failed_download_of_weights_is_a_one_line_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, message: str
) -> None:
    file = tmp_path / "weights-01234567.pth"
    if content:
        file.write_bytes(content)

    class Elsewhere(WeightsEnum):
        DEFAULT = Weights(url=file.as_uri(), transforms=lambda: None, meta={})

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    with pytest.raises(UserError, match=message):
        _download(Elsewhere.DEFAULT, "train.weights")


def test_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model = build_model(ARCHITECTURE, 6)
    save_model(path, model, ModelCard("vision_transformer", NAMES, 64))
    with pytest.raises(UserError, match="contains a vision_transformer, which this version"):
        load_model(path)


def test_coco_weights_are_refused_for_networks_without_them() -> None:
    architecture = "deeplabv3plus_mobilenet_v3_large"
    model = build_model(architecture, 2)
    with pytest.raises(UserError, match=f"no coco weights for {architecture}; use imagenet"):
        load_pretrained(model, "coco", ModelCard(architecture, ("background", "red"), 64))
