// The register tile of products, with rows that are looked up: Note [Windows in place].
#include "kernels/channels.hpp"

#include <utility>

#include "kernels/gemm_tile.hpp"
#include "kernels/table.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

template <class T, size rows, size vectors>
void multiply_neighbours(const NeighboursTask& task, const T* lines, T* sums) noexcept {
    Vec<T> sum[rows][vectors];
    clear_tile<T, rows, vectors>(sum);
    const T* panel = static_cast<const T*>(task.panel);
    for (size k = 0; k < task.depth; ++k, panel += tile_columns<T>)
        multiply_step<T, rows, vectors>(lines + task.step[k], panel, sum);
    const T* first = static_cast<const T*>(task.first);
#pragma GCC unroll 16
    for (size r = 0; r < rows; ++r)
#pragma GCC unroll 4
        for (size v = 0; v < vectors; ++v) {
            T* const to = sums + r * tile_columns<T> + v * lanes<T>;
            if (task.begun) {
                sum[r][v] = sum[r][v] + load(to);
            } else if (first != nullptr) {
                sum[r][v] = sum[r][v] + load(first + v * lanes<T>);
            }
            store(to, sum[r][v]);
        }
}

template <class T>
using NeighboursFunction = void (*)(const NeighboursTask&, const T*, T*) noexcept;

template <class T, size... index>
inline NeighboursFunction<T> function_for(size rows, size vectors,
                                          std::integer_sequence<size, index...>) noexcept {
    static constexpr NeighboursFunction<T> one[] = {multiply_neighbours<T, index + 1, 1>...};
    static constexpr NeighboursFunction<T> two[] = {multiply_neighbours<T, index + 1, 2>...};
    return (vectors == 1 ? one : two)[rows - 1];
}

// Rows fall into parts of about the same length.
template <class T>
void multiply(const NeighboursTask& task) noexcept {
    using Rows = std::make_integer_sequence<size, tile_rows>;
    const size vectors = task.columns > lanes<T> ? 2 : 1;
    const size parts = (task.length + tile_rows - 1) / tile_rows;
    const size each = task.length / parts, more = task.length % parts;
    const NeighboursFunction<T> functions[] = {
        function_for<T>(each, vectors, Rows{}),
        function_for<T>(more > 0 ? each + 1 : each, vectors, Rows{})};
    const T* line = static_cast<const T*>(task.lines);
    T* sums = static_cast<T*>(task.sums);
    for (size row = 0; row < task.rows; ++row, line += task.pitch) {
        const T* place = line;
        for (size part = 0; part < parts; ++part) {
            const size longer = part < more ? 1 : 0;
            functions[longer](task, place, sums);
            place += each + longer;
            sums += (each + longer) * tile_columns<T>;
        }
    }
}

template <class T>
constexpr NeighbourKernels kernels_of = {
    .columns = tile_columns<T>,
    .rows = tile_rows,
    .depth = sizeof(T) == 4 ? 320 : 192,
    .multiply = multiply<T>,
};

}  // namespace

extern constinit const NeighbourKernels neighbour_kernels[2] = {kernels_of<float>,
                                                                kernels_of<double>};

}  // namespace unitstride::UNITSTRIDE_ISA
