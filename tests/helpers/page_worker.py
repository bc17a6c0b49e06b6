"""The process of the `python` and `sql` blocks of a page; it ends with its standard input.

Each line of standard input is a block: the JSON list of language, text, line and page. Each line of
standard output is the end of a block: its traceback as JSON, an empty text for a block without an
error. The output of the blocks goes to standard error.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import sys
import traceback
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

WAREHOUSE = Path("warehouse")
VIEWS = Path("conf/sql/views.sql")
_END_OF_STATEMENT = re.compile(r";[ \t]*(?:\n|$)")


def open_sql_session(stack: ExitStack) -> Any:
    """Return a session as `make sql` opens it: catalog, database and views of the warehouse."""
    from eagle_spark.spark.session import open_session

    warehouse = str(WAREHOUSE.absolute())
    session = stack.enter_context(open_session("docs", warehouse))
    select_views = runpy.run_path(str(VIEWS.with_name("select_views.py")))["select_views"]
    session.sql("USE eagle.cxr")
    for view in select_views(warehouse, VIEWS.read_text(encoding="utf-8")):
        session.sql(view.rstrip(";"))
    return session


def split_statements(text: str) -> list[str]:
    """Return the statements of a block, without those that consist of comments."""
    statements = _END_OF_STATEMENT.split(text)
    return [part for part in statements if re.sub(r"--.*", "", part).strip()]


def main() -> None:
    # Functions of the blocks are those of a script: Spark sends them to its workers by value.
    page = ModuleType("__main__")
    sys.path[0] = ""  # as in `python -c`: the folder of the page, not that of this file
    sys.modules["__main__"] = page
    session: Any = None
    with os.fdopen(os.dup(1), "w") as replies, ExitStack() as stack:
        os.dup2(2, 1)  # output of the blocks
        for request in sys.stdin:
            language, text, line, file = json.loads(request)
            error = ""
            try:
                if language == "sql":
                    session = session or open_sql_session(stack)
                    for statement in split_statements(text):
                        session.sql(statement).collect()
                else:
                    source = "\n" * (line - 1) + text  # tracebacks have the lines of the page
                    code = compile(source, file, "exec", dont_inherit=True)
                    exec(code, vars(page))  # noqa: S102
            except BaseException:  # a block may call `sys.exit`
                error = traceback.format_exc()
            print(json.dumps(error), file=replies, flush=True)


if __name__ == "__main__":
    main()
