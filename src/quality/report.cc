#include "quality/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>

namespace penstock {
namespace {

// --- to JSON ---

Json share_json(const Share& share) {
  return {
      {"good", share.good}, {"of", share.of}, {"share", share.value()}, {"error", share.error()}};
}

Json shares_json(const AnswerShares& shares) {
  Json json{{"exact", share_json(shares.exact)}};
  if (shares.valid) json["valid"] = share_json(*shares.valid);
  return json;
}

Json change_json(const TextChange& change) {
  return {{"nats", change.nats},
          {"nats_error", change.nats_error},
          {"nats_95", Json::array({change.nats_95.low, change.nats_95.high})},
          {"significant", !change.nats_95.holds(0)},
          {"kl_mean", change.divergence_mean},
          {"kl_999", change.divergence_999},
          {"kl_max", change.divergence_max},
          {"same_top", share_json(change.same_top)},
          {"rest", change.rest}};
}

// --- a table of rows ---

// The number at a path of keys, or nothing.
std::optional<double> number_at(const Json& row, std::initializer_list<std::string_view> path) {
  const Json* at = &row;
  for (const std::string_view key : path) {
    at = json_find(*at, key);
    if (at == nullptr) return std::nullopt;
  }
  if (!at->is_number()) return std::nullopt;
  return at->get<double>();
}

std::string percent_of(const Json& row, std::initializer_list<std::string_view> path) {
  const Json* at = &row;
  for (const std::string_view key : path) {
    at = json_find(*at, key);
    if (at == nullptr) return "";
  }
  const auto share = number_at(*at, {"share"});
  const auto error = number_at(*at, {"error"});
  if (!share || !error) return "";
  return fmt::format("{:.1f} ± {:.1f}", 100 * *share, 100 * *error);
}

std::string formatted(std::string_view form, std::optional<double> value) {
  return value ? fmt::format(fmt::runtime(form), *value) : "";
}

std::string with_error(std::string_view form, std::optional<double> value,
                       std::optional<double> error) {
  if (!value || !error) return "";
  return fmt::format(fmt::runtime(form), *value, *error);
}

std::string text_at(const Json& row, std::string_view key) {
  const Json* text = json_find(row, key);
  if (text == nullptr || !text->is_string()) return "";
  std::string cell = text->get<std::string>();
  std::ranges::replace(cell, '|', '/');
  std::ranges::replace(cell, '\n', ' ');
  return cell;
}

struct Column {
  std::string title;
  std::function<std::string(const Json&)> cell;
};

// Of the objects that rows have under `key`, all members' names.
std::vector<std::string> names_under(std::string_view key, std::span<const Json> rows) {
  std::vector<std::string> names;
  for (const Json& row : rows) {
    const Json* sets = json_find(row, key);
    if (sets == nullptr || !sets->is_object()) continue;
    for (const auto& [name, set] : sets->items()) {
      if (std::ranges::find(names, name) == names.end()) names.push_back(name);
    }
  }
  return names;
}

std::string set_change(const Json& row, const std::string& set) {
  const auto lost = number_at(row, {"sets", set, "change", "lost"});
  const auto gained = number_at(row, {"sets", set, "change", "gained"});
  const auto p = number_at(row, {"sets", set, "change", "p"});
  if (!lost || !gained || !p) return "";
  return fmt::format("-{:.0f} +{:.0f}, p {:.2g}", *lost, *gained, *p);
}

std::vector<Column> text_columns() {
  return {
      {"perplexity",
       [](const Json& row) {
         return with_error("{:.3f} ± {:.2f}", number_at(row, {"texts", "perplexity"}),
                           number_at(row, {"texts", "perplexity_error"}));
       }},
      {"change, nats/token",
       [](const Json& row) {
         return with_error("{:+.4f} ± {:.4f}", number_at(row, {"texts", "change", "nats"}),
                           number_at(row, {"texts", "change", "nats_error"}));
       }},
      {"KL mean",
       [](const Json& row) {
         return formatted("{:.2e}", number_at(row, {"texts", "change", "kl_mean"}));
       }},
      {"KL 99.9 %",
       [](const Json& row) {
         return formatted("{:.2e}", number_at(row, {"texts", "change", "kl_999"}));
       }},
      {"same top token %",
       [](const Json& row) {
         return percent_of(row, {"texts", "change", "same_top"});
       }},
  };
}

std::vector<Column> set_columns(const std::string& set) {
  return {
      {set + " exact %",
       [set](const Json& row) {
         return percent_of(row, {"sets", set, "exact"});
       }},
      {"against the base", [set](const Json& row) { return set_change(row, set); }},
      {set + " valid %",
       [set](const Json& row) {
         return percent_of(row, {"sets", set, "valid"});
       }},
      {"constrained: exact %",
       [set](const Json& row) {
         return percent_of(row, {"sets", set, "constrained", "exact"});
       }},
      {"constrained: valid %",
       [set](const Json& row) {
         return percent_of(row, {"sets", set, "constrained", "valid"});
       }},
  };
}

std::vector<Column> endurance_columns() {
  return {{"repeated tokens %",
           [](const Json& row) {
             const auto share = number_at(row, {"endurance", "repeated"});
             return share ? fmt::format("{:.1f}", 100 * *share) : "";
           }},
          {"loops %",
           [](const Json& row) {
             return percent_of(row, {"endurance", "loops"});
           }},
          {"early stops %", [](const Json& row) {
             return percent_of(row, {"endurance", "early"});
           }}};
}

// The exchange rate of quality for bytes.
Column exchange_column(std::span<const Json> rows) {
  double most = 0;
  for (const Json& row : rows) {
    most = std::max(most, number_at(row, {"bytes_per_token"}).value_or(0));
  }
  return {"KL per MB saved", [most](const Json& row) -> std::string {
            const auto bytes = number_at(row, {"bytes_per_token"});
            const auto divergence = number_at(row, {"texts", "change", "kl_mean"});
            if (!bytes || !divergence || *bytes >= most) return "";
            return fmt::format("{:.2e}", *divergence / ((most - *bytes) / 1e6));
          }};
}

std::vector<Column> columns_of(std::span<const Json> rows) {
  std::vector<Column> columns = {
      {"model", [](const Json& row) { return text_at(row, "label"); }},
      {"experts/token",
       [](const Json& row) { return formatted("{:.4g}", number_at(row, {"experts_per_token"})); }},
      {"MB/token",
       [](const Json& row) {
         const auto bytes = number_at(row, {"bytes_per_token"});
         return bytes ? fmt::format("{:.3f}", *bytes / 1e6) : "";
       }},
      {"LOSSY", [](const Json& row) { return text_at(row, "lossy_text"); }},
      {"against a LOSSY base", [](const Json& row) { return text_at(row, "base_lossy_text"); }}};
  std::ranges::move(text_columns(), std::back_inserter(columns));
  columns.push_back(exchange_column(rows));
  for (const std::string& name : names_under("sets", rows)) {
    std::ranges::move(set_columns(name), std::back_inserter(columns));
  }
  std::ranges::move(endurance_columns(), std::back_inserter(columns));
  for (const std::string& length : names_under("recall", rows)) {
    columns.push_back({fmt::format("recall in {} tokens %", length), [length](const Json& row) {
                         return percent_of(row, {"recall", length});
                       }});
  }
  return columns;
}

std::string line_of(const std::vector<std::string>& cells) {
  std::string line = "|";
  for (const std::string& cell : cells) line += fmt::format(" {} |", cell);
  return line + "\n";
}

}  // namespace

Json text_json(const TextOutcome& outcome) {
  Json json{{"texts", outcome.texts},
            {"tokens", outcome.tokens},
            {"bytes", outcome.bytes},
            {"nll", outcome.nll},
            {"nats_per_token", outcome.nats()},
            {"nats_per_token_error", outcome.nats_error},
            {"perplexity", outcome.perplexity()},
            {"perplexity_error", outcome.perplexity() * outcome.nats_error},
            {"bits_per_byte", outcome.bits_per_byte},
            {"bits_per_byte_error", outcome.bits_per_byte_error}};
  if (outcome.change) json["change"] = change_json(*outcome.change);
  return json;
}

Json set_json(const SetOutcome& outcome) {
  Json json = shares_json(outcome.free);
  if (outcome.constrained) json["constrained"] = shares_json(*outcome.constrained);
  if (outcome.change) {
    json["change"] = {{"lost", outcome.change->lost},
                      {"gained", outcome.change->gained},
                      {"p", outcome.change->p}};
  }
  json["wrong"] = outcome.wrong();
  return json;
}

Json endurance_json(const EnduranceOutcome& outcome) {
  return {{"tokens", outcome.tokens},
          {"repeated", outcome.repeated},
          {"loops", share_json(outcome.loops)},
          {"early", share_json(outcome.early)}};
}

Json recall_json(std::span<const RecallOutcome> outcomes) {
  Json json = Json::object();
  for (const RecallOutcome& outcome : outcomes) {
    json[std::to_string(outcome.length)] = share_json(outcome.found);
  }
  return json;
}

std::string eval_table(std::span<const Json> rows) {
  std::vector<Column> columns = columns_of(rows);
  // Columns that no row has anything for are left out.
  std::erase_if(columns, [&](const Column& column) {
    return std::ranges::all_of(rows, [&](const Json& row) { return column.cell(row).empty(); });
  });
  std::vector<std::string> titles, rules;
  for (const Column& column : columns) {
    titles.push_back(column.title);
    rules.push_back(rules.empty() ? "---" : "---:");
  }
  std::string table = line_of(titles) + line_of(rules);
  for (const Json& row : rows) {
    std::vector<std::string> cells;
    for (const Column& column : columns) cells.push_back(column.cell(row));
    table += line_of(cells);
  }
  return table;
}

std::vector<QualityPoint> quality_points(std::span<const Json> rows) {
  std::vector<QualityPoint> points;
  for (const Json& row : rows) {
    const auto bytes = number_at(row, {"bytes_per_token"});
    const auto divergence = number_at(row, {"texts", "change", "kl_mean"});
    if (bytes && divergence) points.push_back({text_at(row, "label"), *bytes / 1e6, *divergence});
  }
  return points;
}

}  // namespace penstock
