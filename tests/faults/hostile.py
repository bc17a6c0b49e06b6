"""Hostile inputs: each is put where a user would put it, and says what became of it.

Each case runs in a process of its own, under a limit of time and memory. `make hostile` writes the
table `results/hostile.md`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eagle_spark.errors import EagleError, ImageRejected
from eagle_spark.images.decode import read_radiograph
from eagle_spark.images.masks import read_mask
from eagle_spark.model.card import table
from eagle_spark.storage import list_folder, locate, printable, read_image
from hostile_images import IMAGES
from hostile_workbooks import WORKBOOKS
from planted import EXPECTED, PLANTED, SIDE, encoded, grey

SECONDS, MEGABYTES = 30, 1024  # a case may take


@dataclass(frozen=True)
class Case:
    """One input.

    Attributes:
        kind: of input: image, mask, workbook, name, model, setting.
        run: puts it into an empty folder, hands it to the program, and returns what that said.
        expected: what the answer begins with.
    """

    kind: str
    name: str
    run: Callable[[Path], str]
    expected: str


@dataclass(frozen=True)
class Outcome:
    """What came of a case; `megabytes` is what its process took beyond what it began with."""

    said: str
    seconds: float
    megabytes: int


def said(call: Callable[[], Any]) -> str:
    """Return `accepted`, what the call returns if that is text, or the program's own complaint."""
    try:
        found = call()
    except ImageRejected as rejected:
        return f"{rejected.reason}: {rejected.detail}"
    except (EagleError, SystemExit) as error:
        return f"error: {error}"
    return found if isinstance(found, str) else "accepted"


