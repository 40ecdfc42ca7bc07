// The web page, compiled in: its files are in page/, as a browser gets them, without a build step.
//
// Nothing but these bytes is ever sent as a page, so no path can reach a file. The page may load
// scripts and styles from here alone, and talk to here alone.
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "server/http/message.h"

namespace penstock {

struct PageFile {
  std::string_view name;  // "app.js"
  std::string_view content;
};

std::span<const PageFile> page_files();

// "/" or "/page/NAME"; nothing when there is no such file.
std::optional<HttpResponse> page_response(std::string_view path);

}  // namespace penstock
