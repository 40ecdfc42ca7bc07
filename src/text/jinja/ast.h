// What a template is once it is parsed: statements that contain expressions.
//
// Nodes belong to a Tree and point to each other; nothing is freed alone, so no tree is too deep to
// free. `depth` is the height of the tree below a node and is limited, which
// also limits the recursion of everything that walks it.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/value.h"

namespace penstock::jinja {

inline constexpr int kTreeDepthMax = 200;

enum class Operator : uint8_t {
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kPower,
  kConcatenate,
};

enum class Comparison : uint8_t {
  kEqual,
  kNotEqual,
  kLess,
  kLessOrEqual,
  kGreater,
  kGreaterOrEqual,
  kIn,
  kNotIn,
};

struct Expression {
  enum class Kind : uint8_t {
    kConstant,   // constant
    kName,       // name
    kList,       // children
    kTuple,      // children
    kDict,       // children: key, value, key, value, ...
    kAttribute,  // children: object; name
    kSubscript,  // children: object, index
    kSlice,      // children: object, start, stop, step; the last three may be null
    kCall,       // children: callee, arguments; keywords
    kFilter,     // children: input, arguments; keywords; name
    kTest,       // children: input, arguments; keywords; name; negated
    kNegate,     // children: operand
    kPlus,       // children: operand
    kNot,        // children: operand
    kAnd,        // children: left, right
    kOr,         // children: left, right
    kOperation,  // children: left, right; operation
    kCompare,    // children: first, second, ...; comparisons, one fewer
    kIfElse,     // children: condition, value, otherwise; the last may be null
    kCaptured,   // what a filter or set block printed
  };

  Kind kind = Kind::kConstant;
  Operator operation = Operator::kAdd;
  bool negated = false;
  int line = 0;
  int depth = 1;
  std::string name;
  Value constant;
  std::vector<const Expression*> children;
  std::vector<std::pair<std::string, const Expression*>> keywords;
  const Expression* more_arguments = nullptr;  // f(*more_arguments)
  const Expression* more_keywords = nullptr;   // f(**more_keywords)
  std::vector<Comparison> comparisons;
};

struct Statement;
using Block = std::vector<const Statement*>;

struct Macro {
  std::string name;
  // Parameters in order; a default or null.
  std::vector<std::pair<std::string, const Expression*>> parameters;
  Block body;
  // Whether the body uses what a macro is given beside its parameters.
  bool uses_caller = false;
  bool uses_varargs = false;
  bool uses_kwargs = false;
};

// What is assigned to: a name, an attribute of a namespace, or several in turn.
struct Target {
  std::string name;
  std::string attribute;  // name.attribute; else empty
  bool is_tuple = false;
  std::vector<Target> parts;  // of a tuple
};

struct Statement {
  enum class Kind : uint8_t {
    kText,      // text
    kOutput,    // value
    kIf,        // branches: (condition, body); otherwise
    kFor,       // target, value: what is iterated, condition or null, body, otherwise
    kSet,       // target, value
    kSetBlock,  // target, body, value: the filters of what it printed, or null
    kMacro,     // macro
    kCall,      // value: a call, macro: what it finds as `caller`
    kFilter,    // body, value: the filters of what it printed
    kWith,      // bindings, body
    kScope,     // body: {% generation %}
    kBreak,
    kContinue,
  };

  Kind kind = Kind::kText;
  int line = 0;
  std::string text;
  Target target;
  const Expression* value = nullptr;
  const Expression* condition = nullptr;
  bool is_recursive = false;  // kFor: loop(...) runs it again
  std::vector<std::pair<Target, const Expression*>> bindings;
  std::vector<std::pair<const Expression*, Block>> branches;
  Block body;
  Block otherwise;
  Macro macro;
};

// Owns a template's nodes. Moving it leaves them where they are.
struct Tree {
  std::deque<Expression> expressions;
  std::deque<Statement> statements;
  std::deque<Text> texts;  // what constants point to
  Block body;
};

}  // namespace penstock::jinja
