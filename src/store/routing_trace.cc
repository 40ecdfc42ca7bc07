#include "store/routing_trace.h"

#define XXH_INLINE_ALL
#include <fmt/format.h>
#include <xxhash.h>

#include <cstring>

#include "io/output_file.h"
#include "store/kept_bytes.h"

namespace penstock {
namespace {

constexpr char kTraceMagic[8] = {'P', 'S', 'T', 'R', 'A', 'C', 'E', '1'};
constexpr uint16_t kNextStep = 0xffff;
constexpr uint16_t kNextSequence = 0xfffe;
constexpr uint64_t kTraceHeaderBytes = sizeof(kTraceMagic) + 4 + 4 + 8;
constexpr uint64_t kTraceSumBytes = 8;
constexpr int kIdsMax = kNextSequence;  // layers and experts are below

Error no_trace(const std::string& path, const std::string& why) {
  return {ErrorCode::kCorrupt, fmt::format("{} is not a routing trace: {}", path, why)};
}

// Every layer, count and id in its range, and the last event complete.
bool is_well_formed(std::span<const uint16_t> words, int num_layers, int num_experts) {
  size_t at = 0;
  while (at < words.size()) {
    const uint16_t layer = words[at++];
    if (layer == kNextStep || layer == kNextSequence) continue;
    if (layer >= num_layers || at == words.size()) return false;
    const size_t count = words[at++];
    if (count > words.size() - at) return false;
    for (const uint16_t expert : words.subspan(at, count)) {
      if (expert >= num_experts) return false;
    }
    at += count;
  }
  return true;
}

}  // namespace

void RoutingTrace::begin_sequence() {
  words_.push_back(kNextSequence);
}
void RoutingTrace::begin_step() {
  words_.push_back(kNextStep);
}

void RoutingTrace::add(int layer, std::span<const int32_t> experts) {
  PENSTOCK_CHECK(layer >= 0 && layer < num_layers_ && num_layers_ <= kIdsMax);
  PENSTOCK_CHECK(std::ssize(experts) <= num_experts_ && num_experts_ <= kIdsMax);
  words_.push_back(static_cast<uint16_t>(layer));
  words_.push_back(static_cast<uint16_t>(experts.size()));
  for (const int32_t expert : experts) {
    PENSTOCK_CHECK(expert >= 0 && expert < num_experts_);
    words_.push_back(static_cast<uint16_t>(expert));
  }
}

std::vector<RoutingEvent> RoutingTrace::events() const {
  std::vector<RoutingEvent> events;
  RoutingEvent event;
  const std::span<const uint16_t> words(words_);
  size_t at = 0;
  while (at < words.size()) {
    const uint16_t layer = words[at++];
    if (layer == kNextStep || layer == kNextSequence) {
      // Marks in front of the first event name what has begun already.
      if (!events.empty()) {
        ++event.step;
        if (layer == kNextSequence) ++event.sequence;
      }
      continue;
    }
    const size_t count = words[at++];
    event.layer = layer;
    event.experts = words.subspan(at, count);
    events.push_back(event);
    at += count;
  }
  return events;
}

Result<void> RoutingTrace::write(Storage& storage, const std::string& path) const {
  std::vector<std::byte> bytes;
  bytes.reserve(kTraceHeaderBytes + words_.size() * sizeof(uint16_t) + kTraceSumBytes);
  append(bytes, kTraceMagic);
  append(bytes, static_cast<uint32_t>(num_layers_));
  append(bytes, static_cast<uint32_t>(num_experts_));
  append(bytes, static_cast<uint64_t>(words_.size()));
  const auto words = std::as_bytes(std::span(words_));
  bytes.insert(bytes.end(), words.begin(), words.end());
  append(bytes, static_cast<uint64_t>(XXH3_64bits(bytes.data(), bytes.size())));
  return write_output(storage, path, bytes);
}

Result<RoutingTrace> RoutingTrace::read(Storage& storage, const std::string& path) {
  const auto file = PENSTOCK_TRY(storage.open(path, OpenMode::kRead));
  const uint64_t file_bytes = PENSTOCK_TRY(file->stat()).bytes;
  if (file_bytes < kTraceHeaderBytes + kTraceSumBytes) return no_trace(path, "it is too short");
  std::vector<std::byte> bytes(file_bytes);
  PENSTOCK_TRY(read_exactly(*file, 0, bytes));

  ByteCursor cursor(bytes);
  const auto magic = cursor.take(sizeof(kTraceMagic));
  if (std::memcmp(magic.data(), kTraceMagic, sizeof(kTraceMagic)) != 0) {
    return no_trace(path, "it begins with other bytes");
  }
  const auto num_layers = cursor.read<uint32_t>();
  const auto num_experts = cursor.read<uint32_t>();
  const auto num_words = cursor.read<uint64_t>();
  const auto payload_bytes = checked_multiply(num_words, sizeof(uint16_t));
  if (payload_bytes != file_bytes - kTraceHeaderBytes - kTraceSumBytes) {
    return no_trace(path, "its length does not agree with its header");
  }
  const auto payload = cursor.take(*payload_bytes);
  if (cursor.read<uint64_t>() != XXH3_64bits(bytes.data(), file_bytes - kTraceSumBytes)) {
    return no_trace(path, "its checksum does not agree");
  }
  if (num_layers > kIdsMax || num_experts > kIdsMax) return no_trace(path, "too many experts");
  RoutingTrace trace(static_cast<int>(num_layers), static_cast<int>(num_experts));
  trace.words_.resize(num_words);
  std::memcpy(trace.words_.data(), payload.data(), payload.size());
  if (!is_well_formed(trace.words_, trace.num_layers_, trace.num_experts_)) {
    return no_trace(path, "an event is out of range");
  }
  return trace;
}

}  // namespace penstock
