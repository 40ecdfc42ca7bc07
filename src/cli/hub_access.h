// Where a call finds models by their names on a hub: which cache, which hub, which token.
//
// The variables are those that other programs of the field know (HF_HUB_CACHE, HF_HOME, HF_ENDPOINT,
// HF_TOKEN, HF_TOKEN_PATH, HF_HUB_OFFLINE), so that one cache serves all of them; --cache and
// PENSTOCK_CACHE go before.
//
// Threads  one
// Errors   kInvalidArgument: no home for the cache, a token that is none; those of find_pulled()
#pragma once

#include "base/result.h"
#include "cli/program.h"
#include "hub/cache.h"
#include "hub/http_client.h"

namespace penstock {

Result<HubCache> hub_cache(const Settings& settings, const Environment& environment,
                           Storage& storage);

// Endpoint, token and certificates. Reads the token's file.
Result<HubOptions> hub_options(const Environment& environment, Storage& storage);

bool is_offline(const Settings& settings, const Environment& environment);

// A model argument that is no path here and has the form user/repo[:quant] becomes the path of what
// was pulled. The verbs see paths alone.
Result<void> find_model_argument(Settings& settings, const Environment& environment,
                                 Storage& storage);

}  // namespace penstock
