// Any bytes as a file of states: refused, or exactly what was written under these tokens. Half of them
// are sealed with the right checksum, so that what stands before it is reached.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/check.h"
#include "compute/cpu/cpu_backend.h"
#include "engine/prefix_record.h"
#include "support/sim_storage.h"

namespace {

using namespace penstock;

constexpr const char* kConfig = R"({"architectures": ["Qwen3_5MoeForCausalLM"],
  "model_type": "qwen3_5_moe_text", "hidden_act": "silu", "rms_norm_eps": 1e-06,
  "max_position_embeddings": 512, "vocab_size": 257, "hidden_size": 64, "num_hidden_layers": 2,
  "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "linear_num_key_heads": 2,
  "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
  "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
  "shared_expert_intermediate_size": 32, "tie_word_embeddings": false, "linear_conv_kernel_dim": 4,
  "rope_parameters": {"rope_type": "default", "rope_theta": 1e7, "partial_rotary_factor": 0.25},
  "eos_token_id": 256, "layer_types": ["linear_attention", "full_attention"]})";
constexpr const char* kPath = "/kv/record";
constexpr Hash128 kIdentity{1, 2};
constexpr int64_t kTokens = 3;

// A sequence of three tokens, and the file that it makes.
struct World {
  World() {
    const Json json = parse_json(kConfig, "config").value();
    const ModelConfig config = parse_model_config(json, "config").value();
    backend = CpuBackend::create(1, {}).value();
    memory.emplace(
        SequenceMemory::create(config, {.context = 512, .sequences = 2}, *backend).value());
    staging.resize(SequenceMemory::kPieceFloatsMax);
    SequenceState state(*memory);
    state.take(kTokens);
    SimStorage disk;
    disk.make_directory("/kv").value();
    write_record(disk, kPath, record(), state, staging).value();
    whole = read_text(disk, kPath, 64 << 20).value();
  }
  PrefixRecord record() const {
    return {
        .identity = kIdentity, .tokens = tokens, .page_begin = 0, .page_end = 1, .has_set = true};
  }

  std::unique_ptr<CpuBackend> backend;
  std::optional<SequenceMemory> memory;
  std::vector<float> staging;
  std::vector<TokenId> tokens = {5, 6, 7};
  std::string whole;
};

// The written file with bytes exchanged: [place, place, value] each, in its first 256 or from the end.
std::string changed(std::string whole, const uint8_t* data, size_t size) {
  for (size_t i = 0; i + 3 <= size; i += 3) {
    const size_t at =
        data[i] % 2 == 0 ? data[i + 1] : whole.size() - 1 - data[i + 1] % whole.size();
    whole[at % whole.size()] = static_cast<char>(data[i + 2]);
  }
  return whole;
}

void seal(std::string& bytes) {
  if (bytes.size() < sizeof(Hash128)) return;
  const size_t end = bytes.size() - sizeof(Hash128);
  const Hash128 sum = checksum(std::as_bytes(std::span(bytes).first(end)), 0);
  std::memcpy(bytes.data() + end, &sum, sizeof sum);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static World world;
  if (size == 0) return 0;
  const uint8_t kind = data[0];
  std::string bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (kind % 2 == 0) bytes = changed(world.whole, data + 1, size - 1);
  if (kind % 4 >= 2) seal(bytes);

  SimStorage disk;
  disk.make_directory("/kv").value();
  disk.open(kPath, OpenMode::kCreate).value()->write(0, std::as_bytes(std::span(bytes))).value();
  const auto tokens = read_record_tokens(disk, kPath, kIdentity, 4096);
  if (tokens) PENSTOCK_CHECK(!tokens->empty() && tokens->size() <= 4096);

  SequenceState state(*world.memory);
  state.take(kTokens);
  const auto read = read_record(disk, kPath, world.record(), state, world.staging);
  // What was taken for whole makes the same file again.
  if (read) {
    write_record(disk, "/kv/again", world.record(), state, world.staging).value();
    PENSTOCK_CHECK(read_text(disk, "/kv/again", 64 << 20).value() == bytes);
  }
  return 0;
}
