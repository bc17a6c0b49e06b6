"""The tools of `eagle` that are no Spark jobs: their settings and calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from pydantic import Field
from pydantic_settings import CliPositionalArg

from eagle_spark.errors import ImageRejectedError, InputError, require_extra
from eagle_spark.io.upload import DEFAULT_JOBS
from eagle_spark.settings import (
    Integer,
    LocalPath,
    Settings,
    Text,
    count_option,
    local_option,
    model_option,
    warehouse_option,
)


class UploadSettings(Settings):
    """Upload a folder or zip archive to HDFS.

    Existing files of the same length are skipped: run the command again to continue after an
    interruption.
    """

    source: CliPositionalArg[LocalPath] = local_option("local folder or zip archive")
    target: CliPositionalArg[Text] = Field(description="target folder: hdfs://… or a path")
    jobs: Integer = count_option(DEFAULT_JOBS, "parallel uploads")


def upload(settings: UploadSettings) -> Mapping[str, object]:
    """Upload, and return the figures."""
    from eagle_spark.io.upload import upload

    return upload(settings.source, settings.target, settings.jobs)


class SampleSettings(Settings):
    """Write synthetic chest X-rays in the layout of the COVID-19 Radiography Database.

    Images, lung masks and workbooks; equal seeds give equal bytes.
    """

    out: LocalPath = local_option("new folder for the labelled images")
    images: Integer = count_option(120, "number of images of all classes")
    seed: Integer = count_option(7, "seed", ge=0)
    unlabelled_out: LocalPath | None = local_option("new folder for images to score", default=None)
    unlabelled: Integer = count_option(24, "number of images to score, besides 4 broken files")


def sample(settings: SampleSettings) -> Mapping[str, object]:
    """Write the folders, and return the number of images by class."""
    from eagle_spark.datasets.synthetic.sample import write_sample, write_unlabelled

    counts = write_sample(Path(settings.out), settings.images, settings.seed)
    if settings.unlabelled_out is not None:
        write_unlabelled(Path(settings.unlabelled_out), settings.unlabelled, settings.seed)
    return asdict(counts)


class PlotsSettings(Settings):
    """Plot a training log."""

    log: CliPositionalArg[Text] = Field(description="training_log.csv of a model folder, or a URI")
    out: LocalPath = local_option("folder", default="plots")


def plots(settings: PlotsSettings) -> Iterator[str]:
    """Yield the paths of the plots."""
    require_extra("report", "matplotlib", purpose="`eagle plots`")
    from eagle_spark.report.curves import read_log, write_curves

    yield from map(str, write_curves(read_log(settings.log), Path(settings.out)))


class SegmentSettings(Settings):
    """Write the lungs of one DICOM X-ray as a DICOM Segmentation. Research use only."""

    image: CliPositionalArg[Text] = Field(description="DICOM file or URI")
    model: Text = model_option()
    out: LocalPath = local_option("file to write")


def segment(settings: SegmentSettings) -> Iterator[str]:
    """Yield the path of the file."""
    from eagle_spark.scoring.dicom_seg import write_segmentation

    try:
        write_segmentation(settings.image, settings.model, Path(settings.out))
    except ImageRejectedError as error:
        raise InputError(f"{settings.image}: {error}") from error
    yield settings.out


class GallerySettings(Settings):
    """Query the predictions of a warehouse and draw some of them."""

    warehouse: Text = warehouse_option()
    out: LocalPath = local_option("PNG file to write")


def gallery(settings: GallerySettings) -> Iterator[str]:
    """Yield the query and its result."""
    require_extra("report", "matplotlib", purpose="`eagle gallery`")
    from eagle_spark.report.demo import write_gallery

    yield from write_gallery(settings.warehouse, Path(settings.out))


class LinkTestSettings(Settings):
    """Create a folder of links to the images of the test split, on this machine."""

    warehouse: Text = warehouse_option()
    out: LocalPath = local_option("new folder")


def link_test(settings: LinkTestSettings) -> Iterator[str]:
    """Yield the number of links."""
    from eagle_spark.report.demo import link_test_images

    yield f"{link_test_images(settings.warehouse, Path(settings.out))} links in {settings.out}"


class ResultsSettings(Settings):
    """Write results/ of this repository from the trainings of submit/results.sh."""

    work: LocalPath = local_option("folder of tables, models and reports")
    out: LocalPath = local_option("folder of accuracy.md and the plots")


def results(settings: ResultsSettings) -> Iterator[str]:
    """Yield the path of the page."""
    from eagle_spark.report.results import PAGE, write_results

    write_results(Path(settings.work), Path(settings.out))
    yield f"{settings.out}/{PAGE}"
