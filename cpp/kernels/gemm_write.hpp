// From the sums of a register tile to elements of C that lie anywhere, and what is fetched
// meanwhile.
#pragma once

#include "kernels/gemm.hpp"
#include "simd/vec.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

template <class T>
inline T updated(T sum, T alpha, T beta, const T* old) noexcept {
    return beta == T(0) ? alpha * sum : alpha * sum + beta * load_scalar(old);
}

// Bare sums, rows of `width`, to columns that are not contiguous.
template <class T, size width>
void scatter_tile(const SweepTask& task, const PanelColumns& panel, const T* sums) noexcept {
    const T alpha = static_cast<T>(task.alpha), beta = static_cast<T>(task.beta);
    const Vec<T> alphas = splat(alpha), betas = splat(beta);
    for (size r = 0; r < task.rows; ++r, sums += width) {
        T* row = static_cast<T*>(task.c) + task.row_offset[r];
        const T* sum = sums;
        for (size p = 0; p < panel.count; sum += panel.runs[p].count, ++p) {
            const Run& run = panel.runs[p];
            T* to = row + run.offset;
            if (run.step != 1) {
                for (size i = 0; i < run.count; ++i)
                    store_scalar(to + i * run.step,
                                 updated(sum[i], alpha, beta, to + i * run.step));
                continue;
            }
            for (size i = 0; i < run.count; i += lanes<T>) {
                const size now = run.count - i < lanes<T> ? run.count - i : lanes<T>;
                const Vec<T> scaled = alphas * load_first(sum + i, now, T(0));
                const Vec<T> result =
                    beta == T(0) ? scaled : scaled + betas * load_first(to + i, now, T(0));
                store_first(to + i, result, now);
            }
        }
    }
}

// Fetches what is read next into the second-level cache, a few lines with each tile.
class Fetching {
  public:
    Fetching(const Ahead& ahead, size tiles) noexcept
        : ahead_(ahead),
          lines_((ahead.bytes + 63) / 64),
          each_((lines_ * ahead.count + tiles - 1) / tiles) {}
    void some() noexcept {
        for (size i = 0; i < each_ && stretch_ < ahead_.count; ++i) {
            __builtin_prefetch(ahead_.memory + stretch_ * ahead_.step + line_ * 64, 0, 2);
            if (++line_ == lines_) ++stretch_, line_ = 0;
        }
    }

  private:
    const Ahead& ahead_;
    size lines_, each_, stretch_ = 0, line_ = 0;
};

// The rows of C that a tile goes to, each of which begins anywhere in a cache line.
template <class Stored, size width>
inline void prefetch_rows(const SweepTask& task, size first_column) noexcept {
    constexpr size bytes = width * static_cast<size>(sizeof(Stored)) - 1;
    for (size r = 0; r < task.rows; ++r) {
        const Stored* row = static_cast<const Stored*>(task.c) + task.row_offset[r] + first_column;
#pragma GCC unroll 5
        for (size line = 0; line < bytes + 64; line += 64)
            __builtin_prefetch(reinterpret_cast<const char*>(row) + line, 1, 2);
    }
}

}  // namespace
}  // namespace unitstride::UNITSTRIDE_ISA
