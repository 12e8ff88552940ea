// Counter of heap allocations in the program of the allocation tests.
#pragma once

#include <cstddef>

namespace tsflannel::testing {

/// Calls of operator new, malloc, calloc and realloc so far; defined in offload/allocation_test.cc.
size_t allocation_count();

}  // namespace tsflannel::testing
