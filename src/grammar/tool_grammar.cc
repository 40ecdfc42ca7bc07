#include "grammar/tool_grammar.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <span>
#include <utility>

#include "grammar/json_schema.h"
#include "grammar/json_text.h"
#include "grammar/schema_view.h"

namespace penstock {
namespace {

constexpr std::string_view kCallBegin = "<tool_call>";
constexpr std::string_view kCallEnd = "</tool_call>";
constexpr std::string_view kFunctionBegin = "<function=";
constexpr std::string_view kFunctionEnd = "</function>";
constexpr std::string_view kParameterBegin = "<parameter=";
constexpr std::string_view kParameterEnd = "</parameter>";

bool can_be_named(std::string_view name) {
  return !name.empty() && name.size() <= 256 && std::ranges::none_of(name, [](char c) {
    return c == '>' || c == '<' || c == '"' || c == '\\' || static_cast<uint8_t>(c) < 0x20;
  });
}

// Rules of values by what their schemas say: hundreds of tools have "a text" among their
// parameters, and its automaton is not small.
using KnownValues = std::map<std::string, RuleId>;

// Nothing where the schema is about more than itself.
std::optional<std::string> key_of(const std::vector<SchemaAlternative>& alternatives) {
  Json key = Json::array();
  for (const SchemaAlternative& alternative : alternatives) {
    Json part = Json::array({static_cast<int>(alternative.type)});
    for (const Json* value : alternative.values) part.push_back(*value);
    const bool is_structure =
        alternative.type == SchemaType::kObject || alternative.type == SchemaType::kArray;
    if (is_structure && to_text(*alternative.schema).find("\"$ref\"") != std::string::npos) {
      return std::nullopt;
    }
    if (alternative.values.empty() && alternative.schema->is_object()) {
      for (const auto& [name, value] : alternative.schema->items()) {
        if (name == "description" || name == "title" || name == "default") continue;
        part.push_back(Json::array({name, value}));
      }
    }
    key.push_back(std::move(part));
  }
  return to_text(key);
}

// The parameters of one tool, in either form.
class ParameterRules {
 public:
  ParameterRules(GrammarSource& source, JsonText& text, SchemaView& view, KnownValues& known)
      : source_(source), text_(text), schemas_(source, text, view), view_(view), known_(known) {}

  // A JSON object.
  Result<RuleId> json(const ToolFunction& tool) {
    const auto all = PENSTOCK_TRY(schemas_.properties(tool.parameters, true, tool.name));
    Rule rule = text_.object_frame("arguments of " + tool.name);
    std::vector<std::string> names;
    for (const auto& property : all.listed) {
      names.push_back(property.name);
      const std::string where = tool.name + "." + property.name;
      const ExpressionId value = PENSTOCK_TRY(schemas_.json_rule(*property.schema, where));
      rule.members.push_back({.head = text_.quoted_name(property.name),
                              .value = value,
                              .required = property.is_required});
    }
    if (all.others != nullptr) {
      const ExpressionId value = PENSTOCK_TRY(schemas_.json_rule(*all.others, tool.name));
      rule.others = Member{.head = text_.other_name(names), .value = value};
    }
    return source_.add_rule(std::move(rule));
  }

  // What stands between <function=NAME> and the end of </function>.
  Result<RuleId> tagged(const ToolFunction& tool) {
    const auto all = PENSTOCK_TRY(schemas_.properties(tool.parameters, true, tool.name));
    Rule rule;
    rule.kind = Rule::Kind::kMembers;
    rule.name = "parameters of " + tool.name;
    rule.open = text_.blank();
    rule.tail = text_.blank();
    rule.between = source_.empty();
    rule.close = source_.bytes(kFunctionEnd);
    std::vector<std::string> names;
    for (const auto& property : all.listed) {
      names.push_back(property.name);
      const std::string where = tool.name + "." + property.name;
      const ExpressionId value = PENSTOCK_TRY(tagged_value(*property.schema, where));
      rule.members.push_back(
          {.head = source_.bytes(fmt::format("{}{}>", kParameterBegin, property.name)),
           .value = value,
           .required = property.is_required});
    }
    if (all.others != nullptr) {
      const ExpressionId key = source_.repeat(
          source_.chars(inverted({{'>', '>'}, {'<', '<'}, {'\n', '\n'}})), 1, kUnlimited);
      const ExpressionId other =
          names.empty() ? key : source_.other_than(key, source_.any_of(names));
      const ExpressionId value = PENSTOCK_TRY(tagged_value(*all.others, tool.name));
      rule.others = Member{
          .head = source_.sequence({source_.bytes(kParameterBegin), other, source_.bytes(">")}),
          .value = value};
    }
    return source_.add_rule(std::move(rule));
  }

