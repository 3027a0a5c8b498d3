#include "isa/cpu.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace unitstride {

#if defined(__x86_64__)
// The compiler's own detection reads CPUID and, through XGETBV, what the operating system saves.
bool cpu_runs_avx2() noexcept {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
           __builtin_cpu_supports("f16c") && __builtin_cpu_supports("lzcnt") &&
           __builtin_cpu_supports("movbe");
}
bool cpu_runs_avx512() noexcept {
    return cpu_runs_avx2() && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#if defined(__linux__)
// Linux saves the unit's registers for processes that have asked for it.
bool cpu_runs_amx() noexcept {
    constexpr unsigned has_bfloat16 = 1u << 22, has_registers = 1u << 24;  // CPUID.7.0:EDX
    constexpr long request_permission = 0x1023, register_contents = 18;
    unsigned a, b, c, d;
    if (!cpu_runs_avx512() || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    if (!(d & has_bfloat16) || !(d & has_registers)) return false;
    static const bool permitted =
        syscall(SYS_arch_prctl, request_permission, register_contents) == 0;
    return permitted;
}
#else
bool cpu_runs_amx() noexcept { return false; }
#endif
#else
bool cpu_runs_avx2() noexcept { return false; }
bool cpu_runs_avx512() noexcept { return false; }
bool cpu_runs_amx() noexcept { return false; }
#endif

}  // namespace unitstride
