// Panels of bfloat16 parts, as the matrix unit takes them.
//
// Note [Parts]. A float32 is the sum of three bfloat16: the float rounded to eight bits, the
// remainder rounded to eight bits, and what is left, which has no more than eight. The matrix unit
// multiplies bfloat16 exactly and adds in float32, so six of the nine products of the parts give
// the product of the floats to within 2^-26 of it; the other three are below a quarter of the last
// place. float16 makes two parts, bfloat16 is one.
//
// The unit takes subnormals for zeros and raises no flags. Whoever packs therefore learns in which
// powers of two the elements lie, zeros aside: see PackedPowers, ops/packed_powers.hpp.
//
// A panel is cut into steps of 32 along the summed index. Of each step it holds the parts one after
// the other, of each part two blocks of 16 lines (rows of A, columns of B), of each block a square
// of 16 x 16 pairs: elements k and k + 16 of the step next to each other. In panels of A a line is
// a row of the square, in panels of B it is a column.
#pragma once

#include <type_traits>

#include "simd/vec.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

constexpr size side = 16;  // rows of a square; pairs in a row
constexpr size square_bytes = side * side * 4;
constexpr size panel_lines = 2 * side;
constexpr size step_depth = 2 * side;
constexpr size part_bytes = 2 * square_bytes;

template <class S>
constexpr size parts_of = std::is_same_v<S, float> ? 3 : (std::is_same_v<S, Float16> ? 2 : 1);

template <class S>
constexpr size step_bytes = parts_of<S> * part_bytes;

}  // namespace
}  // namespace unitstride::UNITSTRIDE_ISA
