// eval: a model's quality, alone and against a reference run.

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <numeric>

#include "cli/drive_report.h"
#include "cli/figures.h"
#include "cli/generation.h"
#include "cli/json_lines.h"
#include "cli/loading.h"
#include "cli/progress.h"
#include "io/output_file.h"
#include "quality/answer_eval.h"
#include "quality/base_file.h"
#include "quality/endurance_eval.h"
#include "quality/prediction.h"
#include "quality/report.h"
#include "quality/text_eval.h"
#include "quality/traffic.h"
#include "survey/svg_chart.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kFilePrefix = "eval_", kFileEnd = ".jsonl";
constexpr std::string_view kTextSet = "text";

// What is to be measured, before a tokenizer is there.
struct RawSet {
  std::string name;
  std::vector<Json> lines;
};

Result<std::vector<Json>> lines_of(Call& call, const std::string& path) {
  JsonLines file = PENSTOCK_TRY(JsonLines::open_path(call.storage, path, "data"));
  std::vector<Json> lines;
  while (std::optional<Json> line = PENSTOCK_TRY(file.next())) lines.push_back(*std::move(line));
  if (lines.empty()) return invalid_argument(path + ": there is no item in it");
  return lines;
}

// The folder's sets, the texts first.
Result<std::vector<RawSet>> raw_sets(Call& call) {
  const std::string& folder = call.settings.text("data");
  if (folder.empty()) return invalid_argument("--data FOLDER is missing");
  std::vector<std::string> wanted = call.settings.list("sets");
  const bool wants_all = wanted.empty();
  const Result<std::vector<std::string>> files = call.storage.list(folder);
  if (!files) return invalid_argument("--data: " + files.error().message);
  std::vector<RawSet> sets;
  for (const std::string& file : *files) {
    const bool is_set = file.starts_with(kFilePrefix) && file.ends_with(kFileEnd) &&
                        file.size() > kFilePrefix.size() + kFileEnd.size();
    if (!is_set) continue;
    const std::string name =
        file.substr(kFilePrefix.size(), file.size() - kFilePrefix.size() - kFileEnd.size());
    if (!wants_all && std::erase(wanted, name) == 0) continue;
    RawSet set{name, {}};
    set.lines = PENSTOCK_TRY(lines_of(call, (fs::path(folder) / file).string()));
    sets.push_back(std::move(set));
  }
  if (!wanted.empty()) {
    return invalid_argument(
        fmt::format("--sets: there is no eval_{}.jsonl in {}", wanted.front(), folder));
  }
  if (sets.empty())
    return invalid_argument(fmt::format("--data: there is no eval_*.jsonl in {}", folder));
  std::stable_partition(sets.begin(), sets.end(),
                        [](const RawSet& set) { return set.name == kTextSet; });
  return sets;
}

Result<std::vector<EvalText>> texts_of(const Engine& engine, const std::vector<Json>& lines) {
  const Tokenizer* tokenizer = PENSTOCK_TRY(tokenizer_of(engine.texts()));
  std::vector<EvalText> texts;
  for (const Json& line : lines) {
    const std::string text = PENSTOCK_TRY(json_string(line, "text", id_text(line)));
    texts.push_back({id_text(line), text.size(), tokenizer->encode(text)});
  }
  return texts;
}

Result<EvalSet> set_of(const Engine& engine, const RawSet& raw) {
  PENSTOCK_TRY(check_can_chat(engine.texts()));
  EvalSet set{raw.name, {}};
  for (const Json& line : raw.lines) {
    Result<EvalItem> item = eval_item(engine.texts(), line);
    if (!item) return item.error().with_context("set " + raw.name);
    set.items.push_back(*std::move(item));
  }
  return set;
}

// The rows that are there, without one of this label.
Result<std::vector<Json>> earlier_rows(Call& call, const std::string& label) {
  std::vector<Json> rows;
  const std::string& path = call.settings.text("rows");
  if (path.empty()) return rows;
  const Result<FileStat> found = call.storage.stat(path);
  if (!found && found.error().code == ErrorCode::kNotFound) return rows;
  const std::string text = PENSTOCK_TRY(read_text(call.storage, path, 64 << 20));
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    if (line.empty()) continue;
    Json row = PENSTOCK_TRY(parse_json(line, path));
    const Json* its_label = json_find(row, "label");
    if (its_label == nullptr || !its_label->is_string()) {
      return invalid_argument(fmt::format("--rows: {}: a line is no row of eval", path));
    }
    if (*its_label != label) rows.push_back(std::move(row));
  }
  return rows;
}

