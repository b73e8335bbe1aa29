"""Write the README's table from the newest finished run of each job.

    python examples/methods/table.py [--runs-dir runs]

Every figure is read from what the runs left: scores from ``evaluation.json``, those of a reward model from the
trainer's own evaluations, time and memory from ``events.jsonl``. A job without a finished run keeps its row.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
BEGIN, END = "<!-- table -->\n", "<!-- /table -->"
HEAD = (
    "| job | held out | rows | before | after | time | memory |\n"
    "| --- | --- | --- | --- | --- | --- | --- |\n"
)  # fmt: skip


@dataclass(frozen=True)
class Score:
    """What a job is judged by.

    Attributes:
        about: The score in a few words.
        key: Its name there.
        file: The file of the run that holds it; it is the last one that a run leaves.
    """

    about: str
    key: str
    file: str = "evaluation.json"


CARD = Score("answers that are a valid card", "card")
SUM = Score("sums right, drawn at temperature 1", "pass@1")
SCORES: dict[str, Score] = {
    "dpo": CARD,
    "kto": CARD,
    "orpo": CARD,
    "cpo": CARD,
    "classification": Score("countries whose region is right", "accuracy"),
    "reward": Score("the better answer gets the higher number", "eval_accuracy", "trained.json"),
    "grpo": SUM,
    "rloo": SUM,
    "distill": CARD,
    "t5": Score("summaries that are exactly right", "exact-match"),
}


def read_events(run: Path) -> list[dict[str, Any]]:
    """Return what happened in a run."""
    return [json.loads(line) for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines()]


def newest(runs: Path, name: str) -> Path | None:
    """Return the newest run of a job that has been judged."""
    return max((path.parent for path in runs.glob(f"{name}/*/{SCORES[name].file}")), default=None)


def measured(run: Path, score: Score) -> tuple[float, float, int]:
    """Return a score before and after training, and of how many rows it is."""
    found = json.loads((run / score.file).read_text(encoding="utf-8"))
    if score.file == "evaluation.json":
        entry = found["metrics"][score.key]
        return entry["base"]["value"], entry["tuned"]["value"], entry["tuned"]["n"]
    first = next(event for event in read_events(run) if event["kind"] == "eval")
    rows = json.loads((run / "data.json").read_text(encoding="utf-8"))["summary"]["eval"]["eval"]["rows"]
    return first[score.key], found["metrics"][score.key], rows


def row(name: str, run: Path) -> str:
    """Return a job's row of the table."""
    score, events = SCORES[name], read_events(run)
    before, after, rows = measured(run, score)
    end = "evaluated" if score.file == "evaluation.json" else "trained"  # `forge eval` adds further events later
    seconds = next(event["time"] for event in events if event["kind"] == end) - events[0]["time"]
    memory = max(event["memory"] for event in events if event.get("memory"))
    cells = [f"[`{name}`]({name}.toml)", score.about, str(rows), f"{before * 100:.0f} %", f"**{after * 100:.0f} %**",
             f"{int(seconds) // 60} min {int(seconds) % 60} s", f"{memory / 2**30:.1f} GiB"]  # fmt: skip
    return f"| {' | '.join(cells)} |\n"


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description="Write the README's table from the newest runs.")
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    runs = parser.parse_args().runs_dir
    readme = HERE / "README.md"
    text = readme.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    old, _, after = rest.partition(END)
    known = {match[1]: match[0] for match in re.finditer(r"\| \[`(\w+)`\].*\n", old)}
    for name in SCORES:
        if run := newest(runs, name):
            known[name] = row(name, run)
    rows = "".join(known[name] for name in SCORES if name in known)
    readme.write_text(f"{before}{BEGIN}{HEAD}{rows}{END}{after}", encoding="utf-8", newline="\n")
    print("".join(known[name] for name in SCORES if name in known), end="")


if __name__ == "__main__":
    main()
