// bench: speeds of a model at several budgets, depths and states of the cache.

#include <fmt/format.h>

#include <charconv>

#include "base/byte_text.h"
#include "cli/drive_report.h"
#include "cli/figures.h"
#include "cli/gpu_advice.h"
#include "cli/loading.h"
#include "cli/program.h"
#include "cli/progress.h"
#include "engine/knobs.h"
#include "survey/bench_report.h"
#include "survey/bench_run.h"

namespace penstock {
namespace {

constexpr uint64_t kPromptBytesMax = 64 << 20;

std::vector<std::string> split(const std::string& list) {
  std::vector<std::string> words;
  size_t begin = 0;
  for (;;) {
    const size_t comma = list.find(',', begin);
    words.push_back(list.substr(begin, comma - begin));
    if (comma == std::string::npos) return words;
    begin = comma + 1;
  }
}

// "512,1024" -> numbers; none of them negative.
Result<std::vector<int64_t>> counts_of(const Settings& settings, const char* option) {
  constexpr int64_t kCountMax = 1 << 24;
  std::vector<int64_t> counts;
  for (const std::string& word : split(settings.text(option))) {
    int64_t count = 0;
    const char* end = word.data() + word.size();
    const auto [stopped, failure] = std::from_chars(word.data(), end, count);
    if (failure != std::errc{} || stopped != end || count < 0 || count > kCountMax) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("--{}: \"{}\" is not a number of tokens; write 512 or 512,1024",
                               option, word)};
    }
    counts.push_back(count);
  }
  return counts;
}

// All tests but for the budget, which needs the model to be understood.
Result<std::vector<BenchTest>> tests_of(const Settings& settings) {
  std::vector<CacheStart> starts;
  if (settings.is_on("cold")) starts.push_back(CacheStart::kCold);
  if (settings.is_on("warm") || starts.empty()) starts.push_back(CacheStart::kWarm);
  const std::vector<int64_t> prompts = PENSTOCK_TRY(counts_of(settings, "prompt-tokens"));
  const std::vector<int64_t> answers = PENSTOCK_TRY(counts_of(settings, "answer-tokens"));
  BenchTest test;
  test.repetitions = static_cast<int>(settings.integer("repetitions"));
  std::vector<BenchTest> tests;
  for (const CacheStart start : starts) {
    test.start = start;
    for (const int64_t depth : PENSTOCK_TRY(counts_of(settings, "depth"))) {
      test.depth = depth;
      test.answer_tokens = 0;
      for (const int64_t tokens : prompts) {
        test.prompt_tokens = tokens;
        if (tokens > 0) tests.push_back(test);
      }
      test.prompt_tokens = 0;
      for (const int64_t tokens : answers) {
        test.answer_tokens = tokens;
        if (tokens > 0) tests.push_back(test);
      }
    }
  }
  if (!tests.empty()) return tests;
  return Error{ErrorCode::kInvalidArgument,
               "nothing to measure: give -p or -n a number of tokens above 0"};
}

Result<BenchOptions> bench_options(Call& call, const std::vector<BenchTest>& tests) {
  BenchOptions options;
  options.engine = PENSTOCK_TRY(engine_options(call));
  options.engine.tell = [&](const std::string& text) { call.terminal.warning(text); };
  options.routing = call.settings.text("routing");
  options.seed = static_cast<uint64_t>(call.settings.integer("seed"));
  if (call.settings.is_given("drafts-right")) {
    options.drafts_right = call.settings.number("drafts-right");
  }
  const std::string& text = call.settings.text("text");
  if (!text.empty()) options.text = PENSTOCK_TRY(read_text(call.storage, text, kPromptBytesMax));
  const ModelFiles files = PENSTOCK_TRY(open_model(call.storage, options.engine.model));
  for (const BenchTest& test : tests) {
    options.engine.context = std::max(
        options.engine.context, context_of(test, files.config, options.engine.experts_per_token));
  }
  PENSTOCK_TRY(settle_gpu(call, options.engine));
  return options;
}

Result<std::vector<uint64_t>> budgets_of(const Settings& settings, const Bench& bench) {
  std::vector<uint64_t> budgets;
  for (const std::string& words : split(settings.text("budgets"))) {
    budgets.push_back(PENSTOCK_TRY(bench.budget_of(words)));
  }
  return budgets;
}

class RowPrinter {
 public:
  RowPrinter(Call& call, const Bench& bench, std::string lossy)
      : call_(call), context_(bench_context(bench.files(), PENSTOCK_VERSION)) {
    for (const Knob& knob : all_knobs()) {
      knobs_[std::string(knob.name)] = knob.get(bench.options().engine);
    }
    context_.lossy = std::move(lossy);
  }

  void add(const BenchRow& row) {
    tell_drives(call_, row.drives);
    if (row.gpu) {
      call_.terminal.note(fmt::format("{}; {} copied there{}", gpu_line(*row.gpu),
                                      format_bytes(row.gpu->bytes_copied),
                                      row.gpu->is_lost ? "; it was lost meanwhile" : ""));
    }
    if (call_.json()) {
      Json json = to_json(row, context_);
      json["knobs"] = knobs_;
      json["drives"] = drives_json(row.drives);
      if (row.gpu) json["gpu"] = gpu_json(*row.gpu);
      call_.output.write_line(json);
      return;
    }
    if (is_first_) call_.output.write(table_head(context_, row));
    call_.output.write(table_line(row));
    is_first_ = false;
  }

 private:
  Call& call_;
  BenchContext context_;
  Json knobs_ = Json::object();
  bool is_first_ = true;
};

}  // namespace

Result<int> bench_verb(Call& call) {
  const std::vector<BenchTest> tests = PENSTOCK_TRY(tests_of(call.settings));
  BenchOptions options = PENSTOCK_TRY(bench_options(call, tests));
  const ExpertLimits limits = options.engine.expert_limits;
  const KvForm kv_form = options.engine.kv_form;
  const LowBitOptions low_bits = options.engine.low_bits;
  Bench bench = PENSTOCK_TRY(Bench::create(call.storage, std::move(options)));
  const std::string lossy = lossy_text(bench.files().config, bench.experts_per_token(), limits,
                                       kv_form, low_bits_text(bench.files(), low_bits));
  if (!lossy.empty()) call.terminal.warning(lossy);
  const std::vector<uint64_t> budgets = PENSTOCK_TRY(budgets_of(call.settings, bench));
  call.interrupt.set_policy(Interrupt::Policy::kStop);
  const std::stop_token stop = call.interrupt.token();
  const double disk_seconds = call.settings.number("disk-seconds");
  if (disk_seconds > 0) {
    const double gbps = PENSTOCK_TRY(bench.probe_disk(disk_seconds, stop));
    call.terminal.note(fmt::format("the disk gives {:.2f} GB/s to reads of experts", gbps));
  }
  RowPrinter rows(call, bench, lossy);
  for (const uint64_t budget : budgets) {
    for (BenchTest test : tests) {
      test.budget_bytes = budget;
      Progress progress(
          call.terminal,
          fmt::format("{} {} at {}", test_name(test), name_of(test.start), format_bytes(budget)),
          Progress::Unit::kItems);
      const auto observer = [&](int done, int total) {
        progress.update(static_cast<uint64_t>(done), static_cast<uint64_t>(total));
      };
      const BenchRow row = PENSTOCK_TRY(bench.run(test, observer, stop));
      progress.finish();
      rows.add(row);
      if (!call.output.is_usable()) return kExitDone;
    }
  }
  return kExitDone;
}

}  // namespace penstock
