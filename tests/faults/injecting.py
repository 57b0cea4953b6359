"""Disturb every activity at its own writes: `python tests/faults/injecting.py FOLDER [NAME …]`.

A program of its own: everything heavy is imported once, and each attempt is a fork of it. After
each fault the same is done again, undisturbed, and must end as if nothing had been. It prints what
was different, and writes counts to FOLDER/counts.json.
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
from activities import ACTIVITIES, HARMS, Encoding, Training, make_data, unsound
from injection import Fault, inject

KINDS = ("killed", "torn", "cut", "full", "broken")
LONGEST = 120  # seconds of an attempt


def preload():
    """Import what the activities import."""
    import composing  # noqa: F401
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401


class Quiet(SimpleHTTPRequestHandler):
    """Serves the archives, and says nothing."""

    def log_message(self, *_):
        """Say nothing."""


def serve(folder):
    """Serve a folder from a process of its own; return it and the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    process = os.fork()
    if process == 0:
        server.serve_forever()
    server.server_close()
    return process, f"http://127.0.0.1:{server.server_port}"


def begin(work, folder, said=None):
    """Do `work` in a fork that is not waited for; what it prints goes to a file."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            name = said or f"{folder}.{os.getpid()}.txt"
            output = os.open(name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            signal.alarm(LONGEST)
            work(folder)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return process


def attempt(work, folder, fault=None, log="log"):
    """Do `work` in a fork; return how it ended: 0, 1 after an error, -9 where it was killed."""
    log = folder.with_name(folder.name + "." + log)

    def disturbed(folder):
        inject(folder, log, fault)
        work(folder)

    process = begin(disturbed, folder, f"{log}.txt")
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status)


def noted(folder, log="log"):
    """Return what a process wrote and read: (number, what, path)."""
    lines = folder.with_name(folder.name + "." + log).read_text().splitlines()
    steps = [one.split("\t") for one in lines if one.count("\t") == 2]  # a limit may cut the last
    return [(int(number), what, path) for number, what, path in steps]


def faults_of(steps, count, lots):
    """Return so many faults: all kinds, over all writes of an undisturbed attempt."""
    writes = sum(what != "read" for _, what, _ in steps)
    reads = len(steps) - writes
    points = [Fault(kind, at) for at in range(1, writes + 1) for kind in KINDS]
    points += [Fault("unread", at) for at in range(1, reads + 1)]
    points += [Fault("limit", size) for size in (0, 100, 1000, 3000, 30_000)]
    # Some of every kind, as evenly over the writes as that leaves room for.
    lots.shuffle(points)
    by_kind = {kind: [one for one in points if one.kind == kind] for kind in (*KINDS, "unread")}
    by_kind["limit"] = [one for one in points if one.kind == "limit"]
    chosen = []
    while len(chosen) < count and any(by_kind.values()):
        chosen += [some.pop() for some in by_kind.values() if some]
    return chosen[:count]


def shorten(folder, lots):
    """Cut what was written last, where it still has that name."""
    path = next((Path(path) for _, what, path in reversed(noted(folder)) if what != "read"), None)
    if path and path.is_file() and path.suffix in (".partial", ".tmp") and path.stat().st_size:
        os.truncate(path, lots.randrange(path.stat().st_size))


def saved(folder):
    """Return the epochs of the checkpoints whose final name was taken, by the note of it."""
    taken = [path for _, what, path in noted(folder) if what == "replace" and "last.ckpt" in path]
    return {Path(path).with_name("last.ckpt") for path in taken[:-1]}


def disturb(activity, folder, fault, wanted, lots):
    """Let a fault happen, look at what it left, go on; return if it happened, what is wrong."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    code = attempt(activity.run, folder, fault)
    wrong = []
    output = folder.with_name(folder.name + ".log.txt").read_text(errors="replace")
    if code == 0 and fault.kind in ("killed", "torn", "cut"):
        return False, []  # fewer writes this time
    if code == -signal.SIGALRM:
        wrong.append("hung")
    known = "UserError", "OSError", "[Errno"
    if code == 1 and fault.kind != "limit" and not any(word in output for word in known):
        wrong.append(f"ended with what is no error of a disk: {output[-600:]}")
    if fault.kind == "cut":
        shorten(folder, lots)
    wrong += [f"read as whole: {one}" for one in unsound(folder)]
    wrong += [f"lost: {path}" for path in saved(folder) if not path.exists()]
    if attempt(activity.run, folder, log="again") != 0:
        text = folder.with_name(folder.name + ".again.txt").read_text(errors="replace")
        return True, [*wrong, f"did not go on: {text[-1500:]}"]
    found = activity.state(folder)
    wrong += [f"different: {key}" for key in wanted if found.get(key) != wanted[key]]
    wrong += [f"more than wanted: {key}" for key in found.keys() - wanted.keys()]
    return True, wrong


