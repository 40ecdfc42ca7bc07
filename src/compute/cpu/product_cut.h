// How the panels of an op are cut into tasks for a team of threads.
//
// With few rows of x an op waits for memory. Its tasks are as long as is good for a stream, but none
// longer than a quarter of a thread's share, and the last ones are shorter still: threads that
// finish apart leave memory idle. With many rows it calculates, and a task keeps both rows and
// panels in the caches of one core; tasks with fewer rows come where threads would get none.
//
// Threads  functions of their arguments alone
// Memory   none
#pragma once

#include <algorithm>
#include <cstdint>

namespace penstock {

inline constexpr int64_t kTaskPanels = 16;          // of one task, at most
inline constexpr int64_t kTaskBytesMin = 16 << 10;  // shorter ones cost more than they share out
inline constexpr int64_t kPartOfLastTasks = 4;      // the last tasks are so much shorter

// What a machine may like otherwise. Results do not depend on it.
struct TaskCut {
  int64_t task_bytes = 256 << 10;  // of weights, with few rows, at most
  int64_t tasks_of_thread = 4;     // at least, where there is enough to do
};

// How long tasks of an op of `bytes` bytes of weights are, and where the last ones begin.
struct StreamCut {
  int64_t task_bytes = TaskCut{}.task_bytes;
  int64_t last_task_bytes = TaskCut{}.task_bytes;
  int64_t last_from = 0;  // bytes before the last tasks

  static constexpr StreamCut of(int64_t bytes, int64_t threads, const TaskCut& tasks = {}) {
    if (threads == 1) return {tasks.task_bytes, tasks.task_bytes, bytes};
    StreamCut cut;
    cut.task_bytes =
        std::clamp(bytes / (threads * tasks.tasks_of_thread), kTaskBytesMin, tasks.task_bytes);
    cut.last_task_bytes = std::max(cut.task_bytes / kPartOfLastTasks, kTaskBytesMin);
    cut.last_from = std::max<int64_t>(0, bytes - threads * cut.task_bytes);
    return cut;
  }
};

// The panels of one job: `num_long` tasks of `long_panels` panels, then tasks of `short_panels`.
struct PanelCut {
  int64_t panels = 0;
  int64_t num_long = 0, long_panels = 1, short_panels = 1;

  // All tasks alike.
  static constexpr PanelCut even(int64_t panels, int64_t of_task) {
    return {panels, 0, of_task, of_task};
  }
  // Of a job whose first byte is byte `begin` of the op. A task's panels are a multiple of `at_once`.
  static constexpr PanelCut of(int64_t panels, int64_t panel_bytes, int64_t at_once, int64_t begin,
                               const StreamCut& cut) {
    const auto panels_of = [&](int64_t bytes) {
      return std::clamp<int64_t>(bytes / (panel_bytes * at_once), 1, kTaskPanels / at_once) *
             at_once;
    };
    PanelCut made = {panels, 0, panels_of(cut.task_bytes), panels_of(cut.last_task_bytes)};
    const int64_t before = std::max<int64_t>(0, cut.last_from - begin) / panel_bytes;
    made.num_long = std::min(before, panels) / made.long_panels;
    return made;
  }

  constexpr int64_t num_tasks() const {
    return num_long + (panels - num_long * long_panels + short_panels - 1) / short_panels;
  }
  constexpr int64_t first_of(int64_t task) const {
    return std::min(task, num_long) * long_panels +
           std::max<int64_t>(0, task - num_long) * short_panels;
  }
  constexpr int64_t end_of(int64_t task) const { return std::min(first_of(task + 1), panels); }
};

}  // namespace penstock
