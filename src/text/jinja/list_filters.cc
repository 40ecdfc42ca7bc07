#include "text/jinja/list_filters.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <span>
#include <utility>

#include "text/jinja/access.h"
#include "text/jinja/filters.h"
#include "text/jinja/markup.h"
#include "text/jinja/operators.h"
#include "text/jinja/python_text.h"

namespace penstock::jinja {
namespace {

// The item itself or its attribute; texts in lower case unless case matters.
Result<Value> sort_key(Arena& arena, const Value& item, const Value* attribute,
                       bool case_sensitive) {
  Value key = item;
  if (attribute != nullptr && !attribute->is_none()) {
    key = PENSTOCK_TRY(deep_attribute(arena, item, *attribute));
  }
  if (case_sensitive || !key.is_text()) return key;
  return arena.text(lower(key.text().bytes));
}

struct Keyed {
  Value key;
  Value item;
};

// Sorts stably by key. std::stable_sort has no way to stop, so the first error is kept aside.
Result<std::vector<Value>> sort_by_key(Arena& arena, std::vector<Keyed> entries, bool reverse) {
  std::optional<Error> failure;
  const auto before = [&](const Keyed& a, const Keyed& b) {
    if (failure) return false;
    const auto order =
        reverse ? compare_order(arena, b.key, a.key) : compare_order(arena, a.key, b.key);
    if (!order) failure = order.error();
    return order.has_value() && *order < 0;
  };
  std::stable_sort(entries.begin(), entries.end(), before);
  if (failure) return *failure;
  std::vector<Value> items;
  for (const Keyed& entry : entries) items.push_back(entry.item);
  return items;
}

// Jinja2's lazy filters do not look into what is false, whatever it is.
Result<std::vector<Value>> lazy_items_of(Arena& arena, const Value& input) {
  if (!is_true(input)) return std::vector<Value>();
  return items_of(arena, input);
}

bool is_given_and_true(const Value* argument) {
  return argument != nullptr && is_true(*argument);
}

// The first of the items that no other is before (direction -1) or after (direction 1).
Result<Value> find_extreme(Arena& arena, const Value& input, const Arguments& arguments,
                           int direction) {
  const bool case_sensitive = is_given_and_true(arguments.find(0, "case_sensitive"));
  const Value* attribute = arguments.find(1, "attribute");
  const std::vector<Value> items = PENSTOCK_TRY(items_of(arena, input));
  if (items.empty()) return arena.undefined("an empty sequence has no least or greatest item");
  Value best = items[0];
  Value best_key = PENSTOCK_TRY(sort_key(arena, best, attribute, case_sensitive));
  for (const Value& item : std::span(items).subspan(1)) {
    const Value key = PENSTOCK_TRY(sort_key(arena, item, attribute, case_sensitive));
    const int order = PENSTOCK_TRY(compare_order(arena, key, best_key));
    if (direction > 0 ? order <= 0 : order >= 0) continue;
    best = item;
    best_key = key;
  }
  return best;
}

}  // namespace

Result<Value> deep_attribute(Arena& arena, Value item, const Value& attribute) {
  if (attribute.is_integral()) return get_item(arena, item, attribute);
  if (!attribute.is_text()) return template_error("an attribute's name must be a text");
  for (const std::string_view part : split(attribute.text().bytes, ".", -1)) {
    int64_t index = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), index);
    const bool is_index = error == std::errc() && end == part.data() + part.size() && index >= 0;
    const Value key = is_index ? Value(index) : PENSTOCK_TRY(arena.text(std::string(part)));
    item = PENSTOCK_TRY(get_item(arena, item, key));
  }
  return item;
}

Result<Value> filter_length(Arena& arena, const Value& input, const Arguments&) {
  return Value(PENSTOCK_TRY(length_of(arena, input)));
}

Result<Value> filter_list(Arena& arena, const Value& input, const Arguments&) {
  return arena.list(PENSTOCK_TRY(items_of(arena, input)));
}

