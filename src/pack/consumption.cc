#include "pack/consumption.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <tuple>

namespace penstock {
namespace {

// What is still to be written of a file's pieces.
struct Rest {
  std::vector<size_t> pieces = {};  // all of them, ascending
  size_t num_missing = 0;
  uint64_t bytes_missing = 0;
};

std::vector<Rest> rests_of(std::span<const PieceSource> pieces, size_t num_files) {
  std::vector<Rest> rests(num_files);
  for (size_t piece = 0; piece < pieces.size(); ++piece) {
    for (const uint32_t file : pieces[piece].files) {
      rests[file].pieces.push_back(piece);
      ++rests[file].num_missing;
      rests[file].bytes_missing += pieces[piece].bytes;
    }
  }
  return rests;
}

// Those that stay anyway come last.
std::optional<size_t> next_file(std::span<const Rest> rests, std::span<const ConsumedFile> files,
                                NextFile next) {
  std::optional<size_t> best;
  const auto rank = [&](size_t file) {
    const bool is_begun = rests[file].num_missing < rests[file].pieces.size();
    return std::tuple(files[file].is_kept, next == NextFile::kBegun && !is_begun,
                      rests[file].bytes_missing);
  };
  for (size_t file = 0; file < rests.size(); ++file) {
    if (rests[file].num_missing == 0) continue;
    if (!best || rank(file) < rank(*best)) best = file;
  }
  return best;
}

}  // namespace

Consumption plain_order(size_t num_pieces) {
  Consumption plan;
  plan.order.resize(num_pieces);
  std::iota(plan.order.begin(), plan.order.end(), size_t{0});
  plan.place = plan.order;
  return plan;
}

Consumption plan_consumption(std::span<const PieceSource> pieces,
                             std::span<const ConsumedFile> files, NextFile next) {
  constexpr size_t kNotYet = SIZE_MAX;
  Consumption plan;
  plan.place.assign(pieces.size(), kNotYet);
  plan.spent_after.assign(files.size(), kWhenComplete);
  std::vector<Rest> rests = rests_of(pieces, files.size());
  const auto write = [&](size_t piece) {
    plan.place[piece] = plan.order.size();
    plan.order.push_back(piece);
    for (const uint32_t file : pieces[piece].files) {
      rests[file].bytes_missing -= pieces[piece].bytes;
      // What would go with the last piece may as well stay until the model is complete.
      const bool is_last = plan.order.size() == pieces.size();
      const bool is_spent = --rests[file].num_missing == 0;
      if (is_spent && !is_last && !files[file].is_kept) {
        plan.spent_after[file] = plan.order.size();
      }
    }
  };
  while (const std::optional<size_t> file = next_file(rests, files, next)) {
    for (const size_t piece : rests[*file].pieces) {
      if (plan.place[piece] == kNotYet) write(piece);
    }
  }
  for (size_t piece = 0; piece < pieces.size(); ++piece) {
    if (plan.place[piece] == kNotYet) write(piece);  // made from nothing: padding alone
  }
  return plan;
}

uint64_t staging_bytes(const Consumption& consumption, std::span<const PieceSource> pieces,
                       std::span<const ConsumedFile> files, size_t pieces_done,
                       uint64_t other_bytes) {
  // By the number of pieces after which they go.
  std::vector<size_t> going;
  for (size_t file = 0; file < files.size(); ++file) {
    if (!files[file].is_gone && consumption.spent_after[file] != kWhenComplete) {
      going.push_back(file);
    }
  }
  std::ranges::sort(going, {}, [&](size_t file) { return consumption.spent_after[file]; });
  int64_t held = 0, most = 0;
  auto next = going.begin();
  const auto give_back = [&](size_t written) {
    for (; next != going.end() && consumption.spent_after[*next] <= written; ++next) {
      held -= static_cast<int64_t>(files[*next].bytes);
    }
  };
  give_back(pieces_done);
  for (size_t place = pieces_done; place < pieces.size(); ++place) {
    held += static_cast<int64_t>(pieces[consumption.order[place]].bytes);
    most = std::max(most, held);
    give_back(place + 1);
  }
  return static_cast<uint64_t>(std::max(most, held + static_cast<int64_t>(other_bytes)));
}

ArrivalRoom arrival_room(const Consumption& consumption, std::span<const PieceSource> pieces,
                         std::span<const ConsumedFile> files, size_t pieces_done,
                         uint64_t other_bytes) {
  std::vector<uint64_t> here;  // [file]
  std::vector<bool> is_here;
  for (const ConsumedFile& file : files) {
    here.push_back(file.here_bytes);
    is_here.push_back(file.here_bytes > 0);
  }
  int64_t more = 0;
  size_t num_here = static_cast<size_t>(std::ranges::count(is_here, true));
  ArrivalRoom room;
  const auto set_here = [&](size_t file, bool comes) {
    more += static_cast<int64_t>(comes ? files[file].bytes : 0) - static_cast<int64_t>(here[file]);
    here[file] = comes ? files[file].bytes : 0;
    num_here += static_cast<size_t>(comes) - static_cast<size_t>(is_here[file]);
    is_here[file] = comes;
  };
  const auto look = [&] {
    room.bytes = std::max(room.bytes, static_cast<uint64_t>(std::max<int64_t>(more, 0)));
    room.num_files = std::max(room.num_files, num_here);
  };
  // What an earlier run had spent and not removed goes first.
  for (size_t file = 0; file < files.size(); ++file) {
    if (consumption.spent_after[file] <= pieces_done) set_here(file, false);
  }
  for (size_t place = pieces_done; place < pieces.size(); ++place) {
    const PieceSource& piece = pieces[consumption.order[place]];
    for (const uint32_t file : piece.files) set_here(file, true);
    more += static_cast<int64_t>(piece.bytes);
    look();
    for (const uint32_t file : piece.files) {
      if (consumption.spent_after[file] <= place + 1) set_here(file, false);
    }
  }
  for (size_t file = 0; file < files.size(); ++file) {
    if (files[file].is_kept) set_here(file, true);
  }
  more += static_cast<int64_t>(other_bytes);
  look();
  return room;
}

}  // namespace penstock
