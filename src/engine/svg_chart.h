// Charts as SVG text: lines, points and stacked bars, with axes that say their units.
//
// The one plotting facility of the project: forecasts (`plan --svg`), benchmark results and the
// laboratory's ledger go through it (bench/chart.cc reads a chart as JSON). Colours are middle
// tones and all text takes the colour of the reader's page, so that a chart is legible on light and
// on dark ground.
//
//   Chart chart{.title = "Speed", .x_label = "budget, GiB", .y_label = "tok/s"};
//   chart.series.push_back({"limit", {{4, 1.2}, {8, 2.9}}, ChartStyle::kDashed});
//   const std::string svg = to_svg(chart);
//
// Errors  parse_chart(): kCorrupt, kNotFound naming the key. Points that are no numbers are left
//         out by to_svg().
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace penstock {

enum class ChartStyle : uint8_t { kLine, kDashed, kPoints, kSteps };

struct ChartSeries {
  std::string name;
  std::vector<std::pair<double, double>> points;  // bars: (index of the category, height)
  ChartStyle style = ChartStyle::kLine;
};

struct Chart {
  std::string title;
  std::string x_label, y_label;         // with units
  bool has_log_x = false;               // x above 0
  std::vector<std::string> categories;  // not empty: bars, the series on top of one another
  std::vector<ChartSeries> series;
};

std::string to_svg(const Chart& chart);

// {"title", "x_label", "y_label", "log_x", "categories": ["a"], "series": [{"name", "style":
// "line|dashed|points|steps", "points": [[x, y]]}]}; log_x, categories and style may be absent.
Result<Chart> parse_chart(const Json& json, const std::string& what);

// Round numbers, about `count` of them, that cover low .. high: the marks of an axis.
std::vector<double> axis_marks(double low, double high, int count);

}  // namespace penstock
