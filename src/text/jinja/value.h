// The values that a template computes with, and the arena that owns them for one rendering.
//
// A Value is 16 bytes and is copied freely; what it points to lives in the Arena until the
// rendering ends, so cycles (a namespace that holds itself) and deep nesting free without
// recursion. The Arena is also the budget: every step and every byte made is charged to it, and a
// template that wants too much gets an Error instead of the machine.
//
// Threads  one rendering, one thread.
// Errors   kInvalidArgument when the budget is spent.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/json.h"
#include "base/result.h"

namespace penstock::jinja {

struct Text;
struct List;
struct Dict;
struct Namespace;
struct Loop;
struct Cycler;
struct Callable;

enum class Kind : uint8_t {
  kUndefined,
  kNone,
  kBool,
  kInt,
  kFloat,
  kText,
  kList,
  kDict,
  kNamespace,
  kLoop,
  kCycler,
  kCallable,
};

class Value {
 public:
  Value() = default;
  // Undefined, with the sentence that explains why, for the error when it is used.
  static Value undefined(const std::string* reason) {
    Value value;
    value.reason_ = reason;
    return value;
  }
  static Value none() {
    Value value;
    value.kind_ = Kind::kNone;
    return value;
  }
  explicit Value(bool value) : kind_(Kind::kBool), bool_(value) {}
  explicit Value(int64_t value) : kind_(Kind::kInt), int_(value) {}
  explicit Value(double value) : kind_(Kind::kFloat), float_(value) {}
  explicit Value(const Text* text) : kind_(Kind::kText), text_(text) {}
  explicit Value(List* list) : kind_(Kind::kList), list_(list) {}
  explicit Value(const Dict* dict) : kind_(Kind::kDict), dict_(dict) {}
  explicit Value(Namespace* space) : kind_(Kind::kNamespace), namespace_(space) {}
  explicit Value(Loop* loop) : kind_(Kind::kLoop), loop_(loop) {}
  explicit Value(Cycler* cycler) : kind_(Kind::kCycler), cycler_(cycler) {}
  explicit Value(const Callable* callable) : kind_(Kind::kCallable), callable_(callable) {}

  Kind kind() const { return kind_; }
  bool is(Kind kind) const { return kind_ == kind; }
  bool is_undefined() const { return kind_ == Kind::kUndefined; }
  bool is_none() const { return kind_ == Kind::kNone; }
  bool is_text() const { return kind_ == Kind::kText; }
  bool is_number() const { return is(Kind::kBool) || is(Kind::kInt) || is(Kind::kFloat); }
  bool is_integral() const { return is(Kind::kBool) || is(Kind::kInt); }  // as in Python

  const std::string* reason() const { return get(Kind::kUndefined, reason_); }
  bool boolean() const { return get(Kind::kBool, bool_); }
  double real() const { return is(Kind::kFloat) ? float_ : static_cast<double>(integer()); }
  int64_t integer() const { return is(Kind::kBool) ? int64_t{bool_} : get(Kind::kInt, int_); }
  const Text& text() const { return *get(Kind::kText, text_); }
  List& list() const { return *get(Kind::kList, list_); }
  const Dict& dict() const { return *get(Kind::kDict, dict_); }
  Namespace& space() const { return *get(Kind::kNamespace, namespace_); }
  Loop& loop() const { return *get(Kind::kLoop, loop_); }
  Cycler& cycler() const { return *get(Kind::kCycler, cycler_); }
  const Callable& callable() const { return *get(Kind::kCallable, callable_); }

 private:
  template <class T>
  const T& get(Kind kind, const T& member) const {
    PENSTOCK_CHECK(kind_ == kind);
    return member;
  }

  Kind kind_ = Kind::kUndefined;
  union {
    const std::string* reason_ = nullptr;  // may be null
    bool bool_;
    int64_t int_;
    double float_;
    const Text* text_;
    List* list_;
    const Dict* dict_;
    Namespace* namespace_;
    Loop* loop_;
    Cycler* cycler_;
    const Callable* callable_;
  };
};

// Python's str: indexed by code point. Valid UTF-8.
struct Text {
  std::string bytes;
  int64_t length = 0;      // in code points
  bool is_markup = false;  // came from `safe` or `escape`: what joins it is escaped (markup.h)

