#!/usr/bin/env python3
"""Makes the tiny models of this folder and their golden.json with Hugging Face transformers.

    pip install torch transformers==5.17.0
    ./make_goldens.py [FAMILY ...]

Weights are random, rounded to the dtype in which they are stored, and computed with in fp32. Sizes are
chosen so that every feature of a family matters: latents are small, so that the epsilon of their norms
shows; selection biases change which experts win; contexts outgrow the original length of YaRN and LongRoPE.
"""

import json
import pathlib
import sys

import torch
import transformers
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
GREEDY_TOKENS = 24
SCALE_BLOCK = 128

ATTENTION = dict(
    hidden_size=64, num_hidden_layers=2, vocab_size=128, num_attention_heads=4, num_key_value_heads=4,
    q_lora_rank=24, kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=16, v_head_dim=16,
    intermediate_size=64, hidden_act="silu", max_position_embeddings=512, tie_word_embeddings=False,
    attention_bias=False, attention_dropout=0.0, bos_token_id=0, eos_token_id=1, use_cache=True)
EXPERTS = dict(
    n_routed_experts=8, n_shared_experts=1, num_experts_per_tok=2, moe_intermediate_size=16,
    n_group=4, topk_group=2, norm_topk_prob=True)
YARN = dict(type="yarn", factor=4.0, original_max_position_embeddings=64, beta_fast=32, beta_slow=1,
            mscale=1.0, mscale_all_dim=1.0)

# config: with the keys of the published model. stored: dtype of the file. prompts: lengths, 5 and 90 by
# default; LongRoPE's are wholly within the original context or wholly beyond it, so that one set of
# frequencies serves all tokens.
MODELS = {
    "deepseek_v2": dict(stored=torch.float32, config=dict(
        ATTENTION, **EXPERTS | dict(norm_topk_prob=False, moe_intermediate_size=12),
        model_type="deepseek_v2", architectures=["DeepseekV2ForCausalLM"], first_k_dense_replace=1,
        moe_layer_freq=1, scoring_func="softmax", topk_method="group_limited_greedy",
        routed_scaling_factor=4.0, rms_norm_eps=1e-5, rope_theta=10000.0,
        rope_scaling=dict(YARN, mscale=0.707, mscale_all_dim=1.0), torch_dtype="float32")),
    "deepseek_v2_lite": dict(stored=torch.bfloat16, config=dict(
        ATTENTION | dict(q_lora_rank=None),
        **EXPERTS | dict(norm_topk_prob=False, n_group=1, topk_group=1, n_shared_experts=2),
        model_type="deepseek_v2", architectures=["DeepseekV2ForCausalLM"], first_k_dense_replace=1,
        moe_layer_freq=1, scoring_func="softmax", topk_method="greedy", routed_scaling_factor=1.0,
        rms_norm_eps=1e-6, rope_theta=10000.0, rope_scaling=dict(YARN, factor=40, mscale=0.707, mscale_all_dim=0.707),
        torch_dtype="bfloat16")),
    "deepseek_v3": dict(stored=torch.bfloat16, config=dict(
        ATTENTION, **EXPERTS, model_type="deepseek_v3", architectures=["DeepseekV3ForCausalLM"],
        first_k_dense_replace=1, moe_layer_freq=1, scoring_func="sigmoid", topk_method="noaux_tc",
        routed_scaling_factor=2.5, num_nextn_predict_layers=1, rms_norm_eps=1e-6, rope_theta=10000.0,
        rope_scaling=YARN, torch_dtype="bfloat16")),
    "deepseek_v3_fp8": dict(stored=torch.bfloat16, fp8=True, config=dict(
        ATTENTION | dict(hidden_size=160, intermediate_size=144), **EXPERTS | dict(moe_intermediate_size=24),
        model_type="deepseek_v3", architectures=["DeepseekV3ForCausalLM"], first_k_dense_replace=1,
        moe_layer_freq=1, scoring_func="sigmoid", topk_method="noaux_tc", routed_scaling_factor=2.5,
        num_nextn_predict_layers=1, rms_norm_eps=1e-6, rope_theta=10000.0, rope_scaling=YARN,
        torch_dtype="bfloat16", quantization_config=dict(
            activation_scheme="dynamic", fmt="e4m3", quant_method="fp8",
            weight_block_size=[SCALE_BLOCK, SCALE_BLOCK]))),
    "minicpm3": dict(stored=torch.bfloat16, prompts=[5, 40], config=dict(
        ATTENTION | dict(tie_word_embeddings=True, max_position_embeddings=128), model_type="minicpm3",
        architectures=["MiniCPM3ForCausalLM"], scale_emb=12, dim_model_base=16, scale_depth=4.0,
        rms_norm_eps=1e-5, torch_dtype="bfloat16", rope_scaling=dict(
            type="longrope", original_max_position_embeddings=32,
            short_factor=[1.0, 1.01, 1.05, 1.1, 1.2, 1.4, 1.7, 2.0],
            long_factor=[1.0, 1.1, 1.4, 2.0, 3.0, 5.0, 7.0, 8.0]))),
    "glm4_moe_lite": dict(stored=torch.bfloat16, config=dict(
        ATTENTION, **EXPERTS | dict(n_group=1, topk_group=1), model_type="glm4_moe_lite",
        architectures=["Glm4MoeLiteForCausalLM"], first_k_dense_replace=1, routed_scaling_factor=1.8,
        topk_method="noaux_tc", num_nextn_predict_layers=1, rms_norm_eps=1e-5, partial_rotary_factor=1.0,
        rope_theta=1000000, rope_scaling=None, dtype="bfloat16")),
    "longcat_flash": dict(stored=torch.bfloat16, config=dict(
        {k: v for k, v in ATTENTION.items() if k not in ("intermediate_size", "num_hidden_layers", "hidden_act",
                                                         "num_key_value_heads")} | dict(qk_rope_head_dim=16),
        model_type="longcat_flash", architectures=["LongcatFlashForCausalLM"], num_layers=2, ffn_hidden_size=48,
        expert_ffn_hidden_size=12, n_routed_experts=6, zero_expert_num=3, zero_expert_type="identity", moe_topk=4,
        routed_scaling_factor=6.0, norm_topk_prob=False, router_bias=False, mla_scale_q_lora=True,
        mla_scale_kv_lora=True, attention_method="MLA", head_dim=16, rms_norm_eps=1e-5, rope_theta=10000000.0,
        torch_dtype="bfloat16")),
    "mistral4": dict(stored=torch.float16, config=dict(
        ATTENTION, **EXPERTS | dict(n_group=1, topk_group=1), model_type="mistral4",
        architectures=["Mistral4ForCausalLM"], first_k_dense_replace=0, routed_scaling_factor=1.0, head_dim=32,
        rms_norm_eps=1e-6, rope_interleave=True, dtype="float16", rope_parameters=dict(
            YARN, rope_type="yarn", rope_theta=10000.0, original_max_position_embeddings=16,
            max_position_embeddings=512, llama_4_scaling_beta=0.1, partial_rotary_factor=0.5))),
    "youtu": dict(stored=torch.bfloat16, config=dict(
        ATTENTION | dict(attention_bias=True, tie_word_embeddings=True), model_type="youtu",
        architectures=["YoutuForCausalLM"], rms_norm_eps=1e-6, rope_interleave=False,
        rope_parameters=dict(rope_theta=1600000, rope_type="default"), dtype="bfloat16")),
}


