#include "hub/retries.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>

#include "format/text.h"

namespace penstock {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr int kFailuresMax = 6;
constexpr auto kFirstWait = milliseconds(250);
constexpr auto kLastWait = seconds(30);
constexpr uint64_t kAskedWaitMaxS = 900;  // the Hub counts in windows of 300 s
constexpr int kWaitsAskedMax = 50;

std::string told_reason(const ResponseHead& head) {
  return head.error_message.empty() ? "" : fmt::format(" ({})", escaped(head.error_message));
}

}  // namespace

Error refusal_of(const ResponseHead& head, const HubSubject& subject, const std::string& what) {
  const std::string repo = subject.name.repo_id();
  const std::string page = fmt::format("{}/{}", subject.endpoint, repo);
  const std::string answer = fmt::format("{} answered {} for {}{}", subject.endpoint, head.status,
                                         what, told_reason(head));
  if (head.error_code == "GatedRepo") {
    return {ErrorCode::kIo,
            fmt::format("{}: {} asks for consent to its conditions; give it at {} and set HF_TOKEN "
                        "to a token of that account",
                        answer, repo, page)};
  }
  if (head.error_code == "RevisionNotFound") {
    return {ErrorCode::kNotFound, fmt::format("{}: {} has no revision {}; look at {} for its "
                                              "branches and tags, and give one with --revision",
                                              answer, repo, subject.revision, page)};
  }
  if (head.status == 401 || head.status == 403) {
    const std::string todo =
        subject.has_token
            ? "the token in HF_TOKEN or the token file is not accepted for it; make one that may "
              "read it"
            : "set HF_TOKEN to a token that may read it";
    return {ErrorCode::kIo,
            fmt::format("{}: {} does not exist, is private or asks for consent; check the name at "
                        "{}, and {}",
                        answer, repo, page, todo)};
  }
  if (head.status == 404) {
    return {ErrorCode::kNotFound, fmt::format("{}: check the name and the revision {} at {}",
                                              answer, subject.revision, page)};
  }
  return {ErrorCode::kIo, fmt::format("{}; nothing that trying again would mend", answer)};
}

void Retries::wait(milliseconds time) {
  next_ = std::max(next_, Clock::now() + time);
}

Result<void> Retries::failed(const HttpDone& done, const std::string& what) {
  if (done.refusal) return *done.refusal;
  const int status = done.head.status;
  const auto asked = done.head.wait_s(static_cast<int64_t>(std::time(nullptr)));
  if (done.failure.empty() && (status == 429 || (status == 503 && asked))) {
    // Several transfers that are refused together are one wait.
    if (may_start()) ++waits_asked_;
    if (asked.value_or(0) > kAskedWaitMaxS || waits_asked_ > kWaitsAskedMax) {
      return Error{ErrorCode::kIo,
                   fmt::format("{} answered {} for {} and asks to wait {} s; give the same command "
                               "again then, it goes on where it was",
                               subject_.endpoint, status, what, asked.value_or(0))};
    }
    const auto time = asked ? milliseconds(seconds(*asked)) : milliseconds(seconds(5));
    if (may_start()) {
      on_note_(fmt::format("{} asks to wait {} s (answer {})", subject_.endpoint,
                           time.count() / 1000, status));
    }
    wait(time);
    return {};
  }
  const bool for_good = done.failure.empty() && !done.left_origin && status >= 400 &&
                        status < 500 && status != 408 && status != 416;
  if (for_good) return refusal_of(done.head, subject_, what);
  // Several transfers that break together are one failure.
  if (!may_start()) return {};
  if (++failures_ > kFailuresMax) {
    const std::string reason = done.failure.empty()
                                   ? fmt::format("answer {}{}", status, told_reason(done.head))
                                   : done.failure;
    return Error{ErrorCode::kIo,
                 fmt::format("{}: given up after {} attempts: {}; give the same command again, it "
                             "goes on where it was",
                             done.url.substr(0, done.url.find('?')), failures_, reason)};
  }
  wait(std::min<milliseconds>(kFirstWait * (1 << (failures_ - 1)), kLastWait));
  return {};
}

}  // namespace penstock
