"""What Transformers gives in fp32 for a pair alone, without padding.

Each `open_*` returns a function from query and document to (token ids, whether the document was cut, logit). The pairs
are written as the models' authors do, by Transformers' own tokenizers; only the end of a document is ever cut.
"""

import torch
import transformers


def open_classifier(folder, max_length):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()

    def score(query, document):
        whole = len(tokenizer(query, document, truncation=False).input_ids)
        inputs = tokenizer(query, document, truncation="only_second", max_length=max_length, return_tensors="pt")
        return inputs.input_ids[0].tolist(), whole > max_length, model(**inputs).logits.item()

    return score


def open_mxbai(folder, max_length):
    return open_language_model(folder, max_length, mxbai_prompt, "1", "0")


def open_yes_no(folder, max_length):
    return open_language_model(folder, max_length, template_prompt, "yes", "no")


def open_language_model(folder, max_length, prompt, positive, negative):
    """`prompt(tokenizer, query, document)` gives the ids up to the document's end, and those after it."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    positive, negative = tokenizer.convert_tokens_to_ids([positive, negative])

    def score(query, document):
        before, after = prompt(tokenizer, query, document)
        room = max_length - len(after)
        ids = before[:room] + after
        logits = model(torch.tensor([ids]), logits_to_keep=1, use_cache=False).logits[0, -1]
        return ids, len(before) > room, (logits[positive] - logits[negative]).item()

    return score


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False).input_ids


def mxbai_prompt(tokenizer, query, document):
    """As the code of mxbai-rerank-v2 does: tokenised piece by piece."""
    before = [
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n<|im_start|>user\n",
        f"query: {query}", "\n", f"document: {document}"]
    after = [
        "\n",
        "You are a search relevance expert who evaluates how well documents match search queries. For each query-document pair, "
        "carefully analyze the semantic relationship between them, then provide your binary relevance judgment "
        "(0 for not relevant, 1 for relevant).\nRelevance:",
        "<|im_end|>\n<|im_start|>assistant\n"]
    return [[i for piece in pieces for i in ids(tokenizer, piece)] for pieces in (before, after)]


def template_prompt(tokenizer, query, document):
    """As sentence-transformers does: the folder's template rendered to one text, which is then tokenised."""
    messages = [{"role": "query", "content": query}, {"role": "document", "content": document}]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    before, end = text[:text.rindex("<|im_end|>")], text[text.rindex("<|im_end|>"):]
    return ids(tokenizer, before), ids(tokenizer, end)
