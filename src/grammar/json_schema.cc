#include "grammar/json_schema.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "grammar/decimal.h"
#include "grammar/formats.h"
#include "grammar/grammar.h"
#include "grammar/regex.h"

namespace penstock {
namespace {

constexpr uint64_t kPatternSteps = 200'000;   // for one pattern; a date takes a tenth of it
constexpr uint64_t kPatternStepsMin = 2'000;  // what even the smallest costs

// A limit on a number of things: absent, or a whole number from 0 on.
Result<std::optional<uint32_t>> count_of(const Json& schema, const char* key,
                                         const std::string& where) {
  const auto at = schema.find(key);
  if (at == schema.end()) return std::optional<uint32_t>();
  const double value = at->is_number() ? at->get<double>() : -1;
  if (value < 0 || value != std::floor(value)) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: \"{}\" must be a whole number from 0 on", where, key)};
  }
  if (value > kRepetitionsMax) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("{}: \"{}\" is larger than {}", where, key, kRepetitionsMax)};
  }
  return std::optional<uint32_t>(static_cast<uint32_t>(value));
}

struct Limits {
  uint32_t min = 0;
  uint32_t max = kUnlimited;
};

// A maximum beyond what is counted limits nothing that a model would write.
Result<Limits> limits_of(const Json& schema, const char* min_key, const char* max_key,
                         const std::string& where) {
  Limits limits;
  limits.min = PENSTOCK_TRY(count_of(schema, min_key, where)).value_or(0);
  const auto max = schema.find(max_key);
  const bool is_huge = max != schema.end() && max->is_number() &&
                       max->get<double>() > static_cast<double>(kRepetitionsMax);
  if (!is_huge) limits.max = PENSTOCK_TRY(count_of(schema, max_key, where)).value_or(kUnlimited);
  if (limits.min > limits.max) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: \"{}\" is above \"{}\"", where, min_key, max_key)};
  }
  return limits;
}

Result<std::optional<DecimalLimit>> number_limit(const Json& schema, const char* key,
                                                 const char* exclusive_key, bool is_lower,
                                                 const std::string& where) {
  std::optional<DecimalLimit> limit;
  for (const bool is_exclusive : {false, true}) {
    const char* name = is_exclusive ? exclusive_key : key;
    const auto at = schema.find(name);
    if (at == schema.end()) continue;
    if (is_exclusive && at->is_boolean()) {  // draft 4
      if (limit && at->get<bool>()) limit->is_exclusive = true;
      continue;
    }
    if (!at->is_number()) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("{}: \"{}\" must be a number", where, name)};
    }
    const auto value = Decimal::parse(to_text(*at));
    if (!value) continue;  // beyond all doubles
    const int order = limit ? compare(*value, limit->value) : (is_lower ? 1 : -1);
    const bool is_tighter = is_lower ? order > 0 : order < 0;
    if (is_tighter || (order == 0 && is_exclusive)) {
      limit = DecimalLimit{.value = *value, .is_exclusive = is_exclusive};
    }
  }
  return limit;
}

}  // namespace

Result<ExpressionId> SchemaRules::number(const Json& schema, bool is_integer,
                                         const std::string& where) {
  const auto format = schema.find("format");
  if (format != schema.end() &&
      !(format->is_string() && is_number_format(format->get_ref<const std::string&>()))) {
    PENSTOCK_TRY(view_.leave_out("format", where));
  }
  auto low = PENSTOCK_TRY(number_limit(schema, "minimum", "exclusiveMinimum", true, where));
  auto high = PENSTOCK_TRY(number_limit(schema, "maximum", "exclusiveMaximum", false, where));
  if (!low && !high) return source_.rule(is_integer ? text_.integer() : text_.number());
  if (!is_integer) return numbers_between(source_, low, high);
  const Decimal least{.is_negative = true, .whole = "9223372036854775808", .fraction = ""};
  const Decimal most{.is_negative = false, .whole = "9223372036854775807", .fraction = ""};
  const Decimal first = low ? least_integer(*low) : least;
  const Decimal last = high ? greatest_integer(*high) : most;
  return integers_between(source_, compare(first, least) < 0 ? least : first,
                          compare(last, most) > 0 ? most : last);
}

