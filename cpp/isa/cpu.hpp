// What this CPU and its operating system can run. Compiled without instruction-set flags.
#pragma once

namespace unitstride {

bool cpu_runs_avx2() noexcept;    // x86-64-v3
bool cpu_runs_avx512() noexcept;  // x86-64-v4
// AVX-512 and a matrix unit for bfloat16, which the system lets this process use.
bool cpu_runs_amx() noexcept;

}  // namespace unitstride
