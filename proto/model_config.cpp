#include "proto/model_config.h"

#include <limits>
#include <vector>

#include "core/error.h"
#include "proto/json_fields.h"
#include "proto/model_families.h"

namespace mla::proto {
namespace {

constexpr std::size_t kMostConfigBytes = std::size_t{1} << 24;
constexpr int kConfigDepth = 16;

// What does not change logits: who made the file, training, sampling, other programs' hints, and
// sums of sizes that are given as well.
constexpr const char* kWithoutInfluence = R"(
    architectures auto_map transformers_version _name_or_path _commit_hash name_or_path
    torch_dtype dtype use_cache id2label label2id return_dict output_attentions
    output_hidden_states torchscript use_bfloat16 pruned_heads chunk_size_feed_forward
    is_decoder is_encoder_decoder problem_type task_specific_params tokenizer_class prefix
    finetuning_task _attn_implementation _attn_implementation_autoset attn_implementation
    attention_dropout initializer_range embedding_initializer_range aux_loss_alpha seq_aux
    router_aux_loss_coef output_router_logits pretraining_tp ep_size gradient_checkpointing
    num_nextn_predict_layers num_mtp_layers
    do_sample temperature top_k top_p typical_p max_length min_length num_beams num_beam_groups
    diversity_penalty early_stopping length_penalty repetition_penalty no_repeat_ngram_size
    encoder_no_repeat_ngram_size bad_words_ids num_return_sequences remove_invalid_values
    return_dict_in_generate output_scores forced_bos_token_id forced_eos_token_id
    suppress_tokens begin_suppress_tokens exponential_decay_length_penalty pad_token_id
    sep_token_id decoder_start_token_id
    head_dim qk_head_dim)";

/// An integer or an array of at most 64; empty if absent.
std::vector<std::int32_t> token_ids(const JsonField& field) {
  constexpr std::size_t kMost = 64;
  if (field.is_null()) return {};
  const nlohmann::json& value = field.value();
  const nlohmann::json list = value.is_array() ? value : nlohmann::json::array({value});
  std::vector<std::int32_t> ids;
  for (const nlohmann::json& id : list) {
    if (ids.size() == kMost || !id.is_number_unsigned() ||
        id.get<std::uint64_t>() > std::numeric_limits<std::int32_t>::max()) {
      field.expected("a token id, or an array of at most " + std::to_string(kMost));
    }
    ids.push_back(id.get<std::int32_t>());
  }
  return ids;
}

void read_token_ids(Fields& fields, ModelConfig& config) {
  const JsonField bos_field = fields["bos_token_id"];
  const std::vector<std::int32_t> bos = token_ids(bos_field);
  if (!bos.empty()) config.bos_token_id = bos.front();
  if (config.bos_token_id >= config.vocab_size) {
    bos_field.expected("an id below vocab_size, " + std::to_string(config.vocab_size));
  }
  const std::vector<std::int32_t> eos = token_ids(fields["eos_token_id"]);
  if (!eos.empty()) config.eos_token_ids = eos;
}

ModelConfig parse_config(const nlohmann::json& object, const std::string& name) {
  Fields fields(JsonField(object, name));
  ModelConfig config;
  read_family(fields, config);
  read_token_ids(fields, config);
  fields.ignore(kWithoutInfluence);
  fields.refuse_others();
  return config;
}

}  // namespace

ModelConfig parse_model_config(std::string_view text, const std::string& name) {
  return parse_config(parse_json(text, name, kConfigDepth), name);
}

ModelConfig read_model_config(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "config.json";
  ModelConfig config =
      parse_config(parse_json_file(path, kMostConfigBytes, kConfigDepth), path.string());
  const std::filesystem::path generation = folder / "generation_config.json";
  if (std::filesystem::exists(generation)) {
    const nlohmann::json parsed = parse_json_file(generation, kMostConfigBytes, kConfigDepth);
    Fields fields(JsonField(parsed, generation.string()));
    read_token_ids(fields, config);
  }
  return config;
}

ModelConfig cut_layers(ModelConfig config, std::int64_t layers) {
  const bool pairs = config.moe.shortcut;
  if (layers < 1 || layers > config.num_layers || (pairs && layers % 2 != 0)) {
    throw InvalidArgument("layers", std::to_string(layers),
                          std::string(pairs ? "an even number" : "a number") + " from 1 to " +
                              std::to_string(config.num_layers));
  }
  config.num_layers = layers;
  return config;
}

}  // namespace mla::proto
