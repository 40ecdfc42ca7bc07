#include "compute/cpu/product_cut.h"

#include <gtest/gtest.h>

#include <vector>

namespace penstock {
namespace {

constexpr int64_t kPanelBytes = 18 << 10;

// Every panel once, in order; no task empty or longer than a task may be.
void expect_whole(const PanelCut& cut) {
  int64_t next = 0;
  for (int64_t task = 0; task < cut.num_tasks(); ++task) {
    EXPECT_EQ(cut.first_of(task), next);
    EXPECT_GT(cut.end_of(task), next);
    EXPECT_LE(cut.end_of(task) - next, kTaskPanels);
    next = cut.end_of(task);
  }
  EXPECT_EQ(next, cut.panels);
}

TEST(ProductCut, every_panel_is_in_one_task) {
  for (const int64_t threads : {1, 2, 3, 16, 64}) {
    for (const int64_t panels : {1, 2, 15, 16, 17, 67, 772, 15520}) {
      for (const int64_t panel_bytes : {int64_t{300}, kPanelBytes, int64_t{500} << 10}) {
        const StreamCut stream = StreamCut::of(panels * panel_bytes, threads);
        for (const int64_t at_once : {1, 3, 4}) {
          expect_whole(PanelCut::of(panels, panel_bytes, at_once, 0, stream));
        }
      }
      for (const int64_t of_task : {1, 4, 16}) expect_whole(PanelCut::even(panels, of_task));
    }
  }
}

TEST(ProductCut, the_last_tasks_are_short) {
  const StreamCut stream = StreamCut::of(772 * kPanelBytes, 16);
  const PanelCut cut = PanelCut::of(772, kPanelBytes, 1, 0, stream);
  const int64_t tasks = cut.num_tasks();
  const auto size = [&](int64_t task) { return cut.end_of(task) - cut.first_of(task); };
  EXPECT_GT(size(0), 2 * size(tasks - 1));
  // For each thread one at least.
  for (int64_t task = tasks - 16; task < tasks; ++task) EXPECT_LE(size(task), size(0) / 3) << task;
}

// What several jobs have is cut as if it were one: those at the end have all short tasks.
TEST(ProductCut, an_op_ends_once_however_many_jobs_it_has) {
  constexpr int64_t kPanels = 64;
  const int64_t bytes = kPanels * kPanelBytes;
  const StreamCut stream = StreamCut::of(8 * bytes, 16);
  std::vector<PanelCut> cuts;
  for (int64_t job = 0; job < 8; ++job) {
    cuts.push_back(PanelCut::of(kPanels, kPanelBytes, 1, job * bytes, stream));
    expect_whole(cuts.back());
  }
  EXPECT_EQ(cuts.front().num_tasks(), cuts.front().num_long);
  EXPECT_EQ(cuts.back().num_long, 0);
  EXPECT_GT(cuts.back().num_tasks(), 2 * cuts.front().num_tasks());
}

TEST(ProductCut, one_thread_has_nobody_to_wait_for) {
  const StreamCut stream = StreamCut::of(772 * kPanelBytes, 1);
  const PanelCut cut = PanelCut::of(772, kPanelBytes, 1, 0, stream);
  EXPECT_EQ(cut.long_panels, cut.short_panels);
}

TEST(ProductCut, panels_that_a_kernel_takes_together_stay_together) {
  const StreamCut stream = StreamCut::of(772 * kPanelBytes, 16);
  const PanelCut cut = PanelCut::of(772, kPanelBytes, 4, 0, stream);
  for (int64_t task = 0; task < cut.num_tasks(); ++task) EXPECT_EQ(cut.first_of(task) % 4, 0);
}

}  // namespace
}  // namespace penstock
