#include "cli/line_reader.h"

#include <histedit.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <clocale>
#include <cstdio>
#include <utility>

#include "base/check.h"
#include "text/utf8.h"

namespace penstock {
namespace {

constexpr int kHistoryLines = 1000;

enum class Arrived { kByte, kInterrupt, kEnd };

// Bytes of standard input, one at a time, with an eye on the interrupt.
class InputBytes {
 public:
  explicit InputBytes(const Interrupt& interrupt) : interrupt_(interrupt) {}

  void set_idle_work(IdleWork work) { idle_work_ = std::move(work); }

  Arrived next(char& byte) {
    if (position_ == end_) {
      const Arrived arrived = fill();
      if (arrived != Arrived::kByte) return arrived;
    }
    byte = buffer_[position_++];
    return Arrived::kByte;
  }

 private:
  Arrived fill() {
    int timeout_ms = idle_work_ ? 0 : -1;
    for (;;) {
      pollfd watched[2] = {{STDIN_FILENO, POLLIN, 0}, {interrupt_.descriptor(), POLLIN, 0}};
      const int ready = ::poll(watched, 2, timeout_ms);
      if (ready < 0 && errno == EINTR) continue;
      if (ready == 0) {
        timeout_ms = static_cast<int>(idle_work_().count());
        continue;
      }
      if ((watched[1].revents & POLLIN) != 0) return Arrived::kInterrupt;
      const ssize_t got = ::read(STDIN_FILENO, buffer_, sizeof buffer_);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) return Arrived::kEnd;
      position_ = 0;
      end_ = static_cast<size_t>(got);
      return Arrived::kByte;
    }
  }

  const Interrupt& interrupt_;
  IdleWork idle_work_;
  char buffer_[4096];
  size_t position_ = 0;
  size_t end_ = 0;
};

class PlainReader final : public LineReader {
 public:
  explicit PlainReader(const Interrupt& interrupt) : input_(interrupt) {}

  void set_idle_work(IdleWork work) override { input_.set_idle_work(std::move(work)); }

  Line read(const std::string&) override {
    std::string text;
    for (;;) {
      char byte = 0;
      const Arrived arrived = input_.next(byte);
      if (arrived == Arrived::kInterrupt) return {Line::Status::kInterrupted, ""};
      if (arrived == Arrived::kEnd && text.empty()) return {Line::Status::kEnd, ""};
      if (arrived == Arrived::kEnd || byte == '\n') break;
      text += byte;
    }
    if (text.ends_with('\r')) text.pop_back();
    return {Line::Status::kLine, replace_invalid_utf8(text)};
  }

  void remember(const std::string&) override {}

 private:
  InputBytes input_;
};

class EditingReader final : public LineReader {
 public:
  EditingReader(const Interrupt& interrupt, const std::optional<std::string>& history_path)
      : input_(interrupt), history_path_(history_path) {
    // libedit thinks in wide characters of the process's locale.
    if (std::setlocale(LC_CTYPE, "C.UTF-8") == nullptr) std::setlocale(LC_CTYPE, "");
    editor_ = ::el_init("penstock", stdin, stdout, stderr);
    history_ = ::history_init();
    PENSTOCK_CHECK(editor_ != nullptr && history_ != nullptr);
    HistEvent event;
    ::history(history_, &event, H_SETSIZE, kHistoryLines);
    ::history(history_, &event, H_SETUNIQUE, 1);
    if (history_path_) ::history(history_, &event, H_LOAD, history_path_->c_str());
    ::el_set(editor_, EL_CLIENTDATA, this);
    ::el_set(editor_, EL_PROMPT, &EditingReader::prompt_of);
    ::el_set(editor_, EL_HIST, ::history, history_);
    ::el_set(editor_, EL_EDITOR, "emacs");
    ::el_set(editor_, EL_GETCFN, &EditingReader::next_character);
  }

  ~EditingReader() override {
    HistEvent event;
    if (history_path_) ::history(history_, &event, H_SAVE, history_path_->c_str());
    ::history_end(history_);
    ::el_end(editor_);
  }

  void set_idle_work(IdleWork work) override { input_.set_idle_work(std::move(work)); }

  Line read(const std::string& prompt) override {
    prompt_ = prompt;
    interrupted_ = false;
    ::el_resize(editor_);
    // Before the prompt is seen: a Ctrl-D typed at once must not meet the terminal's own line mode.
    ::el_set(editor_, EL_PREP_TERM, 1);
    int count = 0;
    const char* typed = ::el_gets(editor_, &count);
    if (interrupted_) {
      ::el_reset(editor_);
      std::fputs("^C\n", stdout);
      std::fflush(stdout);
      return {Line::Status::kInterrupted, ""};
    }
    if (typed == nullptr || count <= 0) {
      std::fputs("\n", stdout);
      std::fflush(stdout);
      return {Line::Status::kEnd, ""};
    }
    std::string text(typed, static_cast<size_t>(count));
    while (text.ends_with('\n') || text.ends_with('\r')) text.pop_back();
    return {Line::Status::kLine, replace_invalid_utf8(text)};
  }

  void remember(const std::string& text) override {
    HistEvent event;
    ::history(history_, &event, H_ENTER, text.c_str());
  }

 private:
  static EditingReader* self(EditLine* editor) {
    void* data = nullptr;
    ::el_get(editor, EL_CLIENTDATA, &data);
    return static_cast<EditingReader*>(data);
  }

  static char* prompt_of(EditLine* editor) { return self(editor)->prompt_.data(); }

  // One character of input for libedit: 1, 0 at the end, -1 to give up.
  static int next_character(EditLine* editor, wchar_t* character) {
    EditingReader& reader = *self(editor);
    std::string bytes;
    for (;;) {
      char byte = 0;
      const Arrived arrived = reader.input_.next(byte);
      if (arrived == Arrived::kEnd) return 0;
      if (arrived == Arrived::kInterrupt) {
        reader.interrupted_ = true;
        return -1;
      }
      bytes += byte;
      const Utf8Char decoded = decode_utf8(bytes, 0);
      if (decoded.status == Utf8Status::kTruncated) continue;
      *character = static_cast<wchar_t>(decoded.code_point);
      return 1;
    }
  }

  InputBytes input_;
  std::optional<std::string> history_path_;
  EditLine* editor_ = nullptr;
  History* history_ = nullptr;
  std::string prompt_;
  bool interrupted_ = false;
};

}  // namespace

std::unique_ptr<LineReader> make_line_reader(const Terminal& terminal, const Interrupt& interrupt,
                                             const std::optional<std::string>& history_path) {
  if (terminal.input_is_interactive() && terminal.output_is_interactive()) {
    return std::make_unique<EditingReader>(interrupt, history_path);
  }
  return std::make_unique<PlainReader>(interrupt);
}

}  // namespace penstock
