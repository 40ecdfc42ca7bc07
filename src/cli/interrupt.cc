#include "cli/interrupt.h"

#include <poll.h>
#include <termios.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <string_view>
#include <utility>

#include "base/thread.h"

namespace penstock {
namespace {

// What the handler may touch: lock-free atomics and one descriptor.
std::atomic<int> g_policy{0};
std::atomic<int> g_count{0};
std::atomic<int> g_wake{-1};
std::atomic<bool> g_terminated{false};
std::atomic<bool> g_hung_up{false};
static_assert(std::atomic<int>::is_always_lock_free);

void handle_signal(int signal) {
  const int kept_errno = errno;
  if (signal != SIGINT) g_terminated = true;
  const bool again = g_count.fetch_add(1) > 0;
  const auto policy = static_cast<Interrupt::Policy>(g_policy.load());
  if (policy == Interrupt::Policy::kExit || (policy == Interrupt::Policy::kStop && again)) {
    ::_exit(128 + SIGINT);
  }
  EventPipe::raise_at(g_wake);
  errno = kept_errno;
}

void handle_hangup(int) {
  const int kept_errno = errno;
  g_hung_up = true;
  EventPipe::raise_at(g_wake);
  errno = kept_errno;
}

// Longer than any tidying takes, shorter than what service managers wait before they kill.
constexpr int kGraceSeconds = 8;

constexpr int kSignals[] = {SIGINT, SIGTERM, SIGHUP};

// How the terminal was before anybody changed it, for an end that does not pass those who would
// restore it.
struct termios g_terminal {};
bool g_has_terminal = false;

[[noreturn]] void end_without_tidying() {
  constexpr std::string_view kText =
      "penstock: it did not stop within 8 s (a disk or a pipe does not answer); ended at once\n";
  static_assert(kGraceSeconds == 8);
  if (g_has_terminal) ::tcsetattr(STDIN_FILENO, TCSANOW, &g_terminal);
  static_cast<void>(!::write(STDERR_FILENO, kText.data(), kText.size()));
  ::_exit(128 + SIGINT);
}

// A parent that ignores a signal (nohup, a shell's background job) wants it ignored.
void take_over(int signal, void (*handler)(int) = handle_signal) {
  struct sigaction old {};
  if (::sigaction(signal, nullptr, &old) != 0 || old.sa_handler == SIG_IGN) return;
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  ::sigaction(signal, &action, nullptr);
}

}  // namespace

Result<std::unique_ptr<Interrupt>> Interrupt::install() {
  PENSTOCK_CHECK(g_wake == -1);
  EventPipe wake = PENSTOCK_TRY(EventPipe::open());
  EventPipe noticed = PENSTOCK_TRY(EventPipe::open());
  std::unique_ptr<Interrupt> interrupt(new Interrupt(std::move(wake), std::move(noticed)));
  Interrupt* const self = interrupt.get();
  interrupt->watcher_ =
      PENSTOCK_TRY(start_thread([self](std::stop_token quit) { self->watch(std::move(quit)); }));
  g_has_terminal = ::tcgetattr(STDIN_FILENO, &g_terminal) == 0;
  for (const int signal : kSignals) take_over(signal);
  return interrupt;
}

Interrupt::Interrupt(EventPipe wake, EventPipe noticed)
    : wake_(std::move(wake)), noticed_(std::move(noticed)) {
  g_policy = static_cast<int>(Policy::kExit);
  g_count = 0;
  g_wake = wake_.raising_end();
}

Interrupt::~Interrupt() {
  for (const int signal : kSignals) std::signal(signal, SIG_DFL);
  g_wake = -1;
  if (watcher_.joinable()) {
    watcher_.request_stop();
    wake_.raise();
    watcher_.join();
  }
}

void Interrupt::watch(std::stop_token quit) {
  const auto is_ending = [this] {
    const bool must_end = g_terminated || g_policy == static_cast<int>(Policy::kStop);
    return must_end && token().stop_requested();
  };
  pollfd watched{wake_.descriptor(), POLLIN, 0};
  for (;;) {
    const int ready = ::poll(&watched, 1, is_ending() ? kGraceSeconds * 1000 : -1);
    if (quit.stop_requested()) return;
    // What was begun meanwhile is not what was to end: a server answers those who wait.
    if (ready == 0 && is_ending()) end_without_tidying();
    if (ready < 0) continue;
    wake_.clear();
    if (g_hung_up.exchange(false)) {
      const std::lock_guard lock(hangup_mutex_);
      if (on_hangup_) on_hangup_();
    }
    if (g_count > 0) request();
  }
}

void Interrupt::set_hangup(std::function<void()> on_hangup) {
  {
    const std::lock_guard lock(hangup_mutex_);
    on_hangup_ = std::move(on_hangup);
  }
  take_over(SIGHUP, handle_hangup);
}

void Interrupt::request() {
  const std::lock_guard lock(mutex_);
  source_.request_stop();
  noticed_.raise();
}

void Interrupt::set_policy(Policy policy) {
  g_policy = static_cast<int>(policy);
}

std::stop_token Interrupt::token() {
  const std::lock_guard lock(mutex_);
  return source_.get_token();
}

void Interrupt::begin() {
  const std::lock_guard lock(mutex_);
  g_count = 0;
  noticed_.clear();
  source_ = std::stop_source();
}

void Interrupt::stop() {
  request();
}

bool Interrupt::was_terminated() const {
  return g_terminated;
}

}  // namespace penstock
