#include "grammar/formats.h"

namespace penstock {
namespace {

// Every day of the calendar, 29 February in leap years only; no year 0.
std::string date() {
  const std::string year = R"((?:[1-9]\d{3}|0[1-9]\d{2}|00[1-9]\d|000[1-9]))";
  const std::string leap =
      R"((?:\d{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00))";
  return "(?:" + year +
         R"(-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|)"
         R"((?:0[469]|11)-(?:0[1-9]|[12]\d|30)|02-(?:0[1-9]|1\d|2[0-8]))|)" +
         leap + "-02-29)";
}

std::string time() {
  return R"((?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,9})?(?:[Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d))";
}

std::string ipv4() {
  const std::string byte = R"((?:25[0-5]|2[0-4]\d|1\d{2}|[1-9]?\d))";
  return "(?:" + byte + R"(\.){3})" + byte;
}

std::string hostname() {
  const std::string label = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?";
  return label + R"((?:\.)" + label + "){0,3}";
}

// Eight groups, or fewer around one "::".
std::string ipv6() {
  const std::string group = "[0-9A-Fa-f]{1,4}";
  std::string all = "(?:" + group + ":){7}" + group;
  for (int before = 0; before <= 7; ++before) {
    const int after = 7 - before;
    std::string one;
    if (before > 0) {
      one += group + "(?::" + group + "){" + std::to_string(before - 1) + "}";
    }
    one += "::";
    if (after > 0)
      one += "(?:" + group + "(?::" + group + "){0," + std::to_string(after - 1) + "})?";
    all += "|" + one;
  }
  return "(?:" + all + ")";
}

}  // namespace

std::optional<std::string> pattern_of_format(std::string_view format) {
  if (format == "date") return "^" + date() + "$";
  if (format == "time") return "^" + time() + "$";
  if (format == "date-time") return "^" + date() + "[Tt]" + time() + "$";
  if (format == "duration") {
    return R"(^P(?:\d+W|(?:\d+Y(?:\d+M(?:\d+D)?)?|\d+M(?:\d+D)?|\d+D))"
           R"((?:T(?:\d+H(?:\d+M(?:\d+S)?)?|\d+M(?:\d+S)?|\d+S))?|)"
           R"(T(?:\d+H(?:\d+M(?:\d+S)?)?|\d+M(?:\d+S)?|\d+S))$)";
  }
  if (format == "uuid") {
    return "^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$";
  }
  if (format == "email") {
    const std::string atom = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+";
    return "^" + atom + R"((?:\.)" + atom + ")*@" + hostname() + "$";
  }
  if (format == "hostname") return "^" + hostname() + "$";
  if (format == "ipv4") return "^" + ipv4() + "$";
  if (format == "ipv6") return "^" + ipv6() + "$";
  if (format == "uri") {
    return R"(^[A-Za-z][A-Za-z0-9+.-]*:(?:[A-Za-z0-9._~:/?@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+$)";
  }
  return std::nullopt;
}

bool is_number_format(std::string_view format) {
  return format == "int32" || format == "int64" || format == "uint" || format == "uint32" ||
         format == "uint64" || format == "int" || format == "integer" || format == "float" ||
         format == "double" || format == "number" || format == "decimal";
}

}  // namespace penstock
