// Where the workers of a team run.
//
// Note [Workers beside their caller]. A worker that has slept is often woken on the very CPU its
// caller keeps busy, and waits there, with other CPUs idle, until the scheduler's next tick moves
// one of them: milliseconds, more than most calls take. So, before it wakes workers that may have
// gone to sleep, the caller excludes its own CPU from their affinity; each worker takes its full
// mask back as soon as it runs. Nothing stays changed after the call.
#pragma once

#include <vector>

namespace unitstride {

class TeamPlacement {
  public:
    // Before and in a first, empty region of a new team: by the caller, then by every worker.
    void prepare(int team);
    void enrol(int worker) noexcept;
    // On the calling thread, right before and right after a region of the team.
    void before_region() noexcept;
    void after_region() noexcept;
    // On each worker, first thing in the region.
    void in_worker(int worker) noexcept;

  private:
    struct Member {
        long thread_id = 0;       // of the operating system; 0: never came
        bool restricted = false;  // its affinity lacks the caller's CPU
    };
    void restore(Member& member, long thread_id) noexcept;

    std::vector<Member> members_;
    std::vector<unsigned long> mask_;  // the caller's affinity
    long long idle_since_ = 0;         // nanoseconds
};

}  // namespace unitstride
