"""Source text that tests run: cells of a notebook, examples of docstrings."""

from __future__ import annotations

import ast
from typing import Any


def run_source(source: str, names: dict[str, Any], file: str) -> Any:
    """Run source text in a namespace; return the value of its last statement if an expression.

    Args:
        source: statements, without the `__future__` imports of this module.
        names: the namespace, which the statements change.
        file: name in tracebacks.
    """
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, file, "exec", dont_inherit=True), names)  # noqa: S102
    if not isinstance(last, ast.Expr):
        return None
    code = compile(ast.Expression(last.value), file, "eval", dont_inherit=True)
    return eval(code, names)  # noqa: S307
