#include "engine/prefix_record.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/byte_cursor.h"
#include "io/output_file.h"

namespace penstock {
namespace {

constexpr char kMagic[8] = {'P', 'S', 'P', 'R', 'E', 'F', 'X', '1'};
constexpr uint64_t kHeaderBytes = 56;
constexpr uint64_t kSumBytes = 16;

using Piece = SequenceMemory::Piece;

std::vector<Piece> pieces_of(const PrefixRecord& record, const SequenceState& state) {
  const SequenceMemory& memory = state.memory();
  const auto length = std::ssize(record.tokens);
  std::vector<Piece> pieces;
  if (record.has_set) pieces = memory.set_pieces(state.set());
  for (int64_t page = record.page_begin; page < record.page_end; ++page) {
    const int64_t begin = page * kKvPagePositions;
    const int64_t positions = std::min(length - begin, kKvPagePositions);
    // The block's entry of the last position is made with the token behind it.
    const int64_t drafted =
        record.has_set ? std::min(length - 1 - begin, kKvPagePositions) : positions;
    for (const Piece& piece :
         memory.page_pieces(state.pages()[static_cast<size_t>(page)], positions, drafted)) {
      pieces.push_back(piece);
    }
  }
  return pieces;
}

uint64_t floats_of(const std::vector<Piece>& pieces) {
  uint64_t floats = 0;
  for (const Piece& piece : pieces) floats += static_cast<uint64_t>(piece.floats);
  return floats;
}

uint64_t bytes_of(size_t tokens, uint64_t floats) {
  return kHeaderBytes + tokens * sizeof(TokenId) + floats * sizeof(float) + kSumBytes;
}

std::vector<std::byte> header_of(const PrefixRecord& record, uint64_t floats) {
  struct Header {
    char magic[8];
    Hash128 identity;
    uint64_t tokens;
    uint32_t page_begin, page_end, has_set, unused;
    uint64_t floats;
  };
  static_assert(sizeof(Header) == kHeaderBytes);
  Header header{.magic = {},
                .identity = record.identity,
                .tokens = record.tokens.size(),
                .page_begin = static_cast<uint32_t>(record.page_begin),
                .page_end = static_cast<uint32_t>(record.page_end),
                .has_set = record.has_set ? 1u : 0u,
                .unused = 0,
                .floats = floats};
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  std::vector<std::byte> bytes(kHeaderBytes + record.tokens.size_bytes());
  std::memcpy(bytes.data(), &header, kHeaderBytes);
  std::memcpy(bytes.data() + kHeaderBytes, record.tokens.data(), record.tokens.size_bytes());
  return bytes;
}

Error corrupt(const std::string& path, const char* why) {
  return {ErrorCode::kCorrupt, fmt::format("{}: {}", path, why)};
}

// Magic and identity, of a header that was read.
Result<void> check_owner(const std::string& path, std::span<const std::byte> header,
                         const Hash128& identity) {
  ByteCursor cursor(header);
  const auto magic = cursor.take(sizeof(kMagic));
  if (!cursor.ok() || std::memcmp(magic.data(), kMagic, sizeof(kMagic) - 1) != 0) {
    return corrupt(path, "not a file of states");
  }
  if (magic.back() != std::byte{kMagic[7]}) {
    return Error{ErrorCode::kUnsupported, path + ": states in another version of the format"};
  }
  const auto low = cursor.read<uint64_t>();
  if (Hash128{low, cursor.read<uint64_t>()} != identity) {
    return Error{ErrorCode::kUnsupported, path + ": states of another model or arithmetic"};
  }
  return {};
}

}  // namespace

uint64_t record_bytes(const PrefixRecord& record, const SequenceState& state) {
  return bytes_of(record.tokens.size(), floats_of(pieces_of(record, state)));
}

Result<uint64_t> write_record(Storage& storage, const std::string& path, const PrefixRecord& record,
                              const SequenceState& state, std::span<float> staging) {
  const std::vector<Piece> pieces = pieces_of(record, state);
  OutputFile out = PENSTOCK_TRY(OutputFile::create(storage, path));
  RunningChecksum sum;
  const auto put = [&](std::span<const std::byte> bytes) {
    sum.update(bytes);
    return out.append(bytes);
  };
  const uint64_t floats = floats_of(pieces);
  PENSTOCK_TRY(put(header_of(record, floats)));
  for (const Piece& piece : pieces) {
    const auto part = staging.first(static_cast<size_t>(piece.floats));
    PENSTOCK_TRY(state.memory().read_piece(piece, part));
    PENSTOCK_TRY(put(std::as_bytes(part)));
  }
  const Hash128 value = sum.value();
  PENSTOCK_TRY(out.append(std::as_bytes(std::span(&value, 1))));
  PENSTOCK_TRY(out.finish());
  return bytes_of(record.tokens.size(), floats);
}

Result<void> read_record(Storage& storage, const std::string& path, const PrefixRecord& record,
                         SequenceState& state, std::span<float> staging) {
  const std::vector<Piece> pieces = pieces_of(record, state);
  const uint64_t floats = floats_of(pieces);
  const uint64_t bytes = bytes_of(record.tokens.size(), floats);
  const auto file = PENSTOCK_TRY(storage.open(path, OpenMode::kRead));
  const std::vector<std::byte> expected = header_of(record, floats);
  std::vector<std::byte> header(expected.size());
  if (PENSTOCK_TRY(file->stat()).bytes < kHeaderBytes) return corrupt(path, "it ends too early");
  PENSTOCK_TRY(read_exactly(*file, 0, std::span(header).first(kHeaderBytes)));
  PENSTOCK_TRY(check_owner(path, header, record.identity));
  if (PENSTOCK_TRY(file->stat()).bytes != bytes) return corrupt(path, "it has another size");
  PENSTOCK_TRY(read_exactly(*file, 0, header));
  if (header != expected) return corrupt(path, "it is not about these tokens");
  RunningChecksum sum;
  sum.update(header);
  uint64_t offset = header.size();
  for (const Piece& piece : pieces) {
    const auto part = staging.first(static_cast<size_t>(piece.floats));
    PENSTOCK_TRY(read_exactly(*file, offset, std::as_writable_bytes(part)));
    sum.update(std::as_bytes(part));
    state.memory().write_piece(part, piece);
    offset += part.size_bytes();
  }
  Hash128 value;
  PENSTOCK_TRY(read_exactly(*file, offset, std::as_writable_bytes(std::span(&value, 1))));
  file->drop_cached(0, bytes);
  if (value != sum.value()) return corrupt(path, "its checksum does not agree");
  return {};
}

Result<std::vector<TokenId>> read_record_tokens(Storage& storage, const std::string& path,
                                                const Hash128& identity, int64_t tokens_max) {
  const auto file = PENSTOCK_TRY(storage.open(path, OpenMode::kRead));
  if (PENSTOCK_TRY(file->stat()).bytes < kHeaderBytes) return corrupt(path, "it ends too early");
  std::vector<std::byte> header(kHeaderBytes);
  PENSTOCK_TRY(read_exactly(*file, 0, header));
  PENSTOCK_TRY(check_owner(path, header, identity));
  ByteCursor cursor(header);
  cursor.take(sizeof(kMagic) + sizeof(Hash128));
  const auto count = cursor.read<uint64_t>();
  if (count == 0) return corrupt(path, "it has no tokens");
  if (count > static_cast<uint64_t>(tokens_max)) {
    return Error{
        ErrorCode::kUnsupported,
        fmt::format("{}: it has {} tokens, the context holds {}; give --context {} or more", path,
                    count, tokens_max, count)};
  }
  std::vector<TokenId> tokens(count);
  PENSTOCK_TRY(read_exactly(*file, kHeaderBytes, std::as_writable_bytes(std::span(tokens))));
  return tokens;
}

}  // namespace penstock
