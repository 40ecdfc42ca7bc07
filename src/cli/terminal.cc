#include "cli/terminal.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>

#include "text/utf8.h"

namespace penstock {
namespace {

bool is_terminal(int descriptor) {
  return ::isatty(descriptor) == 1;
}

void write_all(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
    // Nobody can be told that the place for telling is gone.
    if (written <= 0 && errno != EINTR) return;
    if (written > 0) text.remove_prefix(static_cast<size_t>(written));
  }
}

// Tables bring their own end of line.
void write_line(std::string_view text) {
  write_all(text.ends_with('\n') ? std::string(text) : fmt::format("{}\n", text));
}

bool is_control(char32_t c) {
  return c < 0x20 || (c >= 0x7f && c < 0xa0);
}

// Marks, embeddings, overrides and isolates of the bidirectional algorithm; and the two characters
// that end a line without being a newline.
bool turns_writing(char32_t c) {
  return c == 0x061c || c == 0x200e || c == 0x200f || (c >= 0x2028 && c <= 0x202e) ||
         (c >= 0x2066 && c <= 0x2069);
}

// At most `limit` bytes of the text, whole characters, and what was left out.
std::string cut_to(std::string_view text, size_t limit) {
  if (text.size() <= limit) return std::string(text);
  size_t end = limit;
  while (end > 0 && (static_cast<uint8_t>(text[end]) & 0xc0) == 0x80) --end;
  return fmt::format("{}... ({} bytes more)", text.substr(0, end), text.size() - end);
}

}  // namespace

Terminal::Terminal(const Environment& environment, Loudness loudness) : loudness_(loudness) {
  const bool dumb = environment.get("TERM").value_or("dumb") == "dumb";
  input_ = is_terminal(STDIN_FILENO) && !dumb;
  output_ = is_terminal(STDOUT_FILENO) && !dumb;
  errors_ = is_terminal(STDERR_FILENO) && !dumb;
  const bool forced = environment.get("CLICOLOR_FORCE").value_or("0") != "0";
  const bool refused = environment.get("NO_COLOR").has_value();
  output_colour_ = !refused && (forced || output_);
  errors_colour_ = !refused && (forced || errors_);
}

int Terminal::columns() const {
  struct winsize size {};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

void Terminal::show(std::string_view text) const {
  write_all(text);
}

void Terminal::note(std::string_view line) const {
  if (!is_quiet()) write_line(table_text(line));
}

void Terminal::detail(std::string_view line) const {
  if (is_verbose()) write_line(table_text(line));
}

void Terminal::warning(std::string_view line) const {
  const bool colour = errors_colour_;
  write_all(fmt::format("{}warning:{} {}\n", colour ? "\x1b[33m" : "", colour ? "\x1b[0m" : "",
                        message_text(line)));
}

void Terminal::error(std::string_view line) const {
  const bool colour = errors_colour_;
  write_all(fmt::format("{}penstock:{} {}\n", colour ? "\x1b[31m" : "", colour ? "\x1b[0m" : "",
                        message_text(line)));
}

std::string printable(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const Utf8Char c = decode_utf8(text, i);
    const bool keep = c.code_point == '\n' || c.code_point == '\t' || !is_control(c.code_point);
    append_utf8(keep ? c.code_point : kReplacementCharacter, out);
    i += c.bytes;
  }
  return out;
}

std::string table_text(std::string_view text) {
  std::string clean;
  for (size_t i = 0; i < text.size();) {
    const Utf8Char c = decode_utf8(text, i);
    append_utf8(turns_writing(c.code_point) ? kReplacementCharacter : c.code_point, clean);
    i += c.bytes;
  }
  clean = printable(clean);
  std::string out;
  for (size_t begin = 0; begin < clean.size();) {
    const size_t end = std::min(clean.find('\n', begin), clean.size());
    out += cut_to(std::string_view(clean).substr(begin, end - begin), kLineBytesMax);
    if (end < clean.size()) out += '\n';
    begin = end + 1;
  }
  return out;
}

std::string message_text(std::string_view text) {
  while (text.ends_with('\n')) text.remove_suffix(1);
  const std::string lines = cut_to(table_text(text), kMessageBytesMax);
  std::string out;
  for (const char c : lines) {
    out += c;
    if (c == '\n') out += "  ";
  }
  return out;
}

}  // namespace penstock
