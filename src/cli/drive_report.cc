#include "cli/drive_report.h"

#include <fmt/format.h>

namespace penstock {

std::vector<std::string> drive_texts(const std::vector<DriveReport>& drives) {
  std::vector<std::string> texts;
  for (const DriveReport& drive : drives) {
    if (drives.size() < 2 || drive.stats.failures == 0) continue;
    texts.push_back(
        fmt::format("{}: {} of {} reads failed; the others have the same bytes{}", drive.path,
                    drive.stats.failures, drive.stats.reads,
                    drive.is_resting ? " and are read from now; look at this drive" : ""));
  }
  return texts;
}

void tell_drives(const Call& call, const std::vector<DriveReport>& drives) {
  for (const std::string& text : drive_texts(drives)) call.terminal.warning(text);
}

Json drives_json(const std::vector<DriveReport>& drives) {
  Json json = Json::array();
  for (const DriveReport& drive : drives) {
    json.push_back({{"path", drive.path},
                    {"reads", drive.stats.reads},
                    {"bytes", drive.stats.bytes},
                    {"failures", drive.stats.failures},
                    {"bytes_per_second", drive.bytes_per_second},
                    {"is_resting", drive.is_resting}});
  }
  return json;
}

}  // namespace penstock