 private:
  ExpressionId anything() { return source_.repeat(source_.chars(inverted({})), 0, kUnlimited); }
  ExpressionId few_blanks() {
    return source_.repeat(source_.chars({{' ', ' '}, {'\t', '\t'}, {'\n', '\n'}, {'\r', '\r'}}), 0,
                          kUnlimited);
  }
  // What ends a text: the closing tag, followed by what may follow it.
  ExpressionId end_of_text(bool has_lines) {
    return source_.sequence(
        {source_.bytes(fmt::format("{}{}", has_lines ? "\n" : "", kParameterEnd)), few_blanks(),
         source_.choice({source_.bytes(kParameterBegin), source_.bytes(kFunctionEnd)})});
  }

  // Behind <parameter=KEY>: the value on lines of its own, or without any line end around it.
  Result<RuleId> tagged_value(const Json& schema, const std::string& where) {
    const auto alternatives = PENSTOCK_TRY(view_.alternatives(schema, true, where));
    if (alternatives.empty()) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("{}: no value can satisfy this schema", where)};
    }
    const std::optional<std::string> key = key_of(alternatives);
    if (key && known_.contains(*key)) return known_[*key];
    const ExpressionId lines = PENSTOCK_TRY(value(alternatives, true, where));
    const ExpressionId on_lines = source_.sequence(
        {source_.bytes("\n"), lines, source_.bytes(fmt::format("\n{}", kParameterEnd))});
    const ExpressionId line = PENSTOCK_TRY(value(alternatives, false, where));
    const ExpressionId in_line = source_.sequence({line, source_.bytes(kParameterEnd)});
    std::vector<ExpressionId> choices = {on_lines, in_line};
    const bool may_be_empty_text =
        std::ranges::any_of(alternatives, [](const SchemaAlternative& alternative) {
          return alternative.type == SchemaType::kString && alternative.values.empty() &&
                 !alternative.schema->contains("minLength") &&
                 !alternative.schema->contains("pattern") &&
                 !alternative.schema->contains("format");
        });
    if (may_be_empty_text) choices.push_back(source_.bytes(fmt::format("\n{}", kParameterEnd)));
    Rule rule;
    rule.name = where;
    rule.is_shared = true;
    rule.expression = source_.choice(std::move(choices));
    const RuleId id = source_.add_rule(std::move(rule));
    if (key) known_[*key] = id;
    return id;
  }

  Result<ExpressionId> value(const std::vector<SchemaAlternative>& alternatives, bool has_lines,
                             const std::string& where) {
    std::vector<ExpressionId> choices;
    std::vector<ExpressionId> excluded;
    // The newline before a value may be the one before its closing tag as well.
    excluded.push_back(has_lines ? source_.sequence({end_of_text(false), anything()})
                                 : source_.sequence({source_.bytes("\n"), anything()}));
    for (const SchemaAlternative& alternative : alternatives) {
      if (alternative.type == SchemaType::kString) continue;
      choices.push_back(PENSTOCK_TRY(schemas_.json(alternative, where)));
      excluded.push_back(looks_like(alternative));
    }
    for (const SchemaAlternative& alternative : alternatives) {
      const bool is_text = alternative.type == SchemaType::kString;
      if (!is_text && alternative.type != SchemaType::kAny) continue;
      const SchemaAlternative any_text{.type = SchemaType::kString, .schema = &kAnyText};
      const SchemaRules::Raw raw{.marker = end_of_text(has_lines),
                                 .excluded = source_.choice(excluded)};
      choices.push_back(
          PENSTOCK_TRY(schemas_.raw_string(is_text ? alternative : any_text, raw, where)));
    }
    return source_.choice(std::move(choices));
  }

