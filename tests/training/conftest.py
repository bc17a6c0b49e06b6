from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eagle_spark.images.masks import encode_mask

SIZE = 64


@pytest.fixture(scope="session")
def images_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Parquet file of 50 images in the form of the table `images`, sorted by class.

    The left half of image i has the grey value i; dark ones are of class `dark`. Every fifth has
    no mask; the other masks cover the right half.
    """
    right = np.zeros((SIZE, SIZE), bool)
    right[:, SIZE // 2 :] = True
    rows = []
    for i in range(50):
        pixels = np.where(right, 200 if i >= 25 else 20, i).astype(np.uint8)
        rows.append(
            {
                "pixels": pixels.tobytes(),
                "mask": None if i % 5 == 0 else encode_mask(right),
                "label": "dark" if i < 25 else "light",
            }
        )
    schema = pa.schema([("pixels", pa.binary()), ("mask", pa.binary()), ("label", pa.string())])
    path = tmp_path_factory.mktemp("table") / "images.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, row_group_size=21)
    return path
