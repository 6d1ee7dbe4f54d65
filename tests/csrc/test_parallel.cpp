// Teams of threads: they meet, and what one of them throws reaches the caller.
#include <cstdio>
#include <stdexcept>
#include <vector>

#include "parallel.h"

namespace {

constexpr int kTeam = 4, kRounds = 2000;

// No thread is more than a round ahead of another.
int meetings() {
  std::vector<int> round(kTeam);
  int wrong = 0;
  tgd::parallel_together(kTeam, [&](int thread, int team, tgd::Barrier& barrier) {
    for (int r = 1; r <= kRounds; ++r) {
      round[thread] = r;
      barrier.wait();
      if (thread == 0)
        for (int t = 0; t < team; ++t) wrong += round[t] != r;
      barrier.wait();
    }
  });
  return wrong;
}

template <class Run>
int thrown(const Run& run) {
  try {
    run();
  } catch (const std::runtime_error&) {
    return 0;
  }
  return 1;
}

// One fails where the others wait for it.
int failures() {
  int failed = 0;
  for (int at = 0; at < kTeam; ++at) {
    failed += thrown([&] {
      tgd::parallel(kTeam, [&](int thread, int team) {
        if (thread == at % team) throw std::runtime_error("failed");
      });
    });
    failed += thrown([&] {
      tgd::parallel_together(kTeam, [&](int thread, int team, tgd::Barrier& barrier) {
        for (int r = 0; r < 10; ++r) {
          if (r == 5 && thread == at % team) throw std::runtime_error("failed");
          barrier.wait();
        }
      });
    });
  }
  return failed;
}

}  // namespace

int main() {
  const int wrong = meetings(), failed = failures();
  std::printf("%d wrong meetings, %d lost exceptions\n", wrong, failed);
  return wrong + failed != 0;
}
