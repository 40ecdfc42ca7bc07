// One file from a hub to the disk: several ranges at a time, resumed after any end, verified by its hash.
//
// The bytes go into PATH.ranges, what is finished into PATH.ranges.journal; the file gets its name when
// its hash is the one that the hub tells, and a file with another hash is removed. A server that does not
// know ranges is read from front to back. An answer that is of another content than the pieces that are
// there (its ETag changed) starts the file anew. Not named PATH.incomplete: other programs that share the
// cache take such a file for its first bytes and append to it.
//
// Threads  one, and one that hashes (hash_follower.h)
// Memory   libcurl's buffers, 1 MiB for the hash
// Errors   download_blob(): kIo, kNotFound (retries.h), kCorrupt (wrong length, wrong hash),
//          kOutOfMemory (disk full), kCancelled; all but the wrong hash leave what can be resumed
#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>
#include <string>

#include "base/result.h"
#include "hub/http_client.h"
#include "hub/listing.h"
#include "hub/retries.h"
#include "io/storage.h"

namespace penstock {

struct BlobRequest {
  RepoFile file;
  std::string url;
  std::string path;  // where it belongs
  HubSubject subject;
  size_t parallel = 6;
  uint64_t piece_bytes = 16 << 20;
};

struct DownloadEvents {
  std::function<void(uint64_t)> on_bytes;  // of this file that are there, now and then
  std::function<void(const std::string&)> on_note;
};

// What an earlier download of this file left to be used.
uint64_t resumable_bytes(Storage& storage, const BlobRequest& request);

// Room of the disk that it takes, at most the file's: more than what is to be used, as all is reserved
// at once.
uint64_t room_taken(Storage& storage, const BlobRequest& request);

Result<void> download_blob(Storage& storage, HttpClient& client, const BlobRequest& request,
                           const DownloadEvents& events, const std::stop_token& stop);

}  // namespace penstock