  // Texts that would be read as this alternative.
  ExpressionId looks_like(const SchemaAlternative& alternative) {
    const auto among_blanks = [&](ExpressionId inner) {
      return source_.sequence({few_blanks(), inner, few_blanks()});
    };
    const auto opens = [&](std::string_view bracket) {
      return source_.sequence({few_blanks(), source_.bytes(bracket), anything()});
    };
    const auto number = [&] {
      const auto digits = [&](uint32_t min) {
        return source_.repeat(source_.chars({{'0', '9'}}), min, kUnlimited);
      };
      const ExpressionId exponent =
          source_.sequence({source_.chars({{'e', 'e'}, {'E', 'E'}}),
                            source_.optional(source_.chars({{'+', '+'}, {'-', '-'}})), digits(1)});
      return source_.sequence({source_.optional(source_.bytes("-")), digits(1),
                               source_.optional(source_.sequence({source_.bytes("."), digits(1)})),
                               source_.optional(exponent)});
    };
    const auto words = [&](std::vector<std::string> texts) {
      return source_.any_of(std::move(texts));
    };
    switch (alternative.type) {
      case SchemaType::kObject: return opens("{");
      case SchemaType::kArray: return opens("[");
      case SchemaType::kNumber:
      case SchemaType::kInteger: return among_blanks(number());
      case SchemaType::kBoolean: return among_blanks(words({"true", "false"}));
      case SchemaType::kNull: return among_blanks(words({"null"}));
      default:
        return source_.choice({opens("{"), opens("["), among_blanks(number()),
                               among_blanks(words({"true", "false", "null"}))});
    }
  }

  inline static const Json kAnyText = Json::object();

  GrammarSource& source_;
  JsonText& text_;
  SchemaRules schemas_;
  SchemaView& view_;
  KnownValues& known_;
};

// What the stages of a request with hostile tools may take. All tools at once; where that is too
// much, trials find out which are hostile; then those that are not, and at last none of them. 512
// honest tools of a dozen parameters take 2,100,000.
constexpr uint64_t kWholeSteps = GrammarWork::kSteps;
constexpr uint64_t kTrialSteps = GrammarWork::kSteps * 3;
constexpr uint64_t kToolSteps = 7'000;        // of a tool among many
constexpr uint64_t kTrialStepsMin = 500'000;  // of one: what texts and any JSON are takes half

struct Building {
  GrammarSource& source;
  JsonText& text;
  GrammarWork& work;
  KnownValues known = {};
  std::vector<std::string> left_out = {};
};

// The parameters as one object, with all that references and "allOf" say. Where they may be one of
// several objects, what holds for each of these is all that is held to.
Result<Json> one_object(SchemaView& view, const ToolFunction& tool) {
  auto alternatives = PENSTOCK_TRY(view.alternatives(tool.parameters, true, tool.name));
  std::erase_if(alternatives, [](const SchemaAlternative& alternative) {
    return alternative.type != SchemaType::kObject || !alternative.values.empty();
  });
  if (alternatives.size() == 1) return *alternatives[0].schema;
  Json common = tool.parameters;
  for (const char* keyword : {"anyOf", "oneOf", "allOf", "$ref", "enum", "const"}) {
    if (!common.contains(keyword)) continue;
    PENSTOCK_TRY(view.leave_out(keyword, tool.name));
    if (!common.contains("additionalProperties")) common["additionalProperties"] = true;
  }
  return common;
}

Result<RuleId> parameters(Building& building, const ToolFunction& tool, ToolForm form) {
  SchemaView view(tool.parameters, true, building.work);
  ToolFunction plain;
  plain.name = tool.name;
  plain.parameters = PENSTOCK_TRY(one_object(view, tool));
  ParameterRules rules(building.source, building.text, view, building.known);
  const RuleId id = PENSTOCK_TRY(form == ToolForm::kJson ? rules.json(plain) : rules.tagged(plain));
  for (const std::string& keyword : view.left_out()) {
    building.left_out.push_back(fmt::format("{}: {}", tool.name, keyword));
  }
  return id;
}

// Takes anything from now on; how it is named in left_out.
std::string set_free(ToolFunction& tool) {
  tool.parameters = Json{{"type", "object"}, {"additionalProperties", true}};
  return fmt::format("{}: parameters", tool.name);
}

std::vector<std::string> free_all(std::vector<ToolFunction>& tools) {
  std::vector<std::string> freed;
  for (ToolFunction& tool : tools) freed.push_back(set_free(tool));
  return freed;
}

