"""`eagle-predict --model DIR IMAGE…`: one JSON line an image, by the code of the window."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from eagle_spark.errors import EagleError
from eagle_spark.options import Parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print what the model says of each image; 2 and one line on standard error where it cannot.

    An image that cannot be read is a line with `status` `rejected`, and no failure.
    """
    parser = Parser(
        prog="eagle-predict",
        description="Print what a model says of images, one JSON line each. Research use only.",
    )
    parser.add_argument("--model", metavar="URI", required=True, help="model folder")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="image, or folder of images")
    given = parser.parse_args(argv)
    try:
        _print_all(given.model, given.images)
    except EagleError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # whoever read has enough
        sys.stderr.close()
        return 0
    return 0


def _print_all(model: str, images: Sequence[str]) -> None:
    from eagle_spark.viewer.examine import Examiner
    from eagle_spark.viewer.listing import image_files

    paths = image_files(images)
    examiner = Examiner(model)
    for path in paths:
        print(json.dumps(examiner.record(examiner.examine(path)), allow_nan=False), flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
