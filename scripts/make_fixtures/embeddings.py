"""Writes testdata/embed-*: tiny seeded bi-encoders, and what Transformers gives for them in fp32.

    pip install -r scripts/make_fixtures/requirements.txt
    python scripts/make_fixtures/embeddings.py --out testdata

Every text is computed alone, without padding; what sentence-transformers does after the transformer (pooling, a dense
layer, unit length) is written out here. See testdata/README.md.
"""

import argparse
import json
import shutil
from pathlib import Path

import tokenizers
import torch
import transformers
from make import PAIRS, bert, for_text, mpnet, randomise
from safetensors.torch import save_file

COMMAND = "python scripts/make_fixtures/embeddings.py --out testdata"
OUTPUTS = 20


def modules(folder, rest):
    """A folder of sentence-transformers: the transformer at the root, then `rest` as (path, class, configuration)."""
    entries = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    for i, (path, kind, config) in enumerate(rest, 1):
        entries.append({"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"})
        if config:
            (folder / path).mkdir()
            (folder / path / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "modules.json").write_text(json.dumps(entries, indent=2) + "\n")


def mean(hidden):
    return hidden.mean(0)


def first_then_dense(dense):
    return lambda hidden: torch.tanh(dense(hidden[0]))


def write_bert(folder):
    """all-MiniLM-L6-v2's modules."""
    modules(folder, [
        ("1_Pooling", "Pooling", {"word_embedding_dimension": 36, "pooling_mode_cls_token": False,
                                  "pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False,
                                  "pooling_mode_mean_sqrt_len_tokens": False}),
        ("2_Normalize", "Normalize", None)])
    return mean, {}


def write_mpnet(folder):
    """First token, a dense layer, and a prompt for queries and another for documents."""
    modules(folder, [
        ("1_Pooling", "Pooling", {"word_embedding_dimension": 36, "pooling_mode": "cls"}),
        ("2_Dense", "Dense", {"in_features": 36, "out_features": OUTPUTS, "bias": True,
                              "activation_function": "torch.nn.modules.activation.Tanh"}),
        ("3_Normalize", "Normalize", None)])
    generator = torch.Generator().manual_seed(11)
    dense = torch.nn.Linear(36, OUTPUTS)
    dense.weight.data = torch.randn(OUTPUTS, 36, generator=generator) / 6
    dense.bias.data = torch.randn(OUTPUTS, generator=generator) / 10
    save_file({"linear.weight": dense.weight.data, "linear.bias": dense.bias.data}, folder / "2_Dense/model.safetensors")
    prompts = {"query": "query: ", "document": "passage: "}
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}, indent=2) + "\n")
    return first_then_dense(dense), prompts


def write(name, make, write_modules, length, out):
    torch.manual_seed(7)
    tok, model = make()
    trunk = model.base_model
    randomise(trunk, sum(map(ord, name)))
    trunk.eval()
    folder = out / f"embed-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    trunk.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config.pop("transformers_version", None)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    tok.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"model_max_length": 512, "tokenizer_class": "PreTrainedTokenizerFast"}, indent=2) + "\n")
    (folder / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": length, "do_lower_case": False}, indent=2) + "\n")
    pool, prompts = write_modules(folder)

    quiet = for_text(tok)
    rows = []
    for role in ("query", "document"):
        for text in dict.fromkeys(text for pair in PAIRS for text in pair):
            body = quiet.encode(prompts.get(role, "") + text, add_special_tokens=False)
            whole = len(body.ids)
            body.truncate(length - tok.num_special_tokens_to_add(False))
            ids = tok.post_process(body, None, add_special_tokens=True).ids
            with torch.no_grad():
                hidden = trunk(input_ids=torch.tensor([ids])).last_hidden_state[0]
                embedding = torch.nn.functional.normalize(pool(hidden), dim=0)
            rows.append({"role": role, "text": text, "tokens": len(ids), "truncated": len(body.ids) < whole,
                         "embedding": embedding.tolist()})
    header = {"command": COMMAND, "torch": torch.__version__.split("+")[0], "transformers": transformers.__version__,
              "tokenizers": tokenizers.__version__}
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (folder / "embeddings.json").write_text(json.dumps(header)[:-1] + ', "texts": [\n' + lines + "\n]}\n")
    print(name, [row["tokens"] for row in rows])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    write("bert", bert, write_bert, 64, args.out)
    write("mpnet", mpnet, write_mpnet, 150, args.out)


if __name__ == "__main__":
    main()
