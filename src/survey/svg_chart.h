// Charts as SVG text: lines, points and stacked bars, with axes that say their units: the forecasts of
// `plan --svg` and `--html`, and what `eval --svg` measured. Results under bench/ are drawn by
// scripts (bench/svg_plot.py).
//
// Colours are middle tones and all text takes the colour of the reader's page, so that a chart is
// legible on light and on dark ground.
//
//   Chart chart{.title = "Speed", .x_label = "budget, GiB", .y_label = "tok/s"};
//   chart.series.push_back({"limit", {{4, 1.2}, {8, 2.9}}, ChartStyle::kDashed});
//   const std::string svg = to_svg(chart);
//
// Points that are no numbers are left out.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace penstock {

enum class ChartStyle : uint8_t { kLine, kDashed, kPoints };

struct ChartSeries {
  std::string name;
  std::vector<std::pair<double, double>> points;  // bars: (index of the category, height)
  ChartStyle style = ChartStyle::kLine;
};

struct Chart {
  std::string title;
  std::string x_label, y_label;         // with units
  std::vector<std::string> categories;  // not empty: bars, the series on top of one another
  std::vector<ChartSeries> series;
};

std::string to_svg(const Chart& chart);

// Round numbers, about `count` of them, that cover low .. high: the marks of an axis.
std::vector<double> axis_marks(double low, double high, int count);

}  // namespace penstock
