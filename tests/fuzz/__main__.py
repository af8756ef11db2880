"""``python tests/fuzz -n 1000 --seed 0``: alters files, has them loaded and explained, and counts what came of them.

Exit status 1 if a file crashes, hangs or ends in a foreign error, or if too few load.
"""

from __future__ import annotations

import argparse
import collections
import queue
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).parent
FOLDER = HERE.parent.parent / "build/fuzz"
WAIT, CPU = 30, 5  # seconds for one file
LEAST = 0.2  # of the files must be explained
Done = tuple[int, str, float, str, str]  # number, what, seconds, seed file, text


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("-n", type=int, default=1000, help="how many files")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--first", type=int, default=0, help="the number of the first file")
    options.add_argument("--processes", type=int, default=2)
    given = options.parse_args()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    seeds = [str(HERE), str(FOLDER / "seeds")]
    code = "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); import seeds; "
    # From that folder: the source folder's pylrp may have no compiled core.
    write = [sys.executable, "-c", code + "seeds.write_seeds(Path(sys.argv[2]))", *seeds]
    subprocess.run(write, check=True, cwd=FOLDER)
    begin = time.monotonic()
    results: queue.Queue[Done] = queue.Queue()
    last = given.first + given.n
    team = []
    for k in range(given.processes):
        (FOLDER / str((given.first + k) % given.processes)).mkdir()
        arguments = (given.seed, given.first + k, given.processes, last, results)
        team.append(threading.Thread(target=supervise, args=arguments))
        team[-1].start()
    for one in team:
        one.join()
    return report([results.get() for _ in range(results.qsize())], given.n, time.monotonic() - begin)


def supervise(seed: int, first: int, step: int, last: int, results: queue.Queue[Done]) -> None:
    """Have every step-th file handled; after a crash or a hang by a new process."""
    while first < last:
        child = subprocess.Popen(
            [sys.executable, str(HERE / "child.py"), str(FOLDER), *map(str, (seed, first, step, last))],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        lines: queue.Queue[str | None] = queue.Queue()
        reader = threading.Thread(target=read, args=(child, lines))
        reader.start()
        errors: list[str] = []
        listener = threading.Thread(target=lambda child=child, errors=errors: errors.extend(child.stderr or ()))
        listener.start()
        at, what = None, "crash"
        while True:
            try:
                line = lines.get(timeout=WAIT + (90 if at is None else 0))
            except queue.Empty:
                child.kill()
                what = "hang"
                break
            if line is None:
                break
            word, number, *rest = line.split(maxsplit=5)
            if word == "at":
                at = int(number)
            elif word == "done":
                kind, seconds, source, text = rest
                slow = float(seconds) > CPU
                results.put((int(number), "hang" if slow else kind, float(seconds), source, text))
                first = int(number) + step
        code = child.wait()
        reader.join()
        listener.join()
        if at is None:
            print(f"the child does not start: {''.join(errors)[-2000:]}")
            return
        if first >= last and code == 0:
            return
        if at >= first:
            results.put((at, what, 0.0, "", f"exit {code}: {''.join(errors)[-300:]!r}"))
            first = at + step
        elif code != 0:
            results.put((at, "crash", 0.0, "", f"between files, exit {code}: {''.join(errors)[-300:]!r}"))


def read(child: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    for line in child.stdout or ():
        if line.startswith(("at ", "done ")):
            lines.put(line)
    lines.put(None)


def report(done: list[Done], wanted: int, seconds: float) -> int:
    counts = collections.Counter(what for _, what, *_ in done)
    by_kind: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for _, what, _, source, _ in done:
        by_kind[source.partition(".")[2] or "?"][what] += 1
    for number, what, spent, source, text in sorted(done):
        if what in ("crash", "hang", "foreign"):
            print(f"{what}: file {number} from {source}, {spent} s: {text}")
    for kind, of in sorted(by_kind.items()):
        print(f"{kind:10} {sum(of.values()):6} files, {of['explained']:6} explained, {of['refused']:6} refused")
    slowest = max(done, key=lambda one: one[2], default=(0, "", 0.0, "", ""))
    over = sum(spent > 1 for _, _, spent, *_ in done)
    print(f"slowest {slowest[2]} s of CPU (file {slowest[0]}), {over} over 1 s; {seconds:.0f} s in all")
    print(", ".join(f"{counts[what]} {what}" for what in ("explained", "refused", "foreign", "hang", "crash")))
    good = counts["explained"] + counts["refused"]
    if good != wanted or counts["explained"] < LEAST * wanted:
        print(f"wanted: {wanted} explained or refused, at least {LEAST:.0%} explained")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
