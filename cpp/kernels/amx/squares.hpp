// Four squares of sums in the registers of the matrix unit, and what is added to them.
#pragma once

#include <immintrin.h>

#include "kernels/amx/panel.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

// The registers are in use from construction to destruction: the system need not save them else.
class Squares {
  public:
    Squares() noexcept {
        struct alignas(64) {
            std::uint8_t palette = 1, start = 0, reserved[14] = {};
            std::uint16_t row_bytes[16] = {};
            std::uint8_t rows[16] = {};
        } shape;
        for (int i = 0; i < 8; ++i) shape.row_bytes[i] = 64, shape.rows[i] = side;
        asm volatile("" ::: "memory");  // the instruction reads all of it, which GCC does not know
        _tile_loadconfig(&shape);
    }
    ~Squares() { _tile_release(); }
    Squares(const Squares&) = delete;
    Squares& operator=(const Squares&) = delete;
};

// Where four squares of floats lie: from row to row, from left to right, from above to below.
struct Corners {
    size row, across, down;
};

// The products of parts that count: of three by three the six whose places sum to less than 3.
template <size a_parts, size b_parts>
struct PartOrder;
template <>
struct PartOrder<3, 3> {
    static constexpr size count = 6, a[] = {0, 0, 0, 1, 1, 2}, b[] = {2, 1, 0, 0, 1, 0};
};
template <>
struct PartOrder<2, 2> {
    static constexpr size count = 4, a[] = {0, 0, 1, 1}, b[] = {1, 0, 0, 1};
};
template <>
struct PartOrder<2, 1> {
    static constexpr size count = 2, a[] = {0, 1}, b[] = {0, 0};
};
template <>
struct PartOrder<1, 2> {
    static constexpr size count = 2, a[] = {0, 0}, b[] = {1, 0};
};
template <>
struct PartOrder<1, 1> {
    static constexpr size count = 1, a[] = {0}, b[] = {0};
};

// Two blocks of lines: a step of a panel, or squares that lie elsewhere (bytes from part to part
// and from block to block).
inline const char* square_of(const char* step, size part, size block) noexcept {
    return step + part * part_bytes + block * square_bytes;
}
struct Blocks {
    const char* first;
    size part, block;
};
inline const char* square_of(const Blocks& blocks, size part, size block) noexcept {
    return blocks.first + part * blocks.part + block * blocks.block;
}

// Registers 0 to 3 are the sums (row by row), 4 and 5 squares of A, 6 and 7 squares of B.
template <bool both_rows, bool both_columns>
struct Sums {
    static void zero() noexcept {
        _tile_zero(0);
        if constexpr (both_columns) _tile_zero(1);
        if constexpr (both_rows) _tile_zero(2);
        if constexpr (both_rows && both_columns) _tile_zero(3);
    }
    static void load(const float* sums, const Corners& at) noexcept {
        _tile_loadd(0, sums, at.row * 4);
        if constexpr (both_columns) _tile_loadd(1, sums + at.across, at.row * 4);
        if constexpr (both_rows) _tile_loadd(2, sums + at.down, at.row * 4);
        if constexpr (both_rows && both_columns)
            _tile_loadd(3, sums + at.down + at.across, at.row * 4);
    }
    static void store(float* sums, const Corners& at) noexcept {
        _tile_stored(0, sums, at.row * 4);
        if constexpr (both_columns) _tile_stored(1, sums + at.across, at.row * 4);
        if constexpr (both_rows) _tile_stored(2, sums + at.down, at.row * 4);
        if constexpr (both_rows && both_columns)
            _tile_stored(3, sums + at.down + at.across, at.row * 4);
    }
    template <class A>
    static void load_a(const A& a, size part) noexcept {
        _tile_loadd(4, square_of(a, part, 0), 64);
        if constexpr (both_rows) _tile_loadd(5, square_of(a, part, 1), 64);
    }
    template <class B>
    static void load_b(const B& b, size part) noexcept {
        _tile_loadd(6, square_of(b, part, 0), 64);
        if constexpr (both_columns) _tile_loadd(7, square_of(b, part, 1), 64);
    }
    static void multiply() noexcept {
        _tile_dpbf16ps(0, 4, 6);
        if constexpr (both_columns) _tile_dpbf16ps(1, 4, 7);
        if constexpr (both_rows) _tile_dpbf16ps(2, 5, 6);
        if constexpr (both_rows && both_columns) _tile_dpbf16ps(3, 5, 7);
    }
    // One product of parts: the one at `place` of their order.
    template <size a_parts, size b_parts, size place, class A, class B>
    static void add_product(const A& a, const B& b) noexcept {
        using Order = PartOrder<a_parts, b_parts>;
        constexpr size before = place > 0 ? place - 1 : 0;
        if constexpr (place == 0 || Order::a[place] != Order::a[before]) load_a(a, Order::a[place]);
        if constexpr (place == 0 || Order::b[place] != Order::b[before]) load_b(b, Order::b[place]);
        multiply();
    }
    template <size a_parts, size b_parts, size place = 0, class A, class B>
    static void add_step(const A& a, const B& b) noexcept {
        add_product<a_parts, b_parts, place>(a, b);
        if constexpr (place + 1 < PartOrder<a_parts, b_parts>::count)
            add_step<a_parts, b_parts, place + 1>(a, b);
    }
};

}  // namespace
}  // namespace unitstride::UNITSTRIDE_ISA