// Texts that the pattern or the format allows.
Result<ExpressionId> SchemaRules::pattern(const Json& schema, const Raw& raw,
                                          const std::string& where) {
  std::optional<std::string> text;
  const auto format = schema.find("format");
  if (format != schema.end()) {
    if (format->is_string()) text = pattern_of_format(format->get_ref<const std::string&>());
    if (!text) {
      PENSTOCK_TRY(
          view_.leave_out("format", where, fmt::format("{} is not supported", to_text(*format))));
    }
  }
  const auto given = schema.find("pattern");
  if (given != schema.end()) {
    if (!given->is_string()) {
      return Error{ErrorCode::kInvalidArgument, where + ": \"pattern\" must be a text"};
    }
    if (text) {
      PENSTOCK_TRY(view_.leave_out("pattern", where, "beside \"format\" is not supported"));
    } else {
      text = given->get<std::string>();
    }
  }
  const CharacterWriter quoted = [&](std::vector<CodePointRange> ranges) {
    return text_.character(std::move(ranges));
  };
  const CharacterWriter plain = [&](std::vector<CodePointRange> ranges) {
    return source_.unit(source_.chars(std::move(ranges)));
  };
  const bool is_quoted = raw.marker == kNoId;
  if (text) {
    auto parsed = parse_pattern(source_, *text, is_quoted ? quoted : plain);
    if (parsed && !is_quoted) {
      const auto any = [&] { return source_.repeat(plain({{0, 0x10FFFF}}), 0, kUnlimited); };
      return source_.other_than(*parsed, source_.sequence({any(), raw.marker, any()}));
    }
    if (parsed) return parsed;
    PENSTOCK_TRY(view_.leave_out("pattern", where, parsed.error().message));
  }
  if (!is_quoted) return source_.text_before(raw.marker);
  return source_.repeat(text_.any_character(), 0, kUnlimited);
}

Result<bool> SchemaRules::can_compile(const Json& schema, bool is_quoted) {
  Json key = Json::array({is_quoted});
  for (const char* keyword : {"pattern", "format", "minLength", "maxLength"}) {
    const auto at = schema.find(keyword);
    key.push_back(at == schema.end() ? Json() : *at);
  }
  if (key == Json::array({is_quoted, nullptr, nullptr, nullptr, nullptr})) return true;
  GrammarWork& work = view_.work();
  const std::string text = to_text(key);
  const auto known = work.patterns.find(text);
  if (known != work.patterns.end()) return known->second;
  const uint64_t steps = std::min(work.steps_left, kPatternSteps);
  if (steps <= kPatternStepsMin) return false;
  GrammarWork trial{.steps_left = steps - kPatternStepsMin};
  const bool is_within = PENSTOCK_TRY(try_pattern(schema, is_quoted, trial));
  work.take(steps - trial.steps_left);
  if (is_within || steps == kPatternSteps) work.patterns[text] = is_within;
  return is_within;
}

Result<bool> SchemaRules::try_pattern(const Json& schema, bool is_quoted, GrammarWork& work) const {
  GrammarSource source;
  JsonText text(source);
  const Json document = Json::object();
  SchemaView view(document, true, work);
  SchemaRules rules(source, text, view);
  Raw raw;
  if (!is_quoted) raw.marker = source.bytes("\n</parameter>\n</function>");
  const ExpressionId whole = PENSTOCK_TRY(rules.string(schema, raw, ""));
  source.root = source.add_rule("root", whole);
  return Grammar::compile(source, work).has_value();
}

Result<ExpressionId> SchemaRules::string(const Json& schema, const Raw& raw,
                                         const std::string& where) {
  const bool is_quoted = raw.marker == kNoId;
  const Limits limits = PENSTOCK_TRY(limits_of(schema, "minLength", "maxLength", where));
  const bool is_limited = limits.min > 0 || limits.max != kUnlimited;
  const bool has_pattern = schema.contains("pattern") || schema.contains("format");
  if (is_quoted && !is_limited && !has_pattern) return source_.rule(text_.string());
  ExpressionId inside = PENSTOCK_TRY(pattern(schema, raw, where));
  if (raw.excluded != kNoId) inside = source_.other_than(inside, raw.excluded);
  if (is_quoted) {
    inside = source_.sequence({source_.bytes("\""), inside, source_.bytes("\"")});
  }
  if (!is_limited) return inside;
  Rule rule;
  rule.name = "string of " + where;
  rule.kind = Rule::Kind::kLength;
  rule.min = limits.min;
  rule.max = limits.max;
  rule.expression = inside;
  return source_.rule(source_.add_rule(std::move(rule)));
}

