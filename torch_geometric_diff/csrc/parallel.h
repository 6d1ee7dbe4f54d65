// A team of threads: OpenMP where it was found (then the pool is the one torch uses), else std::thread.
#pragma once

#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace tgd {

// Where the threads of a team wait for each other. Steps are short: a thread spins for some ten microseconds. Then it
// sleeps: another process may run where the one that is waited for should, which can take the core that is left.
class Barrier {
 public:
  struct Abandoned {};  // thrown by `wait`: another thread has failed

  explicit Barrier(int team) : team_(team) {}

  void wait() {
    if (team_ == 1) return;
    const int round = round_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == team_) {
      arrived_.store(0, std::memory_order_relaxed);
      end_round(false);
    } else if (!spin(round)) {
      std::unique_lock<std::mutex> lock(mutex_);
      ended_.wait(lock, [&] { return round_.load(std::memory_order_relaxed) != round; });
    }
    if (abandoned_.load(std::memory_order_relaxed)) throw Abandoned();
  }

  // Lets go of those that wait, as a thread does that will not come again.
  void abandon() { end_round(true); }

 private:
  static constexpr int kSpins = 512;  // pauses of some 40 to 140 cycles: up to the time that a wake-up takes

  bool spin(int round) const {
    for (int i = 0; i < kSpins; ++i) {
      if (round_.load(std::memory_order_acquire) != round) return true;
#if defined(__x86_64__) || defined(__i386__)
      __builtin_ia32_pause();
#endif
    }
    return false;
  }

  void end_round(bool abandoned) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (abandoned) abandoned_.store(true, std::memory_order_relaxed);
      round_.fetch_add(1, std::memory_order_release);
    }
    ended_.notify_all();
  }

  const int team_;
  std::atomic<int> arrived_{0}, round_{0};
  std::atomic<bool> abandoned_{false};
  std::mutex mutex_;
  std::condition_variable ended_;
};

// Runs body(thread, team) on a team of at most `threads` threads. What one of them throws is thrown when all are done.
template <class Body>
void parallel(int threads, const Body& body) {
  if (threads <= 1) {
    body(0, 1);
    return;
  }
  std::exception_ptr error;
  std::atomic<bool> failed{false};
  const auto guarded = [&](int thread, int team) {
    try {
      body(thread, team);
    } catch (const Barrier::Abandoned&) {  // the other thread says why
    } catch (...) {
      if (!failed.exchange(true)) error = std::current_exception();
    }
  };
#ifdef _OPENMP
#pragma omp parallel num_threads(threads)
  guarded(omp_get_thread_num(), omp_get_num_threads());
#else
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t) others.emplace_back(guarded, t, threads);
  guarded(0, threads);
  for (auto& other : others) other.join();
#endif
  if (error) std::rethrow_exception(error);
}

// Runs body(thread, team, barrier) on a team that can meet.
template <class Body>
void parallel_together(int threads, const Body& body) {
  std::optional<Barrier> barrier;
  std::once_flag made;
  parallel(threads, [&](int thread, int team) {
    std::call_once(made, [&] { barrier.emplace(team); });
    try {
      body(thread, team, *barrier);
    } catch (...) {
      barrier->abandon();
      throw;
    }
  });
}

}  // namespace tgd
