"""What score costs as the archive grows: rate and memory should not change.

    python -m benchmarks.score_growth --images DIR --model DIR [--sizes 1000,4000,12000,50000]

Each size is one `spark-submit submit/score.py` into an empty warehouse. Where DIR has fewer images
they are repeated with a number behind their end, so that no two files are the same bytes.
`steady` is the rate between the 20 % and the 80 % of rows that were scored first; memory is the
largest of a single process (RSS), of Java and of Python's workers, in GB. Last, `again` is the
second run over the largest size, which finds nothing new.
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
    given = parser.parse_args()
    model = str(Path(given.model).resolve())
    figures = {}
    with tempfile.TemporaryDirectory(prefix="eagle-bench-") as name:
        for size in map(int, given.sizes.split(",")):
            work = Path(name, str(size))
            work.mkdir()
            folder = repeat(images_in(given.images), size, work / "images")
            figures[size] = run("ours", folder, model, "auto", work)
            print(f"{size}: {json.dumps(figures[size])}", file=sys.stderr, flush=True)
        again = run("ours", folder, model, "auto", work, keep=True)
        figures["again"] = {key: again[key] for key in ("seconds", "cpu_seconds")}
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
