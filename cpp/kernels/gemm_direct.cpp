// Products of small matrices, read where they lie: nothing is packed.
//
// A tile of C stays in registers over the whole depth; rows of B and C are contiguous, A may lie
// anywhere. Past the last column the lanes repeat a column of the tile, so that they raise no
// floating-point flags of their own.
#include <utility>

#include "kernels/gemm.hpp"
#include "kernels/table.hpp"
#include "simd/vec.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr size most_vectors = 4;
constexpr size rows_of(size vectors) noexcept { return vectors == 4 ? 6 : 8; }
#else
constexpr size most_vectors = 2;
constexpr size rows_of(size) noexcept { return 6; }
#endif

template <class T>
struct DirectTile {
    const T* a;
    const T* b;
    T* c;
    size a_row, a_depth, b_depth, c_row;
    size depth, rest;  // columns in the last vector
    T alpha, beta;
};

template <class T, bool whole>
inline Vec<T> load_last(const T* from, size rest, T fill) noexcept {
    return whole ? load(from) : load_first(from, rest, fill);
}

template <class T, size rows, size vectors, bool whole>
void direct_tile(const DirectTile<T>& tile) noexcept {
    Vec<T> sum[rows][vectors];
    const T* row_of_a[rows];
#pragma GCC unroll 8
    for (size r = 0; r < rows; ++r) {
        row_of_a[r] = tile.a + r * tile.a_row;
#pragma GCC unroll 4
        for (size v = 0; v < vectors; ++v) sum[r][v] = Vec<T>{};
    }
    const T* b = tile.b;
    size place = 0;
    for (size k = 0; k < tile.depth; ++k, b += tile.b_depth, place += tile.a_depth) {
        Vec<T> row[vectors];
#pragma GCC unroll 4
        for (size v = 0; v < vectors - 1; ++v) row[v] = load(b + v * lanes<T>);
        const T* last = b + (vectors - 1) * lanes<T>;
        row[vectors - 1] = load_last<T, whole>(last, tile.rest, whole ? T(0) : load_scalar(last));
#pragma GCC unroll 8
        for (size r = 0; r < rows; ++r) {
            const Vec<T> factor = splat(load_scalar(row_of_a[r] + place));
#pragma GCC unroll 4
            for (size v = 0; v < vectors; ++v) sum[r][v] = multiply_add(factor, row[v], sum[r][v]);
        }
    }
    const Vec<T> alpha = splat(tile.alpha), beta = splat(tile.beta);
    const bool reads = tile.beta != T(0);
#pragma GCC unroll 8
    for (size r = 0; r < rows; ++r) {
        T* to = tile.c + r * tile.c_row;
#pragma GCC unroll 4
        for (size v = 0; v < vectors; ++v, to += lanes<T>) {
            const bool masked = !whole && v == vectors - 1;
            Vec<T> result = alpha * sum[r][v];
            if (reads) {
                const Vec<T> old = masked ? load_first(to, tile.rest, T(0)) : load(to);
                result = multiply_add(alpha, sum[r][v], beta * old);
            }
            if (masked) {
                store_first(to, result, tile.rest);
            } else {
                store(to, result);
            }
        }
    }
}

template <class T>
using DirectFunction = void (*)(const DirectTile<T>&) noexcept;

template <class T, size vectors, bool whole, size... row>
inline DirectFunction<T> with_rows(size rows, std::integer_sequence<size, row...>) noexcept {
    static constexpr DirectFunction<T> functions[] = {direct_tile<T, row + 1, vectors, whole>...};
    return functions[rows - 1];
}

template <class T, bool whole, size... vector>
inline DirectFunction<T> with_vectors(size rows, size vectors,
                                      std::integer_sequence<size, vector...>) noexcept {
    DirectFunction<T> function = nullptr;
    (void)((vectors == vector + 1 &&
            (function = with_rows<T, vector + 1, whole>(
                 rows, std::make_integer_sequence<size, rows_of(vector + 1)>{}),
             true)) ||
           ...);
    return function;
}

