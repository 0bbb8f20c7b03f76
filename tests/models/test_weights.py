"""Training that starts from another model: classes are matched by name."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import get_model
from torchvision.models.segmentation import DeepLabV3_MobileNet_V3_Large_Weights

from cocoseg.core.errors import UserError
from cocoseg.inference.backends import normalize
from cocoseg.models.networks import ModelCard, SegmentationNetwork, build_model
from cocoseg.models.weights import (
    has_pretraining_overlap,
    load_pretrained,
    require_same_classes,
    save_model,
)
from tests.networks import NAMES, blotches, lively_model

DEEPLAB = "deeplabv3_mobilenet_v3_large"
LRASPP = "lraspp_mobilenet_v3_large"


def saved(path: Path, model: SegmentationNetwork, card: ModelCard) -> str:
    save_model(path, model, card)
    return str(path)


@pytest.mark.parametrize("architecture", [DEEPLAB, LRASPP, "deeplabv3plus_mobilenet_v3_large"])
@pytest.mark.parametrize(
    ("names", "line"),
    [
        (NAMES, "; rows of background, red, blue"),
        (("background", "blue", "red"), "; rows of background, blue, red"),
        (
            ("background", "green", "blue", "red"),
            "; rows of background, blue, red; random rows of green",
        ),
        (("background", "blue"), "; rows of background, blue"),
    ],
    ids=["same", "other order", "more", "fewer"],
)
def test_a_class_keeps_its_logits_in_any_order_and_number_of_classes(
    architecture: str, names: tuple[str, ...], line: str, tmp_path: Path
) -> None:
    theirs, their_card = lively_model(architecture)
    card = ModelCard(architecture, names, 96)
    model = build_model(architecture, len(names))
    heads = "backbone, classifier" + ", auxiliary classifier" * (architecture == DEEPLAB)
    path = saved(tmp_path / "first.safetensors", theirs, their_card)
    assert load_pretrained(model, path, card) == f"{heads} from first.safetensors{line}"
    before, after = class_logits(theirs, their_card), class_logits(model, card)
    assert not torch.allclose(before["red"], before["blue"])
    for name in set(names) & set(NAMES):
        torch.testing.assert_close(after[name], before[name])


def class_logits(model: SegmentationNetwork, card: ModelCard) -> dict[str, Tensor]:
    """The logits of an image by class name: of all heads, in one vector."""
    images = normalize(torch.from_numpy(blotches(64, 96)).permute(2, 0, 1)[None], card)
    with torch.inference_mode():
        features = model.eval().backbone(images)
        heads = [model(images)["out"][0]]
        if model.aux_classifier is not None:
            heads.append(model.aux_classifier(features["aux"])[0])
    rows = torch.cat([head.flatten(1) for head in heads], dim=1)
    return dict(zip(card.classes, rows, strict=True))


@pytest.mark.parametrize("architecture", ["fpn", "deeplabv3plus"])
def test_classes_of_segmentation_models_pytorch_keep_their_logits(
    architecture: str, tmp_path: Path
) -> None:
    pytest.importorskip("segmentation_models_pytorch")
    card = ModelCard(architecture, NAMES, 96, encoder="mobilenet_v2")
    torch.manual_seed(0)
    theirs = build_model(architecture, len(NAMES), encoder=card.encoder)
    more = ModelCard(architecture, ("background", "green", "blue", "red"), 96, encoder=card.encoder)
    model = build_model(architecture, 4, encoder=card.encoder)
    line = load_pretrained(model, saved(tmp_path / "first.safetensors", theirs, card), more)
    assert line.endswith("; rows of background, blue, red; random rows of green")
    before, after = class_logits(theirs, card), class_logits(model, more)
    assert not torch.allclose(before["red"], before["blue"])
    for name in NAMES:
        torch.testing.assert_close(after[name], before[name])


def test_the_rows_of_new_classes_stay_as_they_were_drawn(tmp_path: Path) -> None:
    theirs, their_card = lively_model(LRASPP)
    model = build_model(LRASPP, 4)
    drawn = {key: value.clone() for key, value in model.classifier.state_dict().items()}
    path = saved(tmp_path / "first.safetensors", theirs, their_card)
    load_pretrained(model, path, ModelCard(LRASPP, (*NAMES, "green"), 96))
    for key in ("low_classifier.weight", "high_classifier.weight", "high_classifier.bias"):
        assert torch.equal(model.classifier.state_dict()[key][3], drawn[key][3]), key
        assert not torch.equal(model.classifier.state_dict()[key][2], drawn[key][2]), key


def test_as_many_classes_as_channels_are_not_confused_with_them(tmp_path: Path) -> None:
    """The head of LR-ASPP has 128 channels."""
    names = ("background", *(str(number) for number in range(127)))
    theirs = build_model(LRASPP, len(names))
    path = saved(tmp_path / "many.safetensors", theirs, ModelCard(LRASPP, names, 96))
    model = build_model(LRASPP, len(names))
    load_pretrained(model, path, ModelCard(LRASPP, names[::-1], 96))
    theirs_state, ours_state = theirs.state_dict(), model.state_dict()
    assert torch.equal(
        ours_state["classifier.cbr.0.weight"], theirs_state["classifier.cbr.0.weight"]
    )
    flipped = theirs_state["classifier.low_classifier.weight"].flip(0)
    assert torch.equal(ours_state["classifier.low_classifier.weight"], flipped)


@pytest.mark.parametrize("auxiliary", [True, False])
def test_the_auxiliary_head_may_be_added_and_removed(auxiliary: bool, tmp_path: Path) -> None:
    card = ModelCard(DEEPLAB, NAMES, 96)
    theirs = build_model(DEEPLAB, len(NAMES), auxiliary=not auxiliary)
    model = build_model(DEEPLAB, len(NAMES), auxiliary=auxiliary)
    line = load_pretrained(model, saved(tmp_path / "first.safetensors", theirs, card), card)
    assert line.endswith("; random auxiliary classifier") is auxiliary
    shared = [key for key in model.state_dict() if not key.startswith("aux_")]
    for key in shared:
        assert torch.equal(model.state_dict()[key], theirs.state_dict()[key]), key


def test_another_head_takes_only_the_backbone(tmp_path: Path) -> None:
    theirs, their_card = lively_model(LRASPP)
    model = build_model("deeplabv3plus_mobilenet_v3_large", len(NAMES))
    path = saved(tmp_path / "first.safetensors", theirs, their_card)
    line = load_pretrained(model, path, ModelCard("deeplabv3plus_mobilenet_v3_large", NAMES, 96))
    assert line == "backbone from first.safetensors, random heads"
    for key, value in theirs.backbone.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[key], value), key


def test_rows_without_names_stay_random_even_if_their_number_fits(tmp_path: Path) -> None:
    theirs, card = lively_model(LRASPP)
    state = {key: value.contiguous() for key, value in theirs.state_dict().items()}
    save_file(state, tmp_path / "plain.safetensors")
    model = build_model(LRASPP, len(NAMES))
    drawn = model.get_parameter("classifier.high_classifier.weight").clone()
    line = load_pretrained(model, str(tmp_path / "plain.safetensors"), card)
    assert line == (
        "backbone, classifier from plain.safetensors; random rows of background, red, blue, "
        "because the file does not name its classes"
    )
    assert torch.equal(model.get_parameter("classifier.high_classifier.weight"), drawn)
    same = "classifier.cbr.0.weight"
    assert torch.equal(model.state_dict()[same], theirs.state_dict()[same])


def test_rows_that_contradict_the_class_names_of_the_file_are_not_taken(tmp_path: Path) -> None:
    card = ModelCard(LRASPP, NAMES, 96)
    path = saved(tmp_path / "two.safetensors", build_model(LRASPP, 2), card)
    line = load_pretrained(build_model(LRASPP, len(NAMES)), path, card)
    assert line == "backbone from two.safetensors, random heads"


def test_a_file_that_does_not_fit_the_backbone_is_refused(tmp_path: Path) -> None:
    """An incomplete backbone, one of another width, and a model with another backbone."""
    card = ModelCard(LRASPP, NAMES, 96)
    model = build_model(LRASPP, len(NAMES))
    backbone = {key: value.contiguous() for key, value in model.backbone.state_dict().items()}
    narrow = torch.zeros(16, 3, 3, 3)
    save_file({"0.0.weight": narrow}, tmp_path / "part.safetensors")
    save_file(backbone | {"0.0.weight": torch.zeros(17, 3, 3, 3)}, tmp_path / "wide.safetensors")
    save_file({"backbone.conv1.weight": narrow}, tmp_path / "other.safetensors")
    for name, tensors in (
        ("part", r"\d+ of .*"),
        ("wide", r"1 of .* such as 0\.0\.weight"),
        ("other", r"\d+ of .* such as 0\.0\.weight"),
    ):
        with pytest.raises(UserError, match=rf"{name}\.safetensors does not fit the .*: {tensors}"):
            load_pretrained(model, str(tmp_path / f"{name}.safetensors"), card)


def test_loading_does_not_draw_from_the_global_generator(tmp_path: Path) -> None:
    theirs, card = lively_model(LRASPP)
    path = saved(tmp_path / "first.safetensors", theirs, card)
    model = build_model(LRASPP, len(NAMES))
    state = torch.random.get_rng_state()
    load_pretrained(model, path, card)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_model_that_began_with_coco_weights_passes_this_on(tmp_path: Path) -> None:
    model, card = lively_model(LRASPP)
    seen = ModelCard(LRASPP, NAMES, 96, pretraining_overlap=True)
    assert has_pretraining_overlap(saved(tmp_path / "seen.safetensors", model, seen))
    assert not has_pretraining_overlap(saved(tmp_path / "not.safetensors", model, card))
    assert has_pretraining_overlap("coco")
    assert not has_pretraining_overlap("imagenet")


def test_coco_weights_initialize_the_rows_of_classes_with_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchvision loads files in torch's hub directory instead of downloading them."""
    theirs = get_model(
        DEEPLAB, weights=None, weights_backbone=None, num_classes=21, aux_loss=True
    ).state_dict()
    enum = DeepLabV3_MobileNet_V3_Large_Weights.COCO_WITH_VOC_LABELS_V1
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    torch.save(theirs, tmp_path / "hub/checkpoints" / enum.url.rsplit("/", 1)[1])
    names = ("background", "person", "giraffe", "airplane", "couch")
    model = build_model(DEEPLAB, len(names))
    drawn = model.state_dict()["classifier.4.weight"][2].clone()
    line = load_pretrained(model, "coco", ModelCard(DEEPLAB, names, 64))
    assert line == (
        "backbone, classifier, auxiliary classifier from torchvision's COCO weights; "
        "rows of background, person, airplane, couch; random rows of giraffe"
    )
    ours, categories = model.state_dict(), enum.meta["categories"]
    for head in ("classifier", "aux_classifier"):
        rows = ours[f"{head}.4.weight"], theirs[f"{head}.4.weight"]
        for label, name in ((0, "__background__"), (1, "person"), (3, "aeroplane"), (4, "sofa")):
            assert torch.equal(rows[0][label], rows[1][categories.index(name)]), name
    assert torch.equal(ours["classifier.4.weight"][2], drawn)
    assert torch.equal(ours["backbone.0.0.weight"], theirs["backbone.0.0.weight"])


def test_a_stage_requires_the_classes_of_the_data_in_their_order() -> None:
    data = ("red", "blue")
    require_same_classes(("background", *data), data)
    for classes in (("blue", "red"), ("red",), ("red", "blue", "green")):
        with pytest.raises(UserError, match=r"`cocoseg evaluate models/model\.safetensors`"):
            require_same_classes(("background", *classes), data)
