"""Averages the weights of two model folders of one shape: a model between one and what training made of it.

    python models/train/average.py --first FIRST --second SECOND --share 0.5 --out OUT

Each weight becomes (1 - SHARE) * first + SHARE * second, in f16. Source: Wortsman et al., "Robust fine-tuning of zero-shot models",
CVPR 2022. OUT gets the other files of SECOND. Needs numpy.
"""
import argparse
import json
import pathlib
import shutil
import struct

import numpy

TYPES = {"F16": numpy.float16, "F32": numpy.float32}


def read(path):
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        tensors[name] = numpy.frombuffer(data[start:end], TYPES[entry["dtype"]]).reshape(entry["shape"]).astype(numpy.float64)
    return tensors


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=pathlib.Path, required=True)
    parser.add_argument("--second", type=pathlib.Path, required=True)
    parser.add_argument("--share", type=float, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    first, second = (read(folder / "model.safetensors") for folder in (args.first, args.second))
    if first.keys() != second.keys() or any(first[name].shape != second[name].shape for name in first):
        raise SystemExit("the two models have different tensors")
    args.out.mkdir(parents=True)
    for path in args.second.iterdir():
        if path.is_file() and path.name not in ("model.safetensors", "receipt.json", "calibration.json"):
            shutil.copy(path, args.out / path.name)
    header, body = {"__metadata__": {"format": "pt"}}, b""
    for name in sorted(first):
        values = ((1 - args.share) * first[name] + args.share * second[name]).astype(numpy.float16)
        header[name] = {"dtype": "F16", "shape": list(values.shape), "data_offsets": [len(body), len(body) + values.nbytes]}
        body += values.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (args.out / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + body)


if __name__ == "__main__":
    main()
