"""Each fault is done to a server that works, and what clients then see is what docs/serving.md promises."""

import collections
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest
from conftest import BINARY, DOCUMENTS, QUERY, ROOT, Load, connects, free_port, get, metric, request, until


def model_folder(tmp_path, name="model"):
    folder = tmp_path / name
    shutil.copytree(ROOT / "models/default", folder)
    return folder


def end_of(server, seconds=30):
    return server.process.wait(seconds)


def told(path):
    return pathlib.Path(path).read_text()


# ---- Replicas that go


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_replica_that_goes_behind_a_balancer_is_not_seen(server, balancer, number):
    one, two = server(), server()
    load = Load(balancer(one.port, two.port))
    load.wait_for(40)
    one.signal(number)
    end_of(one)
    load.wait_for(60)
    # It comes back, and must not be given requests that it cannot answer yet.
    one.start()
    one.wait_ready()
    # The other goes, as in a rolling restart, when no balancer leaves this one alone any more: max_ejection_time in deploy/envoy.
    time.sleep(6)
    before = metric(one.port, "jointly_documents_total")
    until(lambda: metric(one.port, "jointly_documents_total") > before, 60, "the balancer sends it requests again")
    load.wait_for(60)
    two.signal(number)
    end_of(two)
    load.wait_for(40)
    outcomes = collections.Counter(load.stop())
    assert set(outcomes) == {200}, outcomes


def test_what_was_accepted_is_answered_after_sigterm(server):
    one = server("drain.delay=1s", "drain.limit=60s", "queue.max_wait=60s")
    answers = []
    large = [f"{document} {n}" for n in range(40) for document in DOCUMENTS]

    def ask(number):
        answers.append(request(one.port, [f"{number} {document}" for document in large], timeout=120))

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    until(lambda: metric(one.port, "jointly_queue_requests") >= 6, 30, "all six are taken in")
    one.signal(signal.SIGTERM)
    # Load balancers are told first; whoever still comes in that time is served.
    until(lambda: get(one.port, "/readyz")[0] == 503, 1, "not ready")
    assert get(one.port, "/livez")[0] == 200
    for thread in threads:
        thread.join(120)
    assert [status for status, _ in answers] == [200] * 6
    assert all(len(answer["results"]) == len(large) for _, answer in answers)
    assert end_of(one) == 0
    assert not connects(one.port)


def test_the_drain_has_an_end(server):
    one = server("drain.limit=1s", "queue.max_wait=600s")
    large = [f"{document} {n}" for n in range(700) for document in DOCUMENTS]
    thread = threading.Thread(target=lambda: quietly(lambda: request(one.port, large, timeout=120)))
    thread.start()
    until(lambda: metric(one.port, "jointly_queue_requests") >= 1, 30, "it is taken in")
    began = time.monotonic()
    one.signal(signal.SIGTERM)
    end_of(one, 20)
    assert time.monotonic() - began < 10
    thread.join(30)
    assert not thread.is_alive()


def quietly(work):
    try:
        return work()
    except (OSError, http.client.HTTPException, json.JSONDecodeError):
        return None


def test_a_socket_that_a_killed_server_left_is_taken_over(server, tmp_path):
    path = tmp_path / "jointly.sock"
    one = server(f"listen=unix:{path}", ready=False)
    ask = lambda: over_unix(path, "/readyz")
    until(lambda: quietly(ask) == 200, 60, "ready")
    one.signal(signal.SIGKILL)
    end_of(one)
    assert path.exists()
    two = server(f"listen=unix:{path}", ready=False)
    until(lambda: quietly(ask) == 200, 60, "ready again")
    two.signal(signal.SIGTERM)
    assert end_of(two) == 0
    assert not path.exists(), "an orderly end removes it"


