#include "text/jinja/strftime.h"

#include <fmt/format.h>
#include <locale.h>
#include <sys/time.h>

#include <vector>

#include "base/check.h"
#include "text/jinja/value.h"

namespace penstock::jinja {
namespace {

constexpr size_t kResultBytesMax = size_t{64} << 10;

locale_t c_locale() {
  static const locale_t kLocale = ::newlocale(LC_ALL_MASK, "C", nullptr);
  PENSTOCK_CHECK(kLocale != nullptr);
  return kLocale;
}

// Python replaces these before it asks the C library; a time without a zone has none to print.
std::string with_own_directives(const LocalTime& time, const std::string& format) {
  std::string out;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%' || i + 1 == format.size()) {
      out += format[i];
      continue;
    }
    const char directive = format[++i];
    if (directive == 'f') {
      out += fmt::format("{:06d}", time.microseconds);
    } else if (directive != 'z' && directive != 'Z') {
      out += '%';
      out += directive;
    }
  }
  return out;
}

}  // namespace

LocalTime local_time_now() {
  timeval now{};
  ::gettimeofday(&now, nullptr);
  LocalTime time;
  ::localtime_r(&now.tv_sec, &time.fields);
  time.microseconds = static_cast<int32_t>(now.tv_usec);
  return time;
}

Result<std::string> format_time(const LocalTime& time, const std::string& format) {
  if (format.find('\0') != std::string::npos) {
    return template_error("strftime_now: the format holds a NUL character");
  }
  if (format.size() > kResultBytesMax / 2) {
    return template_error("strftime_now: the format has more than 32 KiB");
  }
  // The character at the end tells an empty result from one that does not fit.
  const std::string wanted = with_own_directives(time, format) + ".";
  std::tm fields = time.fields;
  fields.tm_isdst = -1;  // without a zone, also for %_z and the like
  char no_zone[] = "";   // a char* on some systems
  fields.tm_zone = no_zone;
  std::vector<char> buffer(1024);
  for (;;) {
    const size_t bytes =
        ::strftime_l(buffer.data(), buffer.size(), wanted.c_str(), &fields, c_locale());
    if (bytes > 0) return std::string(buffer.data(), bytes - 1);
    if (buffer.size() >= kResultBytesMax) break;
    buffer.resize(buffer.size() * 2);
  }
  return template_error("strftime_now: the result has more than 64 KiB");
}

}  // namespace penstock::jinja
