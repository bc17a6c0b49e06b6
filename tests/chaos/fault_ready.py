"""The initial state of a job, prepared once for all its faults."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from eagle_spark.datasets.synthetic.sample import write_sample, write_unlabelled
from eagle_spark.io import list_folder, resolve, split_uri
from eagle_spark.io.upload import upload
from eagle_spark.spark.session import open_session
from eagle_spark.tables import Warehouse
from tests.chaos.fault_jobs import Sandbox
from tests.chaos.fault_reader import State, read_published

OLD_MILLISECONDS = 30 * 86_400_000
# The job that runs before, and the part of the images that exists then.
BEFORE = {
    "preprocess": ("preprocess", "few labelled"),
    "train": ("preprocess", "labelled"),
    "score": ("score", "few unlabelled"),
    "maintain": ("score", "unlabelled"),
}


@dataclass(frozen=True)
class Prepared:
    """The initial state of a job, and the result of an undisturbed run.

    Attributes:
        copy: local copy of the live folder before the job.
        before: published result before the job.
        after: published result after an undisturbed run.
    """

    copy: Path
    before: State
    after: State


@dataclass(frozen=True)
class Figures:
    """The result of a run that only adds a row to the table `runs`."""

    seconds: float


def prepare(sandbox: Sandbox, job: str, place: str) -> Prepared:
    """Prepare the initial state, once for all cells of the job on this file system."""
    place = "hdfs" if sandbox.root(place).startswith("hdfs:") else "local"
    copy = sandbox.folder / "kept" / f"{job}-{place}"
    record = copy.with_suffix(".json")
    if record.exists():
        values = json.loads(record.read_text())
        if values.pop("root") == sandbox.root(place):
            return Prepared(copy, **values)
    write_images(sandbox.folder / "drawn")
    delete_folder(sandbox.live(place))
    inputs = sandbox.inputs(job, place)
    if job != "put":
        delete_folder(inputs)
        other, part = BEFORE[job]
        upload(str(sandbox.folder / "drawn" / part), inputs)
        sandbox.run(other, place, f"before-{job}-{place}", inputs)
        upload(str(sandbox.folder / "drawn" / part.removeprefix("few ")), inputs)
    if job == "maintain":
        age_tables(sandbox, place)
    copy_to_local(sandbox.live(place), copy)
    before = read_published(sandbox, job, place)
    sandbox.run(job, place, f"undisturbed-{job}-{place}")
    after = read_published(sandbox, job, place)
    assert (after == before) == (job == "maintain"), (before, after)
    record.write_text(json.dumps({"root": sandbox.root(place), "before": before, "after": after}))
    return Prepared(copy, before, after)


def write_images(folder: Path) -> None:
    """Write the synthetic images; each kind has a second folder with a part of them."""
    if folder.exists():
        return
    labelled, unlabelled = folder / "labelled", folder / "unlabelled"
    write_sample(labelled, 60, 3)
    broken = labelled / "Normal" / "images" / "Normal-1.png"
    broken.write_bytes(broken.read_bytes()[:1000])
    write_unlabelled(unlabelled, 20, 5)
    for whole in (labelled, unlabelled):
        shutil.copytree(whole, whole.with_name(f"few {whole.name}"))
    late = "Viral Pneumonia/images/*1*", "Viral Pneumonia/masks/*1*"
    for file in [file for names in late for file in (folder / "few labelled").glob(names)]:
        file.unlink()
    for file in list((folder / "few unlabelled").glob("ward-[bc]/*/*")):
        file.unlink()


def age_tables(sandbox: Sandbox, place: str) -> None:
    """Give the tables many small files, and their metadata an age at which it expires."""
    from eagle_spark.settings import MaintainSettings
    from eagle_spark.tables.runs import Run

    with open_session("faults", sandbox.warehouse(place)) as spark:
        warehouse = Warehouse(spark)
        for number in range(5):
            run = Run.begin("score", MaintainSettings(warehouse="w"))
            warehouse.record_run(run.record(Figures(float(number))))
    for entry in list(list_folder(sandbox.warehouse(place))):
        if entry.name.endswith(".metadata.json"):
            storage, path = resolve(entry.uri)
            text = storage.read(path, 1 << 26).decode()
            text = re.sub(
                r'("(?:timestamp-ms|last-updated-ms)"\s*:\s*)(\d+)',
                lambda match: f"{match[1]}{int(match[2]) - OLD_MILLISECONDS}",
                text,
            )
            parent, name = path.rsplit("/", 1)
            storage.delete(f"{parent}/.{name}.crc")
            storage.write(path, text.encode())


def delete_folder(uri: str) -> None:
    storage, path = resolve(uri)
    storage.delete(path)


def copy_to_local(uri: str, copy: Path) -> None:
    """Copy a folder to this machine."""
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir(parents=True)
    if split_uri(uri)[0] == "file":
        if os.path.exists(uri):
            shutil.copytree(uri, copy, dirs_exist_ok=True)
        return
    storage, path = resolve(uri)
    for entry in list_folder(uri) if storage.exists(path) else ():
        file = copy / entry.uri.removeprefix(f"{uri}/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(storage.read(resolve(entry.uri)[1], 1 << 28))


def restore(uri: str, copy: Path) -> None:
    """Replace the folder with its copy."""
    delete_folder(uri)
    if split_uri(uri)[0] == "file":
        shutil.copytree(copy, uri)
        return
    for file in sorted(path for path in copy.rglob("*") if path.is_file()):
        storage, path = resolve(f"{uri}/{file.relative_to(copy).as_posix()}")
        storage.write(path, file.read_bytes())