  bool is_ascii() const { return static_cast<size_t>(length) == bytes.size(); }
};

struct List {
  enum class Sort : uint8_t {
    kList,
    kTuple,
    kGenerator,  // what lazy filters give: always true, without a length, gone once iterated
  };
  std::vector<Value> items;
  Sort sort = Sort::kList;
  bool is_group = false;  // a tuple of groupby: its items are also .grouper and .list
};

// In order of insertion. Keys are texts or numbers.
struct Dict {
  std::vector<std::pair<Value, Value>> items;
  std::unordered_map<std::string_view, size_t> text_keys;  // filled when there are many items

  const Value* find(std::string_view key) const;
};

struct Namespace {
  std::vector<std::pair<std::string_view, Value>> attributes;

  const Value* find(std::string_view name) const;
  void set(std::string_view name, Value value);
};

struct Macro;      // ast.h
struct Statement;  // ast.h
struct Scope;      // interpreter.h

// What `loop` is in the body of a for.
struct Loop {
  std::vector<Value> items;
  size_t index = 0;
  int64_t depth = 0;                     // of recursion
  const Statement* recursive = nullptr;  // the for, if loop(...) may run it again
  Scope* outer = nullptr;                // where that for stands
  const List* last_seen = nullptr;       // by loop.changed(...)
};

// Gives its items in turn: cycler(...); and the state of joiner(...).
struct Cycler {
  std::vector<Value> items;
  size_t position = 0;
};

struct Callable {
  enum class Sort : uint8_t { kFunction, kMethod, kMacro, kJoiner };
  Sort sort = Sort::kFunction;
  std::string_view name;
  Value self;                    // kMethod: the object. kJoiner: its Cycler
  const Macro* macro = nullptr;  // kMacro: its definition and where it was defined
  Scope* scope = nullptr;
};

class Arena {
 public:
  static constexpr int64_t kStepsMax = 5'000'000;
  static constexpr int64_t kBytesPerStep = 16;

  // The one check of the budget. Bytes made or looked through cost a sixteenth of a step.
  Result<void> spend(int64_t steps);
  Result<void> spend_bytes(size_t bytes) {
    return spend(static_cast<int64_t>(bytes) / kBytesPerStep);
  }

  Result<Value> text(std::string bytes);
  Result<Value> markup(std::string bytes);
  // A text that is markup if `origin` is.
  Result<Value> text_like(const Value& origin, std::string bytes);
  Result<Value> list(std::vector<Value> items, List::Sort sort = List::Sort::kList);
  Result<Value> dict(std::vector<std::pair<Value, Value>> items);  // keys are distinct
  Result<Value> undefined(std::string reason);
  Result<Value> callable(Callable callable);
  Result<Namespace*> make_namespace();
  Result<Loop*> make_loop(std::vector<Value> items);
  Result<Cycler*> make_cycler(std::vector<Value> items);

  // The value of a JSON document. Not charged, for its size is the request's; and each byte of its
  // texts adds a step to the budget, so that a long conversation may be gone through.
  Value from_json(const Json& json);

 private:
  Text* make_text(std::string bytes);

  std::deque<Text> texts_;
  std::deque<List> lists_;
  std::deque<Dict> dicts_;
  std::deque<Namespace> namespaces_;
  std::deque<Loop> loops_;
  std::deque<Cycler> cyclers_;
  std::deque<Callable> callables_;
  std::deque<std::string> reasons_;
  int64_t steps_left_ = kStepsMax;
};

// Python's name of the value's type, for error messages.
std::string_view type_name(const Value& value);

// A mistake of the template or in the messages; the interpreter adds the line.
Error template_error(std::string message);

}  // namespace penstock::jinja
