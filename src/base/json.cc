#include "base/json.h"

#include <fmt/format.h>

#include <cmath>
#include <set>
#include <vector>

namespace penstock {
namespace {

// Builds the document like the library's own parser, but refuses what we refuse.
// NOLINTNEXTLINE(bugprone-exception-escape): its parts say that they may throw when moved
class StrictBuilder : public nlohmann::json_sax<Json> {
 public:
  Json root;
  std::string failure;

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t& text) override {
    if (!std::isfinite(value)) return fail(fmt::format("number {} is out of range", text));
    return add(value);
  }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { return fail("binary value"); }
  bool start_object(std::size_t) override { return open(Json::object()); }
  bool key(string_t& value) override {
    if (!keys_.back().insert(value).second) return fail("duplicate key " + to_text(Json(value)));
    key_ = std::move(value);
    return true;
  }
  bool end_object() override { return close(); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_array() override { return close(); }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    if (failure.empty()) failure = fmt::format("not JSON near byte {}", position);
    return false;
  }

 private:
  bool fail(std::string reason) {
    failure = std::move(reason);
    return false;
  }
  Json* place(Json value) {
    if (stack_.empty()) {
      root = std::move(value);
      return &root;
    }
    Json& parent = *stack_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    // Keys were checked to be new, so the linear search of operator[] is not needed.
    auto& members = parent.get_ref<Json::object_t&>();
    members.emplace_back(std::move(key_), std::move(value));
    return &members.back().second;
  }
  bool add(Json value) {
    place(std::move(value));
    return true;
  }
  bool open(Json value) {
    if (stack_.size() >= static_cast<size_t>(kJsonDepthMax)) {
      return fail(fmt::format("nested deeper than {}", kJsonDepthMax));
    }
    stack_.push_back(place(std::move(value)));
    keys_.emplace_back();
    return true;
  }
  bool close() {
    stack_.pop_back();
    keys_.pop_back();
    return true;
  }

  std::vector<Json*> stack_;
  std::vector<std::set<std::string>> keys_;
  std::string key_;
};

void append_python_text(const Json& json, std::string& out) {
  if (json.is_object()) {
    out += '{';
    bool first = true;
    for (const auto& [key, value] : json.items()) {
      if (!first) out += ", ";
      first = false;
      out += to_text(Json(key)) + ": ";
      append_python_text(value, out);
    }
    out += '}';
  } else if (json.is_array()) {
    out += '[';
    for (size_t i = 0; i < json.size(); ++i) {
      if (i > 0) out += ", ";
      append_python_text(json[i], out);
    }
    out += ']';
  } else {
    out += to_text(json);
  }
}

Error wrong_type(std::string_view what, std::string_view key, std::string_view expected) {
  return {ErrorCode::kCorrupt, fmt::format("{}: \"{}\" must be {}", what, key, expected)};
}

Result<const Json*> require(const Json& object, std::string_view key, std::string_view what) {
  const Json* member = json_find(object, key);
  if (member == nullptr) {
    return Error{ErrorCode::kNotFound, fmt::format("{}: \"{}\" is missing", what, key)};
  }
  return member;
}

}  // namespace

Result<Json> parse_json(std::string_view text, std::string_view what) {
  // The library takes a NUL for the end of the text, and would not look at what follows.
  if (const size_t nul = text.find('\0'); nul != std::string_view::npos) {
    return Error{ErrorCode::kCorrupt, fmt::format("{}: a NUL byte at {}", what, nul)};
  }
  StrictBuilder builder;
  const bool parsed = Json::sax_parse(text.begin(), text.end(), &builder);
  if (!parsed) {
    return Error{ErrorCode::kCorrupt, fmt::format("{}: {}", what, builder.failure)};
  }
  return std::move(builder.root);
}

std::string to_text(const Json& json, int indent) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

std::string to_python_text(const Json& json) {
  std::string out;
  append_python_text(json, out);
  return out;
}

Result<int64_t> json_int(const Json& object, std::string_view key, std::string_view what,
                         int64_t minimum, int64_t maximum) {
  const Json* member = PENSTOCK_TRY(require(object, key, what));
  const bool fits = member->is_number_integer() &&
                    !(member->is_number_unsigned() && member->get<uint64_t>() > INT64_MAX);
  if (!fits) return wrong_type(what, key, "an integer");
  const int64_t value = member->get<int64_t>();
  if (value < minimum || value > maximum) {
    return Error{ErrorCode::kCorrupt, fmt::format("{}: \"{}\" is {}, expected {} to {}", what, key,
                                                  value, minimum, maximum)};
  }
  return value;
}

Result<uint64_t> json_bytes(const Json& object, std::string_view key, std::string_view what) {
  return static_cast<uint64_t>(PENSTOCK_TRY(json_int(object, key, what, 0, INT64_MAX)));
}

Result<double> json_number(const Json& object, std::string_view key, std::string_view what) {
  const Json* member = PENSTOCK_TRY(require(object, key, what));
  if (!member->is_number()) return wrong_type(what, key, "a number");
  return member->get<double>();
}

Result<std::string> json_string(const Json& object, std::string_view key, std::string_view what) {
  const Json* member = PENSTOCK_TRY(require(object, key, what));
  if (!member->is_string()) return wrong_type(what, key, "a string");
  return member->get<std::string>();
}

Result<bool> json_bool(const Json& object, std::string_view key, std::string_view what) {
  const Json* member = PENSTOCK_TRY(require(object, key, what));
  if (!member->is_boolean()) return wrong_type(what, key, "true or false");
  return member->get<bool>();
}

const Json* json_find(const Json& object, std::string_view key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(std::string(key));
  if (found == object.end() || found->is_null()) return nullptr;
  return &*found;
}

}  // namespace penstock
