"""Print the views of views.sql whose tables exist in a warehouse, unless a table has their name.

    python conf/sql/select_views.py WAREHOUSE

spark-sql exits at a view without its table: `images` exists after the first preprocess,
`predictions` and `runs` after the first score. A warehouse of version 0.1 has a table `rejects`.
"""

import re
import sys
from pathlib import Path

from eagle_spark.errors import EagleError
from eagle_spark.io import join, resolve


def has_table(warehouse: str, name: str) -> bool:
    storage, path = resolve(join(warehouse, "cxr", name))
    return storage.exists(path)


def select_views(warehouse: str, text: str) -> list[str]:
    """Return the statements of `text` that can be executed."""
    selected = []
    for view in re.finditer(r"^CREATE OR REPLACE TEMPORARY VIEW (\w+) AS.*?;$", text, re.M | re.S):
        tables = set(re.findall(r"eagle\.cxr\.(\w+)", view[0]))
        if all(has_table(warehouse, name) for name in tables) and not has_table(warehouse, view[1]):
            selected.append(view[0])
    return selected


if __name__ == "__main__":
    text = Path(__file__).with_name("views.sql").read_text()
    try:
        print(*select_views(sys.argv[1], text), sep="\n")
    except (EagleError, OSError) as error:
        print(f"warning: no views: {error}", file=sys.stderr)
