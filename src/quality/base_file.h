// A stored reference run, for other models to be compared with: what it predicted of every token of
// the texts (prediction.h), and which items of each set it answered as wanted.
//
//   [positions of text 0][of text 1] ...   position_bytes(top) each
//   JSON                                   BaseInfo
//   u64 offset of the JSON, u64 its bytes, its checksum (16 bytes), "PNSTBASE"
//
// Positions have a checksum per text, compared when they are read. The file is bound to what it was
// made from: the hash of every text's tokens and of every prompt's, so of texts, tokenizer and
// template alike; whoever compares says what differs. It also says what was left out of the model when
// it was made: what is as such a run is not as the model.
//
// Threads  one
// Memory   the JSON, at most kInfoBytesMax, and the positions of one window
// Errors   open(), read(): kCorrupt for bytes that are no such file, naming it; kUnsupported for
//          another version; kIo. Writing: those of io/output_file.h
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "io/checksum.h"
#include "io/output_file.h"
#include "io/storage.h"
#include "text/token.h"

namespace penstock {

inline constexpr int kBaseTopMax = 1024;

struct BaseText {
  std::string id;
  Hash128 tokens;           // tokens_hash() of the whole text
  int64_t predictions = 0;  // positions
  double nll = 0;           // summed, nats
  Hash128 positions;        // of the bytes
};

struct BaseAnswer {
  std::string id;
  Hash128 prompt;  // tokens_hash()
  bool is_exact = false;
  bool is_valid = false;
};

struct BaseSet {
  std::string name;
  int64_t max_tokens = 0;
  std::vector<BaseAnswer> answers;
};

struct BaseInfo {
  std::string label;
  std::string model_id;
  std::string lossy;  // what that run left out of the model, in words; empty: nothing
  int64_t vocab_size = 0;
  int64_t window_tokens = 0;
  int top = 0;
  std::vector<BaseText> texts;
  std::vector<BaseSet> sets;

  const BaseSet* find_set(const std::string& name) const;
};

// Order counts, so no two lists of tokens share it but by chance.
Hash128 tokens_hash(std::span<const TokenId> tokens);

class BaseWriter {
 public:
  static Result<BaseWriter> create(Storage& storage, const std::string& path);

  // Positions of one text, in order; end_text() closes it.
  Result<void> append(std::span<const std::byte> positions);
  void end_text(BaseText text);  // fills in the checksum
  Result<void> finish(BaseInfo info);

  const std::vector<BaseText>& texts() const { return texts_; }

 private:
  explicit BaseWriter(OutputFile file) : file_(std::move(file)) {}

  OutputFile file_;
  RunningChecksum of_text_;
  uint64_t bytes_ = 0;
  std::vector<BaseText> texts_;
};

class BaseFile {
 public:
  static Result<BaseFile> open(Storage& storage, const std::string& path);

  const std::string& path() const { return file_->path(); }
  const BaseInfo& info() const { return info_; }

  // Positions first .. first + count of a text; all of a text in order, so that they are checked.
  Result<std::span<const std::byte>> read(size_t text, int64_t first, int64_t count);

 private:
  explicit BaseFile(std::unique_ptr<StorageFile> file) : file_(std::move(file)) {}
  Result<void> place_texts(uint64_t end);

  std::unique_ptr<StorageFile> file_;
  BaseInfo info_;
  std::vector<uint64_t> offsets_;  // [text]
  std::vector<std::byte> window_;
  RunningChecksum of_text_;
};

}  // namespace penstock