template <class T>
inline DirectFunction<T> direct_function(size rows, size vectors, bool whole) noexcept {
    using Vectors = std::make_integer_sequence<size, most_vectors>;
    return whole ? with_vectors<T, true>(rows, vectors, Vectors{})
                 : with_vectors<T, false>(rows, vectors, Vectors{});
}

// Evenly high stripes of rows: `high` of them with one row more than the others.
struct Stripes {
    size rows, high, count;
};
inline Stripes stripes_of(size rows, size most) noexcept {
    const size count = (rows + most - 1) / most;
    return {rows / count, rows % count, count};
}

// Rows [begin, end) of a matrix, into the second-level cache.
template <class T>
inline void fetch_rows(const T* matrix, size stride, size begin, size end, size columns) noexcept {
    constexpr size line = 64 / static_cast<size>(sizeof(T));
    for (size r = begin; r < end; ++r)
        for (size i = 0; i < columns; i += line) __builtin_prefetch(matrix + r * stride + i, 0, 2);
}

// A share of the matrices of the next product of a batch, with each stripe of this one.
template <class T>
inline void fetch_next(const DirectTask& task, size batch, size stripe, size stripes) noexcept {
    if (batch + 1 >= task.batches) return;
    const T* a = static_cast<const T*>(task.a) + (batch + 1) * task.a_batch;
    const T* b = static_cast<const T*>(task.b) + (batch + 1) * task.b_batch;
    const T* c = static_cast<const T*>(task.c) + (batch + 1) * task.c_batch;
    const auto share = [=](size total, size i) { return total * i / stripes; };
    const size row = share(task.rows, stripe), row_end = share(task.rows, stripe + 1);
    if (task.a_depth == 1) fetch_rows(a, task.a_row, row, row_end, task.depth);
    fetch_rows(c, task.c_row, row, row_end, task.columns);
    fetch_rows(b, task.b_depth, share(task.depth, stripe), share(task.depth, stripe + 1),
               task.columns);
}

template <class T>
void direct(const DirectTask& task) noexcept {
    for (size batch = 0; batch < task.batches; ++batch) {
        DirectTile<T> tile = {nullptr,
                              static_cast<const T*>(task.b) + batch * task.b_batch,
                              nullptr,
                              task.a_row,
                              task.a_depth,
                              task.b_depth,
                              task.c_row,
                              task.depth,
                              0,
                              static_cast<T>(task.alpha),
                              static_cast<T>(task.beta)};
        T* c = static_cast<T*>(task.c) + batch * task.c_batch;
        for (size begin = 0; begin < task.columns;) {
            const size left = task.columns - begin;
            size vectors = (left + lanes<T> - 1) / lanes<T>;
            if (vectors > most_vectors)  // two narrower stripes rather than a full and a thin one
                vectors = vectors < 2 * most_vectors ? (vectors + 1) / 2 : most_vectors;
            const size columns = left < vectors * lanes<T> ? left : vectors * lanes<T>;
            tile.rest = columns - (vectors - 1) * lanes<T>;
            const bool whole = tile.rest == lanes<T>;
            const Stripes stripes = stripes_of(task.rows, rows_of(vectors));
            tile.a = static_cast<const T*>(task.a) + batch * task.a_batch;
            tile.c = c + begin;
            DirectFunction<T> function =
                direct_function<T>(stripes.rows + (stripes.high > 0), vectors, whole);
            for (size stripe = 0; stripe < stripes.count; ++stripe) {
                if (stripe == stripes.high)
                    function = direct_function<T>(stripes.rows, vectors, whole);
                const size rows = stripes.rows + (stripe < stripes.high);
                if (begin == 0) fetch_next<T>(task, batch, stripe, stripes.count);
                function(tile);
                tile.a += rows * task.a_row;
                tile.c += rows * task.c_row;
            }
            begin += columns;
            tile.b += columns;
        }
    }
}

}  // namespace

extern constinit const DirectKernels direct_kernels[2] = {{direct<float>}, {direct<double>}};

}  // namespace unitstride::UNITSTRIDE_ISA
