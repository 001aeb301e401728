"""Pickling, forks, threads, and Ctrl-C."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jointly import Cascade, CrossEncoder, ForkError, Mmr, Rescore

from .conftest import DOCUMENTS, QUERY

PAIRS = [(QUERY, document) for document in DOCUMENTS]
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def bits(model: CrossEncoder) -> bytes:
    return model.score_pairs(PAIRS).logits.tobytes()


def test_pickle(model: CrossEncoder, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(folder.parent)
    relative = CrossEncoder(folder.name, threads=1, max_length=64, activation_fn="identity")
    pickled = pickle.dumps(relative)
    assert len(pickled) < 4096, "weights are not pickled"
    monkeypatch.chdir(tmp_path)
    again = pickle.loads(pickled)
    assert bits(again) == bits(relative) == bits(model)
    assert (again.max_length, again.info["threads"]) == (64, 1)
    assert again.predict(PAIRS[0]) == relative.score_pairs(PAIRS[:1]).logits[0]
    assert copy.copy(model) is model and copy.deepcopy(model) is model
    cascade = Cascade([Rescore(model=model, keep=3), Mmr(keep=2, min_max=True)])
    found = pickle.loads(pickle.dumps(cascade)).run(QUERY, DOCUMENTS)
    assert found.hits == cascade.run(QUERY, DOCUMENTS).hits


def test_another_process(model: CrossEncoder) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(bits, (model,)) == bits(model)


@needs_fork
def test_a_forked_child_uses_the_model_of_its_parent(model: CrossEncoder) -> None:
    expected = bits(model)
    _kept.append(model)  # an argument would be pickled
    with multiprocessing.get_context("fork").Pool(2) as pool:
        results = [pool.apply_async(_of_parent) for _ in range(2)]
        assert [result.get(timeout=60) for result in results] == [expected] * 2
    assert bits(model) == expected


_kept: list[CrossEncoder] = []


def _of_parent() -> bytes:
    return bits(_kept[0])


@needs_fork
def test_a_fork_in_the_middle_of_scoring_is_an_error_and_no_hang(model: CrossEncoder) -> None:
    begun, stop = threading.Event(), threading.Event()

    def score() -> None:
        def progress(_: int) -> None:
            begun.set()
            if stop.is_set():
                raise RuntimeError("enough")

        while not stop.is_set():
            model.score_pairs(queries=QUERY, documents=[DOCUMENTS[1] * 20] * 64, progress=progress)

    thread = threading.Thread(target=lambda: _until(score))
    thread.start()
    try:
        assert begun.wait(60)
        # The thread is between two calls for some microseconds at a time.
        for _ in range(20):
            read, write = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(read)
                try:
                    bits(model)
                    answer = b"scored"
                except ForkError:
                    answer = b"refused"
                except BaseException:
                    answer = b"other"
                os.write(write, answer)
                os._exit(0)
            os.close(write)
            answer = _read(read, 60)
            os.waitpid(child, 0)
            assert answer in (b"refused", b"scored"), answer
            if answer == b"refused":
                break
        assert answer == b"refused"
    finally:
        stop.set()
        thread.join()
    assert bits(model), "the parent goes on"


def _until(work: object) -> None:
    try:
        work()  # type: ignore[operator]
    except RuntimeError:
        pass


def _read(pipe: int, seconds: float) -> bytes:
    import select

    ready, _, _ = select.select([pipe], [], [], seconds)
    found = os.read(pipe, 100) if ready else b"hung"
    os.close(pipe)
    return found


def test_threads_score_together_and_others_run_meanwhile(model: CrossEncoder) -> None:
    expected = bits(model)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: bits(model), range(8))) == [expected] * 8
    # The GIL is free: this thread counts while the other scores.
    counted = 0
    done = threading.Event()

    def score() -> None:
        model.score_pairs(queries=QUERY, documents=[DOCUMENTS[1] * 20] * 64)
        done.set()

    thread = threading.Thread(target=score)
    thread.start()
    while not done.is_set():
        counted += 1
        time.sleep(0.001)
    thread.join()
    assert counted > 3


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("call", ["model.score_pairs", "Cascade([Rescore(model=model)]).run"])
def test_ctrl_c(call: str) -> None:
    program = (
        # A shell's background job ignores the signal, and its children begin so.
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from jointly import Cascade, CrossEncoder, Rescore\n"
        "model = CrossEncoder(threads=1)\n"
        "print('ready', flush=True)\n"
        f"run = {call}\n"
        "texts = ['rain fell on the roofs of the town, number %d. ' % i * 20 for i in range(20_000)]\n"
        "try:\n"
        "    run(queries='rain', documents=texts) if 'score' in run.__name__ else run('rain', texts)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted', flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    time.sleep(2)  # it begins; a signal that comes earlier does the same
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert out == "interrupted\n" and process.returncode == 0
