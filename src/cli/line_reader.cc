#include "cli/line_reader.h"

#include <histedit.h>
#include <poll.h>
#include <sys/file.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <clocale>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <deque>
#include <utility>
#include <vector>

#include "base/check.h"
#include "text/utf8.h"

namespace penstock {
namespace {

constexpr int kHistoryLines = 1000;

// What terminals send around pasted text when they are asked to.
constexpr std::string_view kPasteBegin = "\x1b[200~";
constexpr std::string_view kPasteEnd = "\x1b[201~";
constexpr char kAskForPaste[] = "\x1b[?2004h";
constexpr char kNoMorePaste[] = "\x1b[?2004l";

// Stands for the end of a line inside of pasted text while that is edited: the editor knows one line.
constexpr wchar_t kPastedNewline = 0x23ce;

volatile std::sig_atomic_t g_continued = 0;

void note_continued(int) {
  g_continued = 1;
}

enum class Arrived { kByte, kInterrupt, kEnd };

// Bytes of standard input, one at a time, with an eye on the interrupt.
class InputBytes {
 public:
  explicit InputBytes(const Interrupt& interrupt) : interrupt_(interrupt) {}

  void set_idle_work(IdleWork work) { idle_work_ = std::move(work); }

  // Called after the program was stopped (Ctrl-Z) and goes on.
  void set_on_continue(std::function<void()> call) { on_continue_ = std::move(call); }

  // Whether `text` comes next; then it is taken. What a terminal sends as one comes at once, so the
  // rest of it is waited for a moment only.
  bool take(std::string_view text) {
    for (;;) {
      const size_t have = std::min(end_ - position_, text.size());
      if (have == 0) return false;
      if (text.substr(0, have) != std::string_view(buffer_ + position_, have)) return false;
      if (have == text.size()) break;
      std::memmove(buffer_, buffer_ + position_, end_ - position_);
      end_ -= position_;
      position_ = 0;
      pollfd watched{STDIN_FILENO, POLLIN, 0};
      if (::poll(&watched, 1, kMomentMs) <= 0) return false;
      const ssize_t got = ::read(STDIN_FILENO, buffer_ + end_, sizeof buffer_ - end_);
      if (got <= 0) return false;
      end_ += static_cast<size_t>(got);
    }
    position_ += text.size();
    return true;
  }

  // The next byte, if it comes at once, as the rest of what a key sends does.
  std::optional<char> next_at_once() {
    if (position_ == end_) {
      pollfd watched{STDIN_FILENO, POLLIN, 0};
      if (::poll(&watched, 1, kMomentMs) <= 0 || fill() != Arrived::kByte) return std::nullopt;
    }
    return buffer_[position_++];
  }

  // Waits until there is a byte.
  Arrived wait() { return position_ < end_ ? Arrived::kByte : fill(); }

  Arrived next(char& byte) {
    const Arrived arrived = wait();
    if (arrived == Arrived::kByte) byte = buffer_[position_++];
    return arrived;
  }

 private:
  static constexpr int kMomentMs = 30;

