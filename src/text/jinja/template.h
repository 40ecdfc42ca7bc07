// Runs a template: our own interpreter of the part of Jinja2 that chat templates use.
//
// Templates are foreign code that comes with foreign weights. They get no files, no attributes of
// real objects, no changes to their arguments; their work, their text and their nesting are
// limited.
//
// Limits   Arena::kStepsMax steps and one for each byte of the variables' texts, kTextBytesMax bytes
//          of output and of any text, kRunDepthMax calls inside each other. Exceeding one is an
//          Error; all are reached well within a second.
// Threads  render() keeps nothing; a Template may be rendered from several threads.
// Errors   compile(): kCorrupt, kUnsupported. render(): kInvalidArgument for a mistake of the template
//          or what it says with raise_exception; kUnsupported for a filter or test that we do not
//          have. Messages begin with "line N: ".
// Known    departures from Jinja2: autoescape, block, include, import, extends and the function
//          lipsum are not there, nor are the filters pprint, random, striptags, urlize, wordwrap
//          and xmlattr; a dict's views and a range are lists. A name that is handed in and also set
//          by the template is what was handed in until then, also inside of macros and call blocks;
//          the arguments of a filter block do not see what is set inside of it. See also
//          python_text.h and python_format.h.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "text/jinja/ast.h"
#include "text/jinja/strftime.h"

namespace penstock::jinja {

inline constexpr int kRunDepthMax = 400;
inline constexpr size_t kSourceBytesMax = size_t{1} << 20;  // published templates have 20 KiB

class Template {
 public:
  static Result<Template> compile(std::string_view source);

  // The variables that the template sees; a later one hides an earlier one of the same name.
  using Variables = std::vector<std::pair<std::string, Json>>;
  // `now` is what strftime_now tells; unset, the machine's clock is read.
  Result<std::string> render(const Variables& variables,
                             const std::optional<LocalTime>& now = std::nullopt) const;

  // What the tree takes on the heap, to a tenth.
  size_t memory_bytes() const;

 private:
  explicit Template(Tree tree) : tree_(std::move(tree)) {}

  Tree tree_;
};

}  // namespace penstock::jinja
