#include "text/jinja/filters.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "text/jinja/access.h"
#include "text/jinja/list_filters.h"
#include "text/jinja/number_filters.h"
#include "text/jinja/operators.h"
#include "text/jinja/python_text.h"
#include "text/jinja/text_filters.h"

namespace penstock::jinja {
namespace {

Result<Value> or_default(Arena& arena, const Value& input, const Arguments& arguments) {
  const Value* boolean = arguments.find(1, "boolean");
  const bool takes_false = boolean != nullptr && is_true(*boolean);
  if (!input.is_undefined() && (!takes_false || is_true(input))) return input;
  const Value* otherwise = arguments.find(0, "default_value");
  return otherwise == nullptr ? arena.text("") : Result<Value>(*otherwise);
}

Result<Value> as_json(Arena& arena, const Value& input, const Arguments& arguments) {
  if (input.is_undefined()) return undefined_error(input);
  JsonFormat format;
  const Value* ensure_ascii = arguments.find(0, "ensure_ascii");
  const Value* indent = arguments.find(1, "indent");
  const Value* separators = arguments.find(2, "separators");
  const Value* sort_keys = arguments.find(3, "sort_keys");
  format.ensure_ascii = ensure_ascii != nullptr && is_true(*ensure_ascii);
  format.sort_keys = sort_keys != nullptr && is_true(*sort_keys);
  if (indent != nullptr && indent->is_text()) format.indent = indent->text().bytes;
  if (indent != nullptr && indent->is_integral()) {
    const int64_t width = std::clamp<int64_t>(indent->integer(), 0, 64);
    format.indent = std::string(static_cast<size_t>(width), ' ');
  }
  if (format.indent) format.item_separator = ",";  // a line end follows
  if (separators != nullptr && !separators->is_none()) {
    const std::vector<Value> pair = PENSTOCK_TRY(items_of(arena, *separators));
    if (pair.size() != 2 || !pair[0].is_text() || !pair[1].is_text()) {
      return template_error("tojson: separators must be two texts");
    }
    format.item_separator = pair[0].text().bytes;
    format.key_separator = pair[1].text().bytes;
  }
  return arena.text(PENSTOCK_TRY(python_json(input, format)));
}

// obj | attr("name"): the attribute and never an item.
Result<Value> attribute_of(Arena& arena, const Value& input, const Arguments& arguments) {
  const Value& name = *arguments.find(0, "name");
  if (input.is_undefined()) return undefined_error(input);
  if (!name.is_text()) return template_error("attr: the name must be a text");
  if (!input.is(Kind::kDict)) return get_attribute(arena, input, name.text().bytes);
  const auto method = PENSTOCK_TRY(bound_method(arena, input, name.text().bytes));
  if (method) return *method;
  return arena.undefined(fmt::format("a dict has no attribute '{}'", name.text().bytes));
}

struct NamedFilter {
  std::string_view name;
  std::vector<std::string_view> parameters;  // after the input
  size_t required;
  Filter call;
};

const std::vector<NamedFilter>& all_filters() {
  static const std::vector<NamedFilter> kFilters = {
      {"trim", {"chars"}, 0, filter_trim},
      {"string", {}, 0, filter_string},
      {"safe", {}, 0, filter_safe},
      {"escape", {}, 0, filter_escape},
      {"e", {}, 0, filter_escape},
      {"forceescape", {}, 0, filter_force_escape},
      {"center", {"width"}, 0, filter_center},
      {"truncate", {"length", "killwords", "end", "leeway"}, 0, filter_truncate},
      {"wordcount", {}, 0, filter_word_count},
      {"urlencode", {}, 0, filter_url_encode},
      {"attr", {"name"}, 1, attribute_of},
      {"tojson", {"ensure_ascii", "indent", "separators", "sort_keys"}, 0, as_json},
      {"lower", {}, 0, filter_lower},
      {"upper", {}, 0, filter_upper},
      {"capitalize", {}, 0, filter_capitalize},
      {"title", {}, 0, filter_title},
      {"replace", {"old", "new", "count"}, 2, filter_replace},
      {"indent", {"width", "first", "blank"}, 0, filter_indent},
      {"default", {"default_value", "boolean"}, 0, or_default},
      {"d", {"default_value", "boolean"}, 0, or_default},
      {"int", {"default", "base"}, 0, filter_int},
      {"float", {"default"}, 0, filter_float},
      {"abs", {}, 0, filter_abs},
      {"round", {"precision", "method"}, 0, filter_round},
      {"sum", {"attribute", "start"}, 0, filter_sum},
      {"filesizeformat", {"binary"}, 0, filter_file_size},
      {"batch", {"linecount", "fill_with"}, 1, filter_batch},
      {"slice", {"slices", "fill_with"}, 1, filter_slice},
      {"groupby", {"attribute", "default", "case_sensitive"}, 1, filter_group_by},
      {"length", {}, 0, filter_length},
      {"count", {}, 0, filter_length},
      {"list", {}, 0, filter_list},
      {"items", {}, 0, filter_items},
      {"first", {}, 0, filter_first},
      {"last", {}, 0, filter_last},
      {"join", {"d", "attribute"}, 0, filter_join},
      {"reverse", {}, 0, filter_reverse},
      {"sort", {"reverse", "case_sensitive", "attribute"}, 0, filter_sort},
      {"unique", {"case_sensitive", "attribute"}, 0, filter_unique},
      {"min", {"case_sensitive", "attribute"}, 0, filter_min},
      {"max", {"case_sensitive", "attribute"}, 0, filter_max},
      {"dictsort", {"case_sensitive", "by", "reverse"}, 0, filter_dictsort},
  };
  return kFilters;
}

}  // namespace

bool is_filter(std::string_view name) {
  const auto& filters = all_filters();
  const bool is_listed = std::any_of(filters.begin(), filters.end(),
                                     [&](const auto& filter) { return filter.name == name; });
  constexpr std::string_view kOthers[] = {"format", "map",        "select",
                                          "reject", "selectattr", "rejectattr"};
  return is_listed || std::find(std::begin(kOthers), std::end(kOthers), name) != std::end(kOthers);
}

Result<Value> apply_filter(Arena& arena, std::string_view name, const Value& input,
                           const Arguments& arguments) {
  PENSTOCK_TRY(arena.spend(1));
  for (const NamedFilter& filter : all_filters()) {
    if (filter.name != name) continue;
    PENSTOCK_TRY(check_arguments(name, arguments, filter.parameters, filter.required));
    return filter.call(arena, input, arguments);
  }
  // These take any arguments, most to hand them on to another filter or test.
  if (name == "format") return filter_format(arena, input, arguments);
  if (name == "map") return filter_map(arena, input, arguments);
  if (name == "select") return filter_select(arena, input, arguments, {false, true});
  if (name == "reject") return filter_select(arena, input, arguments, {false, false});
  if (name == "selectattr") return filter_select(arena, input, arguments, {true, true});
  if (name == "rejectattr") return filter_select(arena, input, arguments, {true, false});
  return Error{ErrorCode::kUnsupported, fmt::format("the filter '{}' is not known", name)};
}

}  // namespace penstock::jinja
