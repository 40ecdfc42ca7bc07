# Cross-compiles for 64-bit Apple machines with the tools and libraries that scripts/test-macos lays
# out below build/macos. Nothing of Apple's is needed; nothing can be run.
set(CMAKE_SYSTEM_NAME Darwin)
set(CMAKE_SYSTEM_PROCESSOR arm64)

set(PENSTOCK_MACOS ${CMAKE_CURRENT_LIST_DIR}/../build/macos CACHE PATH "where scripts/test-macos works")
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES PENSTOCK_MACOS)
set(CMAKE_C_COMPILER ${PENSTOCK_MACOS}/bin/cc)
set(CMAKE_CXX_COMPILER ${PENSTOCK_MACOS}/bin/c++)
set(CMAKE_AR ${PENSTOCK_MACOS}/bin/ar CACHE FILEPATH "")
set(CMAKE_RANLIB ${PENSTOCK_MACOS}/bin/ranlib CACHE FILEPATH "")
set(CMAKE_INSTALL_NAME_TOOL /bin/false CACHE FILEPATH "")  # asked for, never called
set(CMAKE_OSX_SYSROOT "")

set(CMAKE_CXX_FLAGS_INIT "-isystem ${PENSTOCK_MACOS}/include")
set(CMAKE_EXE_LINKER_FLAGS_INIT "-L${PENSTOCK_MACOS}/lib")
set(CMAKE_FIND_ROOT_PATH ${PENSTOCK_MACOS})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
