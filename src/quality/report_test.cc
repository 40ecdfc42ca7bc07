#include "quality/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace penstock {
namespace {

using testing::HasSubstr;
using testing::Not;

TextOutcome texts(double nll, std::optional<double> divergence) {
  TextOutcome outcome;
  outcome.texts = 2;
  outcome.tokens = 100;
  outcome.bytes = 400;
  outcome.nll = nll;
  outcome.nats_error = 0.01;
  if (!divergence) return outcome;
  TextChange change;
  change.nats = 0.02;
  change.nats_error = 0.004;
  change.nats_95 = {0.012, 0.028};
  change.divergence_mean = *divergence;
  change.divergence_999 = 10 * *divergence;
  change.same_top = {.good = 97, .of = 100};
  outcome.change = change;
  return outcome;
}

Json row(const std::string& label, double bytes, std::optional<double> divergence) {
  Json json{{"label", label}, {"experts_per_token", 8.0}, {"bytes_per_token", bytes}};
  json["texts"] = text_json(texts(250, divergence));
  return json;
}

TEST(Report, tells_perplexity_and_bits_of_what_was_summed) {
  const Json json = text_json(texts(250, 0.01));
  EXPECT_NEAR(json.at("perplexity").get<double>(), std::exp(2.5), 1e-9);
  EXPECT_TRUE(json.at("change").at("significant").get<bool>());
  TextOutcome even = texts(250, 0.01);
  even.change->nats_95 = {-0.001, 0.028};
  EXPECT_FALSE(text_json(even).at("change").at("significant").get<bool>());
}

TEST(Report, says_of_which_rows_the_base_was_lossy) {
  const std::vector<Json> rows = {{{"label", "a"}, {"base_lossy", false}},
                                  {{"label", "b"}, {"base_lossy_text", "of 8 | at most 6"}}};
  EXPECT_THAT(eval_table(rows), HasSubstr("| against a LOSSY base |"));
  EXPECT_THAT(eval_table(rows), HasSubstr("| a |  |\n| b | of 8 / at most 6 |\n"));
  EXPECT_THAT(eval_table(std::span(rows).first(1)), Not(HasSubstr("LOSSY")));
}

TEST(Report, says_which_rows_are_lossy_themselves) {
  const std::vector<Json> rows = {{{"label", "a"}, {"lossy", false}},
                                  {{"label", "b"}, {"lossy_text", "6 experts per token"}}};
  EXPECT_THAT(eval_table(rows), HasSubstr("| LOSSY |"));
  EXPECT_THAT(eval_table(rows), HasSubstr("| a |  |\n| b | 6 experts per token |\n"));
  EXPECT_THAT(eval_table(std::span(rows).first(1)), Not(HasSubstr("LOSSY")));
}

TEST(Report, has_a_row_for_each_and_leaves_columns_out_that_are_empty) {
  const std::vector<Json> rows = {row("a|b", 4e6, {}), row("c", 2e6, 0.01)};
  const std::string table = eval_table(rows);
  EXPECT_EQ(std::ranges::count(table, '\n'), 4);
  EXPECT_THAT(table, HasSubstr("| a/b |"));
  EXPECT_THAT(table, HasSubstr("| 97.0 ± 1.8 |"));
  EXPECT_THAT(table, Not(HasSubstr("valid")));
  EXPECT_THAT(eval_table(std::span(rows).first(1)), Not(HasSubstr("KL")));
}

// 0.01 nats for 2 MB less than the row with the most.
TEST(Report, the_exchange_rate_is_divergence_for_each_megabyte_saved) {
  const std::vector<Json> rows = {row("a", 4e6, 0.001), row("c", 2e6, 0.01)};
  EXPECT_THAT(eval_table(rows), HasSubstr("| 5.00e-03 |"));
  const std::vector<QualityPoint> points = quality_points(rows);
  ASSERT_EQ(points.size(), 2u);
  EXPECT_EQ(points[1].mb_per_token, 2);
  EXPECT_EQ(points[1].divergence, 0.01);
}

TEST(Report, tells_of_a_set_what_was_lost_and_gained) {
  SetOutcome outcome;
  outcome.name = "tools";
  outcome.free.exact = {.good = 1, .of = 2};
  outcome.free.valid = Share{.good = 2, .of = 2};
  outcome.answers = {{"x", {}, true, true}, {"y", {}, false, true}};
  outcome.change = AnswerChange{.lost = 10, .gained = 2, .p = mcnemar(10, 2)};
  Json json = row("a", 1e6, {});
  json["sets"]["tools"] = set_json(outcome);
  EXPECT_EQ(json["sets"]["tools"]["wrong"], Json::array({"y"}));
  const std::string table = eval_table(std::vector<Json>{json});
  EXPECT_THAT(table, HasSubstr("| 50.0 ± 35.4 |"));
  EXPECT_THAT(table, HasSubstr("| -10 +2, p 0.039 |"));
  EXPECT_THAT(table, HasSubstr("| tools valid % |"));
}

TEST(Report, has_a_column_for_each_length_of_recall) {
  Json json = row("a", 1e6, {});
  json["endurance"] = endurance_json({.tokens = 2000,
                                      .repeated = 0.25,
                                      .loops = {.good = 1, .of = 4},
                                      .early = {.good = 0, .of = 4}});
  const std::vector<RecallOutcome> recall = {{512, {.good = 10, .of = 10}},
                                             {1024, {.good = 3, .of = 10}}};
  json["recall"] = recall_json(recall);
  const std::string table = eval_table(std::vector<Json>{json});
  EXPECT_THAT(table,
              HasSubstr("| repeated tokens % | loops % | early stops % | recall in 512 tokens % | "
                        "recall in 1024 tokens % |"));
  EXPECT_THAT(table, HasSubstr("| 25.0 | 25.0 ± 22.9 | 0.0 ± 15.0 | 100.0 ± 6.6 | 30.0 ± 14.7 |"));
}

TEST(Report, takes_rows_that_are_not_as_expected_for_empty_ones) {
  for (const char* text : {"{}", R"({"label":7,"texts":[],"sets":{"a":3}})", R"({"sets":[1]})",
                           R"({"label":"x","texts":{"change":{"kl_mean":"y"}}})"}) {
    EXPECT_FALSE(eval_table(std::vector<Json>{parse_json(text, "row").value()}).empty()) << text;
  }
}

}  // namespace
}  // namespace penstock
