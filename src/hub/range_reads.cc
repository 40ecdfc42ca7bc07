#include "hub/range_reads.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <list>

namespace penstock {
namespace {

using std::chrono::milliseconds;

// One range on its way.
class Slot final : public HttpSink {
 public:
  explicit Slot(const RangeRead& read) : read_(read) {}

  Result<void> on_head(const ResponseHead& head, const std::string& url) override {
    const std::string host = url.substr(0, url.find('?'));
    taken_ = 0;
    const bool is_all = read_.offset == 0 && read_.target.size() == read_.file_bytes;
    if (head.status == 200 && !is_all) {
      return Error{ErrorCode::kUnsupported,
                   fmt::format("{}: {} knows no ranges, so the header cannot be read before the "
                               "file is here; pull without --shard-by-shard",
                               read_.file_name, host)};
    }
    const auto total = head.status == 200   ? head.content_length
                       : head.content_range ? head.content_range->total
                                            : std::nullopt;
    if (total && *total != read_.file_bytes) {
      return Error{ErrorCode::kCorrupt,
                   fmt::format("{}: {} tells {} bytes where the list of files has {}; a mirror or "
                               "proxy that is out of date? pull it again later",
                               read_.file_name, host, *total, read_.file_bytes)};
    }
    const auto& range = head.content_range;
    const bool is_asked =
        head.status == 200 || (range && range->first == read_.offset && range->last + 1 == end());
    if (is_asked) return {};
    return Error{ErrorCode::kCorrupt, fmt::format("{}: the answer from {} is not the range that "
                                                  "was asked for",
                                                  read_.file_name, host)};
  }

  Result<void> on_body(std::span<const std::byte> bytes) override {
    if (bytes.size() > read_.target.size() - taken_) {
      return Error{ErrorCode::kCorrupt,
                   fmt::format("{}: an answer is longer than the range that was asked for",
                               read_.file_name)};
    }
    std::memcpy(read_.target.data() + taken_, bytes.data(), bytes.size());
    taken_ += bytes.size();
    return {};
  }

  void start(HttpClient& client) {
    transfer_ = client.start({.url = read_.url,
                              .range = fmt::format("{}-{}", read_.offset, end() - 1),
                              .if_range = "",
                              .sink = this});
  }
  const RangeRead& read() const { return read_; }
  int transfer() const { return transfer_; }
  bool is_full() const { return taken_ == read_.target.size(); }

 private:
  uint64_t end() const { return read_.offset + read_.target.size(); }

  const RangeRead& read_;
  size_t taken_ = 0;
  int transfer_ = 0;
};

}  // namespace

Result<void> read_ranges(HttpClient& client, std::span<const RangeRead> reads,
                         const HubSubject& subject, size_t parallel,
                         const std::function<void(const std::string&)>& on_note,
                         const std::stop_token& stop) {
  Retries retries(subject, on_note);
  std::deque<const RangeRead*> waiting;
  for (const RangeRead& read : reads) waiting.push_back(&read);
  std::list<Slot> slots;
  const auto work = [&]() -> Result<void> {
    while (!waiting.empty() || !slots.empty()) {
      while (!waiting.empty() && slots.size() < parallel && retries.may_start()) {
        slots.emplace_back(*waiting.front()).start(client);
        waiting.pop_front();
      }
      for (const HttpDone& done : PENSTOCK_TRY(client.wait(stop, milliseconds(50)))) {
        const auto slot = std::ranges::find(slots, done.id, &Slot::transfer);
        if (slot == slots.end()) continue;
        const RangeRead* read = &slot->read();
        const bool is_whole = done.is_good() && slot->is_full();
        slots.erase(slot);
        if (is_whole) {
          retries.made_progress();
          continue;
        }
        waiting.push_front(read);
        HttpDone failed = done;
        if (done.is_good()) failed.failure = "the answer ended too early";
        PENSTOCK_TRY(retries.failed(failed, read->file_name));
      }
    }
    return {};
  };
  const Result<void> done = work();
  for (const Slot& slot : slots) client.cancel(slot.transfer());
  return done;
}

}  // namespace penstock
