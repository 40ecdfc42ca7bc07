#include "engine/memory_plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/byte_text.h"
#include "compute/cpu/cpu_backend.h"
#include "engine/limits.h"

namespace penstock {
namespace {

// Code, stacks, the heap's own needs, tables of the reader: measured at 9 to 12 MiB.
constexpr uint64_t kProgramBytes = 16ull << 20;
// A second store with its reader, its lists of experts and a manifest.
constexpr uint64_t kCopyProgramBytes = 4ull << 20;
constexpr int64_t kChunkTokensFloor = 8;  // of the smallest workable budget

uint64_t rope_bytes(const PlanRequest& request) {
  return static_cast<uint64_t>(request.context * request.config.rotary_dim()) * sizeof(float);
}

uint64_t chunk_bytes(const PlanRequest& request, int64_t chunk_tokens) {
  const ScratchShape shape =
      scratch_shape(chunk_tokens, request.experts_per_token, request.parallel);
  const BackendLimits limits = backend_limits(request.config, shape, request.context,
                                              request.coded_columns, request.kv_form);
  return Scratch::bytes_needed(request.config, shape) +
         static_cast<uint64_t>(CpuBackend::scratch_bytes(request.threads, limits));
}

// Of each sequence: the last row's, a copy to sample from, and those after a drafted token.
uint64_t logits_bytes(const PlanRequest& request) {
  const int64_t rows = request.config.mtp_num_hidden_layers > 0 ? 3 : 2;
  return static_cast<uint64_t>(request.parallel * rows * request.config.vocab_size) * sizeof(float);
}

uint64_t sequence_bytes(const PlanRequest& request, int marks) {
  SequenceLimits limits = sequence_limits(request);
  limits.marks = marks;
  return SequenceMemory::bytes_needed(request.config, limits);
}

uint64_t layout_bytes(const PlanRequest& request) {
  return static_cast<uint64_t>(request.threads) * request.layout_bytes;
}

uint64_t program_bytes(const PlanRequest& request) {
  return kProgramBytes + (request.has_copy() ? kCopyProgramBytes : 0);
}

uint64_t fixed_bytes(const PlanRequest& request) {
  return layout_bytes(request) + request.resident_bytes + request.checksum_bytes +
         request.copy.checksum_bytes + request.text_bytes + program_bytes(request) +
         request.prefix_store_bytes + request.gpu_bytes + rope_bytes(request) +
         logits_bytes(request) + sequence_bytes(request, request.num_checkpoints);
}

// Of the model, and of its copy where there is one.
struct SlotCounts {
  int64_t model = 0, copy = 0;

