"""What scale measures anew can be measured: small, on this machine."""

from __future__ import annotations

import pytest

from benchmarks.scale_driver import driver
from benchmarks.scale_measure import alone
from benchmarks.scale_readers import readers


@pytest.mark.spark
def test_readers_see_whole_nights() -> None:
    found = alone(readers, 5, 2)  # beside the Spark of other tests
    assert found["not_whole"] == {}
    assert found["nights"] == len(found["nights_alone"]) == len(found["nights_with_readers"]) == 2
    assert found["looks"] >= 10
    assert 3 <= found["in_flight"] <= 5


@pytest.mark.spark
def test_a_known_image_is_a_key_of_8_bytes_at_least() -> None:
    images = 200_000
    found = driver((images,))[str(images)]
    assert 8 * images < found["result_bytes"] < 16 * images
    assert found["worker_bytes"] > 8 * images
    assert found["python_bytes"] > found["worker_bytes"]
    assert found["java_live_bytes"] > 8 * images