def try_out(case: Case, folder: Path) -> Outcome:
    """Run a case in a process of its own; a case that hangs is ended and says so."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_run, args=(case, folder, theirs))
    started = time.perf_counter()
    child.start()
    theirs.close()
    try:
        if ours.poll(SECONDS):
            found: Outcome = ours.recv()
        else:
            found = Outcome(f"did not end within {SECONDS} s", SECONDS, 0)
    except EOFError:
        spent = time.perf_counter() - started
        child.join(5)
        found = Outcome(f"ended with {child.exitcode}", round(spent, 2), 0)
    child.kill()
    child.join()
    return found


def _run(case: Case, folder: Path, pipe: Any) -> None:
    before = _peak()
    started = time.perf_counter()
    answer = case.run(folder)
    spent = round(time.perf_counter() - started, 2)
    pipe.send(Outcome(" ".join(answer.replace(str(folder), "").split()), spent, _peak() - before))
    pipe.close()


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _bytes(reader: Callable[[bytes, int], Any], make: Callable[[], bytes]) -> Callable[..., str]:
    return lambda _: said(lambda: reader(make(), SIDE))


def _workbook(make: Callable[[], bytes]) -> Callable[[Path], str]:
    from eagle_spark.dataset.workbook import read_workbook

    def read() -> str:
        good, bad = read_workbook(make(), "x.xlsx")
        details = "".join(f": {row.detail}" for row in bad)
        return f"{len(good)} rows, {len(bad)} bad{details}"

    return lambda _: said(read)


def _read(uri: str) -> None:
    read_radiograph(read_image(printable(uri), 2**20), SIDE)  # tables hold the printable name


def _listed(place: Callable[[Path], object]) -> Callable[[Path], str]:
    """Put something into a folder, list that and read what was listed, as score does."""

    def read(folder: Path) -> str:
        place(folder)
        uris = [entry.uri for entry in list_folder(str(folder))]
        answers = [said(lambda one=uri: _read(one)) for uri in uris]
        return "; ".join(answers) or "nothing is listed"

    return lambda folder: said(lambda: read(folder))


def _named(name: str | bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / os.fsdecode(name)).write_bytes(encoded(grey(), "PNG"))


def _deep(folder: Path) -> None:
    for _ in range(100):
        folder = folder / "below"
    folder.mkdir(parents=True)
    _named("a.png")(folder)


NAMES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a link to itself": (lambda folder: (folder / "a.png").symlink_to("a.png"), "unreadable"),
    "a folder that links to its parent": (
        lambda folder: (folder / "a").symlink_to(folder),
        "unreadable",
    ),
    "a link out of the folder": (
        lambda folder: (folder / "a.png").symlink_to("/etc/passwd"),
        "not_an_image",
    ),
    "a FIFO": (lambda folder: os.mkfifo(folder / "a.png"), "unreadable"),
    "a folder named like an image": (
        lambda folder: (folder / "a.png").mkdir(),
        "nothing is listed",
    ),
    "100 folders deep": (_deep, "accepted"),
    "line ends": (_named("a\nb\r.png"), "accepted"),
    "tabs and blanks": (_named(" a\t .png"), "accepted"),
    "emoji": (_named("\U0001fac1\u200d\U0001f469.png"), "accepted"),
    "right to left": (_named("\u202egnp.exe.png"), "accepted"),
    "no UTF-8": (_named(b"caf\xe9.png"), "unreadable"),
    "255 bytes": (_named("a" * 251 + ".png"), "accepted"),
    "signs of a glob": (_named("{a,b}[0-9]*?.png"), "accepted"),
    "signs of a URI": (_named("a%2F..%00#x?y=1.png"), "accepted"),
    "signs of a shell": (_named("$(reboot);`reboot`|&.png"), "accepted"),
    "signs of SQL": (_named("a'); DROP TABLE images; --.png"), "accepted"),
    "signs of HTML": (_named("<img src=x onerror=alert(1)>.png"), "accepted"),
    "a backslash": (_named("a\\..\\b.png"), "accepted"),
}


def _setting(*words: str) -> Callable[[Path], str]:
    from eagle_spark.options import parse_settings
    from eagle_spark.settings import PreprocessSettings

    needed = ("--input", "/nowhere", "--warehouse", "/nowhere")
    return lambda _: said(lambda: parse_settings(PreprocessSettings, [*needed, *words]))


def _split(shares: str) -> Callable[[Path], str]:
    from eagle_spark.dataset.split import parse_fractions

    return lambda _: said(lambda: parse_fractions(shares))


def _uri(uri: str) -> Callable[[Path], str]:
    return lambda _: said(lambda: locate(uri))


def _conf(text: str) -> Callable[[Path], str]:
    def parse(folder: Path) -> str:
        (folder / "conf.toml").write_text(text)
        return _setting("--conf-file", str(folder / "conf.toml"))(folder)

    return parse


SETTINGS: dict[str, tuple[Callable[[Path], str], str]] = {
    "a size below zero": (_setting("--size", "-1"), "error: --size"),
    "a size of 10**12": (_setting("--size", "1000000000000"), "error: --size"),
    "a size that is no number": (_setting("--size", "nan"), "error: --size"),
    "shares beyond one": (_split("0.9,0.9,0.9"), "error: --split"),
    "shares that are no numbers": (_split("nan,nan,nan"), "error: --split"),
    "a rate that is no number": (_setting("--max-failure-rate", "nan"), "error: --max-failure"),
    "an unknown key": (_conf("sizes = 3"), "error: "),
    "a file of settings that is none": (_conf("\0\0"), "error: "),
    "a password in a URI": (_uri("hdfs://user:secret@host/a"), "error: hdfs:// is followed by"),
    "another scheme": (_uri("http://169.254.169.254/"), "error: a URI begins with"),
    "a URI that climbs": (_uri("file:///a/../../etc"), "accepted"),
}


def _model(change: Callable[[Path], object], model: Path) -> Callable[[Path], str]:
    import shutil

    from eagle_spark.model.bundle import open_bundle

    def read(folder: Path) -> str:
        shutil.copytree(model, folder / "model")
        change(folder / "model")
        return said(lambda: open_bundle(str(folder / "model")))

    return read


def _swap(folder: Path) -> None:
    one, other, *_ = sorted(json.loads((folder / "metadata.json").read_text())["digests"])
    (folder / one).replace(folder / "between")
    (folder / other).replace(folder / one)
    (folder / "between").replace(folder / other)


def _metadata(**changed: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        known = json.loads((folder / "metadata.json").read_text())
        (folder / "metadata.json").write_text(json.dumps(known | changed))

    return change


def _lambda(folder: Path) -> None:
    """A network with code in it, under a digest that fits."""
    from hashlib import sha256

    path = folder / "model.keras"
    with zipfile.ZipFile(path) as old:
        parts = {name: old.read(name) for name in old.namelist()}
    config = json.loads(parts["config.json"])
    config["config"]["layers"][1]["class_name"] = "Lambda"
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as new:
        for name, content in parts.items():
            new.writestr(name, content)
    known = json.loads((folder / "metadata.json").read_text())["digests"]
    digest = sha256(path.read_bytes()).hexdigest()
    _metadata(digests=known | {"model.keras": digest})(folder)


MODELS: dict[str, tuple[Callable[[Path], object], str]] = {
    "as it is": (lambda _: None, "accepted"),
    "two files swapped": (_swap, "error: "),
    "a file that is missing": (lambda folder: (folder / "model.keras").unlink(), "error: "),
    "metadata of another size": (_metadata(input={"size": 99_999}), "error: "),
    "metadata without digests": (_metadata(digests={}), "error: "),
    "digests of files outside": (_metadata(digests={"../../etc/passwd": "0" * 64}), "error: "),
    "metadata that are a list": (
        lambda folder: (folder / "metadata.json").write_text("[]"),
        "error: ",
    ),
    "a network with a Lambda layer": (_lambda, "error: "),
    "a file turned into a link": (
        lambda folder: (
            (folder / "model.keras").unlink(),
            (folder / "model.keras").symlink_to("/etc/passwd"),
        ),
        "error: ",
    ),
}


def cases(model: Path) -> Iterable[Case]:
    """Yield all cases; `model` is a sound model folder."""
    for name, make in PLANTED.items():
        expected = EXPECTED[name]
        yield Case("image", name, _bytes(read_radiograph, make), str(expected or "accepted"))
    for name, (make, expected) in IMAGES.items():
        yield Case("image", name, _bytes(read_radiograph, make), expected)
        wanted = "" if expected == "accepted" else "mask_invalid"
        yield Case("mask", name, _bytes(read_mask, make), wanted)
    for name, (make, expected) in WORKBOOKS.items():
        yield Case("workbook", name, _workbook(make), expected)
    for name, (place, expected) in NAMES.items():
        yield Case("name", name, _listed(place), expected)
    for name, (run, expected) in SETTINGS.items():
        yield Case("setting", name, run, expected)
    for name, (change, expected) in MODELS.items():
        yield Case("model", name, _model(change, model), expected)


def page(outcomes: Iterable[tuple[Case, Outcome]]) -> str:
    """Return Markdown, a line a case; what files say of themselves is shown as text."""
    rows = []
    for case, found in outcomes:
        text = found.said.replace("<", "&lt;")
        short = text if len(text) < 160 else f"{text[:157]}..."
        rows.append((case.kind, case.name, short, f"{found.seconds:.2f}", found.megabytes))
    return table(("input", "what it is", "what was said", "s", "MB"), rows) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, type=Path, help="a sound model folder")
    parser.add_argument("--out", required=True, type=Path)
    given = parser.parse_args()
    outcomes = []
    for case in cases(given.model):
        with tempfile.TemporaryDirectory(prefix="eagle-hostile-") as folder:
            outcomes.append((case, try_out(case, Path(folder))))
    other = [case.name for case, found in outcomes if not found.said.startswith(case.expected)]
    given.out.write_text(
        f"# Hostile inputs\n\n{len(outcomes)} inputs, made by `tests/faults/hostile*.py`, each in "
        "a process of its own. Seconds hold the making of the input; megabytes are those beyond "
        f"what the process began with. {len(outcomes) - len(other)} ended as expected.\n\n"
        f"{page(outcomes)}"
    )
    if other:
        raise SystemExit(f"error: not as expected: {', '.join(other)}")


if __name__ == "__main__":
    main()