  uint64_t bytes(const PlanRequest& request) const {
    return static_cast<uint64_t>(model) * request.record_bytes +
           static_cast<uint64_t>(copy) * request.copy.record_bytes;
  }
};

// What a token asks for in each layer.
SlotCounts asked_by_token(const PlanRequest& request) {
  return {request.experts_per_token - request.copy.experts_per_token,
          request.copy.experts_per_token};
}

// A store has a slot, also when nobody asks it for anything.
SlotCounts floor_slots(const PlanRequest& request) {
  const SlotCounts asked = asked_by_token(request);
  const int64_t layers = request.config.num_moe_layers();
  return {std::max<int64_t>(1, asked.model * layers),
          request.has_copy() ? std::max<int64_t>(1, asked.copy * layers) : 0};
}

int64_t all_experts(const PlanRequest& request) {
  return request.config.num_experts * request.config.num_moe_layers();
}

SlotCounts all_slots(const PlanRequest& request) {
  const SlotCounts asked = asked_by_token(request);
  return {asked.model > 0 ? all_experts(request) : 1, asked.copy > 0       ? all_experts(request)
                                                      : request.has_copy() ? 1
                                                                           : 0};
}

// Slots of the copy for its share of what a token asks for, all others of the model; what neither
// needs the other one has. `bytes` suffice for the floor.
SlotCounts share_slots(const PlanRequest& request, uint64_t bytes) {
  const SlotCounts least = floor_slots(request), most = all_slots(request);
  const SlotCounts asked = asked_by_token(request);
  const auto that_fit = [&](uint64_t taken, uint64_t each) {
    return static_cast<int64_t>((bytes - taken) / each);
  };
  if (!request.has_copy()) {
    return {std::min(most.model, that_fit(0, request.record_bytes)), 0};
  }
  const uint64_t rounds = (bytes - least.bytes(request)) / asked.bytes(request);
  SlotCounts slots;
  slots.copy = std::min(most.copy, least.copy + static_cast<int64_t>(rounds) * asked.copy);
  slots.model = std::min(most.model, that_fit(slots.bytes(request), request.record_bytes));
  const SlotCounts of_model{slots.model, 0};
  slots.copy = std::min(most.copy, that_fit(of_model.bytes(request), request.copy.record_bytes));
  return slots;
}

// "32 slots of 1.2 MiB", with those of the copy.
std::string slots_text(const PlanRequest& request, const SlotCounts& slots) {
  std::string text = fmt::format("{} slots of {}", slots.model, format_bytes(request.record_bytes));
  if (request.has_copy()) {
    text += fmt::format(" and {} of {}", slots.copy, format_bytes(request.copy.record_bytes));
  }
  return text;
}

int64_t slots_of_each(const PlanRequest& request, const SlotCounts& slots) {
  const SlotCounts asked = asked_by_token(request);
  if (asked.copy == 0) return slots.model;
  return asked.model == 0 ? slots.copy : std::min(slots.model, slots.copy);
}

// The largest power of two of tokens that takes at most an eighth of what is left for chunk and
// slots: beyond that, slots save more reads than a longer chunk does. Where every expert fits
// beside the longest chunk, that is taken.
int64_t choose_chunk(const PlanRequest& request, uint64_t left) {
  const uint64_t slots_floor = floor_slots(request).bytes(request);
  const uint64_t slots_all = all_slots(request).bytes(request);
  int64_t chunk = std::min(kChunkTokensFloor, request.context);
  for (int64_t next = chunk * 2; next <= std::min(request.chunk_tokens_max, request.context);
       next *= 2) {
    const uint64_t bytes = chunk_bytes(request, next);
    const bool everything_fits = bytes + slots_all <= left;
    const bool small_enough = bytes <= left / 8 && bytes + slots_floor <= left;
    if (!everything_fits && !small_enough) break;
    chunk = next;
  }
  return chunk;
}

}  // namespace

SequenceLimits sequence_limits(const PlanRequest& request) {
  return {.context = request.context,
          .sequences = request.parallel,
          .marks = request.num_checkpoints,
          .kv_form = request.kv_form};
}

Result<MemoryPlan> plan_memory(const PlanRequest& request) {
  MemoryPlan plan;
  const int64_t chunk_floor = request.chunk_tokens > 0
                                  ? request.chunk_tokens
                                  : std::min(kChunkTokensFloor, request.context);
  const int64_t chunk_largest = request.largest_chunk();
  const SlotCounts as_said{request.num_slots, request.has_copy() ? request.num_slots : 0};
  const SlotCounts slots_floor = request.num_slots > 0 ? as_said : floor_slots(request);
  const uint64_t fixed = fixed_bytes(request);
  plan.num_experts = all_experts(request);
  plan.kv_bytes_per_position = SequenceMemory::bytes_per_position(request.config, request.kv_form);
  plan.minimum_bytes = fixed + chunk_bytes(request, chunk_floor) + slots_floor.bytes(request);
  plan.all_resident_bytes =
      fixed + chunk_bytes(request, chunk_largest) + all_slots(request).bytes(request);
  if (request.budget_bytes < plan.minimum_bytes) {
    return Error{
        ErrorCode::kOutOfMemory,
        fmt::format("a budget of {} is too small: {} for what every token needs, {} for "
                    "activations and {} for one token's experts ({}) make "
                    "{}; give --memory {} or more, or a smaller --context",
                    format_bytes(request.budget_bytes), format_bytes(fixed),
                    format_bytes(chunk_bytes(request, chunk_floor)),
                    format_bytes(slots_floor.bytes(request)), slots_text(request, slots_floor),
                    format_bytes(plan.minimum_bytes), plan.minimum_bytes)};
  }
  const uint64_t left = request.budget_bytes - fixed;
  plan.chunk_tokens = request.chunk_tokens > 0 ? request.chunk_tokens : choose_chunk(request, left);
  const uint64_t for_slots = left - chunk_bytes(request, plan.chunk_tokens);
  const SlotCounts slots = request.num_slots > 0 ? as_said : share_slots(request, for_slots);
  plan.num_slots = slots.model;
  plan.copy_slots = slots.copy;
  plan.slots_of_each = slots_of_each(request, slots);
  plan.floor_slots = std::min(plan.num_slots, floor_slots(request).model);
  plan.copy_floor_slots = std::min(plan.copy_slots, floor_slots(request).copy);
  const ScratchShape shape =
      scratch_shape(plan.chunk_tokens, request.experts_per_token, request.parallel);
  const BackendLimits limits = backend_limits(request.config, shape, request.context,
                                              request.coded_columns, request.kv_form);
  plan.items = {
      {"resident weights", request.resident_bytes},
      {std::string(kSlotsItem), static_cast<uint64_t>(plan.num_slots) * request.record_bytes},
      {"KV cache and states", sequence_bytes(request, 0)},
      {"state checkpoints",
       sequence_bytes(request, request.num_checkpoints) - sequence_bytes(request, 0)},
      {"logits", logits_bytes(request)},
      {"activations", Scratch::bytes_needed(request.config, shape)},
      {"kernel scratch", static_cast<uint64_t>(CpuBackend::scratch_bytes(request.threads, limits))},
      {"rotary tables", rope_bytes(request)},
      {"expert checksums", request.checksum_bytes + request.copy.checksum_bytes},
      {"tokenizer and template", request.text_bytes},
      {"program", program_bytes(request) + request.prefix_store_bytes},
  };
  if (request.has_copy()) {
    const uint64_t bytes = static_cast<uint64_t>(plan.copy_slots) * request.copy.record_bytes;
    plan.items.insert(plan.items.begin() + 2, {std::string(kCopySlotsItem), bytes});
  }
  if (request.layout_bytes > 0) plan.items.push_back({"laying out experts", layout_bytes(request)});
  if (request.gpu_bytes > 0) plan.items.push_back({"used by the GPU", request.gpu_bytes});
  for (const PlanItem& item : plan.items) plan.total_bytes += item.bytes;
  return plan;
}

std::string to_table(const MemoryPlan& plan, uint64_t budget_bytes) {
  std::string table;
  for (const PlanItem& item : plan.items) {
    table += fmt::format("  {:<24}{:>12}\n", item.purpose, format_bytes(item.bytes));
  }
  table += fmt::format("  {:<24}{:>12}  of a budget of {}\n", "total",
                       format_bytes(plan.total_bytes), format_bytes(budget_bytes));
  table += fmt::format(
      "  {} of {} experts stay in memory ({:.1f} %); prompts go in chunks of {} tokens\n",
      plan.num_slots, plan.num_experts,
      100.0 * static_cast<double>(plan.num_slots) / static_cast<double>(plan.num_experts),
      plan.chunk_tokens);
  if (plan.copy_slots > 0) {
    table += fmt::format("  {} of {} experts of the copy stay in memory\n", plan.copy_slots,
                         plan.num_experts);
  }
  table += fmt::format("  keys and values take {} per position\n",
                       format_bytes(plan.kv_bytes_per_position));
  table += fmt::format("  smallest workable budget {}; every expert in memory from {}\n",
                       format_bytes(plan.minimum_bytes), format_bytes(plan.all_resident_bytes));
  return table;
}

}  // namespace penstock
