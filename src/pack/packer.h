// The work of a pack once everything is planned and its workspace is open: pieces, their sums, the
// manifest; and, where the source is consumed, the files of it that may go (packer_in_place.cc).
//
// Threads  one; making the bytes of pieces uses threads of its own
// Errors   as pack_model()
// See also pack/pack.h
#pragma once

#include <cstdint>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "base/memory.h"
#include "base/result.h"
#include "format/manifest.h"
#include "pack/consumption.h"
#include "pack/pack.h"
#include "pack/pack_input.h"
#include "pack/shrinking_source.h"
#include "pack/workspace.h"

namespace penstock {

class Packer {
 public:
  struct Parts {
    const PackOptions& options;
    const PackCallback& callback;
    const std::stop_token& stop;
    PackInput& input;
    Workspace& workspace;
    AlignedMemory& memory;  // piece_check_bytes()
    const Consumption& consumption;
    // What is consumed; null: nothing, and `pieces` may be empty.
    ShrinkingSource* source = nullptr;
    std::span<const PieceSource> pieces = {};
  };
  explicit Packer(const Parts& parts) : parts_(parts) {}

  Result<PackReport> run();

 private:
  size_t num_resident() const { return parts_.input.resident().size(); }
  const ResidentTensor& tensor_of(size_t piece) const { return parts_.input.resident()[piece]; }
  const ExpertParts& experts() const { return parts_.input.experts(); }
  Journal& journal() { return parts_.workspace.journal(); }
  // Of a piece that is written.
  const PieceSums& sums_of(size_t piece) {
    return journal().pieces()[parts_.consumption.place[piece]];
  }

  Result<void> begin();
  Result<void> check_last_pieces();

  Result<void> write_pieces();
  Result<PieceSums> write_piece(size_t piece);
  Result<PieceSums> write_resident(size_t piece);
  Result<PieceSums> write_record(uint64_t record);
  Result<void> commit_in_steps(uint64_t bytes);

  Result<void> finish();
  Result<void> seal_resident(Manifest& manifest);
  Result<void> seal_experts(Manifest& manifest);
  Result<void> add_file(Manifest& manifest, std::string_view name,
                        std::span<const std::byte> bytes);
  Error reads_back_differently(size_t piece);

  // What is consumed. Files that are spent after so many pieces of the order go.
  Result<void> begin_in_place();
  Result<void> check_what_is_left_alone();
  // What arrives file by file.
  Result<void> bring(std::span<const uint32_t> files);
  Result<void> consume_spent(size_t pieces_written);
  // Reads back what was made of a file and not yet read back in this run; what is bad is made again.
  Result<void> read_back(size_t file);
  Result<bool> reads_back_well(size_t piece);
  Result<void> mend(size_t piece);
  Result<void> remove_file(size_t file);
  Result<void> read_back_the_rest();
  Result<void> remove_the_rest();
  void check_files_read(size_t piece);

  void tell(std::string note = "");
  Result<void> stop_if_asked() const;

  Parts parts_;
  PackStage stage_ = PackStage::kResident;
  uint64_t bytes_done_ = 0;
  uint64_t bytes_unsynced_ = 0;
  std::vector<bool> was_read_back_;                  // [piece]
  std::vector<std::vector<size_t>> pieces_of_file_;  // [file of the source]
  PackReport report_;
};

}  // namespace penstock
