#include "pack/bit_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "base/byte_text.h"
#include "base/check.h"

namespace penstock {
namespace {

size_t place_of(DType dtype) {
  const auto* found = std::ranges::find(kPlannedTypes, dtype);
  PENSTOCK_CHECK(found != kPlannedTypes.end());
  return static_cast<size_t>(found - kPlannedTypes.begin());
}

// One way to store the experts of a layer.
struct Choice {
  LayerTypes types;
  uint64_t record_bytes = 0;
  uint64_t payload_bytes = 0;  // of it, without padding
};

std::vector<Choice> all_choices(ExpertShape shape) {
  shape.num_layers = shape.num_experts = 1;
  std::vector<Choice> choices;
  for (const DType gate_up : kPlannedTypes) {
    for (const DType down : kPlannedTypes) {
      const LayerTypes types = {gate_up, down};
      const auto parts = lay_out_experts(shape, record_forms({types}));
      PENSTOCK_CHECK(parts.has_value());  // the caller's widths are multiples of 64
      const ExpertRecord& record = parts->layers.front();
      choices.push_back({types, record.bytes, record.gate_up_bytes + record.down_bytes});
    }
  }
  std::ranges::stable_sort(choices, {}, &Choice::record_bytes);
  return choices;
}

// What a layer may choose from: fewer bytes first, and each loses less than those before it.
struct Item {
  LayerTypes types;
  uint64_t units = 0;  // beyond the smallest record
  double loss = 0;
};

// Units of bytes, in which everything is counted from here on.
struct Scale {
  uint64_t unit = 1;      // bytes of one record
  uint64_t capacity = 0;  // units that all layers together may take beyond the smallest records
};

std::vector<Item> items_of(const std::vector<Choice>& choices, const LayerLosses& losses,
                           uint64_t record_bytes_max, uint64_t unit) {
  const uint64_t least = choices.front().record_bytes;
  std::vector<Item> items;
  for (const Choice& choice : choices) {
    if (choice.record_bytes > record_bytes_max) break;
    const uint64_t units = (choice.record_bytes - least + unit - 1) / unit;
    const double loss = losses.of(choice.types);
    if (!items.empty() && !(loss < items.back().loss)) continue;
    if (!items.empty() && items.back().units == units) items.pop_back();
    items.push_back({choice.types, units, loss});
  }
  return items;
}

Scale scale_of(const std::vector<Choice>& choices, uint64_t spare_bytes, uint64_t num_layers,
               uint64_t cells_max) {
  const uint64_t least = choices.front().record_bytes;
  Scale scale{.unit = 0};
  for (const Choice& choice : choices)
    scale.unit = std::gcd(scale.unit, choice.record_bytes - least);
  scale.unit = std::max<uint64_t>(scale.unit, 1);
  // More than the largest records take is of no use.
  spare_bytes = std::min(spare_bytes, num_layers * (choices.back().record_bytes - least));
  while (num_layers * (spare_bytes / scale.unit + 1) > cells_max) scale.unit *= 2;
  scale.capacity = spare_bytes / scale.unit;
  return scale;
}

// For each layer which of its items: of least loss with at most `capacity` units in all.
std::vector<size_t> choose(const std::vector<std::vector<Item>>& layers, uint64_t capacity) {
  const size_t width = capacity + 1;
  std::vector<double> least(width, 0.0), next(width);
  std::vector<uint8_t> chosen(layers.size() * width);
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    const std::vector<Item>& items = layers[layer];
    uint8_t* row = chosen.data() + layer * width;
    for (size_t units = 0; units < width; ++units) {
      double best = std::numeric_limits<double>::infinity();
      // Of equal losses the smaller record, which comes first.
      for (size_t i = 0; i < items.size() && items[i].units <= units; ++i) {
        const double loss = least[units - items[i].units] + items[i].loss;
        if (!(loss < best)) continue;
        best = loss;
        row[units] = static_cast<uint8_t>(i);
      }
      next[units] = best;
    }
    least.swap(next);
  }
  std::vector<size_t> picked(layers.size());
  size_t units = capacity;
  for (size_t layer = layers.size(); layer-- > 0;) {
    picked[layer] = chosen[layer * width + units];
    units -= layers[layer][picked[layer]].units;
  }
  return picked;
}

std::string number_text(double value) {
  return fmt::format("{:.4g}", value);
}

}  // namespace

double LayerLosses::of(const LayerTypes& types) const {
  return 2 * gate_up[place_of(types.gate_up)] + down[place_of(types.down)];
}

double BitPlan::loss() const {
  return std::accumulate(losses.begin(), losses.end(), 0.0);
}

