// chart: a chart described in JSON on standard input becomes SVG on standard output.
//
//   chart < results.json > results.svg
//
// The description is that of parse_chart() in engine/svg_chart.h. Exit code 2 for a wrong one.
#include <iostream>
#include <iterator>

#include "engine/svg_chart.h"

namespace penstock {
namespace {

Result<std::string> draw(const std::string& text) {
  const Json json = PENSTOCK_TRY(parse_json(text, "standard input"));
  return to_svg(PENSTOCK_TRY(parse_chart(json, "standard input")));
}

}  // namespace
}  // namespace penstock

int main() {
  const std::string text(std::istreambuf_iterator<char>(std::cin), {});
  const penstock::Result<std::string> svg = penstock::draw(text);
  if (!svg) {
    std::cerr << "chart: " << svg.error().message << '\n';
    return 2;
  }
  std::cout << *svg;
  return std::cout.flush() ? 0 : 5;
}
