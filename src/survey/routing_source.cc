#include "survey/routing_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <random>
#include <utility>

namespace penstock {
namespace {

constexpr double kPopularity = 0.3;
constexpr double kTilt = 0.8;
constexpr double kNoiseCorrelation = 0.5;
constexpr std::string_view kTracePrefix = "trace:";

// Streams of one seed that have nothing to do with each other.
enum Stream : uint32_t { kOfModel = 0, kOfSession = 1, kOfSequence = 2 };

// The standard fixes these numbers bit by bit, but not those of its distributions.
std::mt19937_64 stream_of(uint64_t seed, Stream stream, uint64_t sequence, int64_t layer) {
  std::seed_seq words = {static_cast<uint32_t>(seed),           static_cast<uint32_t>(seed >> 32),
                         static_cast<uint32_t>(stream),         static_cast<uint32_t>(sequence),
                         static_cast<uint32_t>(sequence >> 32), static_cast<uint32_t>(layer)};
  return std::mt19937_64(words);
}

double uniform(std::mt19937_64& random) {
  return (static_cast<double>(random() >> 11) + 0.5) * 0x1p-53;  // (0, 1)
}

// Adds N(0, deviation^2) to every value, two at a time (Box and Muller).
void add_normal(std::mt19937_64& random, double deviation, std::span<float> values) {
  for (size_t i = 0; i < values.size(); i += 2) {
    const double radius = deviation * std::sqrt(-2 * std::log(uniform(random)));
    const double angle = 2 * std::numbers::pi * uniform(random);
    values[i] += static_cast<float>(radius * std::cos(angle));
    if (i + 1 < values.size()) values[i + 1] += static_cast<float>(radius * std::sin(angle));
  }
}

}  // namespace

Result<RoutingSource> RoutingSource::open(Storage& storage, const std::string& words,
                                          const RoutingShape& shape, uint64_t seed) {
  RoutingSource source;
  source.name_ = words;
  source.shape_ = shape;
  source.seed_ = seed;
  if (words == "model") {
    source.kind_ = Kind::kModel;
  } else if (words == "uniform") {
    source.kind_ = Kind::kUniform;
  } else if (words == "session") {
    source.kind_ = Kind::kSession;
  } else if (words.starts_with(kTracePrefix)) {
    source.kind_ = Kind::kRecorded;
    source.recorded_ =
        PENSTOCK_TRY(load_recorded_routes(storage, words.substr(kTracePrefix.size()), shape));
  } else {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("\"{}\" is no routing; there are model, uniform, session and "
                             "trace:FILE",
                             words)};
  }
  return source;
}

RouteTable RoutingSource::make(uint64_t sequence, int64_t num_tokens) const {
  PENSTOCK_CHECK(!is_model());
  RouteTable table = RouteTable::create(shape_, num_tokens);
  if (kind_ == Kind::kRecorded) {
    copy_recorded(sequence, table);
    return table;
  }
  for (int64_t layer = 0; layer < shape_.num_layers; ++layer) {
    if (kind_ == Kind::kUniform) {
      make_uniform(sequence, layer, table);
    } else {
      make_session(sequence, layer, table);
    }
  }
  return table;
}

// The first top_k places of a shuffle, token after token.
void RoutingSource::make_uniform(uint64_t sequence, int64_t layer, RouteTable& table) const {
  std::mt19937_64 random = stream_of(seed_, kOfSequence, sequence, layer);
  std::vector<uint16_t> experts(static_cast<size_t>(shape_.num_experts));
  std::iota(experts.begin(), experts.end(), uint16_t{0});
  for (int64_t token = 0; token < table.num_tokens; ++token) {
    const std::span<uint16_t> row = table.at(layer, token);
    for (size_t rank = 0; rank < row.size(); ++rank) {
      const size_t other = rank + random() % (experts.size() - rank);
      std::swap(experts[rank], experts[other]);
      row[rank] = experts[rank];
    }
  }
}

void RoutingSource::make_session(uint64_t sequence, int64_t layer, RouteTable& table) const {
  const auto num_experts = static_cast<size_t>(shape_.num_experts);
  std::vector<float> preference(num_experts), noise(num_experts), logits(num_experts);
  std::mt19937_64 of_model = stream_of(0, kOfModel, 0, layer);
  std::mt19937_64 of_session = stream_of(seed_, kOfSession, 0, layer);
  add_normal(of_model, kPopularity, preference);
  add_normal(of_session, kTilt, preference);

  std::mt19937_64 random = stream_of(seed_, kOfSequence, sequence, layer);
  const auto kept = static_cast<float>(kNoiseCorrelation);
  const double renewed = std::sqrt(1 - kNoiseCorrelation * kNoiseCorrelation);
  std::vector<uint16_t> ranking(num_experts);
  add_normal(random, 1, noise);
  for (int64_t token = 0; token < table.num_tokens; ++token) {
    for (float& value : noise) value *= kept;
    add_normal(random, renewed, noise);
    for (size_t i = 0; i < num_experts; ++i) logits[i] = preference[i] + noise[i];
    std::iota(ranking.begin(), ranking.end(), uint16_t{0});
    const std::span<uint16_t> row = table.at(layer, token);
    std::ranges::partial_sort(ranking, ranking.begin() + std::ssize(row),
                              [&](uint16_t a, uint16_t b) { return logits[a] > logits[b]; });
    std::copy_n(ranking.begin(), row.size(), row.begin());
  }
}

void RoutingSource::copy_recorded(uint64_t sequence, RouteTable& table) const {
  const RouteTable& recorded = recorded_->table;
  const int64_t start = recorded_->starts[sequence % recorded_->starts.size()];
  for (int64_t layer = 0; layer < shape_.num_layers; ++layer) {
    for (int64_t token = 0; token < table.num_tokens; ++token) {
      std::ranges::copy(recorded.at(layer, (start + token) % recorded.num_tokens),
                        table.at(layer, token).begin());
    }
  }
}

RouteTable routes_through_all(const RoutingShape& shape) {
  const int64_t tokens = (shape.num_experts + shape.top_k - 1) / shape.top_k;
  RouteTable table = RouteTable::create(shape, tokens);
  for (int64_t layer = 0; layer < shape.num_layers; ++layer) {
    for (int64_t token = 0; token < tokens; ++token) {
      int64_t expert = token * shape.top_k;
      for (uint16_t& id : table.at(layer, token)) {
        id = static_cast<uint16_t>(expert++ % shape.num_experts);
      }
    }
  }
  return table;
}

}  // namespace penstock