Result<Value> filter_items(Arena& arena, const Value& input, const Arguments&) {
  if (input.is_undefined()) return arena.list({}, List::Sort::kGenerator);
  if (!input.is(Kind::kDict)) {
    return template_error(fmt::format("items needs a mapping, not {}", type_name(input)));
  }
  std::vector<Value> pairs;
  for (const auto& [key, value] : input.dict().items) {
    pairs.push_back(PENSTOCK_TRY(arena.list({key, value}, List::Sort::kTuple)));
  }
  return arena.list(std::move(pairs), List::Sort::kGenerator);
}

Result<Value> filter_first(Arena& arena, const Value& input, const Arguments& arguments) {
  // A character that a text gives one by one is plain, whatever the text is.
  if (is_markup(input)) {
    const Value plain = PENSTOCK_TRY(arena.text(input.text().bytes));
    return filter_first(arena, plain, arguments);
  }
  if (is_sequence(input)) return get_item(arena, input, Value(int64_t{0}));
  const std::vector<Value> items = PENSTOCK_TRY(items_of(arena, input));
  if (items.empty()) return arena.undefined("there is no first item: the sequence is empty");
  return items.front();
}

Result<Value> filter_last(Arena& arena, const Value& input, const Arguments& arguments) {
  if (is_markup(input)) {
    const Value plain = PENSTOCK_TRY(arena.text(input.text().bytes));
    return filter_last(arena, plain, arguments);
  }
  if (is_sequence(input)) return get_item(arena, input, Value(int64_t{-1}));
  const std::vector<Value> items = PENSTOCK_TRY(items_of(arena, input));
  if (items.empty()) return arena.undefined("there is no last item: the sequence is empty");
  return items.back();
}

Result<Value> filter_join(Arena& arena, const Value& input, const Arguments& arguments) {
  const std::vector<Value> items = PENSTOCK_TRY(items_of(arena, input));
  const Value* separator_value = arguments.find(0, "d");
  const Value* attribute = arguments.find(1, "attribute");
  std::string separator;
  if (separator_value != nullptr) separator = PENSTOCK_TRY(python_str(*separator_value));
  std::string text;
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) text += separator;
    Value item = items[i];
    if (attribute != nullptr) item = PENSTOCK_TRY(deep_attribute(arena, item, *attribute));
    text += PENSTOCK_TRY(python_str(item));
    if (text.size() > kTextBytesMax) return template_error("join makes more than 16 MiB of text");
  }
  return arena.text(std::move(text));
}

Result<Value> filter_reverse(Arena& arena, const Value& input, const Arguments&) {
  if (input.is_text()) {
    const Value backwards(int64_t{-1});
    return get_slice(arena, input, {nullptr, nullptr, &backwards});
  }
  std::vector<Value> items = PENSTOCK_TRY(items_of(arena, input));
  std::reverse(items.begin(), items.end());
  return arena.list(std::move(items), List::Sort::kGenerator);
}

Result<Value> filter_sort(Arena& arena, const Value& input, const Arguments& arguments) {
  const bool case_sensitive = is_given_and_true(arguments.find(1, "case_sensitive"));
  const Value* attribute = arguments.find(2, "attribute");
  const std::vector<Value> items = PENSTOCK_TRY(items_of(arena, input));
  std::vector<Keyed> entries;
  for (const Value& item : items) {
    entries.push_back({PENSTOCK_TRY(sort_key(arena, item, attribute, case_sensitive)), item});
  }
  const bool reverse = is_given_and_true(arguments.find(0, "reverse"));
  return arena.list(PENSTOCK_TRY(sort_by_key(arena, std::move(entries), reverse)));
}

Result<Value> filter_unique(Arena& arena, const Value& input, const Arguments& arguments) {
  const bool case_sensitive = is_given_and_true(arguments.find(0, "case_sensitive"));
  const Value* attribute = arguments.find(1, "attribute");
  const std::vector<Value> items = PENSTOCK_TRY(items_of(arena, input));
  std::vector<Value> keys;
  std::vector<Value> kept;
  for (const Value& item : items) {
    const Value key = PENSTOCK_TRY(sort_key(arena, item, attribute, case_sensitive));
    PENSTOCK_TRY(check_key(key));
    bool is_new = true;
    for (const Value& known : keys) {
      if (PENSTOCK_TRY(equals(arena, known, key))) is_new = false;
      if (!is_new) break;
    }
    if (!is_new) continue;
    keys.push_back(key);
    kept.push_back(item);
  }
  return arena.list(std::move(kept), List::Sort::kGenerator);
}

