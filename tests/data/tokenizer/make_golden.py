#!/usr/bin/env python3
"""Writes golden.json: what Hugging Face's `tokenizers` make of random texts, with tokenizers that
cover the features of real ones. Each is the demo model's tokenizer.json with a JSON merge patch, or
a file of its own. Needs `pip install tokenizers==0.23.3`."""

import json
import pathlib
import random

import tokenizers

HERE = pathlib.Path(__file__).parent
DEMO = HERE.parents[2] / "launch/demo/model/tokenizer.json"
CASES = 40
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
              "use_regex": False}
SPACES = [0x20] * 6 + [9, 10, 10, 13, 0x85, 0xA0, 0x180E, 0x2003, 0x2028, 0x200B, 0x3000, 0x1F]
WORDS = ["<|begin_of_text|>", "<|end_of_text|>", "<|pad|>", "<|pad|", "a.b", "'s", "'S", "'ll",
         "<s>", "</s>", "the ", "King ", "ROMEO:\n"]


def split(pattern, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert}


def sequence(*steps):
    return {"type": "Sequence", "pretokenizers": list(steps)}


def variants():
    """Name, merge patch of the demo's file (or none), whole file (or none)."""
    demo = json.loads(DEMO.read_text())
    merges = demo["model"]["merges"]
    yield "as it is", {}, None
    yield "newlines, letters, punctuation, digits", {
        "normalizer": {"type": "Sequence", "normalizers": []},
        "pre_tokenizer": sequence(
            split("[\r\n]"), split("\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿ]+"),
            split("\\s?[!-/:-~！-／：-～‘-‟　-。]+"), split("\\s+$"), split("[一-龥ࠀ-一가-퟿]+"),
            {"type": "Digits", "individual_digits": True}, BYTE_LEVEL),
        "post_processor": dict(BYTE_LEVEL, add_prefix_space=True)}, None
    pattern = ("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}"
               "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+")
    added = [dict(token) for token in demo["added_tokens"]]
    added[0]["lstrip"] = True
    added[1]["rstrip"] = True
    added[2].update(special=False, normalized=True)
    bos = {"id": "<|begin_of_text|>", "ids": [1021], "tokens": ["<|begin_of_text|>"]}
    yield "contractions, template, stripping tokens, merges as strings", {
        "added_tokens": added,
        "pre_tokenizer": sequence(split(pattern), BYTE_LEVEL),
        "post_processor": {"type": "Sequence", "processors": [BYTE_LEVEL, {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": bos["id"], "type_id": 0}},
                       {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}},
                     {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {bos["id"]: bos}}]},
        "model": {"merges": [" ".join(pair) for pair in merges[:300]]}}, None
    pattern = ("[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"
               "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+|\\p{N}"
               "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+")
    yield "words that are tokens before any merge", {
        "pre_tokenizer": sequence(split(pattern, "Removed", True), BYTE_LEVEL),
        "model": {"ignore_merges": True, "merges": merges[:200]}}, None
    yield "GPT-2's pattern, a separator, runs of digits", {
        "pre_tokenizer": sequence(
            {"type": "Digits", "individual_digits": False},
            {"type": "Split", "pattern": {"String": "a.b"}, "behavior": "Removed", "invert": False},
            dict(BYTE_LEVEL, use_regex=True))}, None
    yield "characters, with bytes for the others", None, of_characters()


def of_characters():
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    tokens += ["▁"] + [chr(c) for c in range(0x21, 0x7F)] + ["é", "一", "Ǆ"]
    merges = [["▁", "t"], ["h", "e"], ["▁t", "he"], ["▁", "▁"], ["▁▁", "▁▁"], ["e", "r"], ["é", "é"]]
    tokens += [left + right for left, right in merges]
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
               "special": True}
    mark = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [dict(id=i, content=tokens[i], **special) for i in range(3)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": None, "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [
            mark, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>",
                  "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": True,
                  "byte_fallback": True, "ignore_merges": False,
                  "vocab": {token: i for i, token in enumerate(tokens)}, "merges": merges}}


def piece(rng):
    kind = rng.random()
    if kind < 0.45:
        return rng.choice("abcdehinorstuABCDE")
    if kind < 0.6:
        return chr(rng.choice(SPACES))
    if kind < 0.66:
        return rng.choice("0123456789٣²½Ⅷ")
    if kind < 0.76:
        return rng.choice("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~‘。！")
    if kind < 0.86:
        return rng.choice("一龥龦ぁゟヿ가힣ࠀéµßſKİǅʔͰ\u0301\u0903\u200d🙂")
    return rng.choice(WORDS)


def main():
    rng = random.Random(5)
    result = []
    for name, patch, whole in variants():
        spec = whole or merged(json.loads(DEMO.read_text()), patch)
        tokenizer = tokenizers.Tokenizer.from_str(json.dumps(spec))
        cases = []
        for i in range(CASES):
            text = "".join(piece(rng) for _ in range(i))
            ids = tokenizer.encode(text).ids
            cases.append({"text": text, "ids": ids, "decoded": tokenizer.decode(ids)})
        key = {"tokenizer": whole} if whole else {"merge_patch": patch}
        result.append({"name": name, **key, "cases": cases})
    with open(HERE / "golden.json", "w") as out:
        out.write("[\n" + ",\n".join(json.dumps(entry) for entry in result) + "\n]\n")


def merged(target, patch):
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


main()