// Finds the tools that are too expensive: those that alone are, and those with which all others
// would be. Halves are tried, then their halves, so that one among hundreds is soon found.
class HostileTools {
 public:
  HostileTools(ToolForm form, GrammarWork& work) : form_(form), work_(work) {}

  std::vector<std::string> set_free_among(std::span<ToolFunction> tools) {
    const size_t half = tools.size() / 2;
    if (half == 0) return {set_free(tools[0])};
    std::vector<std::string> freed;
    for (const auto part : {tools.first(half), tools.subspan(half)}) {
      if (is_within_limits(part)) continue;
      for (std::string& name : set_free_among(part)) freed.push_back(std::move(name));
    }
    return freed;
  }

 private:
  bool is_within_limits(std::span<ToolFunction> tools) {
    const uint64_t steps = std::min(
        {trial_steps_left_, whole_steps_left_, kTrialStepsMin + kToolSteps * tools.size()});
    if (steps == 0) return false;
    work_.steps_left = steps;
    const bool is_within = compiles(tools);
    const uint64_t used = steps - work_.steps_left;
    trial_steps_left_ -= used;
    if (is_within) whole_steps_left_ -= used;
    return is_within;
  }

  bool compiles(std::span<const ToolFunction> tools) {
    GrammarSource source;
    source.depth_max = kNestingMax;
    JsonText text(source);
    Building building{source, text, work_};
    std::vector<ExpressionId> choices;
    for (const ToolFunction& tool : tools) {
      const auto rule = parameters(building, tool, form_);
      if (!rule) return false;
      choices.push_back(
          source.sequence({source.bytes(fmt::format("{}>", tool.name)), source.rule(*rule)}));
    }
    source.root = source.add_rule("tools", source.choice(std::move(choices)));
    return Grammar::compile(source, work_).has_value();
  }

  ToolForm form_;
  GrammarWork& work_;
  uint64_t trial_steps_left_ = kTrialSteps;
  uint64_t whole_steps_left_ = kWholeSteps;  // less what the tools that were accepted take
};

// One call: which tool, then its parameters. The names share one automaton, so that a text that
// may still be any of hundreds is one reading.
Result<ExpressionId> one_call(Building& building, const std::vector<ToolFunction>& tools,
                              ToolForm form) {
  GrammarSource& source = building.source;
  JsonText& text = building.text;
  std::vector<ExpressionId> choices;
  for (const ToolFunction& tool : tools) {
    const RuleId id = PENSTOCK_TRY(parameters(building, tool, form));
    if (form == ToolForm::kTagged) {
      choices.push_back(source.sequence(
          {source.bytes(fmt::format("{}{}>", kFunctionBegin, tool.name)), source.rule(id)}));
    } else {
      choices.push_back(source.sequence(
          {source.bytes("\""), text.inside_quotes(tool.name), source.bytes("\""), text.blank(),
           source.bytes(","), text.blank(), text.quoted_name("arguments"), source.rule(id)}));
    }
  }
  const ExpressionId function = source.choice(std::move(choices));
  const auto framed = [&](ExpressionId inner) {
    return source.sequence(
        {source.bytes(kCallBegin), text.blank(), inner, text.blank(), source.bytes(kCallEnd)});
  };
  if (form == ToolForm::kJson) {
    return framed(source.sequence({source.bytes("{"), text.blank(), text.quoted_name("name"),
                                   function, text.blank(), source.bytes("}")}));
  }
  const RuleId shared = source.add_rule("function", function);
  return source.choice({framed(source.rule(shared)), source.rule(shared)});
}

ExpressionId call_markers(GrammarSource& source, ToolForm form, bool in_reasoning) {
  std::vector<std::string> markers = {std::string(kCallBegin)};
  if (form == ToolForm::kTagged) markers.emplace_back(kFunctionBegin);
  if (in_reasoning) markers.emplace_back(kThinkEnd);
  return source.any_of(std::move(markers));
}

