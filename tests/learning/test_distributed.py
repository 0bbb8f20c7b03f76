"""Several processes compute what one computes on the same global batch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests import ROOT

GRADIENTS = """
import sys
import torch
from safetensors.torch import save_file
from cocoseg.learning.distributed import process_count, process_group, rank
from cocoseg.network.inference import normalize
from cocoseg.network.model import ModelCard
from cocoseg.learning.training import Trainer
from tests.learning.test_training import params

CPU = torch.device("cpu")
with process_group(CPU):
    card = ModelCard("deeplabv3_mobilenet_v3_large", ("background", "red", "blue"), 48)
    trainer = Trainer(card, params(), CPU)
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 48, 48), generator=random, dtype=torch.uint8)
    labels = torch.randint(0, 3, (4, 48, 48), generator=random, dtype=torch.uint8)
    labels[1, :40] = 255  # unequal shares of void: the mean must be over all pixels
    trainer.in_parallel.train()
    # Dropout and batch statistics differ between processes by their nature: hold them still.
    for module in trainer.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.eval()
        elif isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        trainer.model(normalize(images, card))
    for module in trainer.model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    share = slice(rank(), None, process_count())
    loss = trainer.loss(images[share], labels[share])
    (loss * process_count()).backward()
    if rank() == 0:
        gradients = {n: p.grad.contiguous() for n, p in trainer.model.named_parameters()}
        save_file({"loss": loss.detach(), **gradients}, sys.argv[1])
"""


def run(folder: Path, processes: int, script: str, *arguments: object) -> None:
    (folder / "step.py").write_text(script, encoding="utf-8")
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    result = subprocess.run(
        [sys.executable, *(launcher if processes > 1 else []), folder / "step.py", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr


def gradients(folder: Path, processes: int) -> dict[str, torch.Tensor]:
    output = folder / f"{processes}.safetensors"
    run(folder, processes, GRADIENTS, output)
    return load_file(output)


def test_gradients_of_two_processes_equal_those_of_one(tmp_path: Path) -> None:
    one, two = gradients(tmp_path, 1), gradients(tmp_path, 2)
    assert two["loss"].item() == pytest.approx(one["loss"].item(), rel=1e-5)
    assert one["classifier.4.weight"].abs().max() > 1e-3
    for name, gradient in one.items():
        torch.testing.assert_close(two[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


TWO_STEPS = """
import torch
from cocoseg.learning.distributed import process_group
from cocoseg.network.model import ModelCard
from cocoseg.learning.training import Trainer
from tests.learning.test_training import params

CPU = torch.device("cpu")
with process_group(CPU):
    card = ModelCard("deeplabv3_mobilenet_v3_large", ("background", "red", "blue"), 48)
    trainer = Trainer(card, params(aux_weight=0.0), CPU)
    trainer.in_parallel.train()
    for _ in range(2):
        images = torch.zeros(2, 3, 48, 48, dtype=torch.uint8)
        trainer.optimize(images, torch.zeros(2, 48, 48, dtype=torch.uint8))
"""


def test_processes_agree_on_a_network_without_the_auxiliary_head(tmp_path: Path) -> None:
    """DistributedDataParallel fails in the second step where a parameter has no gradient."""
    run(tmp_path, 2, TWO_STEPS)


FAIL = """
import os, signal, sys, time
from pathlib import Path
from cocoseg.learning.distributed import relaunch, started_by_torchrun
from cocoseg.common.errors import UserError
from cocoseg.common.stage import run_stage

def main():
    if not started_by_torchrun():
        relaunch("failing", 2)
    if os.environ["RANK"] == "1":
        {body}
    time.sleep(3600)

run_stage(main, None)
"""


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise UserError('train.weights: no such file')", "error: train.weights: no such file"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "error: training process 1 was ended by SIGKILL"),
    ],
)
def test_a_process_that_fails_ends_all_with_one_line(
    tmp_path: Path, body: str, message: str
) -> None:
    (tmp_path / "failing.py").write_text(FAIL.format(body=body), encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "-m", "failing"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1
