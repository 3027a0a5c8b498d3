// Packing and unpacking: the only kernels that know strides.
//
// A rectangle is moved by whichever of its strides is one: by rows, or by squares transposed in
// registers, so that both the array and the tile are touched by vectors. Steps of two and
// backwards, the common views, are picked out of contiguous loads; other strides go element by
// element.
#include "kernels/pack.hpp"

#include "kernels/table.hpp"
#include "simd/storage.hpp"
#include "simd/transpose.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

template <class S>
inline Compute<S> load_element(const S* source) noexcept {
    if constexpr (sizeof(S) >= 4) {
        return load_scalar(source);
    } else {
        return load_first_as(source, 1, 0.0f)[0];
    }
}

template <class S>
inline void store_element(S* target, Compute<S> value) noexcept {
    if constexpr (sizeof(S) >= 4) {
        store_scalar(target, value);
    } else {
        store_first_as(target, splat(value), 1);
    }
}

// tile[i] = source[i * step], step known: 1, -1 or 2. Loads stay within [source, source + (count -
// 1) * step].
template <class S, size step>
inline void pack_line(Compute<S>* tile, const S* source, size count) noexcept {
    using T = Compute<S>;
    constexpr size width = lanes<T>;
    using Lanes = std::make_index_sequence<width>;
    size i = 0;
    if constexpr (step == 1) {
        for (; i + width <= count; i += width) store(tile + i, load_as(source + i));
        if (i < count) store_first(tile + i, load_first_as(source + i, count - i, T(0)), count - i);
    } else if constexpr (step == -1) {
        for (; i + width <= count; i += width)
            store(tile + i, backwards<T>(load_as(source - i - (width - 1)), Lanes{}));
        for (; i < count; ++i) tile[i] = load_element(source - i);
    } else {
        for (; i + width <= count; i += width)
            store(tile + i, load_every_second(source + 2 * i, Lanes{}));
        for (; i < count; ++i) tile[i] = load_element(source + 2 * i);
    }
}

template <class S>
inline void pack_strided(Compute<S>* tile, const S* source, size count, size stride) noexcept {
    if constexpr (sizeof(S) >= 4) {
        for (size i = 0; i < count; ++i) tile[i] = load_scalar(source + i * stride);
    } else {
        constexpr size width = lanes<float>;
        for (size i = 0; i < count; i += width) {
            const size used = count - i < width ? count - i : width;
            S lane[width] = {};
            for (size l = 0; l < used; ++l) lane[l] = load_scalar(source + (i + l) * stride);
            store_first(tile + i, load_as(lane), used);
        }
    }
}

template <class S>
inline void pack_by_rows(const PackTask& task) noexcept {
    auto* tile = static_cast<Compute<S>*>(task.tile);
    const S* source = static_cast<const S*>(task.array);
    for (size r = 0; r < task.rows; ++r, tile += task.tile_stride, source += task.row_stride) {
        if (task.column_stride == 1) {
            pack_line<S, 1>(tile, source, task.columns);
        } else if (task.column_stride == 2) {
            pack_line<S, 2>(tile, source, task.columns);
        } else if (task.column_stride == -1) {
            pack_line<S, -1>(tile, source, task.columns);
        } else {
            pack_strided(tile, source, task.columns, task.column_stride);
        }
    }
}

// The array is contiguous down a column of the tile. Its columns are far apart, where the hardware
// foresees nothing: those of the squares to come are asked for.
template <class S>
inline void pack_transposed(const PackTask& task) noexcept {
    using T = Compute<S>;
    constexpr size width = lanes<T>, columns_ahead = 32;
    const S* source = static_cast<const S*>(task.array);
    auto* tile = static_cast<T*>(task.tile);
    for (size c = 0; c < task.columns; c += width) {
        const size columns = task.columns - c < width ? task.columns - c : width;
        for (size r = 0; r < task.rows; r += width) {
            const size rows = task.rows - r < width ? task.rows - r : width;
            Vec<T> square[width];
#pragma GCC unroll 16
            for (size i = 0; i < width; ++i) {
                const S* from = source + (c + i) * task.column_stride + r;
                prefetch_second_level(from + columns_ahead * task.column_stride);
                square[i] = i < columns
                                ? (rows == width ? load_as(from) : load_first_as(from, rows, T(0)))
                                : Vec<T>{};
            }
            transpose<T>(square);
            T* to = tile + r * task.tile_stride + c;
            if (rows == width && columns == width) {
#pragma GCC unroll 16
                for (size i = 0; i < width; ++i) store(to + i * task.tile_stride, square[i]);
            } else {
                for (size i = 0; i < rows; ++i)
                    store_first(to + i * task.tile_stride, square[i], columns);
            }
        }
    }
}

