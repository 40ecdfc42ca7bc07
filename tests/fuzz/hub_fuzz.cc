// What a hub sends: the head of an answer line by line, a list of files as JSON, redirects; and what lies
// in the cache: a journal of ranges, and ranges that were kept. The first byte picks.
#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.h"
#include "hub/choice.h"
#include "hub/kept_ranges.h"
#include "hub/listing.h"
#include "hub/range_journal.h"
#include "hub/response_head.h"
#include "hub/url.h"

namespace {

using namespace penstock;

void read_head(std::string_view text) {
  ResponseHead head;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    head.add_line(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  PENSTOCK_CHECK(head.status == 0 || (head.status >= 100 && head.status <= 599));
  if (head.content_range) PENSTOCK_CHECK(head.content_range->first <= head.content_range->last);
  static_cast<void>(head.wait_s(1'000'000'000));
}

// Whatever was accepted stays below its folder, and choosing among it works.
void read_listing(std::string_view text) {
  const auto listing = parse_listing(text, "list");
  if (!listing) return;
  for (const RepoFile& file : listing->files) {
    PENSTOCK_CHECK(("/" + file.name + "/").find("/../") == std::string::npos);
    PENSTOCK_CHECK(!file.name.starts_with('/') && file.hash.size() >= 40);
  }
  static_cast<void>(choose_model(listing->files, {"o", "m", ""}, "there").has_value());
  static_cast<void>(choose_model(listing->files, {"o", "m", "Q4_0"}, "there").has_value());
}

// Without its first line, which would be the same for all.
void read_kept(std::string_view records) {
  const std::string commit(40, 'a'), text = "PSRANGES" + commit + std::string(records);
  uint64_t bytes = 0;
  const auto take = [&](const KeptRange& range) { bytes += range.bytes.size(); };
  const uint64_t good = parse_kept_ranges(text, commit, take);
  PENSTOCK_CHECK(good >= text.size() - records.size() && good <= text.size() && bytes <= good);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 5) {
    case 0: read_head(text); break;
    case 1: read_listing(text); break;
    case 2: {
      const auto target = follow("https://hub.example/a", std::string(text));
      if (target) PENSTOCK_CHECK(parse_origin(*target)->is_secure());
      break;
    }
    case 3: {
      const PieceMap map = parse_journal(text, 1000, 7);
      PENSTOCK_CHECK(map.done.size() == 143 && map.bytes_done() <= 1000);
      break;
    }
    default: read_kept(text);
  }
  return 0;
}
