// What was measured of a model, as one JSON object, and a table of several.
//
// Rows are JSON because they are kept in files and may come back from there; a table leaves cells empty
// that a row has nothing for.
//
// Threads  plain functions
// Errors   none: what is not as expected in a row is an empty cell
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "quality/answer_eval.h"
#include "quality/endurance_eval.h"
#include "quality/text_eval.h"

namespace penstock {

Json text_json(const TextOutcome& outcome);
Json set_json(const SetOutcome& outcome);

Json endurance_json(const EnduranceOutcome& outcome);
Json recall_json(std::span<const RecallOutcome> outcomes);  // by length

// Rows as Markdown; a column of its own says of which rows the base was lossy. "KL per MB saved" is what a row's mean divergence comes to for each megabyte of
// experts per token that it needs less than the row with the most.
std::string eval_table(std::span<const Json> rows);

// (bytes per token, mean KL) of the rows that have both; by label.
struct QualityPoint {
  std::string label;
  double mb_per_token = 0;
  double divergence = 0;
};
std::vector<QualityPoint> quality_points(std::span<const Json> rows);

}  // namespace penstock