template <class S>
void pack(const PackTask& task) noexcept {
    const bool rows_are_lines =
        task.column_stride == 1 || task.row_stride != 1 || task.columns == 1;
    if (rows_are_lines) {
        pack_by_rows<S>(task);
    } else {
        pack_transposed<S>(task);
    }
}

template <class S>
inline void unpack_line(S* target, const Compute<S>* tile, size count, bool streaming) noexcept {
    constexpr size width = lanes<Compute<S>>;
    size i = 0;
    if (streaming && can_stream(target)) {
        for (; i + width <= count; i += width) store_streaming_as(target + i, load(tile + i));
    } else {
        for (; i + width <= count; i += width) store_as(target + i, load(tile + i));
    }
    if (i < count)
        store_first_as(target + i, load_first(tile + i, count - i, Compute<S>(0)), count - i);
}

template <class S>
inline void unpack_strided(S* target, const Compute<S>* tile, size count, size stride) noexcept {
    if constexpr (sizeof(S) >= 4) {
        for (size i = 0; i < count; ++i) store_scalar(target + i * stride, tile[i]);
    } else {
        constexpr size width = lanes<float>;
        for (size i = 0; i < count; i += width) {
            const size used = count - i < width ? count - i : width;
            S lane[width];
            store_as(lane, load_first(tile + i, used, 0.0f));
            for (size l = 0; l < used; ++l) store_scalar(target + (i + l) * stride, lane[l]);
        }
    }
}

template <class S>
inline void unpack_by_rows(const PackTask& task) noexcept {
    const auto* tile = static_cast<const Compute<S>*>(task.tile);
    S* target = static_cast<S*>(const_cast<void*>(task.array));
    for (size r = 0; r < task.rows; ++r, tile += task.tile_stride, target += task.row_stride) {
        if (task.column_stride == 1) {
            unpack_line(target, tile, task.columns, task.streaming);
        } else {
            unpack_strided(target, tile, task.columns, task.column_stride);
        }
    }
}

template <class S>
inline void unpack_transposed(const PackTask& task) noexcept {
    using T = Compute<S>;
    constexpr size width = lanes<T>;
    const auto* tile = static_cast<const T*>(task.tile);
    S* target = static_cast<S*>(const_cast<void*>(task.array));
    for (size c = 0; c < task.columns; c += width) {
        const size columns = task.columns - c < width ? task.columns - c : width;
        for (size r = 0; r < task.rows; r += width) {
            const size rows = task.rows - r < width ? task.rows - r : width;
            Vec<T> square[width];
#pragma GCC unroll 16
            for (size i = 0; i < width; ++i) {
                const T* from = tile + (r + i) * task.tile_stride + c;
                square[i] = i < rows
                                ? (columns == width ? load(from) : load_first(from, columns, T(0)))
                                : Vec<T>{};
            }
            transpose<T>(square);
            for (size i = 0; i < columns; ++i) {
                S* to = target + (c + i) * task.column_stride + r;
                if (rows < width) {
                    store_first_as(to, square[i], rows);
                } else if (task.streaming && can_stream(to)) {
                    store_streaming_as(to, square[i]);
                } else {
                    store_as(to, square[i]);
                }
            }
        }
    }
}

template <class S>
void unpack(const PackTask& task) noexcept {
    const bool rows_are_lines =
        task.column_stride == 1 || task.row_stride != 1 || task.columns == 1;
    if (rows_are_lines) {
        unpack_by_rows<S>(task);
    } else {
        unpack_transposed<S>(task);
    }
    if (task.streaming) finish_streaming();
}

template <class S>
void mask(const MaskTask& task) noexcept {
    using T = Compute<S>;
    const T fill = static_cast<T>(task.fill);
    auto* tile = static_cast<T*>(task.tile);
    const unsigned char* keep = task.mask;
    for (size r = 0; r < task.rows; ++r, tile += task.tile_stride, keep += task.row_stride) {
        if (task.column_stride == 1) {
            for (size c = 0; c < task.columns; ++c) tile[c] = keep[c] ? tile[c] : fill;
        } else {
            for (size c = 0; c < task.columns; ++c)
                tile[c] = keep[c * task.column_stride] ? tile[c] : fill;
        }
    }
}

template <class S>
constexpr PackKernels kernels_of = {pack<S>, unpack<S>, mask<S>};

}  // namespace

extern constinit const PackKernels pack_kernels[storage_count] = {
    kernels_of<float>, kernels_of<double>, kernels_of<Float16>, kernels_of<BFloat16>};

}  // namespace unitstride::UNITSTRIDE_ISA