// Lists of `linecount` items, the last one filled up.
Result<Value> filter_batch(Arena& arena, const Value& input, const Arguments& arguments) {
  const std::vector<Value> items = PENSTOCK_TRY(items_of(arena, input));
  const Value& count = *arguments.find(0, "linecount");
  const Value* fill = arguments.find(1, "fill_with");
  if (!count.is_integral()) return template_error("batch needs an integer");
  const int64_t wanted = count.integer();
  std::vector<Value> batches;
  std::vector<Value> batch;
  for (const Value& item : items) {
    if (std::ssize(batch) == wanted) {
      batches.push_back(PENSTOCK_TRY(arena.list(std::exchange(batch, {}))));
    }
    batch.push_back(item);
  }
  if (!batch.empty()) {
    const int64_t missing = wanted - std::ssize(batch);
    if (fill != nullptr && !fill->is_none() && missing > 0) {
      PENSTOCK_TRY(arena.spend(missing));
      batch.insert(batch.end(), static_cast<size_t>(missing), *fill);
    }
    batches.push_back(PENSTOCK_TRY(arena.list(std::move(batch))));
  }
  return arena.list(std::move(batches), List::Sort::kGenerator);
}

// As many lists as wanted, of lengths that differ by one at most.
Result<Value> filter_slice(Arena& arena, const Value& input, const Arguments& arguments) {
  const std::vector<Value> items = PENSTOCK_TRY(items_of(arena, input));
  const Value& count = *arguments.find(0, "slices");
  const Value* fill = arguments.find(1, "fill_with");
  if (!count.is_integral()) return template_error("slice needs an integer");
  const int64_t slices = count.integer();
  if (slices == 0) return template_error("slice into none");
  const int64_t length = std::ssize(items);
  std::vector<Value> lists;
  int64_t begin = 0;
  for (int64_t i = 0; i < slices; ++i) {
    const bool has_extra = i < length % slices;
    const int64_t end = begin + length / slices + (has_extra ? 1 : 0);
    std::vector<Value> part(items.begin() + begin, items.begin() + end);
    if (!has_extra && fill != nullptr && !fill->is_none()) part.push_back(*fill);
    lists.push_back(PENSTOCK_TRY(arena.list(std::move(part))));
    begin = end;
  }
  return arena.list(std::move(lists), List::Sort::kGenerator);
}

Result<Value> filter_group_by(Arena& arena, const Value& input, const Arguments& arguments) {
  const Value& attribute = *arguments.find(0, "attribute");
  const Value* otherwise = arguments.find(1, "default");
  const bool case_sensitive = is_given_and_true(arguments.find(2, "case_sensitive"));
  const auto name_of = [&](const Value& item) -> Result<Value> {
    Value name = PENSTOCK_TRY(deep_attribute(arena, item, attribute));
    const bool is_missing = name.is_undefined() && otherwise != nullptr && !otherwise->is_none();
    return is_missing ? *otherwise : name;
  };
  const auto key_of = [&](const Value& item) -> Result<Value> {
    return sort_key(arena, PENSTOCK_TRY(name_of(item)), nullptr, case_sensitive);
  };
  std::vector<Keyed> entries;
  const std::vector<Value> all = PENSTOCK_TRY(items_of(arena, input));
  for (const Value& item : all) {
    entries.push_back({PENSTOCK_TRY(key_of(item)), item});
  }
  const std::vector<Value> sorted = PENSTOCK_TRY(sort_by_key(arena, std::move(entries), false));
  std::vector<Value> groups;
  for (size_t begin = 0; begin < sorted.size();) {
    const Value key = PENSTOCK_TRY(key_of(sorted[begin]));
    size_t end = begin + 1;
    for (; end < sorted.size(); ++end) {
      const Value other = PENSTOCK_TRY(key_of(sorted[end]));
      if (!PENSTOCK_TRY(equals(arena, other, key))) break;
    }
    const auto at = [&](size_t i) { return sorted.begin() + static_cast<std::ptrdiff_t>(i); };
    const Value members = PENSTOCK_TRY(arena.list({at(begin), at(end)}));
    const Value name = PENSTOCK_TRY(name_of(sorted[begin]));
    const Value group = PENSTOCK_TRY(arena.list({name, members}, List::Sort::kTuple));
    group.list().is_group = true;
    groups.push_back(group);
    begin = end;
  }
  return arena.list(std::move(groups));
}