  Arrived fill() {
    int timeout_ms = idle_work_ ? 0 : -1;
    for (;;) {
      if (g_continued != 0 && on_continue_) {
        g_continued = 0;
        on_continue_();
      }
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
  std::function<void()> on_continue_;
  char buffer_[4096];
  size_t position_ = 0;
  size_t end_ = 0;
};

class PlainReader final : public LineReader {
 public:
  PlainReader(const Interrupt& interrupt, uint64_t line_bytes_max)
      : input_(interrupt), line_bytes_max_(line_bytes_max) {}

  void set_idle_work(IdleWork work) override { input_.set_idle_work(std::move(work)); }

  Line read(const std::string&) override {
    std::string text;
    for (;;) {
      char byte = 0;
      const Arrived arrived = input_.next(byte);
      if (arrived == Arrived::kInterrupt) return {Line::Status::kInterrupted, ""};
      if (arrived == Arrived::kEnd && text.empty()) return {Line::Status::kEnd, ""};
      if (arrived == Arrived::kEnd || byte == '\n') break;
      if (text.size() > line_bytes_max_) return {Line::Status::kTooLong, ""};
      text += byte;
    }
    if (is_first_ && text.starts_with("\xef\xbb\xbf")) text.erase(0, 3);  // as some editors begin
    is_first_ = false;
    if (text.ends_with('\r')) text.pop_back();
    return {Line::Status::kLine, replace_invalid_utf8(text)};
  }

  void remember(const std::string&) override {}

 private:
  InputBytes input_;
  const uint64_t line_bytes_max_;
  bool is_first_ = true;
};

// Keys that terminals spell in several ways and the editor's defaults know in one at the most.
struct Key {
  const char* sequence;
  const char* command;
};
constexpr Key kKeys[] = {
    {"\\e[H", "ed-move-to-beg"},       {"\\e[1~", "ed-move-to-beg"},
    {"\\e[7~", "ed-move-to-beg"},      {"\\eOH", "ed-move-to-beg"},
    {"\\e[F", "ed-move-to-end"},       {"\\e[4~", "ed-move-to-end"},
    {"\\e[8~", "ed-move-to-end"},      {"\\eOF", "ed-move-to-end"},
    {"\\e[3~", "ed-delete-next-char"}, {"\\e[1;5C", "em-next-word"},
    {"\\e[5C", "em-next-word"},        {"\\eOc", "em-next-word"},
    {"\\e[1;3C", "em-next-word"},      {"\\e\\e[C", "em-next-word"},
    {"\\e[1;5D", "ed-prev-word"},      {"\\e[5D", "ed-prev-word"},
    {"\\eOd", "ed-prev-word"},         {"\\e[1;3D", "ed-prev-word"},
    {"\\e\\e[D", "ed-prev-word"},      {"\\e[5~", "ed-prev-history"},
    {"\\e[6~", "ed-next-history"},     {"\\e[3;5~", "em-delete-next-word"},
    {"\\e[2~", "ed-unassigned"},
};

// What a key's sequence (behind ESC [) means here, as one that is bound above or by the editor;
// empty for keys that mean nothing: function keys, mice, a window that comes to the front.
// Source  ECMA-48 5.4; XTerm Control Sequences, "PC-Style Function Keys": 2 is Shift, 3 Alt, 5 Ctrl
std::string meaning_of(std::string_view key) {
  constexpr std::string_view kBegin = "\x1b[";
  const char last = key.back();
  const std::string_view parameters = key.substr(0, key.size() - 1);
  if (parameters.find_first_not_of("0123456789;") != std::string_view::npos) return {};
  const size_t semicolon = std::min(parameters.find(';'), parameters.size());
  const std::string_view first = parameters.substr(0, semicolon);
  const std::string_view modifier = parameters.substr(std::min(semicolon + 1, parameters.size()));
  const bool jumps = !modifier.empty() && modifier != "1" && modifier != "2";
  const auto plain = [&](char letter) { return std::string(kBegin) + letter; };
  switch (last) {
    case 'A':
    case 'B':
    case 'H':
    case 'F': return plain(last);
    case 'C':
    case 'D':
      if (jumps || first == "5") return std::string(kBegin) + "1;5" + last;
      return plain(last);
    case 'a':
    case 'b':
    case 'c':
    case 'd': return plain(static_cast<char>(last - 'a' + 'A'));
    case '~':
      if (first.size() != 1 || first < "1" || first > "8") return {};
      return std::string(kBegin) + std::string(first) + (first == "3" && jumps ? ";5~" : "~");
    default: return {};
  }
}

// Several chats of one person end in any order: what others have kept meanwhile stays.
void save_history(History* history, const std::vector<std::string>& own, const std::string& path) {
  std::FILE* lock = std::fopen((path + ".lock").c_str(), "a");
  if (lock != nullptr) static_cast<void>(::flock(::fileno(lock), LOCK_EX | LOCK_NB));
  HistEvent event;
  ::history(history, &event, H_CLEAR);
  ::history(history, &event, H_LOAD, path.c_str());
  for (const std::string& line : own) ::history(history, &event, H_ENTER, line.c_str());
  ::history(history, &event, H_SAVE, path.c_str());
  if (lock != nullptr) std::fclose(lock);
}

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
    // While a line is edited the terminal hands over CR and LF as they are: made one of the other, the
    // CR LF of pasted text would be two ends of lines.
    ::el_set(editor_, EL_SETTY, "-d", "-icrnl", "-inlcr", nullptr);
    for (const Key& key : kKeys) ::el_set(editor_, EL_BIND, key.sequence, key.command, nullptr);
    input_.set_on_continue([this] { draw_again(); });
    struct sigaction action {};
    action.sa_handler = note_continued;
    ::sigaction(SIGCONT, &action, nullptr);
  }

  ~EditingReader() override {
    std::signal(SIGCONT, SIG_DFL);
    if (history_path_) save_history(history_, own_lines_, *history_path_);
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
    write(kAskForPaste);
    int count = 0;
    const char* typed = ::el_gets(editor_, &count);
    write(kNoMorePaste);
    keep_ends_of_input();
    is_pasting_ = false;
    waiting_.clear();
    if (interrupted_) {
      ::el_reset(editor_);
      write("^C\n");
      return {Line::Status::kInterrupted, ""};
    }
    if (typed == nullptr || count <= 0) {
      write("\n");
      return {Line::Status::kEnd, ""};
    }
    std::string text(typed, static_cast<size_t>(count));
    while (text.ends_with('\n') || text.ends_with('\r')) text.pop_back();
    return {Line::Status::kLine, with_pasted_lines(replace_invalid_utf8(text))};
  }

  void remember(const std::string& text) override {
    // As it was edited: the history holds lines.
    std::string line;
    for (const char c : text) {
      if (c == '\n') append_utf8(kPastedNewline, line);
      if (c != '\n') line += c;
    }
    HistEvent event;
    ::history(history_, &event, H_ENTER, line.c_str());
    own_lines_.push_back(std::move(line));
  }

