"""Rate and memory of score as the archive grows: neither should change.

    python -m benchmarks.score_growth --images DIR --model DIR [--sizes 1000,4000,12000,50000]

Each size is one `spark-submit submit/score.py` into an empty warehouse. If DIR has fewer images,
they are repeated with a number after their last byte, so that no two files have the same bytes.
`steady` is the rate between the first 20 % and the first 80 % of the scored rows; memory is the
largest of a single process (RSS), of Java and of Python's workers, in GB. Last, `again` is the
second run over the largest size, which has nothing to score.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from benchmarks.score import run
from tests.chaos.copies import repeat
from tests.helpers.processes import images_in


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", required=True, type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--sizes", default="1000,4000,12000,50000")
    options = parser.parse_args()
    model = str(Path(options.model).resolve())
    figures = {}
    with tempfile.TemporaryDirectory(prefix="eagle-bench-") as name:
        for size in map(int, options.sizes.split(",")):
            work = Path(name, str(size))
            work.mkdir()
            folder = repeat(images_in(options.images), size, work / "images")
            figures[size] = run("ours", folder, model, "auto", work)
            print(f"{size}: {json.dumps(figures[size])}", file=sys.stderr, flush=True)
        again = run("ours", folder, model, "auto", work, keep=True)
        figures["again"] = {key: again[key] for key in ("seconds", "cpu_seconds")}
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
