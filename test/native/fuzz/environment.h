// What every fuzz target has around it: failures end the program, and time stands still.
#pragma once

#include <cstdint>

namespace tsflannel::testing {

/// CLOCK_MONOTONIC as the code under test sees it, in ns; nothing but a target moves it.
extern uint64_t fake_now_ns;

}  // namespace tsflannel::testing
