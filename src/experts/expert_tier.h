// A tier of experts nearer than memory: it holds some of them and computes their rows by itself,
// while the processors compute those of the others.
//
//   tier.choose(layer, rows, left);   // what it takes of a call is held until end()
//   tier.begin(x);
//   ...                               // the caller computes `left`, and offers what it has computed
//   if (!tier.finish(out)) ...        // lost: the caller computes the rest as well
//   tier.end();
//
// In calls of many rows it may also take experts that it has not, for the call alone: guests. While the
// caller computes those with the fewest rows, it brings over those with the most, until they meet:
//
//   while (... guests are left ...) {
//     end -= tier.take_guests(guests from begin to end, seconds that they would take here);
//     ...                                          // the caller computes some from `begin` on
//     if (!tier.keep_going(out, nothing is left, ended)) ...  // lost: it computes those that have not ended
//   }
//
// A row becomes the same bits here and there, so it does not matter who computes it.
//
// Threads  the computing thread
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "compute/rows.h"
#include "experts/routed_rows.h"

namespace penstock {

class ExpertTier {
 public:
  virtual ~ExpertTier() = default;

  // Whether nobody else needs to have it at hand.
  virtual bool has(int layer, int expert) const = 0;

  // Of the experts of a call it takes what it has; `left` becomes the indices of the others, in order.
  // `rows` stays as it is until end().
  virtual void choose(int layer, const RoutedRows& rows, std::vector<int32_t>& left) = 0;

  // Starts to compute what it took; x stays as it is until finish() or end().
  virtual void begin(Rows x) = 0;

  // An expert that the caller has just computed, all of whose parts are here and checked: where they
  // lie. The tier may take a copy for later calls; it takes no longer than reading them.
  virtual void offer(int expert, std::span<const std::byte* const> parts) = 0;

  // Of the call, whether it takes guests, and whether one of the rows' experts can be one. All of its parts are here
  // and checked.
  struct Guest {
    int32_t index = 0;  // of rows.experts()
    std::span<const std::byte* const> parts;
  };
  virtual bool takes_guests() const { return false; }
  virtual bool may_be_guest(const Guest&) { return false; }
  // Takes some off the end, none where the caller is sooner: how many. They stay where they are until they have
  // ended.
  virtual size_t take_guests(std::span<const Guest>, double /*seconds*/) { return 0; }
  // Goes on with all that it took; waits: until guests end, where there are some. Adds those whose rows are
  // there to `ended`. False: as finish().
  virtual bool keep_going(Rows /*out*/, bool /*waits*/, std::vector<int32_t>& /*ended*/) {
    return true;
  }

  // Waits for the rows at the places of what it took. False: it is lost, from now on it takes nothing,
  // and what it took for this call is to be computed by the caller.
  virtual bool finish(Rows out) = 0;

  // After finish(), or in its place.
  virtual void end() = 0;
};

}  // namespace penstock
