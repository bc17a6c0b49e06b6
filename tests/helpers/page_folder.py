"""The folder in which the blocks of a page run: images, a labelled set, a model and a warehouse."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from eagle_spark.datasets.synthetic.sample import CLASSES, write_sample, write_unlabelled
from tests.helpers.tiny_model import reseal

ROOT = Path(__file__).resolve().parents[2]
LINKS = ("submit", "conf", "hadoop")
# The images beside four broken files. Drift needs 100 images, so `score` ends with 0.
LABELLED, UNLABELLED = 60, 20
SEED = 7
# Two epochs on two ranks, in the form of `training/log.py`.
LOG = """\
epoch,rank,accuracy,loss,segmentation_loss,seconds,cpu_percent,ram,gpu_percent,gpu_memory_percent
1,0,0.8,0.6,0.5,17,60,1400000000,,
1,1,0.8,0.6,0.5,18,65,1500000000,,
2,0,0.9,0.3,0.25,17,60,1400000000,,
2,1,0.9,0.3,0.25,18,65,1500000000,,
"""


def write_page_folder(
    folder: Path, model: Path, run_job: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """Write the folder of a page.

    Args:
        folder: new folder.
        model: folder of a model with three classes.
        run_job: runs a job by spark-submit.
    """
    folder.mkdir()
    for name in LINKS:
        (folder / name).symlink_to(ROOT / name)
    write_sample(folder / "labelled", LABELLED, SEED)
    write_unlabelled(folder / "images", UNLABELLED, SEED)
    shutil.copytree(model, folder / "model")
    (folder / "model" / "logs").mkdir()
    (folder / "model" / "logs" / "training_log.csv").write_text(LOG)
    reseal(folder / "model", classes=[kind.folder for kind in CLASSES])
    for job, options in (
        ("preprocess", ("--input", folder / "labelled")),
        ("score", ("--images", folder / "images", "--model", folder / "model")),
    ):
        done = run_job(job, *options, "--warehouse", folder / "warehouse")
        assert done.returncode == 0, done.stdout[-2000:]
