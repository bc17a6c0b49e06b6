"""A model folder on a real HDFS."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from uuid import uuid4

import pytest

from eagle_spark.errors import OutputError
from eagle_spark.io import resolve
from eagle_spark.model.bundle import open_bundle, publish_bundle, seal
from eagle_spark.model.metadata import GateResult, InputContract, ModelMetadata
from eagle_spark.model.review import ReviewThresholds
from tests.cluster.local_cluster import LocalCluster

pytestmark = pytest.mark.hadoop

WEIGHTS = bytes(range(256)) * 80_000  # 20 MB: larger than the copy buffer
OPEN = """
import sys
from pathlib import Path
from eagle_spark.model.bundle import open_bundle
sys.stdin.readline()
print(open_bundle(sys.argv[1], cache=Path(sys.argv[2])).path)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = tmp_path / "built"
    (model / "openvino").mkdir(parents=True)
    layer = {"module": "keras.layers", "class_name": "Dense", "config": {}}
    with zipfile.ZipFile(model / "model.keras", "w") as archive:
        archive.writestr("config.json", json.dumps({"config": {"layers": [layer]}}))
        archive.writestr("metadata.json", "{}")
        archive.writestr("model.weights.h5", WEIGHTS)
    (model / "golden.npz").write_bytes(b"golden")
    (model / "openvino/model.bin").write_bytes(WEIGHTS)
    metadata = ModelMetadata(
        classes=("COVID", "Normal"),
        input=InputContract(size=224),
        mask_threshold=0.5,
        review=ReviewThresholds(confidence=0.8, novelty={}, mask={}),
        engines={"openvino": GateResult(passed=True)},
    )
    seal(model, metadata)
    return model


def test_several_processes_share_one_copy(
    cluster: LocalCluster, folder: Path, tmp_path: Path
) -> None:
    uri, cache = f"{cluster.uri}/models {uuid4().hex}/v1", tmp_path / "cache"
    publish_bundle(folder, uri, overwrite=False)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, uri, str(cache)],
            env=cluster.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:  # all have finished their imports
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    opened = {process.communicate(timeout=60)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0, 0]
    (copy,) = cache.iterdir()
    assert opened == {f"{copy}\n"}
    assert open_bundle(str(copy)).metadata.model_id == open_bundle(str(folder)).metadata.model_id


def test_a_model_is_replaced_as_a_whole(cluster: LocalCluster, folder: Path) -> None:
    parent = f"{cluster.uri}/models {uuid4().hex}"
    publish_bundle(folder, f"{parent}/v1", overwrite=False)
    with pytest.raises(OutputError, match="`overwrite`"):
        publish_bundle(folder, f"{parent}/v1", overwrite=False)
    publish_bundle(folder, f"{parent}/v1", overwrite=True)
    storage, path = resolve(parent)
    storage.rename(f"{path}/v1/metadata.json", f"{path}/v1/x")
    with pytest.raises(OutputError, match="not a model folder"):
        publish_bundle(folder, f"{parent}/v1", overwrite=True)
    shown = subprocess.run(
        [str(Path(__file__).parents[2] / "hadoop" / "fs"), "-ls", "-C", path],
        env=cluster.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert shown.stdout.splitlines() == [f"{path}/v1"]