Chart quality_chart(const std::vector<Json>& rows) {
  Chart chart;
  chart.title = "What fewer bytes cost";
  chart.x_label = "experts, MB per token";
  chart.y_label = "mean KL divergence, nats";
  for (const QualityPoint& point : quality_points(rows)) {
    chart.series.push_back(
        {point.label, {{point.mb_per_token, point.divergence}}, ChartStyle::kPoints});
  }
  return chart;
}

Result<void> write_text(Call& call, const std::string& path, const std::string& text) {
  return write_output(call.storage, path, std::as_bytes(std::span(text)));
}

class EvalRun {
 public:
  EvalRun(Call& call, Engine& engine, std::string label)
      : call_(call),
        engine_(engine),
        label_(std::move(label)),
        stop_(call.interrupt.token()),
        traffic_(engine.experts().table(),
                 engine.low_bits().is_on() ? &engine.low_bit_experts()->table() : nullptr,
                 engine.low_bits().from_rank) {}

  Result<Json> run(const std::vector<RawSet>& raw) {
    PENSTOCK_TRY(prepare(raw));
    PENSTOCK_TRY(open_base());
    Session session = PENSTOCK_TRY(engine_.new_session());
    if (!texts_.empty()) PENSTOCK_TRY(run_texts(session));
    for (const EvalSet& set : sets_) PENSTOCK_TRY(run_set(session, set));
    PENSTOCK_TRY(run_long(session));
    if (writer_) PENSTOCK_TRY(writer_->finish(std::move(info_)));
    return row();
  }

 private:
  Result<void> prepare(const std::vector<RawSet>& raw) {
    window_tokens_ = std::min(kScoreWindowTokens, engine_.plan_request().context);
    for (const RawSet& set : raw) {
      if (set.name == kTextSet) {
        texts_ = PENSTOCK_TRY(texts_of(engine_, set.lines));
      } else {
        sets_.push_back(PENSTOCK_TRY(set_of(engine_, set)));
      }
    }
    return {};
  }

  int64_t max_tokens() const { return call_.settings.integer("max-tokens"); }

  Result<void> open_base() {
    const int64_t vocab = engine_.config().vocab_size;
    const std::string& path = call_.settings.text("base");
    if (!path.empty()) {
      base_.emplace(PENSTOCK_TRY(BaseFile::open(call_.storage, path)));
      if (!texts_.empty()) {
        PENSTOCK_TRY(check_base_texts(*base_, texts_, window_tokens_, vocab));
      }
      for (const EvalSet& set : sets_) PENSTOCK_TRY(check_base_set(*base_, set, max_tokens()));
      tell_lossy_base(path);
    }
    const std::string& written = call_.settings.text("write-base");
    if (written.empty()) return {};
    if (vocab > kPositionVocabMax) {
      return Error{ErrorCode::kUnsupported,
                   fmt::format("a reference run holds at most {} tokens", kPositionVocabMax)};
    }
    info_ = {.label = label_,
             .model_id = engine_.files().id_text(),
             .lossy = lossy_words(engine_),
             .vocab_size = vocab,
             .window_tokens = window_tokens_,
             .top = static_cast<int>(std::min(call_.settings.integer("base-top"), vocab)),
             .texts = {},
             .sets = {}};
    writer_.emplace(PENSTOCK_TRY(BaseWriter::create(call_.storage, written)));
    return {};
  }

  // What is near to such a base need not be near to the model.
  void tell_lossy_base(const std::string& path) const {
    const BaseInfo& info = base_->info();
    if (info.lossy.empty()) return;
    call_.terminal.warning(
        fmt::format("{}: the base is LOSSY, {} with {}; differences from it are not those from the "
                    "model",
                    path, info.label, info.lossy));
  }

  Result<void> run_texts(Session& session) {
    Progress progress(call_.terminal, "texts", Progress::Unit::kItems);
    TextWishes wishes;
    wishes.window_tokens = window_tokens_;
    wishes.base = base_ ? &*base_ : nullptr;
    wishes.writer = writer_ ? &*writer_ : nullptr;
    wishes.top = info_.top;
    wishes.progress = [&](uint64_t done, uint64_t total) { progress.update(done, total); };
    wishes.on_route = traffic_.observer();
    text_ = PENSTOCK_TRY(evaluate_texts(session, texts_, wishes, stop_));
    return {};
  }

  Result<void> run_set(Session& session, const EvalSet& set) {
    Progress progress(call_.terminal, set.name, Progress::Unit::kItems);
    AnswerWishes wishes;
    wishes.max_tokens = max_tokens();
    wishes.constrained = call_.settings.is_on("constrained");
    wishes.base = base_ ? &*base_ : nullptr;
    wishes.progress = [&](uint64_t done, uint64_t total) { progress.update(done, total); };
    wishes.on_route = traffic_.observer();
    outcomes_.push_back(PENSTOCK_TRY(answers_.evaluate(session, set, wishes, stop_)));
    info_.sets.push_back({set.name, max_tokens(), outcomes_.back().answers});
    return {};
  }

