"""One peer in a process of its own: peer.py '{"runtime": "onnxruntime", "file": ..., "folder": ..., ...}'

JSON lines, the same that examples/bench_worker.rs speaks. Every peer gets the best loop that we know for it: pairs sorted by
length, batches under a budget of padded tokens, and where there are many pairs one thread to each of two streams, which beats
one stream of two threads.
"""

import json
import os
import sys
import time

spec = json.loads(sys.argv[1])
for variable in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ[variable] = str(spec["threads"])
# What a library prints must not come between the answers.
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)

started = time.perf_counter()

import numpy as np
from tokenizers import Tokenizer


def answer(value):
    answers.write(json.dumps(value) + "\n")


def batches(encoded, budget):
    """Longest first, at most `budget` tokens with padding; a longer pair alone."""
    order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i].ids))
    batch, longest = [], 0
    for i in order:
        if batch and longest * (len(batch) + 1) > budget:
            yield batch
            batch = []
        if not batch:
            longest = len(encoded[i].ids)
        batch.append(i)
    yield batch


def arrays(encoded, batch, names):
    width = len(encoded[batch[0]].ids)
    fields = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    result = {name: np.zeros((len(batch), width), dtype=np.int64) for name in names}
    for name, array in result.items():
        for row, i in zip(array, batch):
            values = getattr(encoded[i], fields[name])
            row[: len(values)] = values
    return result


def onnxruntime_loop():
    import onnxruntime
    from concurrent.futures import ThreadPoolExecutor
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = spec["threads"] // spec["streams"]
    options.inter_op_num_threads = 1
    if spec["streams"] > 1:
        # Threads that wait for work by spinning take the time of the other stream.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(f"{spec['folder']}/{spec['file']}", options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    pool = ThreadPoolExecutor(spec["streams"])

    def score(encoded, logits):
        def one(batch):
            logits[batch] = session.run(None, arrays(encoded, batch, names))[0].reshape(-1)
        list(pool.map(one, batches(encoded, spec["budget"])))
    return score


def openvino_loop():
    import openvino
    # Without the hint it computes in bf16 where the processor has it, and does not say so.
    settings = {"INFERENCE_NUM_THREADS": spec["threads"], "NUM_STREAMS": spec["streams"], "INFERENCE_PRECISION_HINT": spec["hint"]}
    model = openvino.Core().compile_model(f"{spec['folder']}/{spec['file']}", "CPU", settings)
    names = [entry.any_name for entry in model.inputs]
    queue = openvino.AsyncInferQueue(model, spec["streams"])

    def score(encoded, logits):
        queue.set_callback(lambda request, batch: logits.__setitem__(batch, request.get_output_tensor(0).data.reshape(-1)))
        for batch in batches(encoded, spec["budget"]):
            queue.start_async(arrays(encoded, batch, names), batch)
        queue.wait_all()
    return score


def peak_rss_mib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM:"))


def main():
    tokenizer = Tokenizer.from_file(f"{spec['folder']}/tokenizer.json")
    tokenizer.no_padding()
    tokenizer.enable_truncation(512, strategy="only_second")
    score = {"onnxruntime": onnxruntime_loop, "openvino": openvino_loop}[spec["runtime"]]()
    answer({"load_ms": (time.perf_counter() - started) * 1e3})
    pairs = None
    for line in sys.stdin:
        command = json.loads(line)
        if "run" not in command:
            pairs = [(command["query"], document) for document in command["documents"]]
            continue
        times = []
        for _ in range(command["run"]):
            began = time.perf_counter()
            encoded = tokenizer.encode_batch(pairs)
            logits = np.full(len(pairs), np.nan, dtype=np.float32)
            score(encoded, logits)
            times.append((time.perf_counter() - began) * 1e3)
        tokens = sum(len(entry.ids) for entry in encoded)
        answer({"ms": times, "logits": logits.tolist(), "tokens": tokens, "peak_rss_mib": peak_rss_mib()})


main()