Result<BitPlan> plan_bits(const ExpertShape& shape, const std::vector<LayerLosses>& losses,
                          uint64_t target_bytes, uint64_t cells_max) {
  PENSTOCK_CHECK(std::ssize(losses) == shape.num_layers && shape.num_layers > 0);
  const std::vector<Choice> choices = all_choices(shape);
  const auto num_layers = static_cast<uint64_t>(shape.num_layers);
  const auto num_experts = static_cast<uint64_t>(shape.num_experts);
  const uint64_t records = num_layers * num_experts;
  BitPlan plan;
  plan.target_bytes = target_bytes;
  plan.least_bytes = records * choices.front().record_bytes;
  plan.most_bytes = records * choices.back().record_bytes;
  if (target_bytes < plan.least_bytes) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("--target-bytes: {} ({} bytes) are too few for the experts: with 2 "
                    "bits they take {} ({} bytes), with 8 bits {} ({} bytes)",
                    format_bytes(target_bytes), target_bytes, format_bytes(plan.least_bytes),
                    plan.least_bytes, format_bytes(plan.most_bytes), plan.most_bytes)};
  }
  const uint64_t usable = std::min(target_bytes, plan.most_bytes);
  const uint64_t record_bytes_max =
      std::max(choices.front().record_bytes, usable / records + usable / records / 4);
  const uint64_t spare_bytes = (usable - plan.least_bytes) / num_experts;  // of one expert a layer
  const Scale scale = scale_of(choices, spare_bytes, num_layers, cells_max);
  std::vector<std::vector<Item>> layers;
  for (const LayerLosses& layer : losses) {
    layers.push_back(items_of(choices, layer, record_bytes_max, scale.unit));
  }
  const std::vector<size_t> picked = choose(layers, scale.capacity);
  uint64_t payload_bytes = 0;  // of an expert of each layer
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    const Item& item = layers[layer][picked[layer]];
    const auto choice = std::ranges::find(choices, item.types, &Choice::types);
    plan.layers.push_back(item.types);
    plan.losses.push_back(item.loss);
    plan.bytes.push_back(num_experts * choice->record_bytes);
    plan.total_bytes += plan.bytes.back();
    payload_bytes += choice->payload_bytes;
  }
  PENSTOCK_CHECK(plan.total_bytes <= target_bytes);
  const double weights = 3.0 * static_cast<double>(shape.num_layers * shape.hidden_size) *
                         static_cast<double>(shape.intermediate_size);
  plan.bits_per_weight = 8.0 * static_cast<double>(payload_bytes) / weights;
  return plan;
}

std::vector<RecordForms> record_forms(const std::vector<LayerTypes>& layers) {
  std::vector<RecordForms> forms;
  for (const LayerTypes& types : layers) {
    const MatrixForm gate_up = panel_form(types.gate_up);
    forms.push_back(
        {.is_fused = true, .gate = gate_up, .up = gate_up, .down = panel_form(types.down)});
  }
  return forms;
}

std::string to_text(const LayerTypes& types) {
  if (types.gate_up == types.down) return std::string(name_of(types.gate_up));
  return fmt::format("{}, down {}", name_of(types.gate_up), name_of(types.down));
}

std::string to_table(const BitPlan& plan) {
  std::string table = fmt::format(
      "experts: {} of at most {}, {:.2f} bits per weight, loss {}\n"
      "| layers | gate, up | down | bytes | loss |\n|---|---|---|---:|---:|\n",
      format_bytes(plan.total_bytes), format_bytes(plan.target_bytes), plan.bits_per_weight,
      number_text(plan.loss()));
  for (size_t begin = 0; begin < plan.layers.size();) {
    size_t end = begin;
    uint64_t bytes = 0;
    double loss = 0;
    for (; end < plan.layers.size() && plan.layers[end] == plan.layers[begin]; ++end) {
      bytes += plan.bytes[end];
      loss += plan.losses[end];
    }
    const std::string layers =
        end - begin == 1 ? fmt::format("{}", begin) : fmt::format("{}-{}", begin, end - 1);
    table +=
        fmt::format("| {} | {} | {} | {} | {} |\n", layers, name_of(plan.layers[begin].gate_up),
                    name_of(plan.layers[begin].down), format_bytes(bytes), number_text(loss));
    begin = end;
  }
  return table;
}

Json to_json(const BitPlan& plan) {
  Json layers = Json::array();
  for (size_t layer = 0; layer < plan.layers.size(); ++layer) {
    layers.push_back(Json{{"gate_up", name_of(plan.layers[layer].gate_up)},
                          {"down", name_of(plan.layers[layer].down)},
                          {"bytes", plan.bytes[layer]},
                          {"loss", plan.losses[layer]}});
  }
  return Json{{"target_bytes", plan.target_bytes},
              {"total_bytes", plan.total_bytes},
              {"least_bytes", plan.least_bytes},
              {"most_bytes", plan.most_bytes},
              {"bits_per_weight", plan.bits_per_weight},
              {"loss", plan.loss()},
              {"layers", std::move(layers)}};
}

}  // namespace penstock
