"""Parse the text of Spark's exception about a failed barrier stage."""

from __future__ import annotations

import re

from eagle_spark import errors
from eagle_spark.errors import EagleError, UserError

_TASK = re.compile(r"barrier task ResultTask\(\d+, (\d+)\) finished unsuccessfully\.\n")
_RAISED = re.compile(r"^([\w.]*(?:Error|Exception)): (?!Traceback)(.*)$", re.MULTILINE)
_PEER = re.compile(r"/task:(\d+)")
_CRASHED = "Python worker exited unexpectedly"


class RankLostError(EagleError):
    """Raised when ranks ended early for a reason that may be temporary."""


class RankRaisedError(RankLostError):
    """Raised when the code of a rank raised an error; a second one at the same step is final."""


def parse_stage_failure(text: str) -> UserError | RankLostError:
    """Return the error that the text of Spark's exception describes, in one line.

    A UserError that a rank raised keeps its class.
    """
    if user_error := _find_user_error(text):
        return user_error
    task = _TASK.search(text)
    if task is None:
        return RankLostError(_first_line(text.partition("\n: ")[2] or text))
    rank, cause = task.group(1), text[task.end() :].split("\n\tat ")[0]
    if _CRASHED in cause:
        return RankLostError(f"the process of rank {rank} died")
    exceptions = _RAISED.findall(cause)
    if not exceptions:
        return RankLostError(f"rank {rank}: {_first_line(cause)}")
    kind, message = exceptions[-1]
    summary = _first_line(f"{kind.rpartition('.')[2]}: {re.sub(r'{{.*?}} ', '', message)}")
    if not kind.startswith("tensorflow."):
        return RankRaisedError(f"rank {rank}: {summary}")
    # A rank that loses a peer fails as well, and Spark may report its failure first.
    peers = sorted(set(_PEER.findall(cause)) - {rank})
    ranks = f"rank {rank} lost rank {', '.join(peers)}" if peers else f"rank {rank}"
    return RankLostError(f"{ranks}: {summary}")


def _find_user_error(text: str) -> UserError | None:
    # TensorFlow wraps an error from below tf.data in its own text, under the bare class name.
    for name, message in re.findall(r"(?:^|[\s.])(\w+Error): (?=(.+))", text):
        kind = getattr(errors, name, None)
        if isinstance(kind, type) and issubclass(kind, UserError):
            return kind(message)
    return None


def _first_line(text: str) -> str:
    line = text.strip().partition("\n")[0].partition(" Possible causes: ")[0]
    return line.removeprefix("org.apache.spark.SparkException: ").rstrip(": ")[:500]