def at_once(jobs):
    """Do (work, folder) at once; return how many of them went well."""
    processes = [begin(*job) for job in jobs]
    return sum(os.waitpid(process, 0)[1] == 0 for process in processes)


def ten_at_once(root, data, encoder):
    """Build one store by ten processes: how many pictures were encoded, how many results agree."""
    from captioning.features import images

    encoding, folder, read = Encoding(data, encoder), root / "ten", images.load_image
    folder.mkdir()

    def note(path):
        with open(folder / "encoded", "a") as file:
            file.write(f"{path}\n")
        return read(path)

    def work(folder):
        images.load_image = note
        (folder / f"{os.getpid()}.json").write_text(
            json.dumps(encoding.run(folder).load().tolist())
        )

    at_once([(work, folder)] * 10)
    wanted = json.dumps(encoding.run(folder).load().tolist())
    results = [path.read_text() for path in folder.glob("*.json")]
    encoded = len((folder / "encoded").read_text().splitlines())
    return {"encoded": encoded, "equal": sum(one == wanted for one in results)}


def two_at_once(root, data):
    """Train twice at once on one data folder, which has no features yet."""
    training = Training(data)
    shutil.rmtree(data.parent / "features", ignore_errors=True)
    folders = [root / name / "training" for name in ("one", "two", "alone")]
    for folder in folders:
        folder.mkdir(parents=True)
    at_once([(training.run, folder) for folder in folders[:2]])
    at_once([(training.run, folders[2])])
    one, two, alone = map(training.state, folders)
    return {"equal": sum(found == alone for found in (one, two))}


def harm(folder, lots):
    """Damage a file of a whole store: a bit, its length, its content, or another's file."""
    files = sorted(path for path in folder.iterdir() if path.suffix in (".npy", ".json"))
    path = lots.choice(files)
    content = bytearray(path.read_bytes())
    how = lots.choice(["flipped", "shortened", "lengthened", "zeros", "swapped", "gone"])
    at = lots.randrange(len(content))
    if how == "flipped":
        content[at] ^= 1 << lots.randrange(8)
    elif how == "zeros":
        content[at : at + 64] = bytes(len(content[at : at + 64]))
    elif how == "swapped":
        content = lots.choice(files).read_bytes()
    path.write_bytes(content[:at] if how == "shortened" else content)
    if how == "lengthened":
        path.write_bytes(content + b"\0")
    elif how == "gone":
        path.unlink()
    return f"{how} {path.name}"


def harms(root, data, encoder, counts):
    """Damage a whole store so many times: each time it must give what it gave, or refuse."""
    encoding, folder, lots = Encoding(data, encoder), root / "harmed", random.Random(0)
    folder.mkdir()
    wanted = encoding.state(folder)
    for _ in range(HARMS):
        (store,) = (path for path in (folder / "features").iterdir() if path.is_dir())
        how = harm(store, lots)
        if encoding.state(folder) != wanted:
            counts["wrong"].append(f"harms, {how}: different: features")
    counts["faults"]["harms"] = HARMS


def study(name, root, data, encoder, url, counts):
    """Disturb one activity so many times; count the faults and what came of them."""
    kind, number = ACTIVITIES[name]
    activity, lots = kind(data, encoder, url), random.Random(name)
    undisturbed = root / f"{name}-undisturbed"
    undisturbed.mkdir()
    assert attempt(activity.run, undisturbed) == 0, undisturbed.with_name(
        undisturbed.name + ".log.txt"
    ).read_text()
    wanted, happened = activity.state(undisturbed), 0
    for fault in faults_of(noted(undisturbed), number, lots):
        folder = root / name  # the same for all: paths are in what is compared
        did, wrong = disturb(activity, folder, fault, wanted, lots)
        happened += did
        for one in wrong:
            counts["wrong"].append(f"{name}, {fault}: {one}")
            print(counts["wrong"][-1], flush=True)
    counts["faults"][name] = happened
    print(f"{name}: {happened} faults", flush=True)


def main(root, names):
    """Disturb the named activities, or all."""
    torch.set_num_threads(1)
    root.mkdir(parents=True, exist_ok=True)
    make_data(root)
    server, url = serve(root / "served")
    counts = {"wrong": [], "faults": {}}
    try:
        preload()
        from captioning.features.encoder import Encoder

        encoder = Encoder("resnet18", weights=None, image_size=32)
        for name in names or ACTIVITIES:
            study(name, root, root / "data", encoder, url, counts)
        if not names:
            harms(root, root / "data", encoder, counts)
            counts["ten at once"] = ten_at_once(root, root / "data", encoder)
            counts["two at once"] = two_at_once(root, root / "data")
    finally:
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)
        (root / "counts.json").write_text(json.dumps(counts, indent=1))
    return 1 if counts["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), sys.argv[2:]))