def randomise(model, generator):
    """Spreads that keep activations near 1 and let every tensor matter."""
    def normal(shape, std):
        return torch.randn(shape, generator=generator) * std

    config = model.config
    for name, tensor in list(model.named_parameters()) + list(model.named_buffers()):
        shape, data = tensor.shape, tensor.data
        if name.endswith("e_score_correction_bias"):
            # The share of a softmax is near 1 / experts, a sigmoid near 1 / 2.
            data.copy_(normal(shape, 0.05 if config.model_type == "longcat_flash" else 0.2))
        elif "norm" in name:
            data.copy_(1 + normal(shape, 0.2))
        elif name.endswith("bias"):
            data.copy_(normal(shape, 0.1))
        elif name.endswith(("inv_freq", "embed_scale")):
            continue
        elif "embed_tokens" in name:
            data.copy_(normal(shape, 0.06 if config.tie_word_embeddings else 1.0))
        elif "q_a_proj" in name:
            data.copy_(normal(shape, 0.004 / shape[-1] ** 0.5))
        elif "kv_a_proj" in name:
            data.copy_(normal(shape, 1.0 / shape[-1] ** 0.5))
            data[:config.kv_lora_rank] *= 0.004
        else:
            data.copy_(normal(shape, 1.5 / shape[-1] ** 0.5))


def split_experts(tensors, num_experts):
    """Published files have a matrix for each expert, transformers one tensor for all."""
    result = {}
    for name, tensor in tensors.items():
        if not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            result[name] = tensor
            continue
        prefix, kind = name.rsplit(".", 1)
        for i, matrix in enumerate(tensor[:num_experts]):
            if kind == "down_proj":
                result[f"{prefix}.{i}.down_proj.weight"] = matrix
                continue
            gate, up = matrix.chunk(2)
            result[f"{prefix}.{i}.gate_proj.weight"] = gate
            result[f"{prefix}.{i}.up_proj.weight"] = up
    return result


def blocks_of(matrix):
    """A view of each block of a matrix, with its place among the blocks."""
    for i, rows in enumerate(matrix.split(SCALE_BLOCK)):
        for j, block in enumerate(rows.split(SCALE_BLOCK, dim=1)):
            yield i, j, block