def over_unix(path, target):
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(5)
        stream.connect(str(path))
        stream.sendall(f"GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        return int(stream.recv(64).split()[1])


# ---- Clients that stall


def test_a_client_that_stalls_in_its_body_is_let_go_and_harms_nobody(server):
    one = server("limits.body_timeout=1s")
    stalled = []
    body = json.dumps({"query": QUERY, "documents": DOCUMENTS})
    for _ in range(50):
        stream = socket.create_connection(("127.0.0.1", one.port))
        stream.sendall(f"POST /jointly/v1/rerank HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode())
        stream.sendall(body[: len(body) // 2].encode())
        stalled.append(stream)
    assert request(one.port)[0] == 200
    for stream in stalled:
        stream.settimeout(10)
        answer = stream.recv(4096)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 408"), answer[:100]
        stream.close()
    until(lambda: metric(one.port, "jointly_connections") <= 1, 10, "their connections are closed")
    assert request(one.port)[0] == 200


def test_a_client_that_stalls_in_its_head_is_let_go(server):
    one = server("limits.header_timeout=1s")
    stream = socket.create_connection(("127.0.0.1", one.port))
    stream.sendall(b"POST /jointly/v1/rerank HTTP/1.1\r\nhost: x\r\nx-slow: ")
    stream.settimeout(10)
    assert stream.recv(4096)[:12] in (b"", b"HTTP/1.1 408")


@pytest.mark.parametrize("said", [b"", b"P", b"PRI * HTTP/2.0\r\n", b"GET"])
def test_a_client_that_connects_and_says_little_is_let_go(server, said):
    one = server("limits.header_timeout=1s")
    stream = socket.create_connection(("127.0.0.1", one.port))
    stream.sendall(said)
    stream.settimeout(10)
    try:
        assert stream.recv(4096)[:12] in (b"", b"HTTP/1.1 408", b"HTTP/1.1 400")
    except ConnectionResetError:
        pass


def test_a_client_that_does_not_read_its_answer_is_let_go(server):
    # Long before it would be for being idle; and the answer is more than the kernel takes in its place.
    one = server("limits.write_timeout=1s", "limits.header_timeout=10m")
    documents = [f"{n} " + "battery " * 2500 for n in range(800)]
    body = json.dumps({"query": QUERY, "documents": documents, "return_documents": True, "max_tokens_per_doc": 8})
    stream = socket.socket()
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stream.connect(("127.0.0.1", one.port))
    stream.sendall(f"POST /jointly/v1/rerank HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
    until(lambda: metric(one.port, "jointly_connections") == 2, 10, "it is here")
    until(lambda: metric(one.port, "jointly_queue_requests") == 0 and metric(one.port, "jointly_connections") <= 1, 120, "let go")


def test_a_client_that_leaves_costs_nothing_more(server):
    one = server("queue.max_wait=600s")
    large = [f"{document} {n}" for n in range(300) for document in DOCUMENTS]
    body = json.dumps({"query": QUERY, "documents": large})
    stream = socket.create_connection(("127.0.0.1", one.port))
    stream.sendall(f"POST /jointly/v1/rerank HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
    until(lambda: metric(one.port, "jointly_queue_tokens") > 0, 30, "it is in the queue")
    stream.close()
    until(lambda: metric(one.port, "jointly_queue_requests") == 0, 10, "it is out of the queue")
    assert metric(one.port, "jointly_cancelled_tokens_total") > 0


# ---- Disks


def test_a_full_disk_for_the_log_stops_nobody(server):
    with open("/dev/full", "w") as full:
        one = server("log.level=info", stdout=full, stderr=full)
        for _ in range(20):
            assert request(one.port)[0] == 200
        assert metric(one.port, "jointly_log_lines_lost_total") > 0
        one.signal(signal.SIGTERM)
        assert end_of(one) == 0


def test_a_log_that_nobody_reads_stops_nobody(server):
    """A pipe that is full: writing to it would wait for ever."""
    reading, writing = os.pipe()
    one = server("log.level=debug", stdout=writing, stderr=writing)
    os.close(writing)
    for n in range(400):
        assert request(one.port, [f"{n} {DOCUMENTS[0]}"])[0] == 200
    one.signal(signal.SIGTERM)
    end_of(one, 60)
    os.close(reading)


def test_a_model_folder_that_is_deleted(server, tmp_path):
    folder = model_folder(tmp_path)
    one = server(f"models.default.source={folder}", environment={"JOINTLY_PACKED_CACHE": "off"})
    before = request(one.port)
    shutil.rmtree(folder)
    assert request(one.port)[1]["results"] == before[1]["results"], "what is in memory goes on"
    one.signal(signal.SIGHUP)
    until(lambda: metric(one.port, "jointly_reloads_total") >= 1, 30, "the reload has ended")
    assert get(one.port, "/readyz")[0] == 200
    assert request(one.port)[1]["results"] == before[1]["results"], "a reload that fails changes nothing"
    said = tmp_path / "log"
    with open(said, "w") as log:
        two = server(f"models.default.source={folder}", ready=False, stdout=log, stderr=log)
        assert end_of(two) != 0, "a server whose model is gone does not start"
    assert str(folder) in told(said), told(said)


def test_a_receipt_that_does_not_hold(server, tmp_path):
    folder = model_folder(tmp_path)
    receipt = json.loads((folder / "receipt.json").read_text())
    spoil(receipt)
    (folder / "receipt.json").write_text(json.dumps(receipt))
    said = tmp_path / "log"
    with open(said, "w") as log:
        one = server(f"models.default.source={folder}", ready=False, stdout=log, stderr=log)
        until(lambda: one.process.poll() is not None or "receipt" in told(said), 60, "it says what is wrong")
        assert one.process.poll() is not None or get(one.port, "/readyz")[0] == 503
    assert "receipt" in told(said)

    # The same at a reload: the model that holds stays.
    good = model_folder(tmp_path, "good")
    two = server(f"models.default.source={good}")
    before = request(two.port)[1]["results"]
    shutil.copy(folder / "receipt.json", good / "receipt.json")
    two.signal(signal.SIGHUP)
    until(lambda: metric(two.port, "jointly_reloads_total") >= 1, 30, "the reload has ended")
    assert request(two.port)[1]["results"] == before
    assert get(two.port, "/readyz")[0] == 200


def spoil(value):
    """Moves every logit of a receipt."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "logit" or key == "logits":
                value[key] = inner + 1 if isinstance(inner, (int, float)) else [x + 1 for x in inner]
            else:
                spoil(inner)
    elif isinstance(value, list):
        for inner in value:
            spoil(inner)


def test_a_receipt_that_is_no_json(server, tmp_path):
    folder = model_folder(tmp_path)
    (folder / "receipt.json").write_text("{")
    said = tmp_path / "log"
    with open(said, "w") as log:
        one = server(f"models.default.source={folder}", ready=False, stdout=log, stderr=log)
        until(lambda: one.process.poll() is not None or "receipt" in told(said), 60, "it says what is wrong")
        assert one.process.poll() is not None or get(one.port, "/readyz")[0] == 503
    assert "receipt.json" in told(said)


# ---- Reloads


def test_a_reload_under_load_drops_nobody(server, tmp_path):
    folder = model_folder(tmp_path)
    one = server(f"models.default.source={folder}")
    load = Load(one.port)
    load.wait_for(30)
    for count in (1, 2):
        one.signal(signal.SIGHUP)
        until(lambda: metric(one.port, "jointly_reloads_total") >= count, 60, "reloaded")
        load.wait_for(30)
    assert set(load.stop()) == {200}


# ---- Clocks


def test_a_clock_that_jumps(server, tmp_path):
    """The wall clock, a year ahead and two back, with requests and their deadlines under way. The monotonic clock does not jump."""
    library = next(pathlib.Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    clock, said = tmp_path / "clock", tmp_path / "log"
    clock.write_text("+0")
    environment = {
        "LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1",
    }
    with open(said, "w") as log:
        one = server("log.level=info", "deadline.default=20s", environment=environment, stdout=log, stderr=log)
        before = request(one.port)[1]["results"]
        load = Load(one.port, clients=4)
        for jump in ("+1y", "-1y", "+0"):
            load.wait_for(12)
            clock.write_text(jump)
        load.wait_for(12)
        assert set(load.stop()) == {200}
        assert request(one.port)[1]["results"] == before
        assert get(one.port, "/readyz")[0] == 200
        assert metric(one.port, "jointly_queue_age_seconds") < 60
        one.signal(signal.SIGTERM)
        assert end_of(one) == 0
    year = time.localtime().tm_year
    assert f"{year + 1}-" in told(said) and f"{year - 1}-" in told(said), "the clock did jump"


def test_the_binary_is_there():
    assert BINARY.exists(), f"{BINARY}: build it first"
