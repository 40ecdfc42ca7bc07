// Where the experts of a model lie in its files, and how the parts of one lie in a slot. Pure data.
//
// An expert is some parts, in the order in which they are needed: gate and up together, then down;
// or gate, up and down apart; or each with its scales. A part of expert e of a layer is `bytes` bytes
// of a file from first + e * stride on (records that follow one another, slices of large tensors), or
// from a place of its own (a tensor for every expert), at any alignment, in one or several files.
// What the bytes mean is written in a tag that the store hands on and does not look at.
//
// A read takes the whole blocks of kReadAlignment around a part (a window), so that it can go past
// the page cache straight to its place; the payload begins somewhere in the first block:
//
//   file    ....|.......[payload..............]....|....     | multiples of kReadAlignment
//   slot        |<skew >|<    bytes          >|    |         one area a read, room for any window
//
// There it stays, unless those who use it need an address that the place in the file does not give
// (alignment): then the payload moves to the front of its area, once it has been checked. Or they need
// its bytes in another order: then these are laid out there anew, by a PartForm that they bring. Small
// parts that are neighbours in the file come with one read (store/slot_layout.h).
//
// Parts may differ by layer, in number too: a slot has room for the largest layer's expert.
//
// Threads  const calls from any
// Limits   check_table() compares all of it with the files
// Errors   check_table(): kCorrupt, kUnsupported, naming the file, the layer and the part
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "io/checksum.h"
#include "io/storage.h"

namespace penstock {

inline constexpr uint64_t kReadAlignment = kDirectAlignmentMax;

struct FilePlace {
  int file = 0;  // of ExpertTable::files
  uint64_t offset = 0;
};

// How a part lies once it has come, where that is not as in the file: for those who use it.
class PartForm {
 public:
  virtual ~PartForm() = default;
  virtual uint64_t bytes() const = 0;

  // out: bytes() of them. The payload begins at or behind out's first byte and may overlap it; it is
  // lost. On any thread, those of several parts at once.
  virtual void lay_out(std::span<const std::byte> payload, std::span<std::byte> out) const = 0;
};

// One part of every expert of a layer.
struct PartPlace {
  FilePlace first = {};    // of expert 0
  uint64_t stride = 0;     // from one expert to the next
  uint64_t bytes = 0;      // payload: what the checksum covers and what is handed out
  uint32_t tag = 0;        // what the bytes are: for those who use them
  uint32_t alignment = 1;  // of the payload's address, for those who use it; divides kReadAlignment
  std::vector<FilePlace> each = {};  // [expert], in place of first and stride; empty: as those say
  std::shared_ptr<const PartForm> form = {};  // shared by parts and copies; none: as in the file

  FilePlace of(int expert) const {
    if (!each.empty()) return each[static_cast<size_t>(expert)];
    return {first.file, first.offset + static_cast<uint64_t>(expert) * stride};
  }
};

struct LayerPlaces {
  std::vector<PartPlace> parts = {};
  // So many parts are needed before anything can be computed with: they are asked for together,
  // those of all experts before the other parts of any.
  int first_parts = 1;
  // [expert][part]; empty: nothing to compare with. Where the table learns, those that are zero are
  // not known yet.
  std::vector<Hash128> checksums = {};

  int num_parts() const { return static_cast<int>(parts.size()); }
};

// The read that brings a part, or several, into an area of a slot.
struct ReadWindow {
  int file = 0;
  uint64_t offset = 0;        // in the file, a multiple of kReadAlignment
  uint64_t bytes = 0;         // likewise; may reach beyond the end of the file, payloads do not
  uint64_t bytes_needed = 0;  // to the end of the last payload
};

struct ExpertTable {
  std::vector<const StorageFile*> files = {};  // outlive the store
  // The same files on other drives, byte for byte: [copy][file]; null for files without experts.
  std::vector<std::vector<const StorageFile*>> copies = {};
  int num_experts = 0;  // of a layer
  std::vector<LayerPlaces> layers = {};
  uint64_t model_id = 0;  // goes into every checksum
  // The files have no checksums: the first read of a part makes its own, later reads are compared
  // with it (store/expert_checksums.h).
  bool learns_checksums = false;

  int num_layers() const { return static_cast<int>(layers.size()); }
  const LayerPlaces& layer(int index) const { return layers[static_cast<size_t>(index)]; }
  const PartPlace& part(int layer_index, int index) const {
    return layer(layer_index).parts[static_cast<size_t>(index)];
  }
  // Drive 0 has the files themselves, drive i the copies i - 1.
  const StorageFile* file(int drive, int index) const {
    const auto& held = drive == 0 ? files : copies[static_cast<size_t>(drive - 1)];
    return held[static_cast<size_t>(index)];
  }
  // Whether there is a checksum to compare with: there is one, or it was learnt.
  bool has_checksum(int layer, int expert, int part) const;
  // parts: of one file, in the order in which they lie there.
  ReadWindow window(int layer, int expert, std::span<const int> parts) const;
  uint64_t checksum_bytes() const;                                    // of all checksums, in memory
  const Hash128& checksum_of(int layer, int expert, int part) const;  // where the layer has them
  Hash128& checksum_of(int layer, int expert, int part);
};

// The table describes files that somebody else wrote: nothing of it is believed. kCorrupt when it
// does not fit them, kUnsupported when a file cannot be read in such pieces.
Result<void> check_table(const ExpertTable& table);

}  // namespace penstock
