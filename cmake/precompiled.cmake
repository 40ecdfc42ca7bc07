# Headers of the libraries that most files include, parsed once per build and not once per file: a
# third of the time of a build from nothing. Our own headers are not among them, so a change
# recompiles only what includes it. Off unless asked for, as scripts/build does where there is no
# compiler's cache: without, a file has to include what it uses, and the compiler's warnings are whole.

option(PENSTOCK_PRECOMPILED_HEADERS "parse the libraries' headers once" OFF)

set(library_headers <algorithm> <array> <cmath> <cstdint> <cstring> <filesystem> <functional> <map>
  <memory> <optional> <random> <set> <span> <string> <string_view> <thread> <unordered_map> <utility>
  <variant> <vector> <fmt/format.h> <nlohmann/json.hpp>)

function(penstock_make_precompiled name flags)  # headers...
  file(WRITE ${CMAKE_BINARY_DIR}/${name}.cc.new "")
  file(COPY_FILE ${CMAKE_BINARY_DIR}/${name}.cc.new ${CMAKE_BINARY_DIR}/${name}.cc ONLY_IF_DIFFERENT)
  add_library(${name} OBJECT ${CMAKE_BINARY_DIR}/${name}.cc)
  target_link_libraries(${name} PRIVATE ${flags})
  target_precompile_headers(${name} PRIVATE ${ARGN})
endfunction()

if(PENSTOCK_PRECOMPILED_HEADERS)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # With them g++ 12 sees bounds broken inside its own std::string (bug 105651 and its relatives), so
    # such a build says less and stops at no warning; builds without, and clang's, do.
    target_compile_options(penstock_flags INTERFACE
      -Wno-array-bounds -Wno-stringop-overflow -Wno-stringop-overread -Wno-error)
  endif()
  penstock_make_precompiled(penstock_headers penstock_flags ${library_headers})
  if(PENSTOCK_TESTS)
    penstock_make_precompiled(penstock_test_headers penstock_test_flags
      ${library_headers} <gtest/gtest.h> <gmock/gmock.h>)
  endif()
endif()

# Targets that link penstock_flags; `headers` is penstock_headers or penstock_test_headers.
function(penstock_use_precompiled target headers)
  if(PENSTOCK_PRECOMPILED_HEADERS)
    target_precompile_headers(${target} REUSE_FROM ${headers})
  endif()
endfunction()
