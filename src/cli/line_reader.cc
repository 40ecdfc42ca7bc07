#include "cli/line_reader.h"

#include <histedit.h>
#include <poll.h>
#include <sys/file.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <clocale>
#include <csignal>
#include <cstdio>
#include <utility>
#include <vector>

#include "base/check.h"
#include "cli/typed_characters.h"
#include "text/utf8.h"

namespace penstock {
namespace {

constexpr int kHistoryLines = 1000;

// Asks the terminal to mark pasted text, and to leave that.
constexpr char kAskForPaste[] = "\x1b[?2004h";
constexpr char kNoMorePaste[] = "\x1b[?2004l";

volatile std::sig_atomic_t g_continued = 0;

void note_continued(int) {
  g_continued = 1;
}

// Standard input, with an eye on the interrupt.
class StandardInput final : public TypedBytes {
 public:
  explicit StandardInput(const Interrupt& interrupt) : interrupt_(interrupt) {}

  void set_idle_work(IdleWork work) { idle_work_ = std::move(work); }

  // Called after the program was stopped (Ctrl-Z) and goes on.
  void set_on_continue(std::function<void()> call) { on_continue_ = std::move(call); }

 private:
  static constexpr int kMomentMs = 30;

  Arrived fill(std::span<char> room, Patience patience, size_t& got) override {
    got = 0;
    if (patience == Patience::kAMoment) {
      pollfd watched{STDIN_FILENO, POLLIN, 0};
      return ::poll(&watched, 1, kMomentMs) <= 0 ? Arrived::kByte : read_some(room, got);
    }
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
      const Arrived arrived = read_some(room, got);
      if (arrived == Arrived::kEnd || got > 0) return arrived;
    }
  }

  // kByte with nothing where a signal came between.
  static Arrived read_some(std::span<char> room, size_t& got) {
    const ssize_t count = ::read(STDIN_FILENO, room.data(), room.size());
    if (count < 0 && errno == EINTR) return Arrived::kByte;
    if (count <= 0) return Arrived::kEnd;
    got = static_cast<size_t>(count);
    return Arrived::kByte;
  }

  const Interrupt& interrupt_;
  IdleWork idle_work_;
  std::function<void()> on_continue_;
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
  StandardInput input_;
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
      : input_(interrupt), characters_(input_), history_path_(history_path) {
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
    // In this order: whoever sees that pastes are asked for may paste, and the terminal must not make lines
    // of it any more.
    keep_what_is_typed();
    write(kAskForPaste);
  }

  ~EditingReader() override {
    std::signal(SIGCONT, SIG_DFL);
    write(kNoMorePaste);
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
    int count = 0;
    const char* typed = ::el_gets(editor_, &count);
    keep_what_is_typed();
    characters_.end_line();
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

  // While an answer is made nobody reads. Left to itself the terminal would make lines of what is
  // typed or pasted then, write them into the answer, and keep a Ctrl-D as its own business; so it only
  // keeps the bytes, for the next reading. Ctrl-C and Ctrl-Z are signals all the time.
  static void keep_what_is_typed() {
    struct termios mode {};
    if (::tcgetattr(STDIN_FILENO, &mode) != 0) return;
    mode.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
    mode.c_iflag &= ~static_cast<tcflag_t>(ICRNL | INLCR | IGNCR);
    mode.c_cc[VMIN] = 1;
    mode.c_cc[VTIME] = 0;
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
    switch (reader.characters_.next(*character)) {
      case Arrived::kByte: return 1;
      case Arrived::kEnd: return 0;
      case Arrived::kInterrupt: break;
    }
    reader.interrupted_ = true;
    return -1;
  }

  StandardInput input_;
  TypedCharacters characters_;
  std::optional<std::string> history_path_;
  EditLine* editor_ = nullptr;
  History* history_ = nullptr;
  std::vector<std::string> own_lines_;
  std::string prompt_;
  bool interrupted_ = false;
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
