#include "survey/svg_chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string_view>

namespace penstock {
namespace {

constexpr double kWidth = 760, kHeight = 420;
constexpr double kLeft = 64, kRight = 200, kTop = 40, kBottom = 56;  // margins; legend on the right
constexpr std::array<std::string_view, 9> kColours = {"#3b82c4", "#d9772b", "#3f9e57",
                                                      "#c4527f", "#8a6fc9", "#a88a1e",
                                                      "#2fa3a0", "#8c8c8c", "#6b4f3a"};
constexpr std::string_view kStyle =
    "<style>.t{font:13px sans-serif;fill:#222}.a{stroke:#222;fill:none}"
    ".g{stroke:#8888;stroke-width:.5;fill:none}"
    "@media(prefers-color-scheme:dark){.t{fill:#ddd}.a{stroke:#ddd}}</style>\n";

std::string as_xml(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      default: out += c;
    }
  }
  return out;
}

// From values to places on the drawing.
struct Scale {
  double low = 0, high = 1;
  double start = 0, end = 1;

  double operator()(double value) const {
    return start + (value - low) / (high - low) * (end - start);
  }
};

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();

  void add(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  bool is_empty() const { return low > high; }
};

bool is_drawable(const std::pair<double, double>& point) {
  return std::isfinite(point.first) && std::isfinite(point.second);
}

class Drawing {
 public:
  explicit Drawing(const Chart& chart) : chart_(chart) {}

  std::string svg() {
    set_scales();
    out_ = fmt::format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" role=\"img\">\n", kWidth,
        kHeight);
    out_ += fmt::format("<title>{}</title>\n", as_xml(chart_.title));
    out_ += kStyle;
    text(kLeft, 22, "start", chart_.title);
    draw_y_axis();
    if (has_bars()) {
      draw_bars();
    } else {
      draw_x_axis();
      for (size_t i = 0; i < chart_.series.size(); ++i) draw_series(i);
    }
    draw_legend();
    return out_ + "</svg>\n";
  }

 private:
  bool has_bars() const { return !chart_.categories.empty(); }
  static std::string_view colour(size_t i) { return kColours[i % kColours.size()]; }

  void text(double x, double y, std::string_view anchor, std::string_view words) {
    out_ +=
        fmt::format("<text class=\"t\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n", x,
                    y, anchor, as_xml(words));
  }
  void line(std::string_view kind, double x0, double y0, double x1, double y1) {
    out_ += fmt::format("<path class=\"{}\" d=\"M{:.1f} {:.1f}L{:.1f} {:.1f}\"/>\n", kind, x0, y0,
                        x1, y1);
  }

  void set_scales();
  void draw_y_axis();
  void draw_x_axis();
  void draw_bars();
  void draw_series(size_t index);
  void draw_points(size_t index);
  void draw_legend();

  const Chart& chart_;
  std::string out_;
  Scale x_, y_;
};

void Drawing::set_scales() {
  Range x, y;
  y.add(0);
  std::vector<double> heights(chart_.categories.size());
  for (const ChartSeries& series : chart_.series) {
    for (const auto& point : series.points) {
      if (!is_drawable(point)) continue;
      if (!has_bars()) {
        x.add(point.first);
        y.add(point.second);
      } else if (point.first >= 0 && point.first < static_cast<double>(heights.size())) {
        y.add(heights[static_cast<size_t>(point.first)] += std::max(0.0, point.second));
      }
    }
  }
  if (x.is_empty()) {
    x.add(0);
    x.add(1);
  }
  if (x.low == x.high) x.high = x.low + 1;
  if (y.low == y.high) y.high = y.low + 1;
  const std::vector<double> marks = axis_marks(y.low, y.high, 6);
  x_ = {x.low, x.high, kLeft, kWidth - kRight};
  y_ = {std::min(y.low, marks.front()), std::max(y.high, marks.back()), kHeight - kBottom, kTop};
}

