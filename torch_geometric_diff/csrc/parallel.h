// A team of threads: OpenMP where it was found (then the pool is the one torch uses), else std::thread.
#pragma once

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace tgd {

// Spins, since steps are short, but yields soon enough for a machine with fewer cores than threads.
class Barrier {
 public:
  explicit Barrier(int team) : team_(team) {}

  void wait() {
    if (team_ == 1) return;
    const int round = round_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == team_) {
      arrived_.store(0, std::memory_order_relaxed);
      round_.store(round + 1, std::memory_order_release);
      return;
    }
    for (int spin = 0; round_.load(std::memory_order_acquire) == round; ++spin)
      if (spin > 4096) std::this_thread::yield();
  }

 private:
  const int team_;
  std::atomic<int> arrived_{0}, round_{0};
};

// Runs body(thread, team) on a team of at most `threads` threads; body must not throw.
template <class Body>
void parallel(int threads, const Body& body) {
  if (threads <= 1) {
    body(0, 1);
    return;
  }
#ifdef _OPENMP
#pragma omp parallel num_threads(threads)
  body(omp_get_thread_num(), omp_get_num_threads());
#else
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t) others.emplace_back([&body, t, threads] { body(t, threads); });
  body(0, threads);
  for (auto& other : others) other.join();
#endif
}

// Runs body(thread, team, barrier) on a team that can meet.
template <class Body>
void parallel_together(int threads, const Body& body) {
  std::unique_ptr<Barrier> barrier;
  std::atomic<Barrier*> shared{nullptr};
  parallel(threads, [&](int thread, int team) {
    if (thread == 0) {
      barrier.reset(new Barrier(team));
      shared.store(barrier.get(), std::memory_order_release);
    }
    Barrier* meet;
    while (!(meet = shared.load(std::memory_order_acquire))) std::this_thread::yield();
    body(thread, team, *meet);
  });
}

}  // namespace tgd
