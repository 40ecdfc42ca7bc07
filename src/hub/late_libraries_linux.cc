#include <curl/curl.h>
#include <dlfcn.h>
#include <fmt/format.h>
#include <openssl/evp.h>

#include <cstdarg>

#include "base/check.h"
#include "hub/late_libraries.h"

namespace penstock {
namespace {

struct Library {
  const char* file;
  const char* package;  // of Debian and its relatives
  void* handle = nullptr;
};

Library& curl_library() {
  static Library library = {"libcurl.so.4", "libcurl4"};
  return library;
}
Library& crypto_library() {
  static Library library = {"libcrypto.so.3", "libssl3"};
  return library;
}

Result<void> open_library(Library& library) {
  library.handle = ::dlopen(library.file, RTLD_NOW | RTLD_LOCAL);
  if (library.handle != nullptr) return {};
  return Error{ErrorCode::kNotFound,
               fmt::format("{} is needed to pull and cannot be loaded: install the package {} ({})",
                           library.file, library.package, ::dlerror())};
}

Result<void> open_both() {
  PENSTOCK_TRY(open_library(curl_library()));
  return open_library(crypto_library());
}

void* symbol_of(const Library& library, const char* name) {
  PENSTOCK_CHECK(open_late_libraries().has_value());
  void* symbol = ::dlsym(library.handle, name);
  PENSTOCK_CHECK(symbol != nullptr);  // of a file whose name promises this interface
  return symbol;
}

}  // namespace

Result<void> open_late_libraries() {
  static const Result<void> opened = open_both();
  return opened;
}

}  // namespace penstock

// curl.h defines some of these names as macros as well; in brackets they are none.
#define PENSTOCK_PASS_ON(library, result, name, parameters, arguments)                           \
  extern "C" result(name) parameters {                                                           \
    static const auto function =                                                                 \
        reinterpret_cast<result(*) parameters>(penstock::symbol_of(penstock::library(), #name)); \
    return function arguments;                                                                   \
  }

PENSTOCK_PASS_ON(curl_library, CURLcode, curl_global_init, (long flags), (flags))
PENSTOCK_PASS_ON(curl_library, CURL*, curl_easy_init, (), ())
PENSTOCK_PASS_ON(curl_library, void, curl_easy_cleanup, (CURL * easy), (easy))
PENSTOCK_PASS_ON(curl_library, void, curl_easy_reset, (CURL * easy), (easy))
PENSTOCK_PASS_ON(curl_library, const char*, curl_easy_strerror, (CURLcode code), (code))
PENSTOCK_PASS_ON(curl_library, void, curl_free, (void* memory), (memory))
PENSTOCK_PASS_ON(curl_library, time_t, curl_getdate, (const char* text, const time_t* now),
                 (text, now))
PENSTOCK_PASS_ON(curl_library, CURLM*, curl_multi_init, (), ())
PENSTOCK_PASS_ON(curl_library, CURLMcode, curl_multi_cleanup, (CURLM * multi), (multi))
PENSTOCK_PASS_ON(curl_library, CURLMcode, curl_multi_add_handle, (CURLM * multi, CURL* easy),
                 (multi, easy))
PENSTOCK_PASS_ON(curl_library, CURLMcode, curl_multi_remove_handle, (CURLM * multi, CURL* easy),
                 (multi, easy))
PENSTOCK_PASS_ON(curl_library, CURLMcode, curl_multi_perform, (CURLM * multi, int* running),
                 (multi, running))
PENSTOCK_PASS_ON(curl_library, CURLMcode, curl_multi_poll,
                 (CURLM * multi, curl_waitfd* files, unsigned int count, int milliseconds,
                  int* ready),
                 (multi, files, count, milliseconds, ready))
PENSTOCK_PASS_ON(curl_library, CURLMcode, curl_multi_wakeup, (CURLM * multi), (multi))
PENSTOCK_PASS_ON(curl_library, CURLMsg*, curl_multi_info_read, (CURLM * multi, int* left),
                 (multi, left))
PENSTOCK_PASS_ON(curl_library, curl_slist*, curl_slist_append,
                 (curl_slist * list, const char* text), (list, text))
PENSTOCK_PASS_ON(curl_library, void, curl_slist_free_all, (curl_slist * list), (list))
PENSTOCK_PASS_ON(curl_library, CURLU*, curl_url, (), ())
PENSTOCK_PASS_ON(curl_library, void, curl_url_cleanup, (CURLU * url), (url))
PENSTOCK_PASS_ON(curl_library, CURLUcode, curl_url_get,
                 (CURLU * url, CURLUPart part, char** text, unsigned int flags),
                 (url, part, text, flags))
PENSTOCK_PASS_ON(curl_library, CURLUcode, curl_url_set,
                 (CURLU * url, CURLUPart part, const char* text, unsigned int flags),
                 (url, part, text, flags))

PENSTOCK_PASS_ON(crypto_library, EVP_MD_CTX*, EVP_MD_CTX_new, (), ())
PENSTOCK_PASS_ON(crypto_library, void, EVP_MD_CTX_free, (EVP_MD_CTX * context), (context))
PENSTOCK_PASS_ON(crypto_library, const EVP_MD*, EVP_sha1, (), ())
PENSTOCK_PASS_ON(crypto_library, const EVP_MD*, EVP_sha256, (), ())
PENSTOCK_PASS_ON(crypto_library, int, EVP_DigestInit_ex,
                 (EVP_MD_CTX * context, const EVP_MD* type, ENGINE* engine),
                 (context, type, engine))
PENSTOCK_PASS_ON(crypto_library, int, EVP_DigestUpdate,
                 (EVP_MD_CTX * context, const void* data, size_t bytes), (context, data, bytes))
PENSTOCK_PASS_ON(crypto_library, int, EVP_DigestFinal_ex,
                 (EVP_MD_CTX * context, unsigned char* digest, unsigned int* bytes),
                 (context, digest, bytes))

// These two take one more argument, of 64 bits: a long, a pointer or a function.
extern "C" CURLcode(curl_easy_setopt)(CURL* easy, CURLoption option, ...) {
  static const auto function = reinterpret_cast<CURLcode (*)(CURL*, CURLoption, ...)>(
      penstock::symbol_of(penstock::curl_library(), "curl_easy_setopt"));
  va_list rest;
  va_start(rest, option);
  void* const value = va_arg(rest, void*);
  va_end(rest);
  return function(easy, option, value);
}
extern "C" CURLcode(curl_easy_getinfo)(CURL* easy, CURLINFO what, ...) {
  static const auto function = reinterpret_cast<CURLcode (*)(CURL*, CURLINFO, ...)>(
      penstock::symbol_of(penstock::curl_library(), "curl_easy_getinfo"));
  va_list rest;
  va_start(rest, what);
  void* const place = va_arg(rest, void*);
  va_end(rest);
  return function(easy, what, place);
}
