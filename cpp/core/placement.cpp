#include "core/placement.hpp"

#include <chrono>
#include <cstddef>

#if defined(__linux__)
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace unitstride {
namespace {

constexpr long long awake_for =
    200'000;  // nanoseconds for which a worker surely still spins after a region
constexpr std::size_t largest_team =
    64;  // beyond it the system calls would cost more than they save

long long now() noexcept {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

}  // namespace

#if defined(__linux__)

void TeamPlacement::prepare(int team) {
    members_.assign(static_cast<std::size_t>(team), {});
    mask_.assign(sizeof(cpu_set_t) / sizeof(unsigned long), 0);
}

void TeamPlacement::enrol(int worker) noexcept {
    if (worker < static_cast<int>(members_.size()))
        members_[static_cast<std::size_t>(worker)].thread_id = syscall(SYS_gettid);
}

void TeamPlacement::before_region() noexcept {
    if (now() - idle_since_ < awake_for || members_.size() < 2 || members_.size() > largest_team)
        return;
    auto* const all = reinterpret_cast<cpu_set_t*>(mask_.data());
    const int here = sched_getcpu();
    if (here < 0 || sched_getaffinity(0, sizeof(cpu_set_t), all) != 0 || CPU_COUNT(all) < 2) return;
    cpu_set_t elsewhere = *all;
    CPU_CLR(static_cast<unsigned>(here), &elsewhere);
    for (std::size_t worker = 1; worker < members_.size(); ++worker) {
        Member& member = members_[worker];
        const auto id = static_cast<pid_t>(member.thread_id);
        const bool is_ours =
            id != 0 && syscall(SYS_tgkill, getpid(), id, 0) == 0;  // signal 0 only asks
        member.restricted = is_ours && sched_setaffinity(id, sizeof elsewhere, &elsewhere) == 0;
    }
}

void TeamPlacement::restore(Member& member, long thread_id) noexcept {
    sched_setaffinity(static_cast<pid_t>(thread_id), sizeof(cpu_set_t),
                      reinterpret_cast<const cpu_set_t*>(mask_.data()));
    member.restricted = false;
}

void TeamPlacement::in_worker(int worker) noexcept {
    if (worker == 0 || worker >= static_cast<int>(members_.size())) return;
    Member& member = members_[static_cast<std::size_t>(worker)];
    if (member.restricted && member.thread_id == syscall(SYS_gettid)) restore(member, 0);
}

void TeamPlacement::after_region() noexcept {
    for (Member& member : members_)
        if (member.restricted) restore(member, member.thread_id);  // it did not come to this region
    idle_since_ = now();
}

#else

void TeamPlacement::prepare(int) {}
void TeamPlacement::enrol(int) noexcept {}
void TeamPlacement::before_region() noexcept {}
void TeamPlacement::in_worker(int) noexcept {}
void TeamPlacement::after_region() noexcept {}

#endif

}  // namespace unitstride
