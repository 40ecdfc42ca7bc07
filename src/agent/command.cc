#include "agent/command.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <string_view>
#include <vector>

#include "agent/inside_folder.h"
#include "io/system_error.h"

namespace penstock {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kStep(50);
constexpr std::chrono::milliseconds kGrace(2000);  // between asking it to end and ending it

// The beginning and the end of a text that comes in pieces.
class CutText {
 public:
  explicit CutText(size_t bytes_max) : half_(bytes_max / 2) {}

  void add(std::string_view piece) {
    const size_t now = std::min(half_ - begin_.size(), piece.size());
    begin_ += piece.substr(0, now);
    end_ += piece.substr(now);
    if (end_.size() <= 2 * half_) return;
    left_out_ += end_.size() - half_;
    end_.erase(0, end_.size() - half_);
  }

  void give(CommandOutcome& outcome) {
    if (end_.size() > half_) {
      left_out_ += end_.size() - half_;
      end_.erase(0, end_.size() - half_);
    }
    outcome.bytes_left_out = left_out_;
    outcome.text = begin_;
    if (left_out_ > 0)
      outcome.text += "\n[... " + std::to_string(left_out_) + " bytes left out ...]\n";
    outcome.text += end_;
  }

 private:
  size_t half_;
  std::string begin_, end_;
  uint64_t left_out_ = 0;
};

class SpawnFacts {
 public:
  SpawnFacts() {
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawnattr_init(&attributes);
  }
  ~SpawnFacts() {
    ::posix_spawn_file_actions_destroy(&actions);
    ::posix_spawnattr_destroy(&attributes);
  }
  SpawnFacts(const SpawnFacts&) = delete;
  SpawnFacts& operator=(const SpawnFacts&) = delete;

  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
};

// Its number, which is also that of its session and of the group of all its processes.
Result<pid_t> spawn(const std::string& folder, const std::string& command,
                    std::vector<std::string> environment, int output) {
  SpawnFacts facts;
  ::posix_spawn_file_actions_addopen(&facts.actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_adddup2(&facts.actions, output, STDOUT_FILENO);
  ::posix_spawn_file_actions_adddup2(&facts.actions, output, STDERR_FILENO);
  sigset_t none, usual;
  sigemptyset(&none);
  sigemptyset(&usual);
  // This program ignores or handles these; a command has them as every program has.
  for (const int signal : {SIGPIPE, SIGXFSZ, SIGINT, SIGTERM, SIGHUP}) sigaddset(&usual, signal);
  ::posix_spawnattr_setsigmask(&facts.attributes, &none);
  ::posix_spawnattr_setsigdefault(&facts.attributes, &usual);
  ::posix_spawnattr_setflags(&facts.attributes,
                             POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  // The first shell goes into the folder, the second has the command's text for itself.
  std::string words[] = {"sh", "-c", R"(cd -- "$0" && exec /bin/sh -c "$1")", folder, command};
  char* arguments[] = {words[0].data(), words[1].data(), words[2].data(),
                       words[3].data(), words[4].data(), nullptr};
  std::vector<char*> variables;
  for (std::string& variable : environment) variables.push_back(variable.data());
  variables.push_back(nullptr);
  pid_t process = 0;
  const int failure = ::posix_spawn(&process, "/bin/sh", &facts.actions, &facts.attributes,
                                    arguments, variables.data());
  if (failure != 0) return system_error("start", "/bin/sh", failure);
  return process;
}

// Reads what comes until `until` or the end; false at the end.
bool read_some(int pipe, std::chrono::milliseconds wait, CutText& text) {
  pollfd watched{pipe, POLLIN, 0};
  if (::poll(&watched, 1, static_cast<int>(wait.count())) <= 0) return true;
  char buffer[8192];
  const ssize_t got = ::read(pipe, buffer, sizeof buffer);
  if (got > 0) text.add({buffer, static_cast<size_t>(got)});
  return got > 0 || (got < 0 && (errno == EINTR || errno == EAGAIN));
}

}  // namespace

Result<CommandOutcome> run_command(const std::string& folder, const std::string& command,
                                   const std::vector<std::string>& environment,
                                   const CommandLimits& limits, const std::stop_token& stop) {
  int ends[2] = {-1, -1};
  if (::pipe(ends) != 0) return system_error("pipe", "for a command", errno);
  const Descriptor reading(ends[0]);
  Descriptor writing(ends[1]);
  for (const int end : ends) ::fcntl(end, F_SETFD, FD_CLOEXEC);
  const pid_t process = PENSTOCK_TRY(spawn(folder, command, environment, writing.number()));
  writing = Descriptor();
  CommandOutcome outcome;
  CutText text(limits.bytes_max);
  const Clock::time_point end = Clock::now() + limits.time;
  Clock::time_point kill_at = Clock::time_point::max();
  bool is_open = true;
  int status = 0;
  while (::waitpid(process, &status, WNOHANG) == 0) {
    if (is_open) {
      is_open = read_some(reading.number(), kStep, text);
    } else {
      ::poll(nullptr, 0, static_cast<int>(kStep.count()));
    }
    const bool is_stopped = stop.stop_requested();
    if (kill_at == Clock::time_point::max() && (is_stopped || Clock::now() > end)) {
      outcome.end = is_stopped ? CommandOutcome::End::kStopped : CommandOutcome::End::kTimeout;
      kill_at = Clock::now() + kGrace;
      ::kill(-process, SIGTERM);
    }
    if (Clock::now() > kill_at) ::kill(-process, SIGKILL);
  }
  ::kill(-process, SIGKILL);  // what it left running
  // What is still in the pipe; nothing that left the session can hold it open for longer.
  const Clock::time_point drained = Clock::now() + std::chrono::milliseconds(200);
  while (is_open && Clock::now() < drained) is_open = read_some(reading.number(), kStep, text);
  text.give(outcome);
  if (outcome.end != CommandOutcome::End::kExited) return outcome;
  if (WIFSIGNALED(status)) {
    outcome.end = CommandOutcome::End::kKilled;
    outcome.code = WTERMSIG(status);
  } else {
    outcome.code = WEXITSTATUS(status);
  }
  return outcome;
}

}  // namespace penstock
