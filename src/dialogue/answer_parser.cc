#include "dialogue/answer_parser.h"

#include <algorithm>
#include <utility>

#include "base/json.h"
#include "text/utf8.h"

namespace penstock {
namespace {

constexpr std::string_view kCallBegin = "<tool_call>";
constexpr std::string_view kCallEnd = "</tool_call>";
constexpr std::string_view kFunctionBegin = "<function=";
constexpr std::string_view kFunctionEnd = "</function>";
constexpr std::string_view kParameterBegin = "<parameter=";
constexpr std::string_view kParameterEnd = "</parameter>";
constexpr std::string_view kBlanks = " \t\r\n";
constexpr size_t kNameBytesMax = 256;

size_t skip_blanks(std::string_view text, size_t from) {
  return std::min(text.find_first_not_of(kBlanks, from), text.size());
}

// Does `text` go on with `expected`, or could it once there is more of it?
enum class Match : uint8_t { kNo, kPerhaps, kYes };

Match match_at(std::string_view text, size_t from, std::string_view expected) {
  const std::string_view rest = text.substr(std::min(from, text.size()));
  if (rest.size() >= expected.size()) return rest.starts_with(expected) ? Match::kYes : Match::kNo;
  return expected.starts_with(rest) ? Match::kPerhaps : Match::kNo;
}

// A text as it stands inside JSON's quotes.
std::string inside_quotes(std::string_view text) {
  std::string quoted = to_text(Json(text));
  return quoted.substr(1, quoted.size() - 2);
}

// NAME> at `from`: its length, 0 if there is none, nothing if it may go on.
std::optional<size_t> name_length(std::string_view text, size_t from) {
  const size_t end = text.find_first_of("><\n", from);
  if (end == std::string_view::npos) {
    if (text.size() - from > kNameBytesMax) return 0;
    return std::nullopt;
  }
  return text[end] == '>' && end - from <= kNameBytesMax ? end - from : 0;
}

}  // namespace

AnswerParser::AnswerParser(AnswerFormat format, const ToolTypes& types)
    : format_(std::move(format)), types_(types), stops_(format_.stops) {
  if (!format_.opens_reasoning) return;
  state_ = text_state_ = State::kReasoning;
  is_think_open_ = true;
}

void AnswerParser::emit(AnswerEvent::Kind kind, std::string text) {
  using Kind = AnswerEvent::Kind;
  const bool is_marker = kind == Kind::kCallBegin || kind == Kind::kCallEnd;
  if (text.empty() && !is_marker) return;
  const bool is_of_call = is_marker || kind == Kind::kArguments;
  const int call = is_of_call ? call_count_ - 1 : -1;
  if (!is_marker && !events_.empty() && events_.back().kind == kind) {
    events_.back().text += text;
  } else {
    events_.push_back({.kind = kind, .call = call, .text = std::move(text)});
  }
}

// Newlines at both ends of a reasoning are the template's.
void AnswerParser::reasoning(std::string_view piece) {
  if (!has_reasoned_) piece.remove_prefix(std::min(piece.find_first_not_of('\n'), piece.size()));
  if (piece.empty()) return;
  has_reasoned_ = true;
  const size_t end = piece.find_last_not_of('\n') + 1;
  if (end > 0) {
    emit(AnswerEvent::Kind::kReasoning,
         std::exchange(blanks_, {}) + std::string(piece.substr(0, end)));
  }
  blanks_ += piece.substr(end);
}

// Blanks are told when something follows them that is no call.
void AnswerParser::content(std::string_view certain) {
  const size_t end = certain.find_last_not_of(kBlanks) + 1;
  if (end > 0) {
    emit(AnswerEvent::Kind::kContent,
         std::exchange(blanks_, {}) + std::string(certain.substr(0, end)));
  }
  blanks_ += certain.substr(end);
}

void AnswerParser::text(std::string_view piece) {
  if (text_state_ == State::kReasoning) return reasoning(piece);
  piece.remove_prefix(std::min(piece.find_first_not_of(leading_), piece.size()));
  if (piece.empty()) return;
  leading_ = {};
  content(stops_.push(piece));
}

std::vector<AnswerEvent> AnswerParser::push(std::string_view bytes) {
  buffer_ += utf8_.push(bytes);
  run();
  return std::exchange(events_, {});
}

std::vector<AnswerEvent> AnswerParser::finish(Ending ending) {
  is_last_ = true;
  ending_ = ending;
  buffer_ += utf8_.finish();
  run();
  if (text_state_ == State::kContent) {
    content(stops_.flush());
    emit(AnswerEvent::Kind::kContent, std::exchange(blanks_, {}));
  }
  return std::exchange(events_, {});
}

void AnswerParser::run() {
  while (!is_stopped() && step() == Step::kOn) {
  }
  if (is_stopped()) buffer_.clear();
}

AnswerParser::Step AnswerParser::step() {
  const bool is_text = state_ == State::kContent || state_ == State::kReasoning;
  if (buffer_.empty() && (is_text || !is_last_)) return Step::kWait;
  switch (state_) {
    case State::kStart: return step_start();
    case State::kReasoning:
    case State::kContent: return step_text();
    case State::kBetween: return step_between();
    case State::kValueBegin: return step_value_begin();
    case State::kValue: return step_value();
    case State::kCallTail: return step_tail({kCallEnd});
    case State::kJsonArguments: return step_json_arguments();
    case State::kJsonTail: return step_tail({"}", kCallEnd});
  }
  return Step::kWait;
}

// ---- text

AnswerParser::Step AnswerParser::step_start() {
  const size_t begin = skip_blanks(buffer_, 0);
  const Match match = match_at(buffer_, begin, kThinkBegin);
  if (match == Match::kPerhaps && !is_last_) return Step::kWait;
  state_ = State::kContent;
  if (match == Match::kYes) {
    take(begin + kThinkBegin.size());
    state_ = text_state_ = State::kReasoning;
    is_think_open_ = true;
  }
  return Step::kOn;
}

// Up to the first thing that is not text.
AnswerParser::Step AnswerParser::step_text() {
  std::vector<std::string_view> marks;
  if (is_think_open_) marks.push_back(kThinkEnd);
  if (format_.form) marks.push_back(kCallBegin);
  if (format_.form == ToolForm::kTagged) marks.push_back(kFunctionBegin);
  for (size_t at = buffer_.find('<'); at != std::string::npos; at = buffer_.find('<', at + 1)) {
    Match best = Match::kNo;
    std::string_view found;
    for (const std::string_view mark : marks) {
      const Match match = match_at(buffer_, at, mark);
      if (match > best) best = match, found = mark;
    }
    if (best == Match::kNo || (best == Match::kPerhaps && is_last_)) continue;
    text(std::string_view(buffer_).substr(0, at));
    take(at);
    if (is_stopped() || best == Match::kPerhaps) return Step::kWait;
    if (found == kThinkEnd) {
      take(kThinkEnd.size());
      is_think_open_ = false;
      if (text_state_ == State::kReasoning) {
        blanks_.clear();
        leading_ = "\n";
      }
      state_ = text_state_ = State::kContent;
      return Step::kOn;
    }
    const std::optional<bool> is_call = begin_call();
    if (!is_call && !is_last_) return Step::kWait;
    if (is_call.value_or(false)) return Step::kOn;
    if (is_last_ && ending_ == Ending::kCut && !is_call) {
      buffer_.clear();  // the beginning of a call without its name
      return Step::kOn;
    }
    text(buffer_.substr(0, 1));
    take(1);
    return Step::kOn;
  }
  text(buffer_);
  buffer_.clear();
  return Step::kWait;
}

// ---- how calls begin and end

std::optional<bool> AnswerParser::begin_call() {
  return format_.form == ToolForm::kTagged ? begin_tagged_call() : begin_json_call();
}

std::optional<bool> AnswerParser::begin_tagged_call() {
  const std::string_view all = buffer_;
  const bool is_framed = all.starts_with(kCallBegin);
  size_t at = is_framed ? skip_blanks(all, kCallBegin.size()) : 0;
  const Match match = match_at(all, at, kFunctionBegin);
  if (match == Match::kNo) return false;
  if (match == Match::kPerhaps) return std::nullopt;
  at += kFunctionBegin.size();
  const std::optional<size_t> length = name_length(all, at);
  if (!length) return std::nullopt;
  if (*length == 0) return false;
  const std::string name(all.substr(at, *length));
  take(at + *length + 1);
  open_call(name);
  emit(AnswerEvent::Kind::kArguments, "{");
  state_ = State::kBetween;
  return true;
}

// {"name": "NAME", "arguments": in this order is told as it comes; anything else when it is whole.
std::optional<bool> AnswerParser::begin_json_call() {
  const std::string_view all = buffer_;
  const size_t begin = skip_blanks(all, kCallBegin.size());
  size_t at = begin;
  const auto expect = [&](std::string_view expected) {
    at = skip_blanks(all, at);
    const Match match = match_at(all, at, expected);
    if (match == Match::kYes) at += expected.size();
    return match;
  };
  const auto all_of = [&](std::initializer_list<std::string_view> texts) {
    for (const std::string_view expected : texts) {
      const Match match = expect(expected);
      if (match != Match::kYes) return match;
    }
    return Match::kYes;
  };
  if (expect("{") == Match::kNo) return false;
  Match match = all_of({"\"name\"", ":", "\""});
  if (match == Match::kPerhaps) return std::nullopt;
  if (match == Match::kNo) return take_whole_json_call(begin);
  const size_t name_begin = at;
  const size_t name_end = all.find('"', at);
  if (std::min(name_end, all.size()) - name_begin > kNameBytesMax) return false;
  if (name_end == std::string_view::npos) return std::nullopt;
  const std::string name(all.substr(name_begin, name_end - name_begin));
  if (name.find('\\') != std::string::npos) return take_whole_json_call(begin);
  at = name_end + 1;
  match = all_of({",", "\"arguments\"", ":", "{"});
  if (match == Match::kPerhaps) return std::nullopt;
  if (match == Match::kNo || name.empty()) return take_whole_json_call(begin);
  take(at - 1);
  open_call(name);
  json_ = {};
  state_ = State::kJsonArguments;
  return true;
}

std::optional<bool> AnswerParser::take_whole_json_call(size_t begin) {
  JsonStream scan;
  std::string given;
  size_t taken = 0;
  const auto status = scan.push(std::string_view(buffer_).substr(begin), given, taken);
  if (status == JsonStream::Status::kOpen) return std::nullopt;
  if (status == JsonStream::Status::kBroken) return false;
  const auto json = parse_json(given, "");
  const Json* name = json ? json_find(*json, "name") : nullptr;
  if (name == nullptr || !name->is_string() || name->get_ref<const std::string&>().empty()) {
    return false;
  }
  const Json* arguments = json_find(*json, "arguments");
  if (arguments == nullptr) arguments = json_find(*json, "parameters");
  Json object = Json::object();
  if (arguments != nullptr && arguments->is_string()) {
    auto inner = parse_json(arguments->get_ref<const std::string&>(), "");
    if (!inner || !inner->is_object()) return false;
    object = *std::move(inner);
  } else if (arguments != nullptr) {
    if (!arguments->is_object()) return false;
    object = *arguments;
  }
  const std::string text = name->get<std::string>();
  take(begin + taken);
  open_call(text);
  emit(AnswerEvent::Kind::kArguments, to_text(object));
  close_call();
  state_ = State::kCallTail;
  return true;
}

void AnswerParser::open_call(std::string name) {
  if (text_state_ == State::kContent) content(stops_.flush());
  blanks_.clear();
  function_ = name;
  seen_.clear();
  ++call_count_;
  emit(AnswerEvent::Kind::kCallBegin, std::move(name));
}

// What follows a call is content, also where the call began in the reasoning.
void AnswerParser::close_call() {
  emit(AnswerEvent::Kind::kCallEnd, "");
  leading_ = kBlanks;
  state_ = text_state_ = State::kContent;
}

// What stands behind a call, among blanks; the last of it is enough. What is something else is
// text.
AnswerParser::Step AnswerParser::step_tail(std::initializer_list<std::string_view> expected) {
  size_t at = 0;
  for (const std::string_view part : expected) {
    const size_t begin = skip_blanks(buffer_, at);
    const Match match = match_at(buffer_, begin, part);
    if (match == Match::kPerhaps && !is_last_) return Step::kWait;
    if (match == Match::kPerhaps && ending_ == Ending::kCut) buffer_.clear();
    if (match == Match::kYes) at = begin + part.size();
  }
  take(at);
  state_ = State::kContent;
  return Step::kOn;
}

// ---- inside a tagged call

AnswerParser::Step AnswerParser::step_between() {
  const size_t at = skip_blanks(buffer_, 0);
  const Match parameter = match_at(buffer_, at, kParameterBegin);
  const Match end = match_at(buffer_, at, kFunctionEnd);
  if (end == Match::kYes) {
    take(at + kFunctionEnd.size());
    emit(AnswerEvent::Kind::kArguments, "}");
    close_call();
    state_ = State::kCallTail;
    return Step::kOn;
  }
  bool is_undecided = parameter == Match::kPerhaps || end == Match::kPerhaps;
  if (parameter == Match::kYes) {
    const size_t begin = at + kParameterBegin.size();
    const std::optional<size_t> length = name_length(buffer_, begin);
    is_undecided = !length;
    if (length.value_or(0) > 0) {
      parameter_ = buffer_.substr(begin, *length);
      take(begin + *length + 1);
      state_ = State::kValueBegin;
      return Step::kOn;
    }
  }
  if (is_undecided && !is_last_) return Step::kWait;
  // The call breaks off: it ends here, and what follows is text.
  if (is_undecided && ending_ == Ending::kCut) buffer_.clear();
  ++broken_count_;
  emit(AnswerEvent::Kind::kArguments, "}");
  close_call();
  return Step::kOn;
}

AnswerParser::Step AnswerParser::step_value_begin() {
  has_lines_ = buffer_.starts_with('\n');
  is_opening_ = has_lines_;
  is_repeated_ = std::ranges::find(seen_, parameter_) != seen_.end();
  is_text_ = types_.is_text(function_, parameter_);
  value_.clear();
  if (is_text_) open_parameter();
  state_ = State::kValue;
  return Step::kOn;
}

void AnswerParser::open_parameter() {
  if (is_repeated_) return;
  emit(AnswerEvent::Kind::kArguments, (seen_.empty() ? "" : ",") + to_text(Json(parameter_)) + ":");
  if (is_text_) emit(AnswerEvent::Kind::kArguments, "\"");
}

void AnswerParser::add_value(std::string_view piece) {
  if (is_repeated_) return;
  if (is_text_) {
    emit(AnswerEvent::Kind::kArguments, inside_quotes(piece));
  } else {
    value_ += piece;
  }
}

void AnswerParser::end_parameter() {
  if (is_repeated_) return;
  if (is_text_) {
    emit(AnswerEvent::Kind::kArguments, "\"");
  } else {
    bool has_type = true;
    const Json value = types_.value(function_, parameter_, value_, has_type);
    if (!has_type) ++untyped_count_;
    // The digits of a number stay as they were written.
    const auto json = parse_json(value_, "");
    const size_t begin = skip_blanks(value_, 0);
    const size_t end = value_.find_last_not_of(kBlanks) + 1;
    open_parameter();
    emit(AnswerEvent::Kind::kArguments,
         json && *json == value ? value_.substr(begin, end - begin) : to_text(value));
  }
  seen_.push_back(parameter_);
}

// A closing tag counts only where the call goes on behind it. The newline before a value may be the
// one before its closing tag as well: then the value is empty.
AnswerParser::Step AnswerParser::step_value() {
  const std::string mark = (has_lines_ ? "\n" : "") + std::string(kParameterEnd);
  Match match = Match::kNo;
  size_t at = buffer_.find(mark[0]);
  for (; at != std::string::npos; at = buffer_.find(mark[0], at + 1)) {
    match = match_at(buffer_, at, mark);
    if (match == Match::kYes) {
      const size_t next = skip_blanks(buffer_, at + mark.size());
      match =
          std::max(match_at(buffer_, next, kParameterBegin), match_at(buffer_, next, kFunctionEnd));
    }
    if (match != Match::kNo) break;
  }
  if (at == std::string::npos) at = buffer_.size();
  const size_t begin = is_opening_ && at > 0 ? 1 : 0;
  add_value(std::string_view(buffer_).substr(begin, at - begin));
  if (at > 0) is_opening_ = false;
  take(at);
  if (match == Match::kYes) {
    take(mark.size());
    end_parameter();
    state_ = State::kBetween;
    return Step::kOn;
  }
  return is_last_ ? end_inside_value() : Step::kWait;
}

// A text is told as far as it came; of other values half of one is none.
AnswerParser::Step AnswerParser::end_inside_value() {
  if (ending_ == Ending::kEnded) add_value(std::string_view(buffer_).substr(is_opening_ ? 1 : 0));
  buffer_.clear();
  if (is_text_ || ending_ == Ending::kEnded) end_parameter();
  ++broken_count_;
  emit(AnswerEvent::Kind::kArguments, "}");
  close_call();
  return Step::kOn;
}

// ---- inside a JSON call

AnswerParser::Step AnswerParser::step_json_arguments() {
  std::string given;
  size_t taken = 0;
  const JsonStream::Status status = json_.push(buffer_, given, taken);
  take(taken);
  emit(AnswerEvent::Kind::kArguments, std::move(given));
  if (status == JsonStream::Status::kWhole) {
    close_call();
    state_ = State::kJsonTail;
    return Step::kOn;
  }
  if (status == JsonStream::Status::kOpen && !is_last_) return Step::kWait;
  emit(AnswerEvent::Kind::kArguments, json_.closing());
  if (status == JsonStream::Status::kBroken) buffer_.insert(0, json_.held());
  ++broken_count_;
  close_call();
  return Step::kOn;
}

}  // namespace penstock
