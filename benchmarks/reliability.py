"""What becomes of runs to which faults are done: kills, power cuts, signals, tampering, damaged workflows.

Prints a table tried / survived / lost. Whatever is survived ends with the bits of a run that nobody disturbed. Bounds:
of 200 kills and 40 power cuts none is lost, of at least 60 tampered runs none is accepted silently, 16 signals stop a
run that goes on to the bit, and 300 mutated workflows give no traceback, none of them taking over 5 seconds. All
moments and changes are drawn from ``--seed``. Needs Linux, which forks and tells of open files.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from report import conclude, table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
import faults

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")
SHARES = (0.1, 0.4, 0.7, 0.9)


def told(name: str, outcomes: Iterable[str]) -> Counter[str]:
    """Count how trials end, and say at once which were lost."""
    found: Counter[str] = Counter()
    for outcome in outcomes:
        found[outcome.partition(":")[0]] += 1
        if outcome.startswith(("lost", "silently")):
            print(f"{name}: {outcome}", file=sys.stderr, flush=True)
    return found


def kills(trials: faults.Trials, count: int, generator: random.Random) -> Iterable[str]:
    """Half of them before a change of files, spread over all; a tenth again while resumed; others at any moment."""
    for number in range(count // 2):
        yield trials.kill_at_change(1 + number * trials.changes // (count // 2))
    for number in range(count // 10):
        yield trials.kill_twice(round(generator.uniform(0.45, 0.98) * trials.changes), 1 + 5 * number)
    for _ in range(count - count // 2 - count // 10):
        yield trials.kill_after(generator.uniform(0.05, 1.1) * trials.seconds)


def power_cuts(trials: faults.Trials, count: int, generator: random.Random) -> Iterable[str]:
    """Half on a file system that keeps nothing but what was flushed; half on one that keeps names in order."""
    for number in range(count):
        yield trials.cut_power(
            1 + number * trials.changes // count, strict=number % 2 == 0, seed=generator.randrange(1 << 30)
        )


def ext4_cuts(trials: faults.Trials, count: int) -> Iterable[str]:
    """The copied image of a real disk; nothing where none may be mounted, which the table shows."""
    try:
        with faults.Ext4(trials.folder / "try.img", trials.folder / "mounted"):
            pass
    except OSError as error:
        print(f"no ext4 images: {error}", file=sys.stderr)
        return
    for number in range(count):
        yield trials.cut_power_of_ext4(1 + number * trials.changes // count)


def tampering(trials: faults.Trials) -> Iterable[str]:
    base = trials.folder / "stopped"
    faults.stopped_run(base)
    for name, tamper in faults.TAMPERED.items():
        folder = trials.place() / "runs"
        shutil.copytree(base, folder)
        outcome = faults.tampered(folder, tamper, trials.whole)
        yield f"{outcome}: {name}"
        shutil.rmtree(folder)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seed", type=int, default=20)
    options.add_argument("--share", type=float, default=1.0, help="of all trials, for a quick look")
    chosen = options.parse_args()
    generator = random.Random(chosen.seed)
    logging.disable(logging.WARNING)

    def share(count: int) -> int:
        return max(2, round(chosen.share * count))

    with tempfile.TemporaryDirectory(prefix="reliability-") as place:
        folder, found = Path(place), {}
        trials = faults.Trials(folder / "trials")
        found["kills"] = told("kills", kills(trials, share(200), generator))
        found["power cuts"] = told("power cuts", power_cuts(trials, share(40), generator))
        found["power cuts of ext4"] = told("power cuts of ext4", ext4_cuts(trials, share(20)))
        found["tampered runs"] = told("tampered runs", tampering(trials))
        commands = faults.Commands(folder / "commands")
        seconds: list[float] = []

        def signals() -> Iterable[str]:
            for name in SIGNALS:
                for moment in SHARES[: share(len(SHARES))]:
                    outcome, took = commands.signalled(getattr(signal, name), moment)
                    seconds.append(took)
                    yield outcome

        found["signals"] = told("signals", signals())
        found["lost readers"] = told("lost readers", (commands.deaf(stream) for stream in (1, 2, 3)))
        workflow, slowest = json.loads(faults.QUICKSTART.read_text(encoding="utf-8")), 0.0
        mutants: Counter[str] = Counter()
        for _ in range(share(300)):
            code, took, words = faults.validated(faults.mutated(workflow, generator), folder)
            slowest = max(slowest, took)
            fine = code in (0, 2) and "Traceback" not in words
            mutants["valid" if code == 0 else "refused" if fine else "lost"] += 1
        found["mutated workflows"] = mutants
    rows = []
    for name, counts in found.items():
        tried, lost = sum(counts.values()), counts["lost"] + counts["silently accepted"]
        how = ", ".join(f"{count} {what}" for what, count in counts.most_common())
        rows.append((name, tried, tried - lost, lost, how))
    table(("fault", "tried", "survived", "lost", "how"), rows)
    print(f"from a signal to the end of the program: {max(seconds):.1f} s at most; slowest workflow: {slowest:.2f} s")
    figures: dict[str, float] = {f"lost {name}": lost for name, _, _, lost, _ in rows}
    figures |= {f"tried {name}": tried for name, tried, *_ in rows}
    figures |= {"slowest workflow": slowest, "signal to end": max(seconds)}
    at_most = {f"lost {name}": 0.0 for name in found} | {"slowest workflow": 5.0, "signal to end": 30.0}
    full = {"kills": 200, "power cuts": 40, "tampered runs": 60, "signals": 16, "mutated workflows": 300}
    return conclude(figures, at_most, {f"tried {name}": float(count) for name, count in full.items()})


if __name__ == "__main__":
    begun = time.monotonic()
    code = main()
    print(f"took {time.monotonic() - begun:.0f} s", file=sys.stderr)
    sys.exit(code)
