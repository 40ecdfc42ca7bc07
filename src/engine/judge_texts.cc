#include "engine/judge_texts.h"

#include <fmt/format.h>

#include <functional>
#include <optional>
#include <utility>

#include "engine/sampler.h"
#include "engine/stop_tokens.h"
#include "format/text.h"
#include "text/chat_template.h"

namespace penstock {
namespace {

constexpr uint64_t kTextBytesMax = uint64_t{256} << 20;

struct Text {
  std::string path, text;
};

// Of a name; absent is allowed.
using FindText = std::function<Result<std::optional<Text>>(std::string_view name)>;

// A pointer or a web page in the file's place is not.
FindText texts_of_folders(Storage& storage, std::span<const std::string> folders) {
  return [&storage, folders](std::string_view name) -> Result<std::optional<Text>> {
    for (const std::string& folder : folders) {
      std::string path = fmt::format("{}/{}", folder, name);
      Result<std::string> text = read_text(storage, path, kTextBytesMax);
      if (!text && text.error().code == ErrorCode::kNotFound) continue;
      if (!text) return text.error();
      const std::string guess = looks_like(*text);
      const bool is_other = !guess.empty() && guess != "a JSON text";
      if (is_other) return Error{ErrorCode::kCorrupt, fmt::format("{} is {}", path, guess)};
      return std::optional<Text>({std::move(path), *std::move(text)});
    }
    return std::optional<Text>();
  };
}

FindText texts_of_source(const ModelSource& source) {
  return [&source](std::string_view name) -> Result<std::optional<Text>> {
    const std::string* text = source.find_text(name);
    if (text == nullptr) return std::optional<Text>();
    return std::optional<Text>({fmt::format("{}: {}", source.path(), name), *text});
  };
}

class Judge {
 public:
  explicit Judge(FindText find) : find_(std::move(find)) {}

  Result<std::optional<Text>> text_of(std::string_view name) const { return find_(name); }

  // Null when absent.
  Result<Json> json_of(std::string_view name) const {
    const auto found = PENSTOCK_TRY(text_of(name));
    if (!found) return Json();
    return parse_json(found->text, found->path);
  }

  void note(std::string text) { notes_.push_back(std::move(text)); }
  std::vector<std::string> take() { return std::move(notes_); }

 private:
  FindText find_;
  std::vector<std::string> notes_;
};

std::optional<std::string_view> view(const std::optional<Text>& found) {
  return found ? std::optional<std::string_view>(found->text) : std::nullopt;
}

Result<std::optional<Tokenizer>> judge_tokenizer(Judge& judge, const ModelConfig& config) {
  const auto tokenizer = PENSTOCK_TRY(judge.text_of("tokenizer.json"));
  const auto tokenizer_config = PENSTOCK_TRY(judge.text_of("tokenizer_config.json"));
  const auto added = PENSTOCK_TRY(judge.text_of("added_tokens.json"));
  if (!tokenizer) {
    judge.note("there is no tokenizer.json: the model takes --ids alone and cannot read text");
    return std::optional<Tokenizer>();
  }
  const TokenizerFiles files{tokenizer->text, tokenizer->path, view(tokenizer_config), view(added)};
  Tokenizer made = PENSTOCK_TRY(Tokenizer::create(files, config.vocab_size));
  for (const std::string& note : made.notes()) judge.note(note);
  return std::optional<Tokenizer>(std::move(made));
}

// Conversations of the kinds that clients send, for a template to be tried on: what it calls without
// knowing it shows in the branch that does so and nowhere before.
struct Trial {
  std::string_view kind;
  std::string_view messages;
  std::string_view tools;
};
constexpr Trial kTrials[] = {
    {"a plain question", R"([{"role":"user","content":"a"}])", "null"},
    {"a system message", R"([{"role":"system","content":"s"},{"role":"user","content":"a"}])",
     "null"},
    {"a second question",
     R"([{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"}])",
     "null"},
    {"tools",
     R"([{"role":"user","content":"a"},{"role":"assistant","content":"","tool_calls":[{"id":"1","type":
     "function","function":{"name":"f","arguments":{"x":"1"}}}]},{"role":"tool","tool_call_id":"1",
     "name":"f","content":"r"}])",
     R"([{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object",
     "properties":{"x":{"type":"string"}},"required":["x"]}}}])"},
};

void try_template(Judge& judge, const ChatTemplate& made) {
  for (const Trial& trial : kTrials) {
    const Json messages = parse_json(trial.messages, "trial").value();
    const Json tools = parse_json(trial.tools, "trial").value();
    const Result<std::string> text = made.render(messages, tools, {});
    if (text) continue;
    judge.note(
        fmt::format("the chat template does not take {}: {}", trial.kind, text.error().message));
    if (&trial == kTrials) return;  // nor will it take more
  }
}

Result<void> judge_template(Judge& judge) {
  const auto jinja = PENSTOCK_TRY(judge.text_of("chat_template.jinja"));
  const auto config = PENSTOCK_TRY(judge.text_of("tokenizer_config.json"));
  const Result<ChatTemplate> loaded = load_chat_template(view(jinja), view(config));
  if (loaded) {
    try_template(judge, *loaded);
  } else {
    judge.note(fmt::format("no chat with this model: {}", loaded.error().message));
  }
  return {};
}

// model_config: what may name tokens that end an answer.
Result<std::vector<std::string>> judge_all(Judge judge, const ModelConfig& config,
                                           const Json& model_config) {
  const auto tokenizer = PENSTOCK_TRY(judge_tokenizer(judge, config));
  PENSTOCK_TRY(judge_template(judge));
  const Json generation = PENSTOCK_TRY(judge.json_of("generation_config.json"));
  const Json tokenizer_config = PENSTOCK_TRY(judge.json_of("tokenizer_config.json"));
  std::vector<std::string> notes;
  static_cast<void>(sampling_defaults(generation, notes));
  const StopTokens stops = stop_tokens({.generation_config = generation,
                                        .config = model_config,
                                        .tokenizer_config = tokenizer_config,
                                        .tokenizer = tokenizer ? &*tokenizer : nullptr,
                                        .vocab_size = config.vocab_size});
  notes.insert(notes.end(), stops.notes.begin(), stops.notes.end());
  for (std::string& text : notes) judge.note(std::move(text));
  if (stops.ids.empty()) {
    judge.note(
        "no file names a token that ends an answer: only the template's end of a turn, "
        "--max-tokens or a full context will");
  }
  return judge.take();
}

}  // namespace

Result<std::vector<std::string>> judge_texts(Storage& storage, std::span<const std::string> folders,
                                             const ModelConfig& config,
                                             const Json& manifest_config) {
  // Weights follow from it, so it is the last folder's whatever the others have.
  const Json model_config =
      PENSTOCK_TRY(Judge(texts_of_folders(storage, folders.last(1))).json_of("config.json"));
  return judge_all(Judge(texts_of_folders(storage, folders)), config,
                   model_config.is_null() ? manifest_config : model_config);
}

Result<std::vector<std::string>> judge_texts(const ModelSource& source) {
  return judge_all(Judge(texts_of_source(source)), source.config(), Json::object());
}

}  // namespace penstock
