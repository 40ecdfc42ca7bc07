#include "survey/svg_chart.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <regex>

namespace penstock {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

int count_of(const std::string& text, const std::string& part) {
  int count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

Chart lines() {
  Chart chart;
  chart.title = "Speed & <limit>";
  chart.x_label = "budget, GiB";
  chart.y_label = "tok/s";
  chart.series = {{"predicted", {{4, 1}, {8, 2}, {16, 3.5}}},
                  {"limit", {{4, 2}, {16, 6}}, ChartStyle::kDashed}};
  return chart;
}

TEST(SvgChart, marks_are_round_and_cover_the_range) {
  EXPECT_THAT(axis_marks(0, 10, 6), ElementsAre(0, 2, 4, 6, 8, 10));
  EXPECT_THAT(axis_marks(0, 3.5, 6), ElementsAre(0, 1, 2, 3, 4));
  EXPECT_LE(axis_marks(0.3, 97, 6).front(), 0.3);
  EXPECT_GE(axis_marks(0.3, 97, 6).back(), 97);
}

TEST(SvgChart, names_axes_series_and_escapes_text) {
  const std::string svg = to_svg(lines());
  EXPECT_THAT(svg, HasSubstr("Speed &amp; &lt;limit&gt;"));
  EXPECT_THAT(svg, HasSubstr(">budget, GiB<"));
  EXPECT_THAT(svg, HasSubstr(">tok/s<"));
  EXPECT_THAT(svg, HasSubstr(">predicted<"));
  EXPECT_EQ(count_of(svg, "stroke-dasharray"), 1);
  EXPECT_EQ(count_of(svg, "<svg"), count_of(svg, "</svg>"));
}

TEST(SvgChart, text_follows_the_page_from_light_to_dark) {
  EXPECT_THAT(to_svg(lines()), HasSubstr("prefers-color-scheme:dark"));
  EXPECT_THAT(to_svg(lines()), Not(HasSubstr("<rect fill=\"white\"")));
}

TEST(SvgChart, larger_values_are_higher_and_further_right) {
  Chart chart = lines();
  chart.series.resize(1);
  std::string svg = to_svg(chart);
  svg = svg.substr(svg.find("stroke-width=\"2\""));
  const std::regex place("[ML]([0-9.]+) ([0-9.]+)");
  double x_before = 0, y_before = 1e9;
  int seen = 0;
  for (std::sregex_iterator it(svg.begin(), svg.end(), place), end; it != end; ++it, ++seen) {
    EXPECT_GT(std::stod((*it)[1]), x_before);
    EXPECT_LT(std::stod((*it)[2]), y_before);
    x_before = std::stod((*it)[1]);
    y_before = std::stod((*it)[2]);
  }
  EXPECT_EQ(seen, 3);
}

TEST(SvgChart, bars_stand_on_one_another) {
  Chart chart;
  chart.title = "Terms";
  chart.categories = {"8 GiB", "16 GiB"};
  chart.series = {{"flash", {{0, 30}, {1, 10}}}, {"dense", {{0, 10}, {1, 10}}}};
  const std::string svg = to_svg(chart);
  EXPECT_EQ(count_of(svg, "<rect"), 4 + 2) << "four bars and two keys of the legend";
  EXPECT_THAT(svg, HasSubstr(">16 GiB<"));
}

TEST(SvgChart, points_are_not_joined) {
  Chart chart = lines();
  chart.series[0].style = ChartStyle::kPoints;
  const std::string svg = to_svg(chart);
  EXPECT_EQ(count_of(svg, "<circle"), 3);
  EXPECT_EQ(count_of(svg, "stroke-width=\"2\""), 1) << "the other series is a line";
}

TEST(SvgChart, what_is_no_number_is_left_out) {
  Chart chart = lines();
  chart.series[1].points = {{8, std::nan("")}, {INFINITY, 1}, {8, 1}};
  const std::string svg = to_svg(chart);
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  EXPECT_THAT(svg, Not(HasSubstr("inf")));
  EXPECT_THAT(to_svg(Chart{}), Not(HasSubstr("nan"))) << "an empty chart is a chart";
}

}  // namespace
}  // namespace penstock