Result<Value> filter_min(Arena& arena, const Value& input, const Arguments& arguments) {
  return find_extreme(arena, input, arguments, -1);
}

Result<Value> filter_max(Arena& arena, const Value& input, const Arguments& arguments) {
  return find_extreme(arena, input, arguments, 1);
}

Result<Value> filter_dictsort(Arena& arena, const Value& input, const Arguments& arguments) {
  if (!input.is(Kind::kDict)) {
    return template_error(fmt::format("dictsort needs a mapping, not {}", type_name(input)));
  }
  const bool case_sensitive = is_given_and_true(arguments.find(0, "case_sensitive"));
  const Value* by = arguments.find(1, "by");
  const bool by_value = by != nullptr && by->is_text() && by->text().bytes == "value";
  std::vector<Keyed> entries;
  for (const auto& [key, value] : input.dict().items) {
    const Value pair = PENSTOCK_TRY(arena.list({key, value}, List::Sort::kTuple));
    const Value& chosen = by_value ? value : key;
    entries.push_back({PENSTOCK_TRY(sort_key(arena, chosen, nullptr, case_sensitive)), pair});
  }
  const bool reverse = is_given_and_true(arguments.find(2, "reverse"));
  return arena.list(PENSTOCK_TRY(sort_by_key(arena, std::move(entries), reverse)));
}

Result<Value> filter_map(Arena& arena, const Value& input, const Arguments& arguments) {
  const std::vector<Value> items = PENSTOCK_TRY(lazy_items_of(arena, input));
  std::vector<Value> mapped;
  if (arguments.positional.empty()) {
    PENSTOCK_TRY(check_arguments("map", arguments, {"attribute", "default"}, 1));
    const Value* attribute = arguments.find(0, "attribute");
    const Value* otherwise = arguments.find(1, "default");
    for (const Value& item : items) {
      const Value value = PENSTOCK_TRY(deep_attribute(arena, item, *attribute));
      mapped.push_back(value.is_undefined() && otherwise != nullptr ? *otherwise : value);
    }
  } else {
    const Value& name = arguments.positional[0];
    if (!name.is_text()) return template_error("map: the name of a filter must be a text");
    Arguments rest = arguments;
    rest.positional.erase(rest.positional.begin());
    for (const Value& item : items) {
      mapped.push_back(PENSTOCK_TRY(apply_filter(arena, name.text().bytes, item, rest)));
    }
  }
  return arena.list(std::move(mapped), List::Sort::kGenerator);
}

Result<Value> filter_select(Arena& arena, const Value& input, const Arguments& arguments,
                            Selection selection) {
  Arguments rest = arguments;
  const auto take_first = [&]() -> std::optional<Value> {
    if (rest.positional.empty()) return std::nullopt;
    const Value first = rest.positional.front();
    rest.positional.erase(rest.positional.begin());
    return first;
  };
  std::optional<Value> attribute;
  if (selection.by_attribute) {
    attribute = take_first();
    if (!attribute) return template_error("selectattr and rejectattr need an attribute's name");
  }
  const std::optional<Value> test = take_first();
  if (test && !test->is_text()) return template_error("the name of a test must be a text");

  const std::vector<Value> items = PENSTOCK_TRY(lazy_items_of(arena, input));
  std::vector<Value> kept;
  for (const Value& item : items) {
    const Value tested = attribute ? PENSTOCK_TRY(deep_attribute(arena, item, *attribute)) : item;
    const bool passes =
        test ? PENSTOCK_TRY(apply_test(arena, test->text().bytes, tested, rest)) : is_true(tested);
    if (passes == selection.keeps) kept.push_back(item);
  }
  return arena.list(std::move(kept), List::Sort::kGenerator);
}

}  // namespace penstock::jinja
