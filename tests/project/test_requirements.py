"""What is installed, requirements*.in, requirements.lock and envs/*.yaml say the same."""

import itertools
import re
from importlib import metadata
from pathlib import Path

import pytest
import torch
import yaml
from torchvision import ops

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = sorted((ROOT / "envs").glob("*.yaml"))


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def direct_dependencies() -> dict[str, list[str]]:
    """The names in requirements.in and requirements-dev.in under each of their comments."""
    sections: dict[str, list[str]] = {}
    blocks = [
        (ROOT / name).read_text().strip().split("\n\n") for name in ("requirements.in", "requirements-dev.in")
    ]
    for block in itertools.chain(*blocks):
        title, *lines = block.splitlines()
        sections[title.removeprefix("# ")] = [canonical(re.match(r"[\w.-]+", line)[0]) for line in lines]
    return sections


@pytest.fixture(scope="module")
def lock() -> dict[str, str]:
    return versions("requirements.lock")


def versions(name: str) -> dict[str, str]:
    text = (ROOT / name).read_text()
    return {canonical(name): version for name, version in re.findall(r"^([\w.-]+)==([^ ;\\]+)", text, re.M)}


def test_lock_covers_the_direct_dependencies(lock):
    assert {name for names in direct_dependencies().values() for name in names} <= set(lock)


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-page.lock"])
def test_lock_pins_and_hashes_everything_and_names_no_registry(name):
    text = re.sub(r"^\s*#.*\n", "", (ROOT / name).read_text(), flags=re.M)
    entries = text.replace("\\\n", " ").splitlines()
    # Different Pythons may need different versions of a package.
    assert len({entry.split("==")[0] for entry in entries}) == len(versions(name))
    for entry in entries:
        assert re.fullmatch(r"[\w.-]+==[^ ;]+( ; .+?)?(\s+--hash=sha256:[0-9a-f]{64})+", entry), entry


def test_the_page_adds_packages_and_changes_none(lock):
    """gradio asks for an older Pillow: without its dependencies it is installed beside ours."""
    page = versions("requirements-page.lock")
    assert "gradio" in page and page["pillow"] == lock["pillow"]
    assert {name: page[name] for name in page.keys() & lock.keys()} == {
        name: lock[name] for name in page.keys() & lock.keys()
    }
    assert (
        "uv pip install --quiet --no-deps --require-hashes -r requirements-page.lock"
        in (ROOT / "Makefile").read_text()
    )


def test_installed_is_what_the_lock_says(lock):
    installed = {canonical(item.name): item.version for item in metadata.distributions()}
    names = [name for group in direct_dependencies().values() for name in group]
    assert {name: installed.get(name) for name in names} == {name: lock[name] for name in names}


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.name)
def test_conda_environments_say_what_the_lock_says(path, lock):
    sections = direct_dependencies()
    for title in ("Development", "Documents", "Installs everything else"):
        del sections[title]
    expected = {f"{name}=={lock[name]}" for names in sections.values() for name in names}
    dependencies = yaml.safe_load(path.read_text())["dependencies"]
    assert set(dependencies[-1]["pip"]) == expected


def test_every_environment_of_a_rule_exists():
    named = {
        (file.parent / name).resolve()
        for file in (ROOT / "rules").glob("*.smk")
        for name in re.findall(r'conda:\s+"([^"]+)"', file.read_text())
    }
    assert named == set(ENVIRONMENTS)


def test_torchvision_is_built_for_this_torch():
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.9], [5.0, 5.0, 6.0, 6.0]])
    assert ops.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist() == [0, 2]
