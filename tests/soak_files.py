"""Files by somebody who means harm, and file systems that fail: python -m tests.torture --files

Every trial runs in a process that may die for it, and ends as "used" or as "refused" in one line; "traceback", "abort"
(the process died), "hang" (a minute) and "lost" (what was saved before, or an image that cannot be trained) are faults.
"""

import contextlib
import errno
import io
import itertools
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import train
from src import cli, commands
from src.config import Config, dump, parse
from src.errors import CONTROL, one_line
from src.runtime import device
from tests.helpers import damaged, hostile

SIZES = {"checkpoints": 500, "configs": 200, "images": 100, "faults": 60}
FAULTS = {"traceback", "abort", "hang", "lost"}
LONGEST = 60  # seconds of a trial


def soak(sizes: dict[str, int], seed: int) -> str:
    """Run so many trials of each part; return a line for each.

    Raises:
        AssertionError: A trial ended in a fault.
    """
    lines, wrong = [], []
    for part, size in sizes.items():
        results = _supervise(part, size, seed)
        counts = Counter(result["outcome"] for result in results)
        slowest = max(results, key=lambda result: result["seconds"])
        lines.append(
            f"{size} {part}: {', '.join(f'{count} {what}' for what, count in sorted(counts.items()))}; slowest"
            f" {slowest['seconds']:.2f} s ({slowest['kind']})"
        )
        wrong += [result for result in results if result["outcome"] in FAULTS]
    assert not wrong, "\n".join([*lines, *map(json.dumps, wrong[:10])])
    return "\n".join(lines)


def _supervise(part: str, size: int, seed: int) -> list[dict[str, object]]:
    """Run the trials of a part in a process, and in another one the rest if it dies."""
    results: list[dict[str, object]] = []
    while len(results) < size:
        command = [sys.executable, "-m", "tests.soak_files", part, str(len(results)), str(size), str(seed)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
            try:
                said, _ = child.communicate(timeout=LONGEST + 2 * (size - len(results)))
                outcome = "abort"
            except subprocess.TimeoutExpired:
                child.kill()
                said, _ = child.communicate()
                outcome = "hang"
        results += [json.loads(line) for line in said.splitlines() if line.startswith('{"kind"')]
        if len(results) < size:
            results.append({"kind": f"number {len(results)}", "outcome": outcome, "seconds": 0.0})
    return results


def run(part: str, first: int, size: int, seed: int) -> list[dict[str, object]]:
    """Run trials of a part in this process, and print a line of JSON for each."""
    results = []
    trials = itertools.islice(PARTS[part](seed), first, size)
    with tempfile.TemporaryDirectory() as folder:
        for number, (kind, trial) in enumerate(trials):
            path = Path(folder) / str(number)
            path.mkdir()
            began = time.monotonic()
            outcome, said = _outcome(trial, path)
            results.append({"kind": kind, "outcome": outcome, "seconds": time.monotonic() - began, "said": said[-900:]})
            print(json.dumps(results[-1]), flush=True)
            shutil.rmtree(path)
    return results


def _outcome(trial, path):
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            trial(path)
    except AssertionError:
        return "lost", traceback.format_exc()
    except Exception as error:
        known = cli.as_known(error)
        said = traceback.format_exc() if known is None else one_line(str(known))
        told = known is not None and 10 < len(said) < 1100 and not CONTROL.search(said)
        return "refused" if told else "traceback", said
    return "used", ""


def checkpoints(seed):
    """Every kind of checkpoint, again and again with other random numbers, used as train, eval and export use them."""
    network, state, arrays, training = hostile.parts()
    chance = random.Random(seed)
    while True:
        for kind, content, is_state in hostile.checkpoints(arrays, training, chance):

            def trial(path, content=content, is_state=is_state):
                (path / "a.ckpt").write_bytes(content)
                config = hostile.use(path / "a.ckpt", is_state, network, state)
                if config is not None:
                    commands.check(config)

            yield kind, trial


def configs(seed):
    """Configurations with pieces replaced, doubled, left out or nested, as train.py --print reads them."""
    chance = random.Random(seed)
    text = dump(Config(model=hostile.MODEL))
    odd = ["[", "{", "&a", "*a", "!!int", "? ", "- ", "\t", "\0", "\x1b[2J", "9" * 5000, "1e999", ".nan", "2026-99-99",
           "0x" + "f" * 5000, "\u2028", "{a: " * 50, "'", '"', "|", "%", "@", "~nobody/x", "<<", "null", "\ud800",
           "1:99:99"]  # fmt: skip
    while True:
        for kind, content in hostile.kinds_of_configs(chance).items():
            yield (
                kind,
                _config_trial(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")),
            )
        for _ in range(30):
            words = text.split(" ")
            for _ in range(chance.randrange(1, 6)):
                at = chance.randrange(len(words))
                words[at : at + chance.randrange(2)] = [chance.choice([*odd, chance.choice(words)])]
            yield "pieces", _config_trial(" ".join(words).encode("utf-8", "surrogatepass"))


def _config_trial(content):
    def trial(path):
        (path / "a.yaml").write_bytes(content)
        train.main(["--config", str(path / "a.yaml"), "--print"])

    return trial


def images(seed):
    """Damaged images: what the look before a training lets pass, the training's decoder takes."""
    from src.data.loaders import read_images
    from src.data.verify import decode_error

    config = parse("data: {root: x}\nmodel: {image_size: 16, patch_size: 4}", "here")
    chance = random.Random(seed)
    while True:
        for kind, make in damaged.KINDS.items():

            def trial(path, make=make):
                (path / "a.jpg").write_bytes(make(chance))
                problem = decode_error(path / "a.jpg")
                if problem is not None:
                    raise cli.UserError(f"image a.jpg: {problem}")
                try:
                    read_images([path / "a.jpg"], config)
                except cli.UserError as error:
                    raise AssertionError("passed the look, and cannot be trained") from error

            yield kind, trial


def faults(seed):
    """Calls that fail while a run is made, locked and saved: nothing is lost, and the next attempt succeeds."""
    from tests.helpers.faults import OPERATIONS, Bench, every_fault, failing

    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        found = every_fault(Path(folder))
    while True:
        for primitive, number, operation, call in chance.sample(found, len(found)):

            def trial(path, primitive=primitive, number=number, operation=operation, call=call):
                bench = Bench(path)
                try:
                    with failing(primitive, number, call, path):
                        OPERATIONS[operation](bench)
                finally:
                    bench.check_nothing_is_lost((1, 2))
                    bench.check_all_is_well_again()

            yield f"{operation}, call {call} of {primitive}: {errno.errorcode[number]}", trial


PARTS = {"checkpoints": checkpoints, "configs": configs, "images": images, "faults": faults}

if __name__ == "__main__":
    device.set_up("CPU", fused_kernels="off")
    run(sys.argv[1], *map(int, sys.argv[2:]))
