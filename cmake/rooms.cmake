# penstock_room(NAME [BUSY_TESTS] LINKS target...): src/NAME becomes the library penstock_NAME; its
# *_test.cc become one test program, penstock_NAME_test.

find_package(Threads REQUIRED)

add_library(penstock_flags INTERFACE)
target_compile_options(penstock_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion)
if(NOT PENSTOCK_SANITIZE)
  # Instrumented code makes compilers see bounds broken where none are.
  target_compile_options(penstock_flags INTERFACE -Werror)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  # PENSTOCK_TRY is a statement expression (src/base/result.h).
  target_compile_options(penstock_flags INTERFACE -Wno-gnu-statement-expression)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # g++ 12 sees overlapping copies in its own std::string (its bug 105651).
  target_compile_options(penstock_flags INTERFACE -Wno-restrict)
endif()
target_include_directories(penstock_flags INTERFACE ${PROJECT_SOURCE_DIR}/src)
# One rounding per operation as written: the compiler must not fuse multiply and add by itself.
target_compile_options(penstock_flags INTERFACE -ffp-contract=off)
if(PENSTOCK_SANITIZE)
  target_compile_options(penstock_flags INTERFACE
    -fsanitize=${PENSTOCK_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(penstock_flags INTERFACE -fsanitize=${PENSTOCK_SANITIZE})
endif()

if(PENSTOCK_FUZZ)
  target_compile_options(penstock_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

if(PENSTOCK_TESTS)
  find_package(GTest REQUIRED)
  include(GoogleTest)
  # What tests say themselves runs once, and optimising it takes twice as long as all else of a file.
  add_library(penstock_test_flags INTERFACE)
  target_link_libraries(penstock_test_flags INTERFACE penstock_flags GTest::gtest)
  if(PENSTOCK_SANITIZE)
    target_compile_options(penstock_test_flags INTERFACE -O0)
  else()
    target_compile_options(penstock_test_flags INTERFACE $<$<CONFIG:Release>:-O1>)
  endif()
endif()

include(cmake/from_nothing.cmake)

# BUSY: the tests' own code runs for long, and with sanitizers it is optimised as the libraries are.
# LOCK: what its tests have one after the other.
function(penstock_test name)
  cmake_parse_arguments(ARG "BUSY" "LOCK" "SOURCES;LINKS;LABELS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  if(ARG_BUSY AND PENSTOCK_SANITIZE)
    set(kind penstock)
  else()
    set(kind penstock_test)
  endif()
  target_link_libraries(${name} PRIVATE ${kind}_flags ${ARG_LINKS} GTest::gmock GTest::gtest_main)
  penstock_use_precompiled(${name} ${kind}_headers)
  penstock_compile_together(${name})
  set(lock)
  if(ARG_LOCK)
    set(lock RESOURCE_LOCK ${ARG_LOCK})
  endif()
  gtest_discover_tests(${name} DISCOVERY_TIMEOUT 60 DISCOVERY_MODE PRE_TEST
    PROPERTIES TIMEOUT 600 LABELS "${ARG_LABELS}" ${lock})
endfunction()

function(penstock_room name)
  cmake_parse_arguments(ARG "BUSY_TESTS" "" "LINKS;TEST_LINKS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  set(tests ${sources})
  list(FILTER sources EXCLUDE REGEX "_test\\.cc$|/main\\.cc$")
  # What one system alone has stands in files that are named after it.
  if(APPLE)
    list(FILTER sources EXCLUDE REGEX "_linux\\.cc$")
  else()
    list(FILTER sources EXCLUDE REGEX "_macos\\.cc$")
  endif()
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  if(sources)
    add_library(penstock_${name} STATIC ${sources})
    target_link_libraries(penstock_${name} PUBLIC ${ARG_LINKS} PRIVATE penstock_flags)
    target_include_directories(penstock_${name} PUBLIC ${PROJECT_SOURCE_DIR}/src)
    penstock_use_precompiled(penstock_${name} penstock_headers)
    penstock_compile_together(penstock_${name})
  else()
    add_library(penstock_${name} INTERFACE)
    target_link_libraries(penstock_${name} INTERFACE ${ARG_LINKS})
  endif()
  if(PENSTOCK_TESTS AND tests)
    set(busy "")
    if(ARG_BUSY_TESTS)
      set(busy BUSY)
    endif()
    penstock_test(penstock_${name}_test ${busy} SOURCES ${tests} LINKS penstock_${name} ${ARG_TEST_LINKS} LABELS ${name})
  endif()
endfunction()
