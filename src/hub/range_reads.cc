#include "hub/range_reads.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <list>
#include <vector>

namespace penstock {
namespace {

using std::chrono::milliseconds;
using Addresses = std::map<std::string, std::string>;

// One range on its way.
class Slot final : public HttpSink {
 public:
  Slot(size_t index, const RangeRead& read, Addresses& addresses)
      : index_(index), read_(read), addresses_(addresses), bytes_(read.range.bytes) {
    const auto known = addresses.find(read.url);
    address_ = known == addresses.end() ? read.url : known->second;
  }

  Result<void> on_head(const ResponseHead& head, const std::string& url) override {
    const std::string host = url.substr(0, url.find('?'));
    taken_ = 0;
    const bool is_all = read_.range == ByteRange{0, read_.file_bytes};
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
    const bool is_asked = head.status == 200 || (range && range->first == read_.range.offset &&
                                                 range->last + 1 == read_.range.end());
    if (is_asked) {
      addresses_[read_.url] = url;
      return {};
    }
    return Error{ErrorCode::kCorrupt, fmt::format("{}: the answer from {} is not the range that "
                                                  "was asked for",
                                                  read_.file_name, host)};
  }

  Result<void> on_body(std::span<const std::byte> bytes) override {
    if (bytes.size() > bytes_.size() - taken_) {
      return Error{ErrorCode::kCorrupt,
                   fmt::format("{}: an answer is longer than the range that was asked for",
                               read_.file_name)};
    }
    std::memcpy(bytes_.data() + taken_, bytes.data(), bytes.size());
    taken_ += bytes.size();
    return {};
  }

  void start(HttpClient& client) {
    transfer_ =
        client.start({.url = address_,
                      .range = fmt::format("{}-{}", read_.range.offset, read_.range.end() - 1),
                      .if_range = "",
                      .sink = this});
  }
  // After a failure: whoever asks next asks the hub, unless it has told another address meanwhile.
  void forget_address() {
    const auto known = addresses_.find(read_.url);
    if (known != addresses_.end() && known->second == address_) addresses_.erase(known);
  }
  size_t index() const { return index_; }
  const RangeRead& read() const { return read_; }
  bool is_redirected() const { return address_ != read_.url; }
  int transfer() const { return transfer_; }
  std::span<const std::byte> bytes() const { return bytes_; }
  bool is_full() const { return taken_ == bytes_.size(); }

 private:
  size_t index_;
  const RangeRead& read_;
  Addresses& addresses_;
  std::string address_;
  std::vector<std::byte> bytes_;
  size_t taken_ = 0;
  int transfer_ = 0;
};

// What retries are to make of an answer that was no good. Addresses are signed for some time only: that
// one is refused does not say that the file is.
HttpDone as_failure(const HttpDone& done, const Slot& slot) {
  HttpDone failed = done;
  const int status = done.head.status;
  if (done.is_good()) {
    failed.failure = "the answer ended too early";
  } else if (slot.is_redirected() && done.failure.empty() && status >= 400 && status < 500 &&
             status != 429) {
    failed.failure = fmt::format("answer {} from where the hub had said that it is", status);
  }
  return failed;
}

}  // namespace

std::vector<ByteRange> merged(std::vector<ByteRange> ranges) {
  std::ranges::sort(ranges, {}, &ByteRange::offset);
  size_t count = 0;
  for (const ByteRange& range : ranges) {
    if (count > 0 && range.offset < ranges[count - 1].end()) {
      ByteRange& last = ranges[count - 1];
      last.bytes = std::max(last.end(), range.end()) - last.offset;
    } else {
      ranges[count++] = ByteRange(range);
    }
  }
  ranges.resize(count);
  return ranges;
}

size_t num_joined(std::span<const ByteRange> ranges) {
  size_t count = 1;
  while (count < ranges.size() &&
         ranges[count].offset <= ranges[count - 1].end() + kRangeGapBytes &&
         ranges[count].end() - ranges[0].offset <= kJoinedBytesMax) {
    ++count;
  }
  return count;
}

Result<void> RangeReader::read(std::span<const RangeRead> reads, const Take& take,
                               const std::stop_token& stop) {
  Retries retries(subject_, on_note_);
  std::deque<size_t> waiting;
  for (size_t index = 0; index < reads.size(); ++index) waiting.push_back(index);
  std::list<Slot> slots;
  // The first answer tells where a file really is; until then no second is asked for.
  const auto may_be_asked = [&](size_t index) {
    const std::string& url = reads[index].url;
    return addresses_.contains(url) ||
           std::ranges::none_of(slots, [&](const Slot& slot) { return slot.read().url == url; });
  };
  const auto start_slots = [&] {
    while (slots.size() < parallel_ && retries.may_start()) {
      const auto next = std::ranges::find_if(waiting, may_be_asked);
      if (next == waiting.end()) return;
      slots.emplace_back(*next, reads[*next], addresses_).start(client_);
      waiting.erase(next);
    }
  };
  const auto take_done = [&](const HttpDone& done) -> Result<void> {
    const auto slot = std::ranges::find(slots, done.id, &Slot::transfer);
    if (slot == slots.end()) return {};
    if (done.is_good() && slot->is_full()) {
      const Result<void> taken = take(slot->index(), slot->bytes());
      slots.erase(slot);
      retries.made_progress();
      return taken;
    }
    slot->forget_address();
    const HttpDone failed = as_failure(done, *slot);
    const size_t index = slot->index();
    slots.erase(slot);
    waiting.push_front(index);
    return retries.failed(failed, reads[index].file_name);
  };
  const auto work = [&]() -> Result<void> {
    while (!waiting.empty() || !slots.empty()) {
      start_slots();
      for (const HttpDone& done : PENSTOCK_TRY(client_.wait(stop, milliseconds(50)))) {
        PENSTOCK_TRY(take_done(done));
      }
    }
    return {};
  };
  const Result<void> done = work();
  for (const Slot& slot : slots) client_.cancel(slot.transfer());
  return done;
}

}  // namespace penstock
