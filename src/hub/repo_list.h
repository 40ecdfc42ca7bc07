// Asks a hub what a repository holds, and where each file of it is to be had.
//
// Threads  one
// Errors   list_repo(): kNotFound, kIo (retries.h), kCorrupt (listing.h), kCancelled
#pragma once

#include <functional>
#include <stop_token>
#include <string>

#include "base/result.h"
#include "hub/http_client.h"
#include "hub/listing.h"
#include "hub/retries.h"

namespace penstock {

// The first that is asked: `on_note` also hears that a token may not be sent there.
Result<RepoListing> list_repo(HttpClient& client, const HubSubject& subject,
                              const std::function<void(const std::string&)>& on_note,
                              const std::stop_token& stop);

std::string file_url(const HubSubject& subject, const std::string& commit,
                     const std::string& file_name);

}  // namespace penstock