void Drawing::draw_y_axis() {
  for (const double mark : axis_marks(y_.low, y_.high, 6)) {
    line("g", kLeft, y_(mark), kWidth - kRight, y_(mark));
    text(kLeft - 6, y_(mark) + 4, "end", fmt::format("{:.4g}", mark));
  }
  line("a", kLeft, kTop, kLeft, kHeight - kBottom);
  out_ += fmt::format(
      "<text class=\"t\" transform=\"translate(16 {:.1f}) rotate(-90)\" "
      "text-anchor=\"middle\">{}</text>\n",
      (kTop + kHeight - kBottom) / 2, as_xml(chart_.y_label));
}

void Drawing::draw_x_axis() {
  const double floor = kHeight - kBottom;
  line("a", kLeft, floor, kWidth - kRight, floor);
  text((kLeft + kWidth - kRight) / 2, kHeight - 12, "middle", chart_.x_label);
  for (const double mark : axis_marks(x_.low, x_.high, 8)) {
    if (mark < x_.low || mark > x_.high * (1 + 1e-9)) continue;
    line("a", x_(mark), floor, x_(mark), floor + 4);
    text(x_(mark), floor + 18, "middle", fmt::format("{:.4g}", mark));
  }
}

void Drawing::draw_bars() {
  const auto count = static_cast<double>(chart_.categories.size());
  const double slot = (kWidth - kLeft - kRight) / count;
  const double floor = kHeight - kBottom;
  line("a", kLeft, floor, kWidth - kRight, floor);
  text((kLeft + kWidth - kRight) / 2, kHeight - 12, "middle", chart_.x_label);
  std::vector<double> heights(chart_.categories.size());
  for (size_t i = 0; i < chart_.series.size(); ++i) {
    for (const auto& point : chart_.series[i].points) {
      if (!is_drawable(point) || point.first < 0 || point.first >= count) continue;
      double& height = heights[static_cast<size_t>(point.first)];
      const double top = height + std::max(0.0, point.second);
      out_ += fmt::format(
          "<rect fill=\"{}\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\"/>\n",
          colour(i), kLeft + slot * (std::floor(point.first) + 0.15), y_(top), 0.7 * slot,
          y_(height) - y_(top));
      height = top;
    }
  }
  for (size_t i = 0; i < chart_.categories.size(); ++i) {
    text(kLeft + slot * (static_cast<double>(i) + 0.5), floor + 18, "middle", chart_.categories[i]);
  }
}

void Drawing::draw_series(size_t index) {
  const ChartSeries& series = chart_.series[index];
  if (series.style == ChartStyle::kPoints) return draw_points(index);
  std::string path;
  for (const auto& point : series.points) {
    if (!is_drawable(point)) continue;
    path +=
        fmt::format("{}{:.1f} {:.1f}", path.empty() ? 'M' : 'L', x_(point.first), y_(point.second));
  }
  if (path.empty()) return;
  out_ += fmt::format("<path fill=\"none\" stroke=\"{}\" stroke-width=\"2\"{} d=\"{}\"/>\n",
                      colour(index),
                      series.style == ChartStyle::kDashed ? " stroke-dasharray=\"6 4\"" : "", path);
}

void Drawing::draw_points(size_t index) {
  for (const auto& point : chart_.series[index].points) {
    if (!is_drawable(point)) continue;
    out_ += fmt::format("<circle fill=\"{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"5\"/>\n",
                        colour(index), x_(point.first), y_(point.second));
  }
}

void Drawing::draw_legend() {
  double y = kTop + 8;
  for (size_t i = 0; i < chart_.series.size(); ++i, y += 20) {
    out_ += fmt::format("<rect fill=\"{}\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"14\" height=\"4\"/>\n",
                        colour(i), kWidth - kRight + 16, y - 6);
    text(kWidth - kRight + 36, y, "start", chart_.series[i].name);
  }
}

}  // namespace

std::vector<double> axis_marks(double low, double high, int count) {
  const double raw = (high - low) / std::max(1, count - 1);
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  const double digit = raw / power;
  const double step = power * (digit <= 1 ? 1 : digit <= 2 ? 2 : digit <= 5 ? 5 : 10);
  std::vector<double> marks;
  const double first = std::floor(low / step + 1e-9);
  for (double i = first; (i - 1) * step < high - 1e-9 * step; ++i) marks.push_back(i * step);
  return marks;
}

std::string to_svg(const Chart& chart) {
  return Drawing(chart).svg();
}

}  // namespace penstock
