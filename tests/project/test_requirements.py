"""What is installed, requirements*.in, requirements.lock and envs/*.yaml say the same."""

import ast
import itertools
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
import yaml
from torchvision import ops

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = sorted((ROOT / "envs").glob("*.yaml"))
# Imported only where it is there, or after a word on how to install it.
OPTIONAL = {
    "gradio",  # the page of `serve`: `make page`
    "pynvml",  # without it nothing is said of the energy
    "vllm",  # evaluation.backend vllm: `pip install vllm`
}


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


def imported(path: Path) -> set[str]:
    """The top-level modules that a file imports, within functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def test_requirements_state_all_that_the_package_imports():
    """Not only what happens to come with another's dependency: the wheel asks for what is stated alone."""
    text = (ROOT / "requirements.in").read_text()
    stated = {canonical(name) for name in re.findall(r"^[\w.-]+", text, re.M)}
    providers = metadata.packages_distributions()
    modules = set().union(*map(imported, (ROOT / "workflow_scripts").rglob("*.py")))
    foreign = modules - sys.stdlib_module_names - {"workflow_scripts"}
    unstated = {name for name in foreign if stated.isdisjoint(map(canonical, providers.get(name, [])))}
    assert unstated == OPTIONAL


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


def test_the_image_and_the_workplace_are_made_by_the_same_steps_from_the_lock():
    """`make setup` runs them on every new machine."""
    steps = (ROOT / "envs/container.sh").read_text()
    assert "envs/install.sh $(VENV) $$python" in (ROOT / "Makefile").read_text()
    assert 'sh "$here/install.sh" /opt/medvqa python3\n' in steps
    bases = set()
    for name, base in (("container.def", r"^From: (\S+)"), ("Dockerfile", r"^FROM (\S+)")):
        text = (ROOT / "envs" / name).read_text()
        assert {"requirements.lock", "envs/container.sh", "envs/install.sh"} <= set(text.split())
        assert "sh /opt/build/envs/container.sh" in text and "/opt/medvqa/bin" in text
        bases.add(re.search(base, text, re.M)[1])
    # Debian 12 has the Python of the conda environments.
    assert bases == {"debian:bookworm-slim"}
    assert {yaml.safe_load(path.read_text())["dependencies"][0] for path in ENVIRONMENTS} == {"python =3.11"}


def test_the_lock_has_cudas_libraries_of_one_version(lock):
    """The image has no others: what torch was built with."""
    toolkit = lock["cuda-toolkit"].rsplit(".", 1)[0]
    assert all(lock[f"nvidia-{name}"].startswith(f"{toolkit}.") for name in ("cuda-runtime", "cuda-nvrtc"))
    assert any(name.startswith("nvidia-nccl") for name in lock)


def test_the_steps_install_by_hash_and_stop_where_that_is_refused(tmp_path):
    """A small lock beside a copy of the steps, with programs that note how they were called."""
    (tmp_path / "envs").mkdir()
    for name in ("uv", "pip"):
        program = tmp_path / "place/bin" / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/calls\ntest -z "$REFUSED"\n')
        program.chmod(0o755)
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\n")  # `-m venv` of a place that is there
    python.chmod(0o755)
    script = tmp_path / "envs/install.sh"
    script.write_text((ROOT / "envs/install.sh").read_text())
    (tmp_path / "requirements.lock").write_text(
        "torch==1 --hash=sha256:1\nuv==2 --hash=sha256:2\n    # via\nzip==3\n"
    )
    command = ["sh", str(script), str(tmp_path / "place"), str(python)]
    done = subprocess.run(command, check=False, env={"PATH": "/usr/bin:/bin"})
    first, second = (tmp_path / "calls").read_text().splitlines()
    assert done.returncode == 0
    assert (tmp_path / "place/uv.txt").read_text() == "uv==2 --hash=sha256:2\n    # via\n"
    assert first.startswith("pip install") and second.startswith("uv pip sync")
    assert all("--require-hashes" in call for call in (first, second))
    refused = subprocess.run(command, check=False, env={"PATH": "/usr/bin:/bin", "REFUSED": "1"})
    assert refused.returncode != 0
