"""Decodes one layer of a batch with PyTorch tensors: decode_torch.py LIBRARY BACKEND.

Compares the result with PyTorch's own arithmetic in fp64 and, on a GPU, replays the decode from a
CUDA graph.
"""

import sys

import torch
from meshmla_ctypes import MeshMla

BATCH, HEADS, D_QK, D_V, PAGE = 3, 16, 576, 512, 64


def reference(q, kv, tables, seqlens, scale):
    """[batch, heads, d_v]: softmax attention in fp64, for one query token of each request."""
    rows = []
    for r, length in enumerate(seqlens):
        keys = kv[tables[r].long()].flatten(0, 1)[:length, 0].double()
        scores = q[r].double() @ keys.T * scale
        rows.append(torch.softmax(scores, dim=-1) @ keys[:, :D_V])
    return torch.stack(rows)


def main(library, backend):
    mla = MeshMla(library)
    device = "cuda" if backend in ("sm90", "simt") else "cpu"
    torch.manual_seed(1)
    seqlens = [1000, 64, 4097]
    blocks = [(length + PAGE - 1) // PAGE for length in seqlens]
    tables = torch.randperm(sum(blocks) + 5)[: sum(blocks)].int().split(blocks)
    tables = torch.nn.utils.rnn.pad_sequence(tables, batch_first=True).to(device)
    kv = (torch.randn(sum(blocks) + 5, PAGE, 1, D_QK, device=device) / 10).bfloat16()
    q = torch.randn(BATCH, HEADS, D_QK, device=device).bfloat16()
    out = torch.full((BATCH, HEADS, D_V), float("nan"), device=device).bfloat16()
    lse = torch.full((BATCH, HEADS), float("nan"), device=device)
    stream = torch.cuda.Stream() if device == "cuda" else None
    handle = stream.cuda_stream if stream else 0

    plan = mla.plan(backend, seqlens_k=seqlens, q_offsets=range(BATCH + 1), h_q=HEADS, h_kv=1,
                    d_qk=D_QK, d_v=D_V, page_block_size=PAGE, dtype=mla.BF16, causal=1,
                    block_table_stride=tables.stride(0))
    host_bytes, device_bytes = plan.workspace_bytes()
    host = torch.empty(host_bytes + 64, dtype=torch.uint8)
    workspace = torch.empty(device_bytes, dtype=torch.uint8, device=device)
    plan.bind((host.data_ptr() + 63) // 64 * 64, workspace.data_ptr(), handle)

    def run():
        plan.run(q=q.data_ptr(), kv=kv.data_ptr(), num_pages=kv.shape[0],
                 block_tables=tables.data_ptr(), out=out.data_ptr(), lse=lse.data_ptr(),
                 stream=handle)

    def check(what):
        wanted = reference(q, kv, tables, seqlens, D_QK**-0.5)
        error = ((out.double() - wanted).norm() / wanted.norm()).item()
        print(f"{plan.backend()}, {what}: relative error {error:.1e}")
        assert error < 1e-2

    if device == "cpu":
        run()
        check("one run")
        return
    torch.cuda.synchronize()
    run()
    torch.cuda.synchronize()
    check("one run")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        run()
    out.fill_(float("nan"))
    q.copy_(torch.randn_like(q))
    graph.replay()
    torch.cuda.synchronize()
    check("replayed from a graph, other queries")


if __name__ == "__main__":
    main(*sys.argv[1:])
