#include "cli/terminal.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

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
  if (!is_quiet()) write_line(line);
}

void Terminal::detail(std::string_view line) const {
  if (is_verbose()) write_line(line);
}

void Terminal::warning(std::string_view line) const {
  const bool colour = errors_colour_;
  write_all(
      fmt::format("{}warning:{} {}\n", colour ? "\x1b[33m" : "", colour ? "\x1b[0m" : "", line));
}

void Terminal::error(std::string_view line) const {
  const bool colour = errors_colour_;
  write_all(
      fmt::format("{}penstock:{} {}\n", colour ? "\x1b[31m" : "", colour ? "\x1b[0m" : "", line));
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

}  // namespace penstock
