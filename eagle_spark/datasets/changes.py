"""The changes that a labelled folder makes to the table `images`: splits, new and outdated rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eagle_spark.datasets.leakage import qualified_patient_ids
from eagle_spark.datasets.matching import Candidate
from eagle_spark.datasets.split import assign_splits, find_conflicting_labels, group_images
from eagle_spark.datasets.split_file import SplitFile
from eagle_spark.errors import AuditError, FailureRateError, Reason
from eagle_spark.tables import IMAGES

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import Column, DataFrame
    from pyspark.sql._typing import ColumnOrName

FACT_COLUMNS = ("path", "label", "patient_id", "source", "image_id", "perceptual_hash", "detail")
"""What the driver reads of each image to split the set and to find changed rows."""
REJECTED = "reason IS NOT NULL"
"""SQL condition on the rows of `images` that are rejections."""
REJECTION = IMAGES.arrow_schema("path", "label", "source", "reason", "detail")
"""Schema of the attributes of a `Rejection`."""
_COMPARED = [
    *("path", "label", "patient_id", "source", "image_id", "split"),
    *("mask_hash", "metadata_hash", "detail"),
]

_FACTS = pa.schema(
    [
        *IMAGES.arrow_schema(*FACT_COLUMNS, "split"),
        ("mask_hash", pa.int64()),
        ("metadata_hash", pa.int64()),
    ]
)
_HASH_DIGITS = 15  # hexadecimal; the number fits into 64 bits with a sign
_NO_VALUE, _SEPARATOR = "\1", "\0"  # of metadata; no cell of a workbook has them

SplitRule = SplitFile | tuple[float, float, float]


@dataclass(frozen=True)
class Rejection:
    """A rejected file or workbook row.

    Attributes:
        path: URI of the file, or of the workbook with `#row=N`.
        label: class folder.
        source: collection or hospital.
        reason: a value of `Reason`.
        detail: the defect.
    """

    path: str
    label: str
    source: str
    reason: str
    detail: str | None


@dataclass(frozen=True)
class Changes:
    """Changes of the table `images`.

    Attributes:
        accepted: facts of the images of this folder, with their `split` and their place (`staged`
            and `row`) in the staging folder.
        moved: `path` and `to`, the new split, of other rows of the table.
        written: rows of `accepted` that are missing in the table or differ there.
        removed: paths of accepted rows that `written` or a rejection replaces.
        rejections: of this folder.
    """

    accepted: pd.DataFrame
    moved: pd.DataFrame
    written: pd.DataFrame
    removed: list[str]
    rejections: list[Rejection]


def select_facts(images: DataFrame) -> pd.DataFrame:
    """Return the facts of rows of `images` without any pixels.

    Returns:
        `FACT_COLUMNS`, `split`, and `mask_hash` and `metadata_hash` as `hash_mask` and
        `hash_metadata` compute them.
    """
    from pyspark.sql.functions import array, array_join, flatten, map_keys, map_values

    texts = flatten(array(map_keys("metadata"), map_values("metadata")))
    return images.select(
        *FACT_COLUMNS,
        "split",
        _hash_column("mask").alias("mask_hash"),
        _hash_column(array_join(texts, _SEPARATOR, _NO_VALUE)).alias("metadata_hash"),
    ).toPandas()


def _hash_column(value: ColumnOrName) -> Column:
    """Return the column that `_hash_bytes` computes."""
    from pyspark.sql.functions import coalesce, conv, lit, sha2, substring

    number = conv(substring(sha2(value, 256), 1, _HASH_DIGITS), 16, 10).cast("bigint")
    return coalesce(number, lit(0))


def no_facts() -> pd.DataFrame:
    """Return what `select_facts` returns for a table without rows."""
    facts: pd.DataFrame = _FACTS.empty_table().to_pandas()
    return facts


def hash_mask(mask: bytes | None) -> int:
    """Return 60 bits that stand for a mask; 0 without one."""
    return 0 if mask is None else _hash_bytes(mask)


def hash_metadata(metadata: Iterable[tuple[str, str | None]] | None) -> int:
    """Return 60 bits that stand for the columns of a workbook row; 0 without a row."""
    if metadata is None:
        return 0
    pairs = list(metadata)
    texts = chain((key for key, _ in pairs), (value for _, value in pairs))
    joined = _SEPARATOR.join(_NO_VALUE if text is None else text for text in texts)
    return _hash_bytes(joined.encode())


def _hash_bytes(data: bytes) -> int:
    return int(sha256(data).hexdigest()[:_HASH_DIGITS], 16)


def plan_changes(
    candidates: Sequence[Candidate],
    decoded: pd.DataFrame,
    broken: Sequence[Rejection],
    present: pd.DataFrame,
    rule: SplitRule,
    *,
    seed: int,
    max_failure_rate: float,
) -> Changes:
    """Compare the decoded images of a folder with the accepted rows of the table.

    Args:
        candidates: entries of the folder.
        decoded: facts of those that were decoded.
        broken: those that were not.
        present: facts of the accepted rows of the table.
        rule: split file, or shares of train, val and test.
        seed: of the split.
        max_failure_rate: share of the candidates that may be rejected.

    Raises:
        AuditError: when the sums do not balance.
        FailureRateError: when more candidates are rejected.
        InputError: when the split file does not match.
    """
    others = present[~present["path"].isin(decoded["path"])]
    conflicts = _find_label_conflicts(decoded, others)
    rejections = [
        *_unmatched(candidates),
        *broken,
        *_conflicting(decoded[conflicts]),
    ]
    accepted = decoded[~conflicts].reset_index(drop=True)
    _check_sums(len(candidates), len(accepted), len(rejections), max_failure_rate)
    if isinstance(rule, SplitFile):
        assigned = rule.assign(list(accepted["path"]), list(accepted["patient_id"]))
        splits = [*assigned, *others["split"]]
    else:
        splits = _assign_splits(accepted, others, present, rule, seed)
    accepted["split"] = splits[: len(accepted)]
    moved = others.assign(to=splits[len(accepted) :]).query("split != to")
    written = _select_changed(accepted, present)
    replaced = {*written["path"], *(rejection.path for rejection in rejections)}
    removed = sorted(replaced & {*present["path"]})
    return Changes(accepted, moved[["path", "to"]], written, removed, rejections)


def _find_label_conflicts(decoded: pd.DataFrame, others: pd.DataFrame) -> NDArray[np.bool_]:
    image_ids = [*decoded["image_id"], *others["image_id"]]
    labels = [*decoded["label"], *others["label"]]
    return find_conflicting_labels(image_ids, labels)[: len(decoded)]


def _unmatched(candidates: Sequence[Candidate]) -> list[Rejection]:
    return [
        Rejection(entry.uri, entry.label, str(entry.source), str(entry.reason), entry.detail)
        for entry in candidates
        if entry.reason
    ]


def _conflicting(rows: pd.DataFrame) -> list[Rejection]:
    reason, detail = str(Reason.CONFLICTING_LABELS), "the same bytes stand under another label"
    return [
        Rejection(row.path, row.label, row.source, reason, detail)  # type: ignore[arg-type]
        for row in rows.itertuples()
    ]


def _check_sums(listed: int, accepted: int, rejected: int, max_failure_rate: float) -> None:
    if listed != accepted + rejected:
        raise AuditError(f"listed {listed}, but accepted {accepted} + rejected {rejected}")
    if listed and rejected / listed > max_failure_rate:
        raise FailureRateError(
            f"{rejected} of {listed} entries rejected, more than `max_failure_rate` "
            f"{max_failure_rate}; nothing was published"
        )


def _assign_splits(
    accepted: pd.DataFrame,
    others: pd.DataFrame,
    present: pd.DataFrame,
    fractions: tuple[float, float, float],
    seed: int,
) -> list[str]:
    """Return the splits of the accepted rows, then of the others that the table holds.

    Rows of the table keep their split, unless a new image connects two of its groups.
    """
    before = dict(zip(present["path"], present["split"], strict=True))
    paths, labels, sources, patient_ids, image_ids, hashes = (
        [*accepted[name], *others[name]]
        for name in ("path", "label", "source", "patient_id", "image_id", "perceptual_hash")
    )
    groups = group_images(qualified_patient_ids(sources, patient_ids), image_ids, hashes)
    fixed = [before.get(path) for path in paths]
    # Each class of each source is distributed over the splits by itself.
    strata = [f"{source}/{label}" for source, label in zip(sources, labels, strict=True)]
    return assign_splits(groups, strata, image_ids, fractions, seed, fixed=fixed)


def _select_changed(accepted: pd.DataFrame, present: pd.DataFrame) -> pd.DataFrame:
    known = set(present[_COMPARED].itertuples(index=False, name=None))
    rows = accepted[_COMPARED].itertuples(index=False, name=None)
    return accepted[np.array([row not in known for row in rows], bool)]