Result<ToolGrammar> whole_grammar(const std::vector<ToolFunction>& functions,
                                  const ToolGrammarOptions& options, GrammarWork& work) {
  work.steps_left = kWholeSteps;
  GrammarSource source;
  source.depth_max = kNestingMax;
  JsonText text(source);
  Building building{source, text, work};
  const RuleId call =
      source.add_rule("call", PENSTOCK_TRY(one_call(building, functions, options.form)));
  const ExpressionId another =
      source.repeat(source.sequence({text.blank(), source.rule(call)}), 0, kUnlimited);
  const RuleId calls = source.add_rule(
      "calls",
      source.sequence({source.rule(call), options.choice.allows_several ? another : source.empty(),
                       text.blank()}));
  const bool is_required = options.choice.kind == ToolChoice::Kind::kRequired;
  ExpressionId answer = source.sequence({text.blank(), source.rule(calls)});
  if (!is_required) {
    answer = source.sequence({source.bytes_before(call_markers(source, options.form, false)),
                              source.optional(source.rule(calls))});
  }
  if (options.begins_in_reasoning) {
    // A reasoning may stop for good only where no call is required.
    const ExpressionId rest =
        source.choice({source.sequence({source.bytes(kThinkEnd), answer}), source.rule(calls)});
    answer = source.sequence({source.bytes_before(call_markers(source, options.form, true)),
                              is_required ? rest : source.optional(rest)});
  }
  source.root = source.add_rule("root", answer);
  Grammar grammar = PENSTOCK_TRY(Grammar::compile(source, work));
  return ToolGrammar{std::move(grammar), std::move(building.left_out)};
}

}  // namespace

std::optional<ToolForm> tool_form_of(std::string_view template_source) {
  if (template_source.find(kFunctionBegin) != std::string_view::npos) return ToolForm::kTagged;
  if (template_source.find(kCallBegin) != std::string_view::npos) return ToolForm::kJson;
  return std::nullopt;
}

Result<std::vector<ToolFunction>> tool_functions(const Json& tools) {
  const auto bad = [](std::string_view what) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("tools: {}", what)};
  };
  if (!tools.is_array()) return bad("must be an array");
  if (tools.size() > kToolsMax) return bad(fmt::format("more than {}", kToolsMax));
  if (to_text(tools).size() > kToolBytesMax) {
    return bad(fmt::format("larger than {} KiB", kToolBytesMax / 1024));
  }
  std::vector<ToolFunction> functions;
  for (const Json& tool : tools) {
    const Json* function = json_find(tool, "function");
    if (function == nullptr) function = &tool;
    const Json* name = json_find(*function, "name");
    if (name == nullptr || !name->is_string()) return bad("a function has no \"name\"");
    const std::string& text = name->get_ref<const std::string&>();
    if (!can_be_named(text)) return bad(fmt::format("{} is no name of a function", to_text(*name)));
    const Json* parameters = json_find(*function, "parameters");
    if (parameters != nullptr && !parameters->is_object()) {
      return bad(fmt::format("{}: \"parameters\" must be an object", text));
    }
    functions.push_back({text, parameters == nullptr ? Json::object() : *parameters});
  }
  return functions;
}

Result<ToolGrammar> tool_grammar(const Json& tools, const ToolGrammarOptions& options) {
  std::vector<ToolFunction> functions = PENSTOCK_TRY(tool_functions(tools));
  if (!options.choice.name.empty()) {
    std::erase_if(functions,
                  [&](const ToolFunction& tool) { return tool.name != options.choice.name; });
    if (functions.empty()) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("tool_choice: there is no tool \"{}\"", options.choice.name)};
    }
  }
  if (functions.empty()) return Error{ErrorCode::kInvalidArgument, "tools: there are none"};
  GrammarWork work;  // what was found out about patterns serves all stages
  auto grammar = whole_grammar(functions, options, work);
  if (grammar) return grammar;
  std::vector<std::string> freed = HostileTools(options.form, work).set_free_among(functions);
  grammar = whole_grammar(functions, options, work);
  if (!grammar) {
    freed = free_all(functions);
    grammar = whole_grammar(functions, options, work);
  }
  if (grammar) {
    grammar->left_out.insert(grammar->left_out.end(), freed.begin(), freed.end());
  }
  return grammar;
}

void begin_in_reasoning(GrammarSource& source) {
  const RuleId answer = source.root;
  const ExpressionId blanks = source.repeat(source.chars({{' ', ' '}, {'\n', '\n'}}), 0, 8);
  source.root =
      source.add_rule("reasoning and root",
                      source.sequence({source.bytes_before(source.bytes(kThinkEnd)),
                                       source.bytes(kThinkEnd), blanks, source.rule(answer)}));
}

}  // namespace penstock
