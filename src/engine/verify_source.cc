#include "engine/verify_source.h"

#include <fmt/format.h>

#include <algorithm>

#include "source/model_source.h"
#include "source/source_experts.h"
#include "store/expert_checksums.h"

namespace penstock {
namespace {

constexpr size_t kFaultsToldMax = 20;
constexpr uint64_t kStepBytes = 4 << 20;

class SourceVerifier {
 public:
  SourceVerifier(ModelSource& source, ExpertTable table,
                 const std::function<void(uint64_t, uint64_t)>& progress,
                 const std::stop_token& stop)
      : source_(source), table_(std::move(table)), progress_(progress), stop_(stop) {
    for (const CheckpointFile& file : source_.files()) total_ += file.stat.bytes;
  }

  Result<void> run() {
    PENSTOCK_TRY(read_resident());
    for (int layer = 0; layer < table_.num_layers(); ++layer) {
      for (int expert = 0; expert < table_.num_experts; ++expert) {
        for (int part = 0; part < table_.layer(layer).num_parts(); ++part) {
          PENSTOCK_TRY(check_part(layer, expert, part));
        }
      }
    }
    return source_.check_unchanged();
  }

  const ExpertTable& table() const { return table_; }
  SourceReport& report() { return report_; }

 private:
  void add_fault(std::string fault) {
    if (++report_.num_faults <= kFaultsToldMax) report_.faults.push_back(std::move(fault));
  }

  Result<void> step(uint64_t bytes) {
    report_.bytes += bytes;
    if (progress_) progress_(std::min(report_.bytes, total_), total_);
    if (stop_.stop_requested()) return Error{ErrorCode::kCancelled, "verifying was stopped"};
    return {};
  }

  Result<void> read_plane(const std::string& name, const Plane& plane, uint64_t bytes) {
    for (uint64_t done = 0; done < bytes; done += kStepBytes) {
      bytes_.resize(std::min(kStepBytes, bytes - done));
      const Result<void> read = source_.read_bytes(plane.file, plane.offset + done, bytes_);
      if (!read) {
        add_fault(fmt::format("tensor {}: {}", name, read.error().message));
        return step(bytes - done);
      }
      PENSTOCK_TRY(step(bytes_.size()));
    }
    return {};
  }

  Result<void> read_resident() {
    for (const SourceTensor& tensor : source_.tensors()) {
      for (const StoredRows& range : tensor.ranges) {
        const StoredMatrix& matrix = range.matrix;
        // Ranges of one matrix are read once, with the first of them.
        if (range.first_row != 0) continue;
        const RowBytes bytes = plane_bytes(matrix.coding, matrix.rows, matrix.columns);
        PENSTOCK_TRY(read_plane(tensor.name, matrix.codes, bytes.codes));
        PENSTOCK_TRY(read_plane(tensor.name, matrix.scales, bytes.scales));
        PENSTOCK_TRY(read_plane(tensor.name, matrix.biases, bytes.biases));
      }
    }
    return {};
  }

  Result<void> check_part(int layer, int expert, int part) {
    const PartPlace& place = table_.part(layer, part);
    const FilePlace at = place.of(expert);
    const auto where = [&] {
      return fmt::format("layer {} expert {} part {}: {} bytes at {:#x} of {}", layer, expert, part,
                         place.bytes, at.offset,
                         source_.files()[static_cast<size_t>(at.file)].path);
    };
    bytes_.resize(place.bytes);
    const Result<void> read = source_.read_bytes(static_cast<uint32_t>(at.file), at.offset, bytes_);
    if (!read) {
      add_fault(fmt::format("{}: {}", where(), read.error().message));
      return step(place.bytes);
    }
    const Hash128 found = part_checksum(table_.model_id, layer, expert, part, bytes_);
    Hash128& known = table_.checksum_of(layer, expert, part);
    if (known == Hash128{}) {
      known = found;
      ++report_.learned;
    } else {
      ++report_.compared;
      if (found != known) {
        add_fault(fmt::format("{} are not what they were when they were first read", where()));
      }
    }
    return step(place.bytes);
  }

  ModelSource& source_;
  ExpertTable table_;
  const std::function<void(uint64_t, uint64_t)>& progress_;
  const std::stop_token& stop_;
  std::vector<std::byte> bytes_;
  uint64_t total_ = 0;
  SourceReport report_;
};

}  // namespace

Result<SourceReport> verify_source(
    Storage& storage, const std::string& path, const std::string& checksum_file,
    const std::function<void(uint64_t done, uint64_t total)>& progress,
    const std::stop_token& stop) {
  ModelSource source = PENSTOCK_TRY(ModelSource::open(storage, path));
  const auto layers = static_cast<int>(source.config().num_moe_layers());
  ExpertTable table = PENSTOCK_TRY(lay_out_source_experts(source, layers)).table(source);
  KeptChecksums kept;
  std::string note;
  if (!checksum_file.empty()) {
    Result<KeptChecksums> known = load_checksums(storage, checksum_file, source.id());
    if (known) {
      kept = std::move(*known);
    } else if (known.error().code != ErrorCode::kNotFound) {
      note = known.error().message;
    }
  }
  learn_checksums(kept, table);
  SourceVerifier verifier(source, std::move(table), progress, stop);
  const Result<void> done = verifier.run();
  // What was learned before it was stopped need not be read again.
  const bool may_keep = done || done.error().code == ErrorCode::kCancelled;
  if (may_keep && verifier.report().learned > 0 && !checksum_file.empty()) {
    PENSTOCK_TRY(keep_checksums(storage, checksum_file, source.id(), verifier.table(), kept));
  }
  if (!done) return done.error();
  verifier.report().note = std::move(note);
  return std::move(verifier.report());
}

}  // namespace penstock
