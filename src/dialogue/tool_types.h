// What the text of a parameter means: the types that its tool's schema allows.
//
// Tagged calls write every value as text. "5" is a number where the schema wants one and a text
// where it wants that; where both are allowed, or nothing is known, JSON is tried first.
//
// Threads  const after create().
// Errors   create(): kInvalidArgument naming the tool
// See also grammar/schema_view.h
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/result.h"

namespace penstock {

class ToolTypes {
 public:
  ToolTypes() = default;
  // tools: as in tool_grammar(). Schemas that cannot be read say nothing.
  static Result<ToolTypes> create(const Json& tools);

  // The value is a text as it stands, whatever it is.
  bool is_text(std::string_view tool, std::string_view parameter) const;

  // The value that the text stands for. has_type is false when it is none that the schema allows,
  // and then it is the text.
  Json value(std::string_view tool, std::string_view parameter, std::string_view text,
             bool& has_type) const;

 private:
  struct Types {
    bool any = false;
    bool string = false;
    bool number = false;
    bool boolean = false;
    bool null = false;
    bool object = false;
    bool array = false;
  };
  Types types_of(std::string_view tool, std::string_view parameter) const;

  struct Tool {
    std::map<std::string, Types, std::less<>> parameters;
  };
  std::map<std::string, Tool, std::less<>> tools_;
};

}  // namespace penstock
