#include "survey/gpu_card.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <optional>
#include <string_view>

#include "base/byte_text.h"

namespace penstock {
namespace {

// One direction of a link, by generation and lanes: 2 GB/s a lane in the fourth.
constexpr double kGen4x8 = 16, kGen4x16 = 32, kGen5x8 = 32, kGen5x16 = 64;

struct Sheet {
  std::string_view name;
  int memory_gib;
  double memory_gbps;
  double link_gbps;  // 0: unified
};
constexpr Sheet kSheets[] = {
    {"RTX 3060", 12, 360, kGen4x16},
    {"RTX 3090", 24, 936, kGen4x16},
    {"RTX 4060", 8, 272, kGen4x8},
    {"RTX 4060 Ti", 16, 288, kGen4x8},
    {"RTX 4070", 12, 504, kGen4x16},
    {"RTX 4090", 24, 1008, kGen4x16},
    {"RTX 5060 Ti", 16, 448, kGen5x8},
    {"RTX 5080", 16, 960, kGen5x16},
    {"RTX 5090", 32, 1792, kGen5x16},
    {"RX 7900 XTX", 24, 960, kGen4x16},
    {"RX 9070 XT", 16, 640, kGen5x16},
    {"Arc B580", 12, 456, kGen4x8},
    {"H100 SXM", 80, 3350, kGen5x16},
    {"Radeon 8060S", 128, 256, 0},  // LPDDR5X-8000, 256 bits
    {"GB10", 128, 273, 0},
};

// What one H100 80 GB and one H200 showed (docs/gpu.md).
constexpr double kShareOfMemory = 0.87;  // 2,900 of 3,350 GB/s
constexpr double kShareOfLink = 0.73;    // 46 of 63 GB/s
constexpr double kRoundTripUs = 15;
constexpr double kDispatchUs = 2.2;
// A layer's experts took 14 us and so much of the rate of reading, over types and two shapes.
constexpr double kStartDispatches = 6.3;
// Of these four kernels products have two: packing and multiplying. Not measured apart.
constexpr double kProductShare = 0.5;
constexpr double kShareQ8 = 0.91, kShareQ4 = 0.78, kShareQ3 = 0.64, kShareQ2 = 0.54;
// The 35B shape with all experts and matrices there and no copies under way: a layer's experts and shared one
// took 44 us, of which trip and kernels explain 32; a mixer 124 us, of which 2 trips and kernels explain 45 and
// the processors' part 65.
constexpr double kHostUs = 8, kProductHostUs = 5;
// Ten experts in q4, 3 x 4096 x 1024 weights each, 4.5 bits a weight: what doctor measures.
constexpr double kMeasuredLayerBytes = 10.0 * 3 * 4096 * 1024 * 4.5 / 8;

// Less of a name fits too many: "0" is in most.
constexpr size_t kNamePart = 3;

std::string folded(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (c != ' ' && c != '-')
      result += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return result;
}

GpuCard card_of(const Sheet& sheet) {
  const bool is_unified = sheet.link_gbps == 0;
  const double read = kShareOfMemory * sheet.memory_gbps;
  return {.name = std::string(sheet.name),
          .memory_bytes = static_cast<uint64_t>(sheet.memory_gib) << 30,
          .is_unified = is_unified,
          .read_gbps = read,
          .link_gbps = is_unified ? read : kShareOfLink * sheet.link_gbps,
          .round_trip_us = kRoundTripUs,
          .dispatch_us = kDispatchUs,
          .origin = "data sheet"};
}

std::string known_cards(const std::vector<GpuCard>& measured) {
  std::string text;
  for (const GpuCard& card : measured) text += fmt::format("{} (measured here), ", card.name);
  for (const Sheet& sheet : kSheets) text += fmt::format("{}, ", sheet.name);
  return text + "or memory=24G,gbps=900[,link=26][,trip=40][,unified=on]";
}

Error bad_spec(std::string_view item, std::string_view why) {
  return {ErrorCode::kInvalidArgument,
          fmt::format("--gpu: \"{}\" {}; such as memory=24G,gbps=900,link=26,trip=40", item, why)};
}

// What programs see, in contrast to a data sheet's peaks.
Result<GpuCard> card_of_spec(const std::string& text) {
  GpuCard card{.name = "the GPU as given",
               .link_gbps = kShareOfLink * kGen4x16,
               .round_trip_us = kRoundTripUs,
               .dispatch_us = kDispatchUs,
               .origin = "as given"};
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string item = text.substr(begin, end - begin);
    begin = end + 1;
    const size_t equals = item.find('=');
    const std::string key = item.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : item.substr(equals + 1);
    if (key == "memory") {
      const Result<uint64_t> bytes = parse_bytes(value);
      if (!bytes) return bytes.error().with_context("--gpu " + item);
      card.memory_bytes = *bytes;
      continue;
    }
    if (key == "unified") {
      if (value != "on" && value != "off") return bad_spec(item, "is not on or off");
      card.is_unified = value == "on";
      continue;
    }
    double* const field = key == "gbps"   ? &card.read_gbps
                          : key == "link" ? &card.link_gbps
                          : key == "trip" ? &card.round_trip_us
                                          : nullptr;
    if (field == nullptr) return bad_spec(item, "is none of memory, gbps, link, trip, unified");
    const char* const last = value.data() + value.size();
    const bool is_number = std::from_chars(value.data(), last, *field).ptr == last;
    if (!is_number || value.empty() || !(*field > 0 && *field <= 1e6)) {
      return bad_spec(item, "is no number above 0 and up to 1000000");
    }
  }
  if (card.memory_bytes == 0 || card.read_gbps == 0) {
    return bad_spec(text, "lacks memory= or gbps=");
  }
  return card;
}

double share_of(DType dtype) {
  switch (dtype) {
    case DType::kQ8: return kShareQ8;
    case DType::kQ4: return kShareQ4;
    case DType::kQ3: return kShareQ3;
    case DType::kQ2: return kShareQ2;
    default: return 0;
  }
}

}  // namespace

