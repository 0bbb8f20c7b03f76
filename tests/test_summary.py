"""The table at the end of `make repro`."""

from cocoseg.summary import format_scores


def test_the_table_has_a_line_for_each_class_and_the_mean() -> None:
    scores = {
        "miou": 0.625,
        "pixel_accuracy": 0.9,
        "mean_accuracy": 0.8,
        "iou": {"background": 0.75, "person": 0.5, "car": None},
        "images": 60,
    }
    lines = format_scores(scores).splitlines()
    assert "60 images" in lines[0]
    assert any(line.split()[:2] == ["person", "0.500"] for line in lines)
    assert any(line.split() == ["car", "none"] for line in lines)
    assert any(line.split()[:3] == ["mean", "IoU", "0.625"] for line in lines)
