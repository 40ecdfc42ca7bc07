#include "hub/http_client.h"

#include <curl/curl.h>
#include <fmt/format.h>

#include <map>
#include <utility>

#include "hub/late_libraries.h"
#include "hub/url.h"

namespace penstock {
namespace {

constexpr int kRedirectsMax = 8;
constexpr uint64_t kIgnoredBytesMax = 1 << 20;  // of bodies that nobody reads
constexpr long kConnectSeconds = 20;
constexpr long kSlowBytes = 1024;
constexpr long kSlowSeconds = 30;

struct FreeEasy {
  void operator()(CURL* easy) const { curl_easy_cleanup(easy); }
};
struct FreeList {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};

struct Transfer {
  int id = 0;
  HttpGet get;
  std::string url;  // of this hop
  int hops = 0;
  bool left_origin = false;
  ResponseHead head;
  bool head_told = false;
  uint64_t ignored_bytes = 0;
  std::optional<Error> refusal;
  std::unique_ptr<CURL, FreeEasy> easy;
  std::unique_ptr<curl_slist, FreeList> fields;

  bool is_wanted() const { return head.status == 200 || head.status == 206; }
  Result<void> tell_head() {
    if (std::exchange(head_told, true)) return {};
    return get.sink->on_head(head, url);
  }
};

// Called by libcurl, which cannot take exceptions or Errors: these wait in the transfer.
size_t on_line(char* data, size_t, size_t size, void* user) {
  static_cast<Transfer*>(user)->head.add_line({data, size});
  return size;
}

size_t on_bytes(char* data, size_t, size_t size, void* user) {
  Transfer& transfer = *static_cast<Transfer*>(user);
  if (!transfer.is_wanted()) {
    transfer.ignored_bytes += size;
    return transfer.ignored_bytes > kIgnoredBytesMax ? 0 : size;
  }
  Result<void> taken = transfer.tell_head();
  if (taken) taken = transfer.get.sink->on_body(std::as_bytes(std::span(data, size)));
  if (taken) return size;
  transfer.refusal = taken.error();
  return 0;
}

void add_field(Transfer& transfer, const std::string& line) {
  curl_slist* longer = curl_slist_append(transfer.fields.get(), line.c_str());
  PENSTOCK_CHECK(longer != nullptr);
  static_cast<void>(transfer.fields.release());
  transfer.fields.reset(longer);
}

}  // namespace

struct HttpClient::State {
  HubOptions options;
  UrlOrigin endpoint;
  CURLM* multi = nullptr;
  int next_id = 1;
  std::map<int, std::unique_ptr<Transfer>> transfers;

  ~State() {
    for (const auto& [id, transfer] : transfers) {
      curl_multi_remove_handle(multi, transfer->easy.get());
    }
    transfers.clear();
    if (multi != nullptr) curl_multi_cleanup(multi);
  }

  bool sends_token() const {
    return !options.token.empty() && (endpoint.is_secure() || endpoint.is_this_machine());
  }
  void begin_hop(Transfer& transfer);
  // The transfer is at an end, or goes on with its next hop.
  std::optional<HttpDone> end_hop(Transfer& transfer, CURLcode code);
};

void HttpClient::State::begin_hop(Transfer& transfer) {
  CURL* easy = transfer.easy.get();
  curl_easy_reset(easy);  // connections are kept
  transfer.head = {};
  transfer.head_told = false;
  transfer.ignored_bytes = 0;
  transfer.fields.reset();
  const Result<UrlOrigin> origin = parse_origin(transfer.url);
  const bool at_home = origin && *origin == endpoint;
  transfer.left_origin = transfer.left_origin || !at_home;
  if (at_home && sends_token()) add_field(transfer, "Authorization: Bearer " + options.token);
  if (!transfer.get.if_range.empty()) add_field(transfer, "If-Range: " + transfer.get.if_range);
  curl_easy_setopt(easy, CURLOPT_URL, transfer.url.c_str());
  curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
  // One connection for each range: with HTTP/2 all of them would share one.
  curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, long{CURL_HTTP_VERSION_1_1});
  curl_easy_setopt(easy, CURLOPT_USERAGENT, options.agent.c_str());
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
  curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, kConnectSeconds);
  curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, kSlowBytes);
  curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, kSlowSeconds);
  curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, 256L << 10);
  if (!options.ca_bundle.empty()) {
    curl_easy_setopt(easy, CURLOPT_CAINFO, options.ca_bundle.c_str());
  }
  if (transfer.fields) curl_easy_setopt(easy, CURLOPT_HTTPHEADER, transfer.fields.get());
  if (!transfer.get.range.empty()) {
    curl_easy_setopt(easy, CURLOPT_RANGE, transfer.get.range.c_str());
  }
  curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, &on_line);
  curl_easy_setopt(easy, CURLOPT_HEADERDATA, &transfer);
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &on_bytes);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, &transfer);
  curl_easy_setopt(easy, CURLOPT_PRIVATE, &transfer);
  PENSTOCK_CHECK(curl_multi_add_handle(multi, easy) == CURLM_OK);
}

