"""hadoop/put onto a real HDFS."""

from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from eagle_spark.io import list_folder, resolve
from tests.cluster.local_cluster import HADOOP, LocalCluster

pytestmark = pytest.mark.hadoop

FILES = {f"Viral Pneumonia/images/ü#{number}?.png": b"%d" % number * 1000 for number in range(30)}


@pytest.fixture
def target(cluster: LocalCluster) -> str:
    return f"{cluster.uri}/put {uuid4().hex}"


def put(cluster: LocalCluster, *arguments: object) -> tuple[int, dict[str, Any], str]:
    done = subprocess.run(
        [str(HADOOP / "put"), *map(str, arguments)],
        env=cluster.environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, json.loads(done.stdout.splitlines()[-1]), done.stderr


def content(target: str) -> dict[str, bytes]:
    contents = {}
    for entry in list_folder(target):
        storage, path = resolve(entry.uri)
        contents[entry.uri.removeprefix(target + "/")] = storage.read(path, entry.length + 1)
    return contents


def test_a_folder_is_uploaded_once(cluster: LocalCluster, target: str, tmp_path: Path) -> None:
    for name, data in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    code, result, _ = put(cluster, tmp_path, target)
    assert (code, result["listed"], result["uploaded"], result["skipped"]) == (0, 30, 30, 0)
    assert content(target) == FILES
    code, result, _ = put(cluster, tmp_path, target)
    assert (code, result["uploaded"], result["skipped"], result["bytes"]) == (0, 0, 30, 0)


def test_a_zip_is_uploaded_and_missing_or_short_files_are_repaired(
    cluster: LocalCluster, target: str, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in FILES.items():
            archive.writestr(name, data)
    missing, short, *_ = FILES
    assert put(cluster, tmp_path / "x.zip", target)[0] == 0
    storage, root = resolve(target)
    storage.delete(f"{root}/{missing}")
    storage.write(f"{root}/{short}", b"cut")
    code, result, _ = put(cluster, tmp_path / "x.zip", target, "--jobs", 3)
    assert (code, result["uploaded"], result["skipped"]) == (0, 2, 28)
    assert content(target) == FILES


def test_an_invalid_name_stops_the_upload(
    cluster: LocalCluster, target: str, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "b:c.png").write_bytes(b"x")
    code, result, error = put(cluster, tmp_path, target)
    assert (code, result["exit_code"]) == (2, 2)
    assert "'b:c.png'" in error
    storage, path = resolve(target)
    assert not storage.exists(path)


def test_a_file_at_the_target_is_an_error(
    cluster: LocalCluster, target: str, tmp_path: Path
) -> None:
    storage, path = resolve(target)
    storage.write(path, b"x")
    (tmp_path / "a.png").write_bytes(b"x")
    code, _, error = put(cluster, tmp_path, target)
    assert code == 2
    assert f"the target must be a folder: not a folder: {target}" in error
