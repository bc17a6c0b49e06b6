"""The local cluster's twin in containers; no container engine is needed to check the file."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.prerequisites import skip_without

HADOOP = Path(__file__).resolve().parents[2] / "hadoop"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((HADOOP / "docker-compose.yml").read_text()))


def test_it_has_the_processes_of_the_local_cluster(compose: dict[str, Any]) -> None:
    kinds = Counter(name.rstrip("-12") for name in compose["services"])
    expected = {"namenode": 1, "datanode": 2, "resourcemanager": 1, "nodemanager": 2, "history": 1}
    assert expected.items() <= kinds.items()
    assert "client" in kinds


def test_images_are_official_and_pinned(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert re.match(r"apache/(hadoop:3\.4\.\d|spark:4\.1\.\d-.*java17.*)$", service["image"]), (
            name
        )


def test_references_of_services_exist(compose: dict[str, Any]) -> None:
    services, volumes = compose["services"], compose["volumes"]
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (HADOOP / source).is_dir() if source.startswith(".") else source in volumes


def test_ports_come_from_the_ports_file_and_stay_on_this_machine(compose: dict[str, Any]) -> None:
    published = [port for it in compose["services"].values() for port in it.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
    keys = {line.split("=")[0] for line in (HADOOP / "ports.conf").read_text().splitlines()}
    assert set(re.findall(r"\$\{(\w+)", (HADOOP / "docker-compose.yml").read_text())) <= keys


def test_templates_are_filled_in_for_its_hosts(tmp_path: Path, compose: dict[str, Any]) -> None:
    python, script, _, *hosts = compose["services"]["conf"]["command"]
    assert (python, script) == ("python3", "/hadoop/ports.py")
    assert set(hosts) <= set(compose["services"])
    subprocess.run(["python3", str(HADOOP / "ports.py"), str(tmp_path), *hosts], check=True)  # noqa: S607
    assert "hdfs://namenode:8020" in (tmp_path / "core-site.xml").read_text()
    assert "resourcemanager:8032" in (tmp_path / "yarn-site.xml").read_text()


def test_docker_compose_accepts_it() -> None:
    if shutil.which("docker-compose"):
        program = ["docker-compose"]
    elif (
        shutil.which("docker")
        and not subprocess.run(
            ["docker", "compose", "version"],  # noqa: S607
            capture_output=True,
        ).returncode
    ):
        program = ["docker", "compose"]
    else:
        skip_without("no docker-compose here (Debian: apt-get install docker-compose)")
    done = subprocess.run(
        [*program, "--env-file", "ports.conf", "config"], cwd=HADOOP, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert set(yaml.safe_load(done.stdout)["services"]) >= {"client", "namenode", "nodemanager-2"}
