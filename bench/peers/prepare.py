"""Models for the comparison, each as a folder that everyone reads: prepare.py FOLDER WORKLOADS [shape...]

minilm-l6 is the default model of this repository, so that its scores mean something. The others have seeded random weights in
the shape of a published model: their times are those of that model, their scores are not. Beside the checkpoint, which we read,
lie what the peers read: model.onnx, model_int8.onnx (dynamic quantisation of ONNX Runtime), openvino_int8.xml (NNCF, calibrated
on requests that are not timed).
"""

import json
import logging
import os
import pathlib
import shutil
import sys
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEFAULT = ROOT / "models" / "default"
SEED = 7
# Pairs that NNCF sees.
CALIBRATION = 128


def bert(layers, hidden, heads):
    config = transformers.BertConfig(
        vocab_size=30522, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=4 * hidden, num_labels=1, pad_token_id=0)
    return transformers.BertForSequenceClassification(config)


def xlm_roberta():
    config = transformers.XLMRobertaConfig(
        vocab_size=250002, hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072,
        max_position_embeddings=514, type_vocab_size=1, num_labels=1, pad_token_id=0, bos_token_id=101, eos_token_id=102,
        layer_norm_eps=1e-5)
    return transformers.XLMRobertaForSequenceClassification(config)


def modernbert():
    config = transformers.ModernBertConfig(
        vocab_size=50368, hidden_size=768, num_hidden_layers=22, num_attention_heads=12, intermediate_size=1152,
        max_position_embeddings=8192, num_labels=1, classifier_pooling="mean", pad_token_id=0, bos_token_id=101,
        cls_token_id=101, eos_token_id=102, sep_token_id=102)
    return transformers.ModernBertForSequenceClassification(config)


SHAPES = {
    "tinybert-l2": lambda: bert(2, 128, 2),
    "minilm-l6": None,
    "minilm-l12": lambda: bert(12, 384, 12),
    "xlm-roberta-base": xlm_roberta,
    "modernbert-base": modernbert,
}


def write_checkpoint(name, folder):
    """Weights, configuration and tokenizer."""
    if SHAPES[name] is None:
        for file in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(DEFAULT / file, folder / file)
        return
    torch.manual_seed(SEED)
    model = SHAPES[name]().eval()
    model.save_pretrained(folder)
    tokenizer = Tokenizer.from_file(str(DEFAULT / "tokenizer.json"))
    config = json.loads((DEFAULT / "tokenizer_config.json").read_text())
    if not isinstance(model, transformers.BertForSequenceClassification):
        # The same words, without segments.
        tokenizer.post_processor = TemplateProcessing(
            single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:0 [SEP]:0",
            special_tokens=[("[CLS]", 101), ("[SEP]", 102)])
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1))


def inputs(folder, model_type, pairs):
    """Padded arrays, as a runtime takes them."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(512, strategy="only_second")
    tokenizer.enable_padding()
    encoded = tokenizer.encode_batch(pairs)
    arrays = {"input_ids": [e.ids for e in encoded], "attention_mask": [e.attention_mask for e in encoded]}
    if model_type == "bert":
        arrays["token_type_ids"] = [e.type_ids for e in encoded]
    return {key: np.array(rows, dtype=np.int64) for key, rows in arrays.items()}


class Logits(torch.nn.Module):
    """Arguments by place, one output."""

    def __init__(self, model, names):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *tensors):
        return self.model(**dict(zip(self.names, tensors)), return_dict=True).logits


def export(folder):
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    example = inputs(folder, model.config.model_type, [("what is a bridge", "A bridge spans a river."), ("how old", "It is old.")])
    names = list(example)
    tensors = tuple(torch.from_numpy(array) for array in example.values())
    batch, tokens = torch.export.Dim("batch"), torch.export.Dim("tokens", max=8192 if model.config.model_type == "modernbert" else 512)
    torch.onnx.export(
        Logits(model, names), tensors, folder / "model.onnx", input_names=names, output_names=["logits"],
        dynamic_shapes=({0: batch, 1: tokens},) if len(names) == 1 else {"tensors": tuple({0: batch, 1: tokens} for _ in names)},
        dynamo=True, external_data=False, verbose=False)

    # What was exported is what it was exported from.
    import onnxruntime
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    other = inputs(folder, model.config.model_type, [("how long does it last", "About a week, says the maker, or two."), ("why", "Why not.")] * 2)
    found = session.run(None, other)[0]
    with torch.inference_mode():
        expected = model(**{key: torch.from_numpy(array) for key, array in other.items()}).logits.numpy()
    difference = float(np.abs(found - expected).max())
    if not difference < 1e-4:
        sys.exit(f"prepare.py: {folder}/model.onnx differs from the model by {difference}")
    return model.config.model_type


def quantize(folder, model_type, workload):
    from onnxruntime.quantization import QuantType, quant_pre_process, quantize_dynamic
    prepared = folder / "prepared.onnx"
    quant_pre_process(folder / "model.onnx", prepared, skip_symbolic_shape=True)
    quantize_dynamic(prepared, folder / "model_int8.onnx", weight_type=QuantType.QInt8)
    prepared.unlink()

    import nncf
    import openvino
    requests = [json.loads(line) for line in workload.read_text().splitlines()][1:]
    pairs = [(request["query"], document) for request in requests for document in request["documents"][:50]]
    pairs = pairs[:: max(1, len(pairs) // CALIBRATION)][:CALIBRATION]
    data = nncf.Dataset(pairs, lambda pair: inputs(folder, model_type, [pair]))
    model = openvino.Core().read_model(folder / "model.onnx")
    # OpenVINO 2026.4 fails to compile a quantised table of embeddings of the size of XLM-R's.
    is_large = json.loads((folder / "config.json").read_text())["vocab_size"] > 100_000
    quantized = nncf.quantize(
        model, data, model_type=nncf.ModelType.TRANSFORMER, preset=nncf.QuantizationPreset.MIXED, subset_size=len(pairs),
        ignored_scope=nncf.IgnoredScope(types=["Gather"]) if is_large else None)
    openvino.Core().compile_model(quantized, "CPU")
    openvino.save_model(quantized, folder / "openvino_int8.xml")


def main():
    if len(sys.argv) < 3:
        sys.exit("prepare.py FOLDER WORKLOADS [shape...]")
    root, workload = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]) / "msmarco.jsonl"
    if not workload.is_file():
        sys.exit(f"prepare.py: {workload} is missing")
    names = sys.argv[3:] or list(SHAPES)
    for name in names:
        if name not in SHAPES:
            sys.exit(f"prepare.py: {name} is not a shape; known are {', '.join(SHAPES)}")
        folder = root / "models" / name
        if (folder / "done").is_file():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        write_checkpoint(name, folder)
        model_type = export(folder)
        quantize(folder, model_type, workload)
        (folder / "done").touch()
        print(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}", flush=True)


if __name__ == "__main__":
    main()
