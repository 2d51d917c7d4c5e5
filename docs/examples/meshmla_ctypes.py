"""MeshMLA's C interface (meshmla.h) from Python, with nothing but ctypes."""

import ctypes
from ctypes import c_char_p, c_double, c_int32, c_int64, c_void_p


def _fields(kind, names):
    return [(name, kind) for name in names.split()]


class Spec(ctypes.Structure):  # mla_plan_spec
    _fields_ = (
        _fields(c_int64, "struct_size batch") + _fields(c_void_p, "seqlens_k q_offsets")
        + _fields(c_int64, "h_q h_kv d_qk d_v page_block_size chunk_tokens")
        + _fields(c_double, "softmax_scale")
        + _fields(c_int32, "dtype out_dtype causal combine threads device")
        + _fields(c_int64, "q_token_stride q_head_stride kv_page_stride kv_token_stride "
                           "kv_head_stride block_table_stride out_token_stride out_head_stride "
                           "lse_token_stride lse_head_stride"))


class Operands(ctypes.Structure):  # mla_operands
    _fields_ = (_fields(c_int64, "struct_size") + _fields(c_void_p, "q kv")
                + _fields(c_int64, "num_pages") + _fields(c_void_p, "block_tables out lse"))


class MeshMla:
    BF16, FP16, FP32 = 1, 2, 3
    EXACT, FAST = 0, 1

    def __init__(self, library="libmeshmla.so.0.1"):
        self.lib = ctypes.CDLL(library)
        self.lib.mla_last_error.restype = c_char_p
        self.lib.mla_plan_backend.restype = c_char_p
        self.lib.mla_plan_backend.argtypes = self.lib.mla_plan_destroy.argtypes = [c_void_p]

    def call(self, function, *arguments):
        if getattr(self.lib, function)(*arguments) != 0:
            raise RuntimeError(self.lib.mla_last_error().decode())

    def plan(self, backend, seqlens_k, q_offsets, **fields):
        return Plan(self, backend, list(seqlens_k), list(q_offsets), fields)


class Plan:
    """All pointers are addresses: tensor.data_ptr() of PyTorch, ctypes.addressof of an array."""

    def __init__(self, mla, backend, seqlens_k, q_offsets, fields):
        self.mla, self.plan = mla, c_void_p()
        lengths = (c_int32 * len(seqlens_k))(*seqlens_k)
        offsets = (c_int32 * len(q_offsets))(*q_offsets)
        spec = Spec(struct_size=ctypes.sizeof(Spec), batch=len(seqlens_k),
                    seqlens_k=ctypes.addressof(lengths), q_offsets=ctypes.addressof(offsets),
                    **fields)
        mla.call("mla_plan_create", backend.encode(), ctypes.byref(spec), ctypes.byref(self.plan))

    def __del__(self):
        self.mla.lib.mla_plan_destroy(self.plan)

    def backend(self):
        return self.mla.lib.mla_plan_backend(self.plan).decode()

    def workspace_bytes(self):
        host, device = c_int64(), c_int64()
        self.mla.call("mla_plan_workspace_bytes", self.plan, ctypes.byref(host),
                      ctypes.byref(device))
        return host.value, device.value

    def bind(self, host, device=0, stream=0):
        self.mla.call("mla_plan_bind", self.plan, c_void_p(host), c_void_p(device),
                      c_void_p(stream))

    def run(self, stream=0, **operands):
        operands = Operands(struct_size=ctypes.sizeof(Operands), **operands)
        self.mla.call("mla_plan_run", self.plan, ctypes.byref(operands), c_void_p(stream))