def fp8(matrix):
    """The values and inverse scales of a matrix, and what they stand for."""
    rows, cols = (-(-size // SCALE_BLOCK) for size in matrix.shape)
    scales = torch.zeros(rows, cols)
    values = matrix.clone()
    for i, j, block in blocks_of(values):
        scales[i, j] = block.abs().max() / 448
        block /= scales[i, j]
    values = values.to(torch.float8_e4m3fn)
    meant = values.float()
    for i, j, block in blocks_of(meant):
        block *= scales[i, j]
    return values, scales, meant


def is_fp8(name):
    return name.endswith("proj.weight") or name.endswith("proj_with_mqa.weight") or "experts." in name


def round_weights(model, recipe):
    """Rounds the weights of the model to what can be stored, and returns the quantised ones by name."""
    quantised = {}
    for name, tensor in list(model.named_parameters()) + list(model.named_buffers()):
        if name.endswith(("inv_freq", "embed_scale", "e_score_correction_bias")):
            continue
        tensor.data.copy_(tensor.data.to(recipe["stored"]).float())
        if not recipe.get("fp8") or not is_fp8(name):
            continue
        for part in ([tensor.data] if tensor.dim() == 2 else
                     [part for expert in tensor.data
                      for part in (expert.chunk(2) if "gate_up" in name else [expert])]):
            values, scales, meant = fp8(part)
            part.copy_(meant)
            quantised[part.data_ptr()] = (values, scales)
    return quantised


def checkpoint(model, recipe, quantised):
    config = recipe["config"]
    tensors = {name: tensor for name, tensor in model.state_dict().items()
               if not (config["tie_word_embeddings"] and name == "lm_head.weight")}
    if config["model_type"] != "mistral4":
        tensors = split_experts(tensors, config.get("n_routed_experts"))
    stored = {}
    for name, tensor in tensors.items():
        if tensor.data_ptr() in quantised and is_fp8(name):
            stored[name], stored[name + "_scale_inv"] = quantised[tensor.data_ptr()]
        elif name.endswith("e_score_correction_bias"):
            stored[name] = tensor
        else:
            stored[name] = tensor.to(recipe["stored"])
    return {name: tensor.contiguous().clone() for name, tensor in sorted(stored.items())}


@torch.no_grad()
def case(model, ids):
    logits = model(torch.tensor([ids])).logits[0]
    positions = sorted({0, len(ids) // 2, len(ids) - 1})
    greedy, margins = [], []
    for _ in range(GREEDY_TOKENS):
        last = model(torch.tensor([ids + greedy])).logits[0, -1]
        best = last.topk(2).values
        greedy.append(int(last.argmax()))
        margins.append(float(best[0] - best[1]))
    return dict(ids=ids, positions=positions,
                logits=[[round(x, 6) for x in logits[p].tolist()] for p in positions],
                greedy=greedy, margins=[round(x, 6) for x in margins])


def make(name, recipe):
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    config_dict = recipe["config"]
    generator = torch.Generator().manual_seed(sum(name.encode()))
    known = {k: v for k, v in config_dict.items() if k not in ("torch_dtype", "dtype", "quantization_config")}
    known = json.loads(json.dumps(known))
    if known["model_type"] == "minicpm3":  # published configs leave out what transformers ask for
        rope = known["rope_scaling"]
        rope["factor"] = known["max_position_embeddings"] / rope["original_max_position_embeddings"]
    config = transformers.AutoConfig.for_model(**known, attn_implementation="eager")
    model = getattr(transformers, config_dict["architectures"][0])(config).float().eval()
    randomise(model, generator)
    quantised = round_weights(model, recipe)
    tensors = checkpoint(model, recipe, quantised)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    (folder / "config.json").write_text(json.dumps(config_dict, indent=2) + "\n")
    cases = []
    for length in recipe.get("prompts", [5, 90]):
        ids = torch.randint(2, config.vocab_size, (length,), generator=generator).tolist()
        cases.append(case(model, ids))
    (folder / "golden.json").write_text(json.dumps(dict(family=config_dict["model_type"], cases=cases)) + "\n")
    size = sum(path.stat().st_size for path in folder.iterdir())
    margin = min(min(c["margins"]) for c in cases)
    spread = torch.tensor(cases[-1]["logits"]).std()
    print(f"{name:18} {size / 1000:6.0f} KB, {len(tensors)} tensors, logits' deviation {spread:.2f}, "
          f"smallest margin {margin:.4f}, tokens {len(set(cases[-1]['greedy']))} different")


def main():
    torch.set_num_threads(1)
    for name in sys.argv[1:] or MODELS:
        make(name, MODELS[name])


if __name__ == "__main__":
    main()
