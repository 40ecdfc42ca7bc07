#include "cli/interrupt.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <thread>

namespace penstock {
namespace {

using std::chrono::milliseconds;

// In a process of its own, which a signal may end. -> its exit code, or minus the signal
int in_child(int (*work)()) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(work());
  int status = 0;
  while (::waitpid(child, &status, 0) < 0) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

void wait_until_stopped(Interrupt& interrupt) {
  while (!interrupt.token().stop_requested()) std::this_thread::sleep_for(milliseconds(1));
}

constexpr auto kLongerThanTheGrace = milliseconds(9500);

// Both wait for as long as nobody should wait twice.
TEST(Interrupt, work_that_was_begun_after_a_signal_may_take_its_time_and_other_work_may_not) {
  int drained = 0;
  std::thread other([&] {
    drained = in_child([] {
      const auto interrupt = Interrupt::install().value();
      interrupt->set_policy(Interrupt::Policy::kPatient);
      std::raise(SIGTERM);
      wait_until_stopped(*interrupt);
      std::this_thread::sleep_for(milliseconds(50));  // the watcher waits by now
      interrupt->begin();
      std::this_thread::sleep_for(kLongerThanTheGrace);  // running answers end
      return 7;
    });
  });
  const int stuck = in_child([] {
    const auto interrupt = Interrupt::install().value();
    interrupt->set_policy(Interrupt::Policy::kPatient);
    std::raise(SIGTERM);
    std::this_thread::sleep_for(kLongerThanTheGrace);  // a disk that does not answer
    return 7;
  });
  other.join();
  EXPECT_EQ(drained, 7);
  EXPECT_EQ(stuck, 130);
}

}  // namespace
}  // namespace penstock
