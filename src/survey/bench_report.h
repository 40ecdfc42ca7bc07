// Rows of a benchmark as a table for people and as JSON for programs.
//
// The JSON has the keys of llama-bench where they mean the same (speeds in tokens per second, times
// in nanoseconds, one sample per repetition), so that its readers work, and ours beside them.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "survey/bench_run.h"

namespace penstock {

struct Spread {
  double average = 0, deviation = 0;  // of the sample
  double median = 0, low = 0, high = 0;
};
Spread spread_of(std::vector<double> values);

// What a row says about the program and the machine.
struct BenchContext {
  std::string model;         // its folder
  std::string build_commit;  // or version
  std::string cpu;
  uint64_t model_bytes = 0;  // of the weights, on disk
  int64_t model_parameters = 0;
  std::string model_type;  // "qwen3_5_moe 34.66 B, experts q4, others q8"
  std::string lossy;       // what is left out of the model, in words; empty: nothing
};
BenchContext bench_context(const ModelFiles& files, const std::string& build_commit);

std::string test_name(const BenchTest& test);  // "pp512", "tg64 @ d2048"

Json to_json(const BenchRow& row, const BenchContext& context);

// Markdown. All rows of one table have one model and one machine, which the lines above it name.
std::string table_head(const BenchContext& context, const BenchRow& first);
std::string table_line(const BenchRow& row);

}  // namespace penstock