Result<SchemaRules::Properties> SchemaRules::properties(const Json& schema, bool lists_all,
                                                        const std::string& where) {
  static const Json any = true;
  Properties all;
  const auto additional = schema.find("additionalProperties");
  if (additional != schema.end()) {
    if (*additional != Json(false)) all.others = &*additional;
  } else if (!lists_all) {
    all.others = &any;
  }
  const auto required = schema.find("required");
  std::vector<std::string> missing;
  if (required != schema.end()) {
    if (!required->is_array()) {
      return Error{ErrorCode::kInvalidArgument, where + ": \"required\" must be an array"};
    }
    for (const Json& name : *required) {
      if (!name.is_string()) {
        return Error{ErrorCode::kInvalidArgument, where + ": \"required\" must list texts"};
      }
      missing.push_back(name.get<std::string>());
    }
  }
  const auto listed = schema.find("properties");
  if (listed != schema.end()) {
    if (!listed->is_object()) {
      return Error{ErrorCode::kInvalidArgument, where + ": \"properties\" must be an object"};
    }
    PENSTOCK_TRY(view_.take(1 + missing.size() * listed->size() / 4, where));
    for (const auto& [name, property] : listed->items()) {
      const bool is_required = std::erase(missing, name) > 0;
      all.listed.push_back({.name = name, .schema = &property, .is_required = is_required});
    }
  }
  std::ranges::sort(missing);
  missing.erase(std::unique(missing.begin(), missing.end()), missing.end());
  for (const std::string& name : missing) {
    if (all.others == nullptr) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("{}: \"{}\" is required but not allowed", where, name)};
    }
    all.listed.push_back({.name = name, .schema = all.others, .is_required = true});
  }
  const Limits limits = PENSTOCK_TRY(limits_of(schema, "minProperties", "maxProperties", where));
  const auto required_count =
      static_cast<size_t>(std::ranges::count(all.listed, true, &Properties::Property::is_required));
  if (limits.min > required_count) PENSTOCK_TRY(view_.leave_out("minProperties", where));
  const bool may_be_more = all.others != nullptr || all.listed.size() > limits.max;
  if (limits.max != kUnlimited && may_be_more) {
    PENSTOCK_TRY(view_.leave_out("maxProperties", where));
  }
  return all;
}

Result<ExpressionId> SchemaRules::object(const Json& schema, const std::string& where) {
  const Properties all = PENSTOCK_TRY(properties(schema, false, where));
  if (all.listed.empty() && all.others != nullptr && *all.others == Json(true)) {
    return source_.rule(text_.object());
  }
  if (all.listed.size() > kMembersMax) {
    PENSTOCK_TRY(
        view_.leave_out("properties", where, fmt::format("has more than {} members", kMembersMax)));
    return source_.rule(text_.object());
  }
  Rule rule = text_.object_frame("object of " + where);
  std::vector<std::string> names;
  for (const auto& property : all.listed) {
    names.push_back(property.name);
    if (*property.schema == Json(false) && !property.is_required) continue;
    Member member;
    member.head = text_.quoted_name(property.name);
    member.value =
        PENSTOCK_TRY(json_rule(*property.schema, where + ".properties." + property.name));
    member.required = property.is_required;
    rule.members.push_back(member);
  }
  if (all.others != nullptr) {
    Member others;
    others.head = text_.other_name(names);
    others.value = PENSTOCK_TRY(json_rule(*all.others, where + ".additionalProperties"));
    rule.others = others;
  }
  return source_.rule(source_.add_rule(std::move(rule)));
}

Result<ExpressionId> SchemaRules::array(const Json& schema, const std::string& where) {
  const Limits limits = PENSTOCK_TRY(limits_of(schema, "minItems", "maxItems", where));
  Rule rule = text_.array_frame("array of " + where);
  rule.min = limits.min;
  rule.max = limits.max;
  const auto prefix = schema.find("prefixItems");
  const auto items = schema.find("items");
  const auto additional = schema.find("additionalItems");
  const Json* first = prefix != schema.end() ? &*prefix : nullptr;
  const Json* rest = items != schema.end() ? &*items : nullptr;
  if (rest != nullptr && rest->is_array()) {  // draft 7
    first = rest;
    rest = additional != schema.end() ? &*additional : nullptr;
  }
  if (first != nullptr) {
    if (!first->is_array()) {
      return Error{ErrorCode::kInvalidArgument, where + ": \"prefixItems\" must be an array"};
    }
    for (const Json& item : *first) {
      rule.items.push_back(PENSTOCK_TRY(json_rule(item, where + ".prefixItems")));
    }
  }
  if (rest == nullptr) {
    rule.rest = text_.value();
  } else if (*rest != Json(false)) {
    rule.rest = PENSTOCK_TRY(json_rule(*rest, where + ".items"));
  } else if (rule.items.size() < limits.min) {
    return Error{ErrorCode::kInvalidArgument,
                 where + ": \"minItems\" is above what \"items\": false allows"};
  }
  return source_.rule(source_.add_rule(std::move(rule)));
}

