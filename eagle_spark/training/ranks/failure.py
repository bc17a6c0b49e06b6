"""What Spark says of a failed barrier stage: which rank, of what, and whether to try again."""

from __future__ import annotations

import re

from eagle_spark import errors
from eagle_spark.errors import EagleError, UserError

_TASK = re.compile(r"barrier task ResultTask\(\d+, (\d+)\) finished unsuccessfully\.\n")
_RAISED = re.compile(r"^([\w.]*(?:Error|Exception)): (?!Traceback)(.*)$", re.MULTILINE)
_PEER = re.compile(r"/task:(\d+)")
_CRASHED = "Python worker exited unexpectedly"


class RankLost(EagleError):
    """Raised when ranks ended early for a reason that may not come again."""


class RankRaised(RankLost):
    """Raised when code of a rank raised an error: if it does so again, it always will."""


def explain(text: str) -> UserError | RankLost:
    """Return the error that the text of Spark's exception stands for, in one line.

    A UserError that a rank raised comes back as such.
    """
    if mistake := _mistake(text):
        return mistake
    task = _TASK.search(text)
    if task is None:
        return RankLost(_line(text.partition("\n: ")[2] or text))
    rank, cause = task.group(1), text[task.end() :].split("\n\tat ")[0]
    if _CRASHED in cause:
        return RankLost(f"the process of rank {rank} died")
    raised = _RAISED.findall(cause)
    if not raised:
        return RankLost(f"rank {rank}: {_line(cause)}")
    kind, message = raised[-1]
    told = _line(f"{kind.rpartition('.')[2]}: {re.sub(r'{{.*?}} ', '', message)}")
    if not kind.startswith("tensorflow."):
        return RankRaised(f"rank {rank}: {told}")
    # Who outlives another fails of it, and may be heard first.
    peers = sorted(set(_PEER.findall(cause)) - {rank})
    lost = f"rank {rank} lost rank {', '.join(peers)}" if peers else f"rank {rank}"
    return RankLost(f"{lost}: {told}")


def _mistake(text: str) -> UserError | None:
    # What is raised below tf.data comes wrapped in TensorFlow's text, by its bare name.
    for name, message in re.findall(r"(?:^|[\s.])(\w+Error): (?=(.+))", text):
        kind = getattr(errors, name, None)
        if isinstance(kind, type) and issubclass(kind, UserError):
            return kind(message)
    return None


def _line(text: str) -> str:
    first = text.strip().partition("\n")[0].partition(" Possible causes: ")[0]
    return first.removeprefix("org.apache.spark.SparkException: ").rstrip(": ")[:500]
