#include "hub/repo_list.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/byte_text.h"
#include "hub/url.h"

namespace penstock {
namespace {

using std::chrono::milliseconds;

// A text of bounded length.
class TextSink final : public HttpSink {
 public:
  Result<void> on_head(const ResponseHead&, const std::string&) override {
    text_.clear();
    return {};
  }
  Result<void> on_body(std::span<const std::byte> bytes) override {
    if (bytes.size() > kListingBytesMax - text_.size()) {
      return Error{ErrorCode::kCorrupt, fmt::format("the list of files is longer than {}",
                                                    format_bytes(kListingBytesMax))};
    }
    text_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return {};
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

Result<std::string> fetch_text(HttpClient& client, const std::string& url, Retries& retries,
                               const std::stop_token& stop) {
  TextSink sink;
  int id = 0;
  for (;;) {
    if (id == 0 && retries.may_start()) {
      id = client.start({.url = url, .range = "", .if_range = "", .sink = &sink});
    }
    for (const HttpDone& done : PENSTOCK_TRY(client.wait(stop, milliseconds(50)))) {
      if (done.is_good()) return sink.text();
      PENSTOCK_TRY(retries.failed(done, "the list of files"));
      id = 0;
    }
  }
}

}  // namespace

Result<RepoListing> list_repo(HttpClient& client, const HubSubject& subject,
                              const std::function<void(const std::string&)>& on_note,
                              const std::stop_token& stop) {
  const HubOptions& options = client.options();
  if (!options.token.empty() && !client.sends_token()) {
    on_note(fmt::format("the token is not sent: {} is neither encrypted nor this machine",
                        options.endpoint));
  }
  const std::string repo = subject.name.repo_id();
  const std::string url = fmt::format("{}/api/models/{}/revision/{}?blobs=true", subject.endpoint,
                                      repo, percent_encoded(subject.revision));
  Retries retries(subject, on_note);
  const std::string text = PENSTOCK_TRY(fetch_text(client, url, retries, stop));
  return parse_listing(text,
                       fmt::format("the list of files of {} from {}", repo, subject.endpoint));
}

std::string file_url(const HubSubject& subject, const std::string& commit,
                     const std::string& file_name) {
  std::string url =
      fmt::format("{}/{}/resolve/{}", subject.endpoint, subject.name.repo_id(), commit);
  for (std::string_view rest = file_name; !rest.empty();) {
    const size_t slash = std::min(rest.find('/'), rest.size());
    url += "/" + percent_encoded(rest.substr(0, slash));
    rest.remove_prefix(std::min(slash + 1, rest.size()));
  }
  return url;
}

}  // namespace penstock
