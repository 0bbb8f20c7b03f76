"""Several processes compute the same as a single process on the same global batch."""

import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from cocoseg.inference.backends import normalize
from cocoseg.models.networks import ModelCard, estimate_norms
from cocoseg.training.distributed import process_count, rank
from cocoseg.training.trainer import Trainer
from tests import ROOT, wait_until
from tests.samples import draw_samples
from tests.training_runs import DEVICE, params, run

pytestmark = pytest.mark.xdist_group("distributed")

NAMES = ("background", "red", "blue")
PROCESSES = 2 if DEVICE.type == "cpu" else min(4, torch.cuda.device_count())


def gradients() -> dict[str, Tensor]:
    """The loss and the gradients of one step on this process's part of the batch."""
    torch.backends.cudnn.allow_tf32 = False  # its rounding depends on the batch size
    card = ModelCard("deeplabv3_mobilenet_v3_large", NAMES, 48)
    trainer = Trainer(card, params(), DEVICE)
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 48, 48), generator=random, dtype=torch.uint8)
    labels = torch.randint(0, 3, (4, 48, 48), generator=random, dtype=torch.uint8)
    labels[1, :40] = 255  # the processes ignore different numbers of pixels
    images, labels = images.to(DEVICE), labels.to(DEVICE)
    trainer.ddp_model.train()
    # Dropout and batch statistics differ between processes: disable dropout, and fix the
    # statistics to those of the whole batch.
    estimate_norms(trainer.ema_model(), [normalize(images, card)])
    trainer.model.load_state_dict(trainer.ema_model().state_dict())
    for module in trainer.model.modules():
        if isinstance(module, (torch.nn.Dropout, torch.nn.BatchNorm2d, torch.nn.SyncBatchNorm)):
            module.eval()
    part = slice(rank(), None, process_count())
    loss = trainer.loss(images[part], labels[part])
    (loss * process_count()).backward()
    found = {name: p.grad.contiguous().cpu() for name, p in trainer.model.named_parameters()}
    return {"loss": loss.detach().cpu(), **found}


def same_everywhere(directory: Path) -> bool:
    """Train two steps without an auxiliary head; whether all processes have the same result."""
    directory.mkdir()
    trained = run(draw_samples(directory), epochs=1, aux_weight=0.0)
    tensors = trained.result.model.state_dict().values()
    weights = b"".join(tensor.contiguous().numpy().tobytes() for tensor in tensors)
    results = [None] * process_count()
    torch.distributed.all_gather_object(results, (trained.epochs, zlib.crc32(weights)))
    return all(result == results[0] for result in results)


IN_PROCESSES = """
import sys
from pathlib import Path
from safetensors.torch import save_file
from cocoseg.training.distributed import process_group, rank
from tests.training.test_distributed import DEVICE, gradients, same_everywhere

with process_group(DEVICE):
    found = gradients()
    if rank() == 0:
        save_file(found, sys.argv[1])
    same = same_everywhere(Path(sys.argv[1]).with_name(f"samples{rank()}"))
    if rank() == 0:
        print("same" if same else "different")
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> "subprocess.CompletedProcess[str]":
    """The output of two processes of torchrun; the last of `args` is the file of gradients."""
    directory = tmp_path_factory.mktemp("two")
    (directory / "steps.py").write_text(IN_PROCESSES, encoding="utf-8")
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={PROCESSES}"]
    program = [str(directory / "steps.py"), str(directory / "gradients.safetensors")]
    return subprocess.run(
        [sys.executable, "-m", *launcher, *program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_gradients_of_two_processes_equal_the_gradients_of_one(
    two: "subprocess.CompletedProcess[str]",
) -> None:
    assert Path(two.args[-1]).exists(), two.stderr
    found, expected = load_file(two.args[-1]), gradients()
    assert found.keys() == expected.keys()
    assert found["loss"].item() == pytest.approx(expected["loss"].item(), rel=1e-5)
    assert expected["classifier.4.weight"].abs().max() > 1e-3
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


def test_several_processes_have_the_same_weights_and_scores(
    two: "subprocess.CompletedProcess[str]",
) -> None:
    """DistributedDataParallel fails in the second step if a parameter has no gradient."""
    assert (two.returncode, two.stdout) == (0, "same\n"), two.stderr


FAIL = """
import os, signal, sys, time
from pathlib import Path
from cocoseg.core.errors import UserError
from cocoseg.core.stage import run_stage

def main():
    if "RANK" not in os.environ:
        from cocoseg.training.distributed import relaunch
        relaunch("failing", 2)
    if os.environ["RANK"] == "1":
        {body}
    Path(f"process {{os.environ['RANK']}}").touch()
    time.sleep(300)  # longer than the timeout of the test

run_stage(main, None)
"""


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise UserError('train.weights: no such file')", "error: train.weights: no such file"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "error: training process 1 was killed by SIGKILL"),
    ],
)
def test_a_failing_process_ends_all_processes_with_one_line(
    tmp_path: Path, body: str, message: str
) -> None:
    (tmp_path / "failing.py").write_text(FAIL.format(body=body), encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "-m", "failing"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert result.returncode == 1
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1


def test_all_processes_end_when_dvc_is_killed(tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(FAIL.format(body="pass"), encoding="utf-8")
    run_stage = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'failing'])"
    dvc = subprocess.Popen(
        [sys.executable, "-c", run_stage],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "DVC_STAGE": "train"},
        stderr=subprocess.PIPE,
    )
    wait_until(lambda: all((tmp_path / f"process {rank}").exists() for rank in (0, 1)), dvc)
    dvc.kill()
    dvc.communicate(timeout=100)  # waits for all processes, which have the same stderr
