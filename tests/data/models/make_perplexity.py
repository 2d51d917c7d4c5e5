#!/usr/bin/env python3
"""Writes launch/demo/model/perplexity.json: what transformers say to a text with the demo model in fp32."""

import json
import math
import pathlib

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

MODEL = pathlib.Path(__file__).parents[3] / "launch/demo/model"

TEXT = """Shall I compare thee to a summer's day?
Thou art more lovely and more temperate:
Rough winds do shake the darling buds of May,
And summer's lease hath all too short a date:
Sometime too hot the eye of heaven shines,
And often is his gold complexion dimm'd;
And every fair from fair sometime declines,
By chance or nature's changing course untrimm'd;
But thy eternal summer shall not fade
Nor lose possession of that fair thou owest;
Nor shall Death brag thou wander'st in his shade,
When in eternal lines to time thou growest:
So long as men can breathe or eyes can see,
So long lives this and this gives life to thee.
"""


def main():
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32, attn_implementation="eager").eval()
    ids = [model.config.bos_token_id] + Tokenizer.from_file(str(MODEL / "tokenizer.json")).encode(
        TEXT, add_special_tokens=False).ids
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double()
    chosen = logits[:-1].log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    result = dict(text=TEXT, ids=ids, predicted_tokens=len(chosen),
                  log_likelihood=float(chosen.sum()), perplexity=math.exp(-float(chosen.mean())))
    (MODEL / "perplexity.json").write_text(json.dumps(result) + "\n")
    print({key: value for key, value in result.items() if key not in ("text", "ids")})


if __name__ == "__main__":
    main()