 private:
  static void write(const char* text) {
    std::fputs(text, stdout);
    std::fflush(stdout);
  }

  static std::string with_pasted_lines(std::string text) {
    std::string mark;
    append_utf8(kPastedNewline, mark);
    for (size_t at = 0; (at = text.find(mark, at)) != std::string::npos; ++at) {
      text.replace(at, mark.size(), "\n");
    }
    return text;
  }

  // While an answer is made the terminal collects lines by itself. A Ctrl-D typed then would be its
  // own business and lost; as a plain character it waits for the next reading.
  static void keep_ends_of_input() {
    struct termios mode {};
    if (::tcgetattr(STDIN_FILENO, &mode) != 0) return;
    mode.c_cc[VEOF] = _POSIX_VDISABLE;
    ::tcsetattr(STDIN_FILENO, TCSANOW, &mode);
  }

  // The shell has used the terminal meanwhile.
  void draw_again() {
    ::el_set(editor_, EL_PREP_TERM, 1);
    write(kAskForPaste);
    ::el_set(editor_, EL_REFRESH);
  }

  static EditingReader* self(EditLine* editor) {
    void* data = nullptr;
    ::el_get(editor, EL_CLIENTDATA, &data);
    return static_cast<EditingReader*>(data);
  }

  static char* prompt_of(EditLine* editor) { return self(editor)->prompt_.data(); }

  // One character of input for libedit: 1, 0 at the end, -1 to give up.
  static int next_character(EditLine* editor, wchar_t* character) {
    EditingReader& reader = *self(editor);
    for (;;) {
      if (!reader.waiting_.empty()) {
        *character = reader.waiting_.front();
        reader.waiting_.pop_front();
        return 1;
      }
      Arrived arrived = reader.input_.wait();
      if (arrived == Arrived::kByte) {
        if (reader.input_.take(reader.is_pasting_ ? kPasteEnd : kPasteBegin)) {
          reader.is_pasting_ = !reader.is_pasting_;
          continue;
        }
        if (!reader.is_pasting_ && reader.input_.take("\x1b[")) {
          reader.read_key();
          continue;
        }
        arrived = reader.read_character(*character);
      }
      if (arrived == Arrived::kEnd) return 0;
      if (arrived == Arrived::kInterrupt) {
        reader.interrupted_ = true;
        return -1;
      }
      if (!reader.is_pasting_) return 1;
      reader.paste(*character);
    }
  }

  // The rest of a key's sequence, whatever it is: none of it is text.
  void read_key() {
    constexpr size_t kLongest = 32;
    std::string key;
    while (key.size() < kLongest) {
      const std::optional<char> byte = input_.next_at_once();
      if (!byte) return;
      key += *byte;
      const bool is_console_key = key == "[";  // F1 of the Linux console is ESC [ [ A
      if (*byte >= 0x40 && *byte <= 0x7e && !is_console_key) break;
    }
    for (const char c : meaning_of(key)) waiting_.push_back(static_cast<wchar_t>(c));
  }

  Arrived read_character(wchar_t& character) {
    std::string bytes;
    for (;;) {
      char byte = 0;
      const Arrived arrived = input_.next(byte);
      if (arrived != Arrived::kByte) return arrived;
      bytes += byte;
      const Utf8Char decoded = decode_utf8(bytes, 0);
      if (decoded.status == Utf8Status::kTruncated) continue;
      character = static_cast<wchar_t>(decoded.code_point);
      return Arrived::kByte;
    }
  }

  // Pasted text is text: its lines do not end the message and its other controls do nothing.
  void paste(wchar_t character) {
    constexpr wchar_t kQuote = 0x16;  // Ctrl-V: the next one is inserted as it is
    const bool ends_line = character == L'\r' || (character == L'\n' && last_pasted_ != L'\r');
    last_pasted_ = character;
    if (ends_line) {
      waiting_.push_back(kPastedNewline);
    } else if (character == L'\t') {
      waiting_.push_back(kQuote);
      waiting_.push_back(character);
    } else if (character >= 0x20 && character != 0x7f) {
      waiting_.push_back(character);
    }
  }

  InputBytes input_;
  std::optional<std::string> history_path_;
  EditLine* editor_ = nullptr;
  History* history_ = nullptr;
  std::vector<std::string> own_lines_;
  std::string prompt_;
  bool interrupted_ = false;
  bool is_pasting_ = false;
  wchar_t last_pasted_ = 0;
  std::deque<wchar_t> waiting_;  // for libedit, before what comes next
};

}  // namespace

std::unique_ptr<LineReader> make_line_reader(const Terminal& terminal, const Interrupt& interrupt,
                                             const std::optional<std::string>& history_path,
                                             uint64_t line_bytes_max) {
  if (terminal.input_is_interactive() && terminal.output_is_interactive()) {
    return std::make_unique<EditingReader>(interrupt, history_path);
  }
  return std::make_unique<PlainReader>(interrupt, line_bytes_max);
}

}  // namespace penstock
