// Tiles of arrays of any strides, brought to contiguous rows of the type they are computed in.
//
// Rows that are contiguous are copied; columns that are contiguous are transposed by squares in
// registers, all of a stretch of one group of columns before the next group, so that the memory
// sees a few sequential streams; the same stretch of the rows that follow is fetched meanwhile.
// Everything else is collected element by element. Complex numbers move as one double or as a pair.
#include "kernels/fetch.hpp"

#include "kernels/table.hpp"
#include "simd/storage.hpp"
#include "simd/transpose.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

template <class S>
inline void fetch_line(Compute<S>* to, const S* from, size step, size count) noexcept {
    using T = Compute<S>;
    using Lanes = std::make_index_sequence<static_cast<std::size_t>(lanes<T>)>;
    size i = 0;
    if (step == 1) {
        for (; i + lanes<T> <= count; i += lanes<T>) store(to + i, load_as(from + i));
        if (i < count) store_first(to + i, load_first_as(from + i, count - i, T(0)), count - i);
        return;
    }
    if (step == -1)
        for (; i + lanes<T> <= count; i += lanes<T>)
            store(to + i, backwards<T>(load_as(from - i - (lanes<T> - 1)), Lanes{}));
    if (step == 2)
        for (; i + lanes<T> <= count; i += lanes<T>)
            store(to + i, load_every_second(from + 2 * i, Lanes{}));
    S lane[lanes<T>] = {};
    for (; i + lanes<T> <= count; i += lanes<T>) {
#pragma GCC unroll 16
        for (size l = 0; l < lanes<T>; ++l) lane[l] = load_scalar(from + (i + l) * step);
        store(to + i, load_as(lane));
    }
    if (i == count) return;
    for (size l = 0; l < count - i; ++l) lane[l] = load_scalar(from + (i + l) * step);
    store_first(to + i, load_as(lane), count - i);
}

// One square, or what is left of it at the edges.
template <class S>
inline void fetch_square(const FetchTask& task, size row, size column) noexcept {
    using T = Compute<S>;
    constexpr size width = lanes<T>;
    const S* from = static_cast<const S*>(task.from) + column * task.from_column + row;
    T* to = static_cast<T*>(task.to) + row * task.to_row + column;
    const size rows = task.rows - row < width ? task.rows - row : width;
    const size columns = task.columns - column < width ? task.columns - column : width;
    Vec<T> square[width];
    if (rows == width && columns == width) {
#pragma GCC unroll 16
        for (size j = 0; j < width; ++j) square[j] = load_as(from + j * task.from_column);
        transpose<T>(square);
#pragma GCC unroll 16
        for (size i = 0; i < width; ++i) store(to + i * task.to_row, square[i]);
        return;
    }
#pragma GCC unroll 16
    for (size j = 0; j < width; ++j)
        square[j] = j < columns ? load_first_as(from + j * task.from_column, rows, T(0)) : Vec<T>{};
    transpose<T>(square);
#pragma GCC unroll 16
    for (size i = 0; i < width; ++i)
        if (i < rows) store_first(to + i * task.to_row, square[i], columns);
}

template <class S>
inline void fetch_transposed(const FetchTask& task) noexcept {
    constexpr size width = lanes<Compute<S>>;
    constexpr size line = 64 / static_cast<size>(sizeof(S));
    for (size column = 0; column < task.columns; column += width) {
        const size columns = task.columns - column < width ? task.columns - column : width;
        for (size row = 0; row < task.rows; row += width) {
            const S* next =
                static_cast<const S*>(task.from) + column * task.from_column + row + task.rows;
            if (row % line == 0)
                for (size j = 0; j < columns; ++j) prefetch(next + j * task.from_column);
            fetch_square<S>(task, row, column);
        }
    }
}

template <class S>
void fetch(const FetchTask& task) noexcept {
    using T = Compute<S>;
    if (task.from_column != 1 && task.rows > 1 && task.columns > 1) {
        if (task.from_row == 1) return fetch_transposed<S>(task);
        if (task.from_row == -1) {  // from the last row on
            FetchTask turned = task;
            turned.from = static_cast<const S*>(task.from) - (task.rows - 1);
            turned.to = static_cast<T*>(task.to) + (task.rows - 1) * task.to_row;
            turned.from_row = 1;
            turned.to_row = -task.to_row;
            return fetch_transposed<S>(turned);
        }
    }
    for (size r = 0; r < task.rows; ++r)
        fetch_line<S>(static_cast<T*>(task.to) + r * task.to_row,
                      static_cast<const S*>(task.from) + r * task.from_row, task.from_column,
                      task.columns);
}