  // Long generations and long prompts, where they are asked for.
  Result<void> run_long(Session& session) {
    const int64_t generations = call_.settings.integer("generations");
    const bool recalls = call_.settings.is_on("recall");
    if (generations == 0 && !recalls) return {};
    if (texts_.empty())
      return invalid_argument("--generations and --recall need the texts of eval_text.jsonl");
    Progress progress(call_.terminal, "long texts", Progress::Unit::kItems);
    LongWishes wishes;
    wishes.progress = [&](uint64_t done, uint64_t total) { progress.update(done, total); };
    if (generations > 0) {
      endurance_ =
          PENSTOCK_TRY(evaluate_endurance(engine_, session, texts_, generations, wishes, stop_));
    }
    if (recalls) recall_ = PENSTOCK_TRY(evaluate_recall(engine_, session, texts_, wishes, stop_));
    return {};
  }

  Json row() const {
    Json row{{"label", label_},
             {"model_id", engine_.files().id_text()},
             {"experts", engine_.files().experts_coding()},
             {"resident", engine_.files().resident_coding()},
             {"lossy", engine_.is_lossy()},
             {"kv_bits", bits_of(engine_.kv_form())},
             {"experts_per_token", traffic_.experts_per_token()},
             {"bytes_per_token", traffic_.bytes_per_token()}};
    if (engine_.is_lossy()) row["lossy_text"] = lossy_words(engine_);
    if (base_) {
      row["base"] = base_->info().label;
      row["base_lossy"] = !base_->info().lossy.empty();
      if (!base_->info().lossy.empty()) row["base_lossy_text"] = base_->info().lossy;
    }
    if (engine_.low_bits().is_on()) {
      row["low_bits"] = low_bits_text(engine_.files(), engine_.low_bits());
    }
    if (text_) row["texts"] = text_json(*text_);
    for (const SetOutcome& outcome : outcomes_) row["sets"][outcome.name] = set_json(outcome);
    if (endurance_) row["endurance"] = endurance_json(*endurance_);
    if (!recall_.empty()) row["recall"] = recall_json(recall_);
    return row;
  }

  Call& call_;
  Engine& engine_;
  std::string label_;
  std::stop_token stop_;
  int64_t window_tokens_ = 0;
  ExpertTraffic traffic_;
  AnswerEval answers_{engine_};
  std::vector<EvalText> texts_;
  std::vector<EvalSet> sets_;
  std::optional<BaseFile> base_;
  std::optional<BaseWriter> writer_;
  BaseInfo info_;  // of the writer
  std::optional<TextOutcome> text_;
  std::vector<SetOutcome> outcomes_;
  std::optional<EnduranceOutcome> endurance_;
  std::vector<RecallOutcome> recall_;
};

std::string label_of(const Call& call) {
  if (call.settings.is_given("label")) return call.settings.text("label");
  fs::path path(call.argument(0));
  if (!path.has_filename()) path = path.parent_path();
  return path.filename().string();
}

// What is written when all is done is not to be found impossible then.
Result<void> check_outputs(Call& call) {
  for (const char* option : {"write-base", "rows", "svg"}) {
    const std::string& path = call.settings.text(option);
    if (!path.empty()) PENSTOCK_TRY(check_output(call.storage, path));
  }
  return {};
}

}  // namespace

Result<int> eval_verb(Call& call) {
  const std::vector<RawSet> raw = PENSTOCK_TRY(raw_sets(call));
  const std::string label = label_of(call);
  std::vector<Json> rows = PENSTOCK_TRY(earlier_rows(call, label));
  PENSTOCK_TRY(check_outputs(call));
  const EngineOptions options = PENSTOCK_TRY(engine_options(call));
  const std::unique_ptr<Engine> engine = PENSTOCK_TRY(load_engine(call, options));
  EvalRun run(call, *engine, label);
  rows.push_back(PENSTOCK_TRY(run.run(raw)));
  tell_drives(call, engine->experts().drives());
  if (const std::string& path = call.settings.text("rows"); !path.empty()) {
    std::string text;
    for (const Json& row : rows) text += to_text(row) + "\n";
    PENSTOCK_TRY(write_text(call, path, text));
  }
  if (const std::string& path = call.settings.text("svg"); !path.empty()) {
    PENSTOCK_TRY(write_text(call, path, to_svg(quality_chart(rows))));
  }
  if (call.json()) {
    call.output.write_line(rows.back());
  } else {
    call.output.write(eval_table(rows));
  }
  return kExitDone;
}

}  // namespace penstock
