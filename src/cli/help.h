// The texts of `penstock help`, of the manual page and of the completion scripts, made from the table of options.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "cli/options.h"

namespace penstock {

std::string program_help();
std::string verb_help(const VerbText& verb);

// penstock(1) and penstock-VERB(1) as roff.
std::string manual_page(std::string_view version);
std::string manual_page_of(const VerbText& verb, std::string_view version);

// Nothing for a shell other than bash, zsh and fish.
std::optional<std::string> completion_script(std::string_view shell);

}  // namespace penstock
