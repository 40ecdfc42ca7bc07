#include "dialogue/turn_memory.h"

#include <algorithm>
#include <string_view>
#include <utility>

namespace penstock {
namespace {

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\r\n";
  const size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

std::string_view text_of(const Json& message, const char* key) {
  const Json* text = json_find(message, key);
  if (text == nullptr || !text->is_string()) return {};
  return trimmed(text->get_ref<const std::string&>());
}

// An object, however it came.
Json arguments_of(const Json& function) {
  const Json* arguments = json_find(function, "arguments");
  if (arguments == nullptr) return Json::object();
  if (!arguments->is_string()) return *arguments;
  const Result<Json> parsed = parse_json(arguments->get_ref<const std::string&>(), "arguments");
  return parsed ? *parsed : *arguments;
}

bool is_same_call(const Json& told, const Json& sent) {
  const Json* a = json_find(told, "function");
  const Json* b = json_find(sent, "function");
  if (a == nullptr || b == nullptr) return false;
  return text_of(*a, "name") == text_of(*b, "name") && arguments_of(*a) == arguments_of(*b);
}

size_t bytes_of(const KeptTurn& turn) {
  return turn.prompt_text.size() + to_text(turn.message).size() +
         (turn.prompt.size() + turn.answer.size()) * sizeof(TokenId);
}

}  // namespace

bool is_same_turn(const Json& told, const Json& sent) {
  const Json* role = json_find(sent, "role");
  if (role == nullptr || *role != "assistant") return false;
  if (text_of(told, "content") != text_of(sent, "content")) return false;
  const std::string_view reasoning = text_of(sent, "reasoning_content");
  if (!reasoning.empty() && reasoning != text_of(told, "reasoning_content")) return false;
  const Json* told_calls = json_find(told, "tool_calls");
  const Json* sent_calls = json_find(sent, "tool_calls");
  const size_t count = told_calls == nullptr ? 0 : told_calls->size();
  if (count != (sent_calls == nullptr ? 0 : sent_calls->size())) return false;
  for (size_t i = 0; i < count; ++i) {
    if (!is_same_call((*told_calls)[i], (*sent_calls)[i])) return false;
  }
  return true;
}

void TurnMemory::remember(KeptTurn turn) {
  const size_t bytes = bytes_of(turn);
  if (bytes > kTurnBytesMax) return;
  const std::scoped_lock lock(mutex_);
  turns_.push_front(std::move(turn));
  bytes_ += bytes;
  while (bytes_ > kTurnBytesMax) {
    bytes_ -= bytes_of(turns_.back());
    turns_.pop_back();
  }
}

std::optional<KeptTurn> TurnMemory::find(const Json& messages, const std::string& rendered) {
  const std::scoped_lock lock(mutex_);
  auto best = turns_.end();
  for (auto turn = turns_.begin(); turn != turns_.end(); ++turn) {
    if (turn->messages >= messages.size()) continue;
    if (best != turns_.end() && turn->messages <= best->messages) continue;
    if (!is_same_turn(turn->message, messages[turn->messages])) continue;
    if (rendered.starts_with(turn->prompt_text)) best = turn;
  }
  if (best == turns_.end()) return std::nullopt;
  turns_.splice(turns_.begin(), turns_, best);
  return turns_.front();
}

size_t TurnMemory::size() const {
  const std::scoped_lock lock(mutex_);
  return turns_.size();
}

}  // namespace penstock