Result<ExpressionId> SchemaRules::reference(const Json& schema, const std::string& where) {
  const Json* target = PENSTOCK_TRY(view_.target(schema, where));
  return source_.rule(PENSTOCK_TRY(json_rule(*target, where)));
}

Result<ExpressionId> SchemaRules::json(const SchemaAlternative& alternative,
                                       const std::string& where) {
  if (!alternative.values.empty()) {
    return text_.one_of(alternative.values);
  }
  const Json& schema = *alternative.schema;
  switch (alternative.type) {
    case SchemaType::kAny: return source_.rule(text_.value());
    case SchemaType::kObject: return object(schema, where);
    case SchemaType::kArray: return array(schema, where);
    case SchemaType::kNumber:
    case SchemaType::kInteger:
      return number(schema, alternative.type == SchemaType::kInteger, where);
    case SchemaType::kBoolean: return source_.any_of({"true", "false"});
    case SchemaType::kNull: return source_.bytes("null");
    case SchemaType::kString: {
      if (view_.is_lenient() && !PENSTOCK_TRY(can_compile(schema, true))) {
        PENSTOCK_TRY(view_.leave_out("pattern", where));
        return source_.rule(text_.string());
      }
      return string(schema, {}, where);
    }
    case SchemaType::kReference: return reference(schema, where);
    case SchemaType::kGiven: break;
  }
  return source_.choice({});
}

Result<ExpressionId> SchemaRules::raw_string(const SchemaAlternative& alternative, const Raw& raw,
                                             const std::string& where) {
  ExpressionId all = kNoId;
  if (!alternative.values.empty()) {
    std::vector<std::string> texts;
    for (const Json* value : alternative.values) texts.push_back(value->get<std::string>());
    all = source_.any_of(std::move(texts));
  } else if (view_.is_lenient() && !PENSTOCK_TRY(can_compile(*alternative.schema, false))) {
    PENSTOCK_TRY(view_.leave_out("pattern", where));
    all = source_.text_before(raw.marker);
  } else {
    return string(*alternative.schema, raw, where);
  }
  return raw.excluded == kNoId ? all : source_.other_than(all, raw.excluded);
}

Result<ExpressionId> SchemaRules::json(const Json& schema, const std::string& where) {
  if (depth_ > kSchemaDepthMax) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("{}: nested deeper than {}", where, kSchemaDepthMax)};
  }
  const auto alternatives = PENSTOCK_TRY(view_.alternatives(schema, false, where));
  std::vector<ExpressionId> choices;
  for (const SchemaAlternative& alternative : alternatives) {
    ++depth_;
    const auto choice = json(alternative, where);
    --depth_;
    choices.push_back(PENSTOCK_TRY(choice));
  }
  if (choices.empty()) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: no value can satisfy this schema", where)};
  }
  return source_.choice(std::move(choices));
}

Result<RuleId> SchemaRules::json_rule(const Json& schema, const std::string& where) {
  const auto known = rules_.find(&schema);
  if (known != rules_.end()) return known->second;
  if (source_.overflowed()) {
    return Error{ErrorCode::kUnsupported, fmt::format("{}: the schema is too large", where)};
  }
  const RuleId id = source_.declare_rule(where);
  rules_[&schema] = id;
  Rule rule;
  rule.name = where;
  rule.expression = PENSTOCK_TRY(json(schema, where));
  source_.define_rule(id, std::move(rule));
  return id;
}

Result<GrammarSource> json_schema_grammar(const Json& schema, GrammarWork& work) {
  if (to_text(schema).size() > kSchemaBytesMax) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("schema: larger than {} KiB", kSchemaBytesMax / 1024)};
  }
  GrammarSource source;
  source.depth_max = kNestingMax;
  JsonText text(source);
  SchemaView view(schema, false, work);
  SchemaRules rules(source, text, view);
  const RuleId value = PENSTOCK_TRY(rules.json_rule(schema, "schema"));
  source.root =
      source.add_rule("root", source.sequence({text.blank(), source.rule(value), text.blank()}));
  return source;
}

GrammarSource json_object_grammar() {
  GrammarSource source;
  source.depth_max = kNestingMax;
  JsonText text(source);
  source.root = source.add_rule(
      "root", source.sequence({text.blank(), source.rule(text.object()), text.blank()}));
  return source;
}

}  // namespace penstock