const GpuCard* best_gpu(const std::vector<GpuCard>& cards) {
  const GpuCard* best = nullptr;
  for (const GpuCard& card : cards) {
    const bool is_better =
        best == nullptr || (best->is_unified && !card.is_unified) ||
        (best->is_unified == card.is_unified && card.memory_bytes > best->memory_bytes);
    if (is_better) best = &card;
  }
  return best;
}

Result<GpuCard> find_gpu_card(const std::string& text, const std::vector<GpuCard>& measured) {
  if (text.find('=') != std::string::npos) return card_of_spec(text);
  if (text == "auto" && !measured.empty()) return *best_gpu(measured);
  // Software devices, which have no rates, are the last ones that a system lists.
  for (size_t number = 0; number < measured.size(); ++number) {
    if (text == std::to_string(number)) return measured[number];
  }
  const std::string wanted = folded(text);
  if (wanted.size() >= kNamePart) {
    for (const GpuCard& card : measured) {
      if (folded(card.name).find(wanted) != std::string::npos) return card;
    }
    // "4060" is the card of that name, not another that begins so: the shortest name.
    const Sheet* best = nullptr;
    for (const Sheet& sheet : kSheets) {
      const bool fits = folded(sheet.name).find(wanted) != std::string::npos;
      if (fits && (best == nullptr || sheet.name.size() < best->name.size())) best = &sheet;
    }
    if (best != nullptr) return card_of(*best);
  }
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("--gpu \"{}\": not known; there are {}", text, known_cards(measured))};
}

DeviceRates device_rates(const GpuCard& card, DType experts) {
  const double share = share_of(experts);
  if (share == 0) return {};
  const double start_us = kStartDispatches * card.dispatch_us;
  double of_q4 = kShareQ4;
  if (card.experts_gbps > 0) {
    const double layer_us = kMeasuredLayerBytes / card.experts_gbps / 1e3;
    const double bytes_us = kMeasuredLayerBytes / card.read_gbps / 1e3;
    of_q4 = layer_us > start_us ? bytes_us / (layer_us - start_us) : 1;
  }
  return {.read_gbps = card.read_gbps,
          .weights_gbps = card.read_gbps * std::min(1.0, of_q4 * share / kShareQ4),
          .link_gbps = card.link_gbps,
          .start_us = start_us,
          .round_trip_us = card.round_trip_us,
          .host_us = kHostUs,
          .product_start_us = kProductShare * start_us + kProductHostUs,
          .is_unified = card.is_unified};
}

}  // namespace penstock