template <class T>
void fetch_twice(const FetchTask& task) noexcept {
    FetchTask single = task;  // into the second half of each row, and from there to both places
    single.to = static_cast<T*>(task.to) + task.columns;
    single.to_row = 2 * task.to_row;
    fetch<T>(single);
    for (size r = 0; r < task.rows; ++r) {
        T* to = static_cast<T*>(task.to) + 2 * r * task.to_row;
        for (size i = 0; i < task.columns; ++i) {
            const T value = load_scalar(to + task.columns + i);
            store_scalar(to + 2 * i, value);
            store_scalar(to + 2 * i + 1, value);
        }
    }
}

struct Pair {
    double first, second;
};

void fetch_pairs(const FetchTask& task) noexcept {
    const Pair* from = static_cast<const Pair*>(task.from);
    Pair* to = static_cast<Pair*>(task.to);
    if (task.from_row == 1 && task.from_column != 1) {
        constexpr size group = 4;  // a cache line of each column
        for (size row = 0; row < task.rows; row += group)
            for (size i = 0; i < task.columns; ++i)
                for (size r = row; r < task.rows && r < row + group; ++r)
                    store_scalar(to + r * task.to_row + i,
                                 load_scalar(from + i * task.from_column + r));
        return;
    }
    for (size r = 0; r < task.rows; ++r)
        for (size i = 0; i < task.columns; ++i)
            store_scalar(to + r * task.to_row + i,
                         load_scalar(from + r * task.from_row + i * task.from_column));
}

template <class S>
inline void spill_line(S* to, const Compute<S>* from, size step, size count,
                       bool streaming) noexcept {
    using T = Compute<S>;
    size i = 0;
    if (step == 1) {
        if constexpr (sizeof(S) == 2) {
            const auto place = reinterpret_cast<std::uintptr_t>(to) % 64;
            if (streaming && place % sizeof(S) == 0) {
                const size before = place == 0 ? 0 : static_cast<size>((64 - place) / sizeof(S));
                for (; i < before && i < count; i += lanes<T>) {
                    size now = before - i < lanes<T> ? before - i : lanes<T>;
                    if (count - i < now) now = count - i;
                    store_first_as(to + i, load_first(from + i, now, T(0)), now);
                }
                i = before < count ? before : count;
                for (; i + cache_line<S> <= count; i += cache_line<S>)
                    store_streaming_line<false>(to + i, [&](size k) { return load(from + i + k); });
            }
        }
        for (; i + lanes<T> <= count; i += lanes<T>) store_as(to + i, load(from + i));
        if (i < count) store_first_as(to + i, load_first(from + i, count - i, T(0)), count - i);
        return;
    }
    for (; i < count; i += lanes<T>) {
        const size now = count - i < lanes<T> ? count - i : lanes<T>;
        S lane[lanes<T>];
        store_as(lane, now == lanes<T> ? load(from + i) : load_first(from + i, now, T(0)));
        for (size l = 0; l < now; ++l) store_scalar(to + (i + l) * step, lane[l]);
    }
}

template <class S>
void spill(const SpillTask& task) noexcept {
    for (size r = 0; r < task.rows; ++r)
        spill_line<S>(static_cast<S*>(task.to) + r * task.to_row,
                      static_cast<const Compute<S>*>(task.from) + r * task.from_row, task.to_column,
                      task.columns, task.streaming);
    if (task.streaming) finish_streaming();
}

void spill_pairs(const SpillTask& task) noexcept {
    for (size r = 0; r < task.rows; ++r)
        for (size i = 0; i < task.columns; ++i)
            store_scalar(static_cast<Pair*>(task.to) + r * task.to_row + i * task.to_column,
                         load_scalar(static_cast<const Pair*>(task.from) + r * task.from_row + i));
}

}  // namespace

extern constinit const FetchKernels fetch_kernels[element_count] = {
    {fetch<float>, fetch_twice<float>, spill<float>},
    {fetch<double>, fetch_twice<double>, spill<double>},
    {fetch<Float16>, nullptr, spill<Float16>},
    {fetch<BFloat16>, nullptr, spill<BFloat16>},
    {fetch<double>, nullptr, spill<double>},
    {fetch_pairs, nullptr, spill_pairs},
};

}  // namespace unitstride::UNITSTRIDE_ISA
