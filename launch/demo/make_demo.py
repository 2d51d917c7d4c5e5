#!/usr/bin/env python3
"""Turns captured attention inputs into the demo batch and its expected results.

usage: make_demo.py CAPTURE.safetensors [FOLDER]

The capture holds, for each request N, q.N [s_q, h_q, d_qk] and kv.N [len, d_qk] in bf16, out.N
[s_q, h_q, d_v] and lse.N [s_q, h_q] in fp32, and in its metadata `requests`, a JSON list with the
softmax_scale of each. Written to FOLDER (default: this script's):

  shakespeare.batch.txtpb           the batch
  shakespeare.safetensors           its tensors: kv_cache, q.line-N
  shakespeare.expected.safetensors  what decoding it must give: out.line-N, lse.line-N

The cache is laid out as one that has been in use: the pages of a request lie scattered, some pages
belong to nobody, and whatever must not be read is NaN or, in block tables, a page that is not there.
"""

import json
import pathlib
import random
import struct
import sys

PAGE_TOKENS = 64
UNUSED_PAGES = 3
GARBAGE_ENTRY = 2147480000
BF16_NAN = struct.pack("<H", 0x7FC0)


def read_safetensors(path):
    """Returns ({name: (dtype, shape, bytes)}, metadata)."""
    raw = path.read_bytes()
    (header_bytes,) = struct.unpack_from("<Q", raw)
    data_begin = 8 + header_bytes
    header = json.loads(raw[8:data_begin])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        data = raw[data_begin + begin : data_begin + end]
        tensors[name] = (entry["dtype"], entry["shape"], data)
    return tensors, metadata


def write_safetensors(path, tensors, metadata):
    """Writes [(name, dtype, shape, bytes)]."""
    header = {"__metadata__": metadata}
    position = 0
    for name, dtype, shape, data in tensors:
        offsets = [position, position + len(data)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        position += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, _, _, data in tensors:
            file.write(data)


def lay_out_pages(caches, d_qk):
    """Scatters the caches over pages. Returns (pages as bytes, a block table for each cache)."""
    blocks = [-(-len(cache) // (2 * d_qk * PAGE_TOKENS)) for cache in caches]
    num_pages = sum(blocks) + UNUSED_PAGES
    free = list(range(num_pages))
    random.Random(1609).shuffle(free)  # the year of the Sonnets
    page_bytes = PAGE_TOKENS * d_qk * 2
    pool = bytearray(BF16_NAN * (num_pages * page_bytes // 2))
    tables = []
    for cache, count in zip(caches, blocks):
        table = [free.pop() for _ in range(count)]
        for block, page in enumerate(table):
            part = cache[block * page_bytes : (block + 1) * page_bytes]
            pool[page * page_bytes : page * page_bytes + len(part)] = part
        tables.append(table + [GARBAGE_ENTRY] * 2)
    return bytes(pool), tables


def batch_text(shape, scale, num_pages, requests):
    lines = [
        "# Made by make_demo.py. See README.md.",
        "header {",
        "  version: 1",
        f"  shape {{ h_q: {shape['h_q']} d_qk: {shape['d_qk']} d_v: {shape['d_v']} }}",
        "  dtype: BF16",
        f"  page_block_size: {PAGE_TOKENS}",
        f"  num_pages: {num_pages}",
        f"  softmax_scale: {scale!r}",
        '  kv_cache { safetensors { file: "shakespeare.safetensors" tensor: "kv_cache" } }',
        "}",
    ]
    for request in requests:
        lines += [
            "requests {",
            f'  custom_id: "{request["id"]}"',
            f"  query_len: {request['query_len']}",
            f"  context_len: {request['context_len']}",
            f"  block_table: {request['table']}",
            f'  q {{ safetensors {{ file: "shakespeare.safetensors" tensor: "q.{request["id"]}" }} }}',
            "}",
        ]
    return "\n".join(lines) + "\n"


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    capture, metadata = read_safetensors(pathlib.Path(sys.argv[1]))
    folder = pathlib.Path(sys.argv[2]) if len(sys.argv) == 3 else pathlib.Path(__file__).parent
    scales = {request["softmax_scale"] for request in json.loads(metadata["requests"])}
    if len(scales) != 1:
        sys.exit("the requests must share one softmax_scale")
    count = len(json.loads(metadata["requests"]))
    h_q, d_qk = capture["q.0"][1][1:]
    d_v = capture["out.0"][1][2]

    pool, tables = lay_out_pages([capture[f"kv.{i}"][2] for i in range(count)], d_qk)
    num_pages = len(pool) // (PAGE_TOKENS * d_qk * 2)
    requests, inputs, expected = [], [], []
    inputs.append(("kv_cache", "BF16", [num_pages, PAGE_TOKENS, 1, d_qk], pool))
    for i in range(count):
        name = f"line-{i}"
        requests.append(
            {
                "id": name,
                "query_len": capture[f"q.{i}"][1][0],
                "context_len": capture[f"kv.{i}"][1][0],
                "table": tables[i],
            }
        )
        inputs.append((f"q.{name}", *capture[f"q.{i}"]))
        expected.append((f"out.{name}", *capture[f"out.{i}"]))
        expected.append((f"lse.{name}", *capture[f"lse.{i}"]))

    shape = {"h_q": h_q, "d_qk": d_qk, "d_v": d_v}
    text = batch_text(shape, scales.pop(), num_pages, requests)
    (folder / "shakespeare.batch.txtpb").write_text(text)
    about = {"about": "MeshMLA demo: attention of layer 3 of a small MLA model on Shakespeare"}
    write_safetensors(folder / "shakespeare.safetensors", inputs, about)
    write_safetensors(folder / "shakespeare.expected.safetensors", expected, about)


if __name__ == "__main__":
    main()
