"""What a job begins with, made once for all the faults that it is struck by."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from eagle_spark.datasets.synthetic.sample import write_sample, write_unlabelled
from eagle_spark.io import list_folder, locate, split_uri
from eagle_spark.io.upload import upload
from eagle_spark.spark.session import open_session
from eagle_spark.tables import Warehouse
from tests.chaos.fault_jobs import World
from tests.chaos.fault_reader import State, look

OLD_MILLISECONDS = 30 * 86_400_000
# What comes before: the job, and which part of the images is there then.
BEFORE = {
    "preprocess": ("preprocess", "few labelled"),
    "train": ("preprocess", "labelled"),
    "score": ("score", "few unlabelled"),
    "maintain": ("score", "unlabelled"),
}


@dataclass(frozen=True)
class Prepared:
    """What a job begins with, and what it makes of it undisturbed.

    Attributes:
        kept: local folder with a copy of the live one before the job.
    """

    kept: Path
    before: State
    after: State


def prepare(world: World, job: str, place: str) -> Prepared:
    """Make what the job begins with, once for all cells of the job on this file system."""
    place = "hdfs" if world.root(place).startswith("hdfs:") else "local"
    kept = world.folder / "kept" / f"{job}-{place}"
    told = kept.with_suffix(".json")
    if told.exists():
        known = json.loads(told.read_text())
        if known.pop("root") == world.root(place):
            return Prepared(kept, **known)
    draw(world.folder / "drawn")
    clear(world.live(place))
    inputs = world.inputs(job, place)
    if job != "put":
        clear(inputs)
        other, part = BEFORE[job]
        upload(str(world.folder / "drawn" / part), inputs)
        world.run(other, place, f"before-{job}-{place}", inputs)
        upload(str(world.folder / "drawn" / part.removeprefix("few ")), inputs)
    if job == "maintain":
        age(world, place)
    save(world.live(place), kept)
    before = look(world, job, place)
    world.run(job, place, f"undisturbed-{job}-{place}")
    after = look(world, job, place)
    assert (after == before) == (job == "maintain"), (before, after)
    told.write_text(json.dumps({"root": world.root(place), "before": before, "after": after}))
    return Prepared(kept, before, after)


def draw(folder: Path) -> None:
    """Draw the images; of both kinds there is a folder with a part of them."""
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


def age(world: World, place: str) -> None:
    """Give the tables many small files, and all of it an age at which it is to go."""
    from datetime import datetime, timezone

    from eagle_spark.settings import MaintainSettings
    from eagle_spark.tables.runs import Run

    with open_session("faults", world.warehouse(place)) as spark:
        warehouse = Warehouse(spark)
        for number in range(5):
            settings = MaintainSettings(warehouse="w")
            run = Run("score", f"score-{number}", datetime.now(timezone.utc), settings)
            warehouse.record_run(run, {"seconds": float(number)})
    for entry in list(list_folder(world.warehouse(place))):
        if entry.name.endswith(".metadata.json"):
            storage, path = locate(entry.uri)
            text = storage.read(path, 1 << 26).decode()
            text = re.sub(
                r'("(?:timestamp-ms|last-updated-ms)"\s*:\s*)(\d+)',
                lambda found: f"{found[1]}{int(found[2]) - OLD_MILLISECONDS}",
                text,
            )
            parent, name = path.rsplit("/", 1)
            storage.delete(f"{parent}/.{name}.crc")
            storage.write(path, text.encode())


def clear(uri: str) -> None:
    storage, path = locate(uri)
    storage.delete(path)


def save(uri: str, kept: Path) -> None:
    """Copy a folder to this machine."""
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    if split_uri(uri)[0] == "file":
        if os.path.exists(uri):
            shutil.copytree(uri, kept, dirs_exist_ok=True)
        return
    storage, path = locate(uri)
    for entry in list_folder(uri) if storage.exists(path) else ():
        file = kept / entry.uri.removeprefix(f"{uri}/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(storage.read(locate(entry.uri)[1], 1 << 28))


def restore(uri: str, kept: Path) -> None:
    """Make the folder what it was."""
    clear(uri)
    if split_uri(uri)[0] == "file":
        shutil.copytree(kept, uri)
        return
    for file in sorted(path for path in kept.rglob("*") if path.is_file()):
        storage, path = locate(f"{uri}/{file.relative_to(kept).as_posix()}")
        storage.write(path, file.read_bytes())