std::optional<HttpDone> HttpClient::State::end_hop(Transfer& transfer, CURLcode code) {
  curl_multi_remove_handle(multi, transfer.easy.get());
  const ResponseHead& head = transfer.head;
  if (head.is_redirect() && !head.location.empty()) {
    const Result<std::string> next = follow(transfer.url, head.location);
    if (next && ++transfer.hops <= kRedirectsMax) {
      transfer.url = *next;
      begin_hop(transfer);
      return {};
    }
    transfer.refusal =
        next ? Error{ErrorCode::kCorrupt, fmt::format("{} redirects more than {} times",
                                                      transfer.get.url, kRedirectsMax)}
             : next.error();
  } else if (code == CURLE_OK && transfer.is_wanted() && !transfer.refusal) {
    const Result<void> told = transfer.tell_head();  // where the body was empty
    if (!told) transfer.refusal = told.error();
  }
  HttpDone done{.id = transfer.id,
                .head = head,
                .url = transfer.url,
                .left_origin = transfer.left_origin,
                .failure = "",
                .refusal = transfer.refusal};
  if (code != CURLE_OK && !transfer.refusal && !head.is_redirect()) {
    done.failure = curl_easy_strerror(code);
  }
  return done;
}

Result<std::unique_ptr<HttpClient>> HttpClient::create(HubOptions options) {
  PENSTOCK_TRY(open_late_libraries());
  static const CURLcode started = curl_global_init(CURL_GLOBAL_DEFAULT);
  auto state = std::make_unique<State>();
  state->endpoint = PENSTOCK_TRY(parse_origin(options.endpoint));
  state->options = std::move(options);
  state->multi = started == CURLE_OK ? curl_multi_init() : nullptr;
  if (state->multi == nullptr) {
    return Error{ErrorCode::kOutOfMemory, "libcurl did not start: the system gives no memory"};
  }
  return std::unique_ptr<HttpClient>(new HttpClient(std::move(state)));
}

HttpClient::HttpClient(std::unique_ptr<State> state) : state_(std::move(state)) {}
HttpClient::~HttpClient() = default;

const HubOptions& HttpClient::options() const {
  return state_->options;
}

bool HttpClient::sends_token() const {
  return state_->sends_token();
}

int HttpClient::start(HttpGet get) {
  auto transfer = std::make_unique<Transfer>();
  transfer->id = state_->next_id++;
  transfer->url = get.url;
  transfer->get = std::move(get);
  transfer->easy.reset(curl_easy_init());
  PENSTOCK_CHECK(transfer->easy != nullptr);
  state_->begin_hop(*transfer);
  const int id = transfer->id;
  state_->transfers.emplace(id, std::move(transfer));
  return id;
}

void HttpClient::cancel(int id) {
  const auto found = state_->transfers.find(id);
  if (found == state_->transfers.end()) return;
  curl_multi_remove_handle(state_->multi, found->second->easy.get());
  state_->transfers.erase(found);
}

Result<std::vector<HttpDone>> HttpClient::wait(const std::stop_token& stop,
                                               std::chrono::milliseconds time) {
  const std::stop_callback wake(stop, [this] { curl_multi_wakeup(state_->multi); });
  std::vector<HttpDone> ended;
  const auto end = std::chrono::steady_clock::now() + time;
  for (;;) {
    if (stop.stop_requested()) return Error{ErrorCode::kCancelled, "stopped"};
    int running = 0;
    curl_multi_perform(state_->multi, &running);
    int left = 0;
    while (const CURLMsg* message = curl_multi_info_read(state_->multi, &left)) {
      if (message->msg != CURLMSG_DONE) continue;
      const CURLcode code = message->data.result;
      void* user = nullptr;
      curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &user);
      Transfer& transfer = *static_cast<Transfer*>(user);
      std::optional<HttpDone> done = state_->end_hop(transfer, code);
      if (!done) continue;
      ended.push_back(*std::move(done));
      state_->transfers.erase(ended.back().id);
    }
    const auto now = std::chrono::steady_clock::now();
    if (!ended.empty() || now >= end) return ended;
    const auto pause = std::chrono::duration_cast<std::chrono::milliseconds>(end - now);
    curl_multi_poll(state_->multi, nullptr, 0, static_cast<int>(pause.count()) + 1, nullptr);
  }
}

}  // namespace penstock
