# PENSTOCK_FROM_NOTHING: for a build that starts without objects and without a compiler's cache. Headers
# take most of its time, so they are read less often; a change then costs more than it would, and so it
# is off unless asked for, as scripts/build does where there is no cache.
#
#   - Headers of the libraries that most files include are parsed once per build: a third of its time.
#     Our own are not among them.
#   - Up to ten files of a room are compiled as one, so that our own headers are read a tenth as often:
#     half of what is left. Files of a room therefore have different names for different things, also in
#     their anonymous namespaces.
#
# A build without it shows that every file includes what it uses, and has the compiler's warnings whole:
# files compiled as one shadow each other's names, which is no fault of theirs.

option(PENSTOCK_FROM_NOTHING "read headers less often: for builds from nothing" OFF)

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

if(PENSTOCK_FROM_NOTHING)
  target_compile_options(penstock_flags INTERFACE -Wno-shadow)
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
  if(PENSTOCK_FROM_NOTHING)
    target_precompile_headers(${target} REUSE_FROM ${headers})
  endif()
endfunction()

function(penstock_compile_together target)
  if(PENSTOCK_FROM_NOTHING)
    set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 10)
  endif()
endfunction()
