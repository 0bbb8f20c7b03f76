"""Sharing data, models and experiments through S3, SSH and Git, and importing them by tag.

The servers speak the real protocols on the loopback. Credentials come from the environment only.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.storage_servers import cut_line, s3_server, ssh_server

from .conftest import Project, experiments, stages_run

pytestmark = pytest.mark.xdist_group("remotes")

MODEL = "models/model.safetensors"
NO_KEY = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "HOME": "/nowhere"}
NOTHING_TO_DO = "Data and pipelines are up to date."


@dataclass
class Team:
    """The Git repository and the S3 bucket of a team.

    The tags `data-v1` and `segmentation@v1.0.0` mark the finished run. `data-v2` marks the
    experiment `ignore`, which has different masks.

    Attributes:
        project: the clone from which everything was pushed.
        origin: the path of the Git repository.
        key: the environment variables that give access to the bucket.
    """

    project: Project
    origin: str
    key: dict[str, str]

    def clone(self, directory: Path) -> Project:
        self.project.succeed("git", "clone", "-q", self.origin, str(directory))
        return Project(directory)

    def add_remote(self, name: str, url: str) -> None:
        self.project.succeed("dvc", "remote", "add", "--local", name, url)


@pytest.fixture(scope="module")
def team(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    directory = tmp_path_factory.mktemp("team")
    project = finished.copy(directory / "project")
    project.succeed("dvc", "remote", "add", "--default", "storage", "s3://team/cocoseg")
    project.commit("a remote")
    other_masks = ("-n", "ignore", "-S", "mask.overlap=ignore", "mask")
    project.succeed("dvc", "exp", "run", "--temp", *other_masks)
    project.succeed("gto", "register", "segmentation", "--version", "v1.0.0")
    project.succeed("git", "tag", "data-v1")
    project.succeed("git", "tag", "data-v2", experiments(project)["ignore"])
    origin = str(directory / "origin")
    project.succeed("git", "clone", "-q", "--bare", ".", origin)
    project.succeed("git", "remote", "add", "origin", origin)
    with s3_server("team") as key:
        project.succeed("dvc", "push", **key)
        project.succeed("dvc", "exp", "push", "origin", "ignore", **key)
        yield Team(project, origin, key)


def test_another_clone_gets_runs_and_experiments_from_s3(team: Team, tmp_path: Path) -> None:
    clone = team.clone(tmp_path / "clone")
    clone.succeed("dvc", "pull", **team.key)
    assert NOTHING_TO_DO in clone.succeed("dvc", "repro")
    assert clone.results() == team.project.results()
    clone.succeed("dvc", "exp", "pull", "origin", "ignore", **team.key)
    clone.succeed("dvc", "exp", "apply", "ignore")
    assert clone.results("data/images") == team.project.results("data/images")
    assert clone.results("data/masks") != team.project.results("data/masks")
    assert team.key["AWS_SECRET_ACCESS_KEY"] not in (clone.directory / ".dvc/config").read_text()
    assert not (clone.directory / ".dvc/config.local").exists()


def test_files_and_model_versions_are_fetched_without_a_clone(team: Team, tmp_path: Path) -> None:
    elsewhere = Project(tmp_path)
    elsewhere.succeed("dvc", "get", team.origin, "metrics/report.html", **team.key)
    version = ("segmentation", "--rev", "v1.0.0")
    elsewhere.succeed("dvc", "artifacts", "get", team.origin, *version, **team.key)
    results = team.project.results(MODEL, "metrics/report.html")
    assert set(elsewhere.results(".").values()) == set(results.values())


@pytest.mark.slow
def test_another_project_imports_the_masks_of_a_tag_and_updates_them(
    team: Team, tmp_path: Path
) -> None:
    other = Project(tmp_path / "other")
    other.directory.mkdir()
    other.succeed("git", "init", "-q")
    other.succeed("dvc", "init", "-q")
    masks = ("data/masks", "--rev", "data-v1", "-o", "masks")
    other.succeed("dvc", "import", team.origin, *masks, **team.key)
    first = other.results("masks")
    assert sorted(first.values()) == sorted(team.project.results("data/masks").values())
    other.succeed("dvc", "update", "--rev", "data-v2", "masks.dvc", **team.key)
    assert other.results("masks").keys() == first.keys()
    assert other.results("masks") != first


def test_a_clone_without_data_reports_what_is_stale(team: Team, tmp_path: Path) -> None:
    clone = team.clone(tmp_path / "clone")
    look = ("dvc", "repro", "--dry", "--allow-missing")
    assert NOTHING_TO_DO in clone.succeed(*look)
    clone.set_params({"train.seed": 1})
    stale = clone.run(*look)
    assert stale.returncode != 0
    assert "failed to reproduce 'train'" in stale.stderr
    missing = clone.succeed("dvc", "data", "status", "--not-in-remote", **team.key)
    assert "Not in remote" not in missing
    assert "deleted: data/images" in missing


@pytest.mark.slow
def test_a_clone_without_data_fetches_only_what_a_change_needs(team: Team, tmp_path: Path) -> None:
    clone = team.clone(tmp_path / "clone")
    clone.set_params({"report.title": "Another"})
    fetching = clone.succeed("dvc", "repro", "--pull", "--allow-missing", **team.key)
    assert stages_run(fetching) == ["report"]
    assert "Another" in (clone.directory / "metrics/report.html").read_text(encoding="utf-8")
    assert not clone.results("data/images", "models")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "Forbidden"),
        (NO_KEY, "Unable to locate credentials"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "Could not connect to the endpoint URL"),
    ],
    ids=["wrong key", "no key", "no server"],
)
def test_a_failed_push_states_the_cause(team: Team, change: dict[str, str], message: str) -> None:
    failed = team.project.run("dvc", "push", **{**team.key, **change})
    assert failed.returncode != 0
    assert message in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.slow
def test_a_missing_bucket_is_reported(team: Team) -> None:
    team.add_remote("nobody", "s3://nobody/cocoseg")
    failed = team.project.run("dvc", "push", "--remote", "nobody", **team.key)
    assert failed.returncode != 0
    assert "The specified bucket does not exist" in failed.stderr


@pytest.mark.slow
def test_a_missing_model_version_is_reported(team: Team, tmp_path: Path) -> None:
    version = ("segmentation", "--rev", "v2.0.0")
    failed = Project(tmp_path).run("dvc", "artifacts", "get", team.origin, *version, **team.key)
    assert failed.returncode == 1
    assert "Unable to find artifact 'segmentation @ v2.0.0'" in failed.stderr


@pytest.mark.slow
def test_an_interrupted_push_is_completed_by_the_next(team: Team, tmp_path: Path) -> None:
    team.add_remote("second", "s3://team/second")
    push = ("dvc", "push", "--remote", "second")
    url = urlsplit(team.key["AWS_ENDPOINT_URL"])
    half = (team.project.directory / MODEL).stat().st_size // 2
    with cut_line((str(url.hostname), int(url.port or 0)), half) as (host, port):
        cut = team.project.run(*push, **{**team.key, "AWS_ENDPOINT_URL": f"http://{host}:{port}"})
    assert cut.returncode != 0
    # The message differs for an interrupted file and an interrupted list of a directory's files.
    assert "failed to transfer" in cut.stderr or "files failed to upload" in cut.stderr

    assert "files pushed" in team.project.succeed(*push, **team.key)
    clone = team.clone(tmp_path / "clone")
    clone.succeed("dvc", "config", "--local", "remote.storage.url", "s3://team/second")
    clone.succeed("dvc", "pull", **team.key)
    assert clone.results() == team.project.results()


@pytest.mark.slow
def test_data_is_pushed_and_pulled_through_ssh(team: Team, tmp_path: Path) -> None:
    team.add_remote("host", "ssh://storage/cocoseg")
    (tmp_path / "disk").mkdir()
    with ssh_server(tmp_path / "home", tmp_path / "disk"):
        user = {"HOME": str(tmp_path / "home")}
        team.project.succeed("dvc", "push", "--remote", "host", **user)
        clone = team.clone(tmp_path / "clone")
        clone.succeed("dvc", "config", "--local", "remote.storage.url", "ssh://storage/cocoseg")
        clone.succeed("dvc", "pull", **user)
        assert clone.results() == team.project.results()

        (tmp_path / "home/.ssh/id_ed25519").unlink()
        failed = team.project.run("dvc", "push", "--remote", "host", **user)
        assert failed.returncode != 0
        assert "Permission denied" in failed.stderr
