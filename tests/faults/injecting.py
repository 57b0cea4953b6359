"""Disturb every activity at its own writes: `python tests/faults/injecting.py FOLDER [NAME …]`.

Everything heavy is imported once, and each attempt is a fork. After each fault the same is done
again, undisturbed, and must end as if nothing had happened. Prints what was different, and writes
counts to FOLDER/counts.json.
"""

import json
import os

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "NO_PROXY": "127.0.0.1"}  # forks

import random
import shutil
import signal
import sys
import traceback
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from activities import ACTIVITIES, Encoding, find_damaged, make_data
from injection import Fault, inject

KINDS = ("killed", "torn", "cut", "full", "broken")
LIMITS = (0, 100, 1000, 3000, 30_000)  # bytes
LONGEST = 120  # seconds of an attempt


def preload():
    """Import what the activities import."""
    import composing  # noqa: F401
    import transformers  # noqa: F401


def serve(folder):
    """Serve a folder from a process of its own; return its id and the address."""
    handler = partial(SimpleHTTPRequestHandler, directory=folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    process = os.fork()
    if process == 0:
        server.serve_forever()
    server.server_close()
    return process, f"http://127.0.0.1:{server.server_port}"


def beside(folder, suffix):
    return folder.with_name(f"{folder.name}.{suffix}")


def fork(work, folder, output):
    """Start `work(folder)` in a fork, which prints into the file `output`; return its id."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            file = os.open(output, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
            os.dup2(file, 1)
            os.dup2(file, 2)
            signal.alarm(LONGEST)
            work(folder)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return process


def attempt(work, folder, fault=None):
    """Do `work` in a fork; return its exit code (1 after an error, -9 if killed) and output."""
    log = beside(folder, "log" if fault else "undisturbed")

    def watched(folder):
        inject(folder, log, fault)
        work(folder)

    output = beside(folder, "txt")
    _, status = os.waitpid(fork(watched, folder, output), 0)
    return os.waitstatus_to_exitcode(status), output.read_text(errors="replace")


def at_once(jobs):
    """Do (work, folder) at once."""
    for process in [fork(*job, beside(job[1], f"{at}.txt")) for at, job in enumerate(jobs)]:
        os.waitpid(process, 0)


def logged_steps(log):
    """Return what a process wrote and read: (call, path)."""
    steps = [line.split("\t") for line in log.read_text().splitlines()]
    return [(step[1], Path(step[2])) for step in steps if len(step) == 3]  # a limit may cut one


def choose_faults(steps, count, rng):
    """Return `count` faults of all kinds, spread over all writes of an undisturbed attempt."""
    writes = sum(call != "read" for call, _ in steps)
    points = {kind: range(1, writes + 1) for kind in KINDS}
    points |= {"unread": range(1, len(steps) - writes + 1), "limit": LIMITS}
    shuffled = [
        [Fault(kind, at) for at in rng.sample(places, len(places))]
        for kind, places in points.items()
    ]
    chosen = []
    while len(chosen) < count and any(shuffled):
        chosen += [faults.pop() for faults in shuffled if faults]
    return chosen[:count]


def shorten_last(steps, rng):
    """Cut the file that was written last, if it still has its temporary name."""
    path = next((path for call, path in reversed(steps) if call != "read"), None)
    if path and path.is_file() and path.suffix in (".partial", ".tmp") and path.stat().st_size:
        os.truncate(path, rng.randrange(path.stat().st_size))


def disturb(activity, folder, fault, expected, rng):
    """Make a fault happen, check what it left, go on; return if it happened, and what is wrong."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    code, output = attempt(activity.run, folder, fault)
    if code == 0 and fault.kind in ("killed", "torn", "cut"):
        return False, []  # fewer writes this time
    wrong = ["hung"] if code == -signal.SIGALRM else []
    known = "UserError", "OSError", "[Errno"
    if code == 1 and fault.kind != "limit" and not any(word in output for word in known):
        wrong.append(f"ended with what is no error of a disk: {output[-600:]}")
    steps = logged_steps(beside(folder, "log"))
    if fault.kind == "cut":
        shorten_last(steps, rng)
    wrong += [f"read as whole: {path}" for path in find_damaged(folder)]
    replaced = [path for call, path in steps if call == "replace" and "last.ckpt" in path.name]
    saved = {path.with_name("last.ckpt") for path in replaced[:-1]}  # the last may not have ended
    wrong += [f"lost: {path}" for path in saved if not path.exists()]
    code, output = attempt(activity.run, folder)
    if code != 0:
        return True, [*wrong, f"did not go on: {output[-1500:]}"]
    state = activity.state(folder)
    keys = expected.keys() | state.keys()
    wrong += [f"different: {key}" for key in keys if state.get(key) != expected.get(key)]
    return True, wrong


def ten_at_once(root, data, encoder):
    """Build one store by ten processes: how many images were encoded, how many results agree."""
    from captioning.features import images

    encoding, folder, load_image = Encoding(data, encoder), root / "ten", images.load_image
    folder.mkdir()

    def noted(path):
        with open(folder / "encoded", "a") as file:
            file.write(f"{path}\n")
        return load_image(path)

    def features():
        return json.dumps(encoding.run(folder).load().tolist())

    def work(folder):
        images.load_image = noted
        (folder / f"{os.getpid()}.json").write_text(features())

    at_once([(work, folder)] * 10)
    results = [path.read_text() for path in folder.glob("*.json")]
    encoded = len((folder / "encoded").read_text().splitlines())
    return {"encoded": encoded, "equal": results.count(features())}


def disturb_activity(name, root, data, encoder, url, counts):
    """Disturb one activity as often as ACTIVITIES says; count the faults and what is wrong."""
    kind, number = ACTIVITIES[name]
    activity, rng = kind(data, encoder, url), random.Random(name)
    folder = root / f"{name}-undisturbed"
    folder.mkdir()
    code, output = attempt(activity.run, folder)
    assert code == 0, output
    expected, steps = activity.state(folder), logged_steps(beside(folder, "undisturbed"))
    counts["faults"][name] = 0
    for fault in choose_faults(steps, number, rng):
        # The same folder for all: paths are in what is compared.
        happened, wrong = disturb(activity, root / name, fault, expected, rng)
        counts["faults"][name] += happened
        counts["wrong"] += [f"{name}, {fault}: {text}" for text in wrong]
        for text in wrong:
            print(f"{name}, {fault}: {text}", flush=True)
    print(f"{name}: {counts['faults'][name]} faults", flush=True)


def main(root, names):
    """Disturb the named activities, or all."""
    torch.set_num_threads(1)
    root.mkdir(parents=True, exist_ok=True)
    make_data(root)
    data, (server, url) = root / "data", serve(root / "served")
    counts = {"wrong": [], "faults": {}}
    try:
        preload()
        from captioning.features.encoder import Encoder

        encoder = Encoder("resnet18", weights=None, image_size=32)
        for name in names or ACTIVITIES:
            disturb_activity(name, root, data, encoder, url, counts)
        if not names:
            counts["ten at once"] = ten_at_once(root, data, encoder)
    finally:
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)
        (root / "counts.json").write_text(json.dumps(counts, indent=1))
    return 1 if counts["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), sys.argv[2:]))
